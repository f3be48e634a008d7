"""Random-weight models of the architectures people use, small enough to build in a test.

Only sizes are ours. Configs, models, processors and image processors are transformers' own; the
tokenizers know every byte and the architecture's special tokens; the chat templates put turns and
placeholders where the published ones do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from dreamprm.models.loading import without_video

SIDE = 56  # pixels of one tile
TILE_TOKENS = 4  # tokens of one tile: (56 / 14)^2 patches, merged two by two
INIT = 0.2  # at a width of 32 transformers' 0.02 would leave hardly any signal


SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": INIT,
}


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
    sizes = {"vocab_size": len(tokens), "num_key_value_heads": 1, "head_dim": 16}
    ids = {
        f"{name}_token_id": getattr(tokens, f"{name}_token_id") for name in ("bos", "eos", "pad")
    }
    return SIZES | sizes | ids | {"max_position_embeddings": 2048} | more


def vision(**more: Any) -> dict[str, Any]:
    return SIZES | {"image_size": SIDE, "patch_size": 14} | more


Built = tuple[Any, Any]  # model, processor


QWEN_VISION = {
    "depth": 2,
    "num_heads": 2,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "initializer_range": INIT,
}


def qwen(model: Any, stock: Any, vision_config: dict[str, Any], patch: int, **more: Any) -> Built:
    marks = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")
    tokens = tokenizer(
        ["<|im_start|>", *marks, "<|video_pad|>"],
        chatml("".join(marks)),
        pad="<|endoftext|>",
        eos="<|im_end|>",
    )
    ids = tokens.convert_tokens_to_ids
    side = 4 * patch
    images = Qwen2VLImageProcessorPil(
        size={"shortest_edge": side * side, "longest_edge": 4 * side * side},
        patch_size=patch,
        merge_size=2,
        temporal_patch_size=2,
    )
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3], **more}
    config = model.config_class(
        text_config=text(tokens, rope_parameters=rope),
        vision_config=QWEN_VISION | {"patch_size": patch} | vision_config,
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )
    made = without_video(stock)(images, tokens, chat_template=tokens.chat_template)
    return model(config), made


NEWER = {"hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 64}


def qwen2_vl() -> Built:
    sizes = {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}
    return qwen(tf.Qwen2VLForConditionalGeneration, tf.Qwen2VLProcessor, sizes, 14)


def qwen2_5_vl() -> Built:
    sizes = NEWER | {"window_size": 56, "fullatt_block_indexes": [1]}
    return qwen(tf.Qwen2_5_VLForConditionalGeneration, tf.Qwen2_5_VLProcessor, sizes, 14)


def qwen3_vl() -> Built:
    sizes = NEWER | {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    model, stock = tf.Qwen3VLForConditionalGeneration, tf.Qwen3VLProcessor
    return qwen(model, stock, sizes, 16, mrope_interleaved=True)


def internvl() -> Built:
    tokens = tokenizer(
        ["<|im_start|>"],
        chatml("<IMG_CONTEXT>\n"),
        pad="<|endoftext|>",
        eos="<|im_end|>",
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    config = tf.InternVLConfig(
        text_config=tf.Qwen2Config(**text(tokens)).to_dict(),
        vision_config=vision(),
        image_token_id=tokens.context_image_token_id,
        image_seq_length=TILE_TOKENS,
    )
    images = GotOcr2ImageProcessorPil(size={"height": SIDE, "width": SIDE}, max_patches=4)
    made = without_video(tf.InternVLProcessor)(
        images, tokens, image_seq_length=TILE_TOKENS, chat_template=tokens.chat_template
    )
    return tf.InternVLForConditionalGeneration(config), made


def llava_onevision() -> Built:
    tokens = tokenizer(
        ["<|im_start|>", "<image>", "<video>"],
        chatml("<image>\n"),
        pad="<|endoftext|>",
        eos="<|im_end|>",
    )
    half, whole = SIDE // 2, SIDE
    grid = [[half, half], [half, whole], [whole, half], [whole, whole]]
    config = tf.LlavaOnevisionConfig(
        text_config=tf.Qwen2Config(**text(tokens)).to_dict(),
        vision_config=tf.SiglipVisionConfig(
            **vision(image_size=half), vision_use_head=False
        ).to_dict(),
        image_token_index=tokens.convert_tokens_to_ids("<image>"),
        video_token_index=tokens.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grid,
    )
    images = LlavaOnevisionImageProcessorPil(
        size={"height": half, "width": half}, image_grid_pinpoints=grid
    )
    made = without_video(tf.LlavaOnevisionProcessor)(
        images,
        tokens,
        num_image_tokens=TILE_TOKENS,
        vision_feature_select_strategy="full",
        chat_template=tokens.chat_template,
    )
    return tf.LlavaOnevisionForConditionalGeneration(config), made


def gemma3() -> Built:
    tokens = tokenizer(
        ["<start_of_turn>"],
        template(
            "{{ '<start_of_turn>' + m['role'].replace('assistant', 'model') + '\n' }}",
            "<start_of_image>",
            "<end_of_turn>\n",
            "<start_of_turn>model\n",
            start="{{ bos_token }}",
        ),
        pad="<pad>",
        eos="<end_of_turn>",
        bos="<bos>",
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
        image_token="<image_soft_token>",
    )
    config = tf.Gemma3Config(
        text_config=text(
            tokens,
            query_pre_attn_scalar=16,
            sliding_window=24,
            layer_types=["sliding_attention", "full_attention"],
        ),
        vision_config=tf.SiglipVisionConfig(**vision(), vision_use_head=False).to_dict(),
        mm_tokens_per_image=TILE_TOKENS,
        boi_token_index=tokens.boi_token_id,
        eoi_token_index=tokens.eoi_token_id,
        image_token_index=tokens.image_token_id,
        initializer_range=INIT,
    )
    images = Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE})
    made = without_video(tf.Gemma3Processor)(
        images, tokens, image_seq_length=TILE_TOKENS, chat_template=tokens.chat_template
    )
    model = tf.Gemma3ForConditionalGeneration(config)
    # transformers starts it at zero, and pictures would not be seen.
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=INIT)
    return model, made


def idefics(model: Any, stock: Any, images: Any, first: str) -> Built:
    grid = [f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)]
    end = "<end_of_utterance>"
    tokens = tokenizer(
        ["<fake_token_around_image>", "<image>", end, "<global-img>", *grid],
        template("{{ m['role'] | capitalize }}:", "<image>", end + "\n", "Assistant:", start=first),
        pad="<|pad|>",
        eos="<|end|>",
        bos=first,
    )
    config = model.config_class(
        text_config=tf.LlamaConfig(**text(tokens)).to_dict(),
        vision_config=vision(),
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    tiles = {"size": {"longest_edge": 2 * SIDE}, "max_image_size": {"longest_edge": SIDE}}
    parts = {"image_processor": images(**tiles), "tokenizer": tokens}
    if "video_processor" in stock.__init__.__code__.co_varnames:
        parts["video_processor"] = None  # has no default
    made = without_video(stock)(
        **parts, image_seq_len=TILE_TOKENS, chat_template=tokens.chat_template
    )
    return model(config), made


def idefics3() -> Built:
    model, stock = tf.Idefics3ForConditionalGeneration, tf.Idefics3Processor
    return idefics(model, stock, Idefics3ImageProcessorPil, "<|begin_of_text|>")


def smolvlm() -> Built:
    model, stock = tf.SmolVLMForConditionalGeneration, tf.SmolVLMProcessor
    return idefics(model, stock, SmolVLMImageProcessorPil, "<|im_start|>")


BUILDERS: dict[str, Callable[[], Built]] = {
    build.__name__: build
    for build in (
        *(qwen2_vl, qwen2_5_vl, qwen3_vl, internvl),
        *(llava_onevision, gemma3, idefics3, smolvlm),
    )
}


# --- Text models: their templates take contents as texts ---


def text_template(before: str, after: str, reply: str, start: str = "") -> str:
    turn = before + "{{ m['content'] }}" + after
    return (
        start
        + "{% for m in messages %}"
        + turn
        + "{% endfor %}{% if add_generation_prompt %}"
        + reply
        + "{% endif %}"
    )


def llama() -> Built:
    """As published: BOS from tokenizer and template, no padding token."""
    head = "<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    tokens = tokenizer(
        ["<|start_header_id|>", "<|end_header_id|>"],
        text_template(
            head,
            "<|eot_id|>",
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
            "{{ bos_token }}",
        ),
        pad="<|eot_id|>",
        eos="<|eot_id|>",
        bos="<|begin_of_text|>",
    )
    tokens.pad_token = None
    return tf.LlamaForCausalLM(tf.LlamaConfig(**text(tokens))), tokens


def qwen2() -> Built:
    turn, reply = "<|im_start|>{{ m['role'] }}\n", "<|im_start|>assistant\n"
    tokens = tokenizer(
        ["<|im_start|>"],
        text_template(turn, "<|im_end|>\n", reply),
        pad="<|endoftext|>",
        eos="<|im_end|>",
    )
    return tf.Qwen2ForCausalLM(tf.Qwen2Config(**text(tokens))), tokens


def gemma3_text() -> Built:
    tokens = tokenizer(
        ["<start_of_turn>"],
        text_template(
            "<start_of_turn>{{ m['role'].replace('assistant', 'model') }}\n",
            "<end_of_turn>\n",
            "<start_of_turn>model\n",
            "{{ bos_token }}",
        ),
        pad="<pad>",
        eos="<end_of_turn>",
        bos="<bos>",
    )
    config = tf.Gemma3TextConfig(
        **text(
            tokens,
            query_pre_attn_scalar=16,
            sliding_window=24,
            layer_types=["sliding_attention", "full_attention"],
            final_logit_softcapping=2.0,
        )
    )
    return tf.Gemma3ForCausalLM(config), tokens


TEXT_BUILDERS: dict[str, Callable[[], Built]] = {
    build.__name__: build for build in (llama, qwen2, gemma3_text)
}


def save_backbone(name: str, folder: Path) -> Path:
    """Write a fresh model of an architecture as a repository holds it."""
    torch.manual_seed(0)
    model, processor = (BUILDERS | TEXT_BUILDERS)[name]()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
