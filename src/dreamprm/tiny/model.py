"""The embedded vision-language model: Qwen2-VL's architecture at a million parameters.

Only the sizes are ours; the classes are transformers' own, so everything that works on this model
runs the code that a real Qwen2-VL runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from dreamprm.models.loading import ImageTextProcessor
from dreamprm.tiny.reasoning import OPERATIONS, Task
from dreamprm.tiny.scene import COLOURS, MAX_VALUE, SIZE, Scene

VOCABULARY = 448  # 256 bytes, so that any text can be read, and the words of this world
SPECIAL = {
    "pad": "<|pad|>",
    "eos": "<|end|>",
    "user": "<|user|>",
    "assistant": "<|assistant|>",
    "vision_start": "<|vision_start|>",
    "vision_end": "<|vision_end|>",
    "image": "<|image_pad|>",
    "video": "<|video_pad|>",
}
STEP_TAG = "<|step|>"  # of the backbone alone: policies do not write it
WHOLE = [f"Step {i}:" for i in range(1, 10)] + ["Final answer:"]
CHAT_TEMPLATE = (
    "{% for m in messages %}"
    "{{ '<|' + m['role'] + '|>' }}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{% if m['role'] == 'assistant' %}<|end|>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE whose merges are learned from the words of this world."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(WHOLE),
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL["pad"],
        eos_token=SPECIAL["eos"],
        additional_special_tokens=[v for k, v in SPECIAL.items() if k not in ("pad", "eos")],
        chat_template=CHAT_TEMPLATE,
    )
    fast.add_tokens(WHOLE)
    return fast


def build_processor() -> ImageTextProcessor:
    """Its processor: pictures of its world are 4 visual tokens, others up to 16."""
    image_processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": SIZE * SIZE, "longest_edge": 4 * SIZE * SIZE},
        patch_size=14,
        merge_size=2,
        temporal_patch_size=1,
    )
    tokenizer = build_tokenizer()
    return ImageTextProcessor(image_processor, tokenizer, chat_template=tokenizer.chat_template)


def build_model(processor: ImageTextProcessor) -> Qwen2VLForConditionalGeneration:
    """A model with fresh weights (from torch's global generator).

    transformers' default `initializer_range` of 0.02 is made for widths of thousands; at a width of
    128 it leaves the model on a plateau where it cannot read a picture.
    """
    tokenizer = processor.tokenizer
    token = {name: tokenizer.convert_tokens_to_ids(text) for name, text in SPECIAL.items()}
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 320,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 4096,
            "initializer_range": 0.08,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [4, 6, 6],
            },
            "bos_token_id": None,
            "eos_token_id": token["eos"],
            "pad_token_id": token["pad"],
        },
        vision_config={
            "depth": 2,
            "embed_dim": 96,
            "hidden_size": 128,
            "num_heads": 4,
            "mlp_ratio": 2,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 1,
            "initializer_range": 0.08,
        },
        image_token_id=token["image"],
        video_token_id=token["video"],
        vision_start_token_id=token["vision_start"],
        vision_end_token_id=token["vision_end"],
        tie_word_embeddings=True,
    )
    model = Qwen2VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = token["eos"]
    model.generation_config.pad_token_id = token["pad"]
    return model


def _corpus() -> Iterator[str]:
    """Every word of the world, often enough that each becomes one token."""
    names = sorted(COLOURS)
    numbers = [str(n) for n in range(3 * MAX_VALUE + 3)]
    scene = Scene("chart", tuple(names[:4]), (1, 2, 3, 4))
    for operation in OPERATIONS:
        for colours in itertools.permutations(names[:4], 3):
            yield Task(scene, operation, colours).text
    for a, b in itertools.permutations(names, 2):
        yield f" look at {a} and {b}"
        yield f" {a} is larger"
        yield f"{a} is larger"
    for n in numbers:
        yield from [f" {n} + {n} = {n}", f" {n} - {n} = {n}", f" twice {n} = {n}", f" is {n}"] * 8
    yield from ["Judge each step.", "Describe the picture."] * 50
