"""What the tiny backbones are made of: tokenizers that know every byte, chat templates, sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SIDE = 56  # pixels of one tile
TILE_TOKENS = 4  # tokens of one tile: (56 / 14)^2 patches, merged two by two
INIT = 0.2  # at a width of 32 transformers' 0.02 would leave hardly any signal


def template(before: str, image: str, after: str, reply: str, start: str = "") -> str:
    return (
        start
        + "{% for m in messages %}"
        + before
        + "{% for part in m['content'] %}{% if part['type'] == 'image' %}"
        + image
        + "{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
        + after
        + "{% endfor %}{% if add_generation_prompt %}"
        + reply
        + "{% endif %}"
    )


def chatml(image: str) -> str:
    return template(
        "{{ '<|im_start|>' + m['role'] + '\n' }}", image, "<|im_end|>\n", "<|im_start|>assistant\n"
    )


def tokenizer(
    special: Sequence[str],
    chat_template: str,
    pad: str,
    eos: str,
    bos: str | None = None,
    **named: str,
) -> Any:
    """Every byte is a token; `bos`, where there is one, is added to every text as published."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    every = list(dict.fromkeys([pad, eos, *([bos] if bos else []), *special, *named.values()]))
    raw = Tokenizer(models.BPE({t: i for i, t in enumerate([*every, *alphabet])}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(every)
    if bos:
        raw.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, raw.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token=pad,
        eos_token=eos,
        bos_token=bos,
        extra_special_tokens=named or [t for t in every if t not in (pad, eos, bos)],
        chat_template=chat_template,
    )


def text(tokens: Any, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokens),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 2048,
        "initializer_range": INIT,
        "bos_token_id": tokens.bos_token_id,
        "eos_token_id": tokens.eos_token_id,
        "pad_token_id": tokens.pad_token_id,
        **more,
    }


def vision(**more: Any) -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 14,
        "initializer_range": INIT,
        **more,
    }
