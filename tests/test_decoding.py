"""Our decoding loop writes what `generate` writes, on other architectures too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from dreamprm.models.generation import decode, greedy, inverse_cdf, prefill, sampler

EOS, PAD, IMAGE = (1, 2), 0, 3
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}  # 2 x 2 visual tokens
TEXT = {
    "vocab_size": 24,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.4,  # far from ties
    "eos_token_id": list(EOS),
    "pad_token_id": PAD,
}


def llava() -> Any:
    vision, text = VISION | {"model_type": "clip_vision_model"}, TEXT | {"model_type": "llama"}
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE)
    return LlavaForConditionalGeneration(config)


def gemma() -> Any:
    """With layers that see but the last six tokens."""
    text = TEXT | {"head_dim": 8, "sliding_window": 6}
    text["layer_types"] = ["sliding_attention", "full_attention"] * 2
    vision = VISION | {"model_type": "siglip_vision_model"}
    image = {"image_token_index": IMAGE, "mm_tokens_per_image": 4}
    return Gemma3ForConditionalGeneration(
        Gemma3Config(vision_config=vision, text_config=text, **image)
    )


def batch(with_images: bool, token_types: bool) -> dict[str, torch.Tensor]:
    """Three prompts of different lengths, left-padded."""
    image = [IMAGE] * 4 if with_images else []
    prompts = [[5, *image, 7, 8, 9], [5, *image, 11], [6, *image, *range(4, 16)]]
    width = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (width - len(p)) + p for p in prompts])
    inputs = {"input_ids": ids, "attention_mask": (ids != PAD).long()}
    if with_images:
        inputs["pixel_values"] = torch.randn(3, 3, 28, 28)
        if token_types:
            inputs["token_type_ids"] = (ids == IMAGE).long()
    return inputs


@pytest.mark.parametrize("with_images", [True, False])
@pytest.mark.parametrize("build", [llava, gemma])
@torch.inference_mode()
def test_greedy_texts_are_those_of_generate(build: Callable[[], Any], with_images: bool) -> None:
    torch.manual_seed(0)
    model = build().eval()
    inputs = batch(with_images, token_types=build is gemma)
    found = decode(model, prefill(model, inputs), [1, 3, 2], greedy, 20, EOS)
    expected = model.generate(**inputs, do_sample=False, max_new_tokens=20, pad_token_id=PAD)
    wanted = []
    for row in expected[:, inputs["input_ids"].shape[1] :].tolist():
        ends = [i for i, token in enumerate(row) if token in EOS]
        wanted.append((row[: ends[0]], True) if ends else (row, False))
    first, second, third = wanted
    assert [(one.tokens, one.ended) for one in found] == [first, *[second] * 3, *[third] * 2]
    assert len({tuple(tokens) for tokens, _ in wanted}) == 3


@torch.inference_mode()
def test_rows_that_have_ended_are_dropped_and_the_others_go_on() -> None:
    """Sixteen rows end one after the other, at tokens of our choice."""
    torch.manual_seed(0)
    model = llava().eval()
    seen: list[int] = []

    def pick(logits: torch.Tensor, rows: torch.Tensor, index: int) -> torch.Tensor:
        seen.append(len(rows))
        return torch.where(rows == index, EOS[index % 2], 10 + rows % 4)

    start = prefill(model, batch(False, token_types=False))
    found = decode(model, start, [6, 5, 5], pick, 20, EOS)
    assert [one.tokens for one in found] == [[10 + row % 4] * row for row in range(16)]
    assert all(one.ended and one.sampled == len(one.tokens) + 1 for one in found)
    assert len(seen) == 16 and seen[-1] < 4


@torch.inference_mode()
def test_sampling_is_the_same_whether_or_not_rows_were_dropped_before() -> None:
    torch.manual_seed(0)
    model, inputs = llava().eval(), batch(True, token_types=False)
    uniforms = np.random.default_rng(0).random((12, 30))
    together = decode(
        model, prefill(model, inputs), [4] * 3, sampler(uniforms, 1.0, "cpu"), 30, EOS
    )
    assert len({one.sampled for one in together}) > 5  # rows did end at different times
    for i in range(3):
        alone = {name: value[i : i + 1] for name, value in inputs.items()}
        pick = sampler(uniforms[4 * i : 4 * i + 4], 1.0, "cpu")
        assert decode(model, prefill(model, alone), [4], pick, 30, EOS) == together[4 * i :][:4]


@torch.inference_mode()
def test_decoding_stops_once_nobody_wants_it() -> None:
    torch.manual_seed(0)
    model, asked = llava().eval(), []

    def wanted() -> bool:
        asked.append(1)
        return len(asked) < 3

    def never_ends(logits: torch.Tensor, rows: torch.Tensor, index: int) -> torch.Tensor:
        return torch.full_like(rows, 9)

    start = prefill(model, batch(False, token_types=False))
    decode(model, start, [1, 1, 1], never_ends, 50, EOS, wanted)
    assert len(asked) == 3


def test_a_token_without_probability_is_never_drawn() -> None:
    logits = torch.tensor([[-np.inf, 0.0, -np.inf, 0.0, -np.inf]]).repeat(4, 1)
    uniform = torch.tensor([0.0, 0.499, 0.5, 1.0], dtype=torch.float64)
    assert inverse_cdf(logits, uniform).tolist() == [1, 1, 3, 3]
