"""The reward model and its heads: logits, saving, and what is trained in which precision."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForImageTextToText,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
)

from dreamprm.errors import DreamPRMError
from dreamprm.prm.folder import INSTRUCTION, LayoutConfig, PRMConfig, read_config
from dreamprm.prm.heads import token_head
from dreamprm.prm.layout import Batch
from dreamprm.prm.lora import Lora
from dreamprm.prm.model import PRM, trainable_prm
from dreamprm.tiny.model import build_model
from tests.tiny_models import STEPS, close, picture_question, processor, random_prm

PAIRS = [(picture_question("one", 1), STEPS[:2]), (picture_question("two", 2), STEPS[:4])]
TOKEN = PRMConfig(head="token")


def own_difference(model: PRM, batch: Batch) -> torch.Tensor:
    """logit(+) - logit(-) from the full logits of the stock forward, (found,)."""
    full = model.backbone(**batch.inputs).logits  # (sequences, tokens, vocabulary)
    plus, minus = processor().tokenizer.convert_tokens_to_ids(["+", "-"])
    at = full[batch.rows[batch.mask], batch.positions[batch.mask]]
    return at[:, plus] - at[:, minus]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("aggregation", "meen", "'aggregation'.*did you mean mean"),
        ("head", "tail", "'head': Input should be 'value', 'vocab' or 'token'"),
        ("layout", {"padding_side": "top"}, "'layout.padding_side': Input should be 'right' or"),
        ("layout", {"max_length": "many"}, "'layout.max_length'"),
        ("colour", "red", "'colour': Unexpected"),
    ],
)
def test_a_saved_config_is_refused_by_field(
    field: str, value: object, said: str, tmp_path: Path
) -> None:
    (tmp_path / "prm_config.json").write_text(json.dumps(asdict(PRMConfig()) | {field: value}))
    with pytest.raises(DreamPRMError, match=f"prm_config.json, field {said}"):
        read_config(tmp_path)


@torch.inference_mode()
def test_the_token_head_gives_plus_minus_minus_and_zero_where_padded() -> None:
    model = random_prm(TOKEN)
    batch = model.encoder()(PAIRS)
    assert batch.mask.sum(dim=1).tolist() == [2, 4]
    ours = model(batch)
    assert ours[batch.mask].std() > 0.01
    close(ours[batch.mask], own_difference(model, batch))
    assert (ours[~batch.mask] == 0).all()
    head = token_head(model.backbone.config, processor(), ("+", "-"), LayoutConfig())
    output = torch.nn.Linear(1, 512, bias=False)
    torch.nn.init.zeros_(output.weight)[head.good] = 2.0
    assert head(torch.ones(1, 1), output).item() == 2.0, "a likely + is a good step"


@torch.inference_mode()
@pytest.mark.parametrize("head", ["value", "vocab", "token"])
def test_a_saved_model_scores_as_before_with_a_stock_backbone(tmp_path: Path, head: str) -> None:
    model = random_prm(PRMConfig(head=head, layout=LayoutConfig(padding_side="left")))
    model.save_pretrained(tmp_path, {"d": 1.0})
    assert not list(tmp_path.glob("*.bin")), "no pickle"
    loaded = PRM.from_pretrained(tmp_path).eval()
    assert loaded.config == model.config
    batch = model.encoder()(PAIRS)
    close(loaded(batch), model(batch))
    loaded.backbone = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    close(loaded(batch), model(batch))


def test_a_folder_without_a_prm_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DreamPRMError, match="holds no prm_config.json"):
        PRM.from_pretrained(tmp_path)


def test_training_starts_from_a_backbone_or_goes_on_from_a_saved_model(tmp_path: Path) -> None:
    fresh = trainable_prm("tiny", PRMConfig(head="vocab"), lora=Lora(r=4), dtype="bfloat16")
    random_prm(PRMConfig(head="vocab")).save_pretrained(tmp_path)
    saved = trainable_prm(str(tmp_path), PRMConfig(head="value"), lora=Lora(r=4), dtype="bfloat16")
    assert saved.config.head == "vocab", "the saved model's own"
    for model in (fresh, saved):
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        assert {p.dtype for p in trained.values()} == {torch.float32}
        assert all("lora_" in n or n.startswith("head.") for n in trained)
        assert model.backbone.dtype == torch.bfloat16
    assert saved.head.weight.abs().max() > 0


def test_full_training_is_in_fp32_whatever_dtype_is_asked_for() -> None:
    model = PRM.from_backbone("tiny", layout="turns", head="token", dtype="bfloat16")
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert model.config.layout == LayoutConfig(name="turns", instruction=INSTRUCTION)


def paligemma(cap: float | None) -> PaliGemmaForConditionalGeneration:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
    text = sizes | {"model_type": "gemma2", "vocab_size": 512, "num_hidden_layers": 2}
    text |= {"num_key_value_heads": 2, "head_dim": 16, "initializer_range": 0.5}
    vision = sizes | {"model_type": "siglip_vision_model", "num_hidden_layers": 1}
    config = PaliGemmaConfig(
        text_config=text | {"final_logit_softcapping": cap},
        vision_config=vision | {"image_size": 28, "patch_size": 14},
        projection_dim=32,
        image_token_index=511,
    )
    return PaliGemmaForConditionalGeneration(config).eval()


@torch.inference_mode()
def test_softcapped_logits_are_followed() -> None:
    backbone = paligemma(cap=2.0)
    model = PRM(backbone, processor(), TOKEN)
    ids = torch.randint(10, 300, (2, 9))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    at = torch.tensor([[3, 8], [5, 7]])
    batch = Batch(inputs, at, torch.tensor([[0, 0], [1, 1]]), torch.ones(2, 2, dtype=torch.bool))
    ours = model(batch)
    close(ours.flatten(), own_difference(model, batch))
    model.head.softcap = None
    assert (model(batch) - ours).abs().max() > 0.1, "the cap must matter here"


def test_a_backbone_that_rescales_its_logits_is_refused() -> None:
    config = SimpleNamespace(model_type="granite4_vision")
    with pytest.raises(DreamPRMError, match="rescales its logits; use head 'value'"):
        token_head(config, processor(), ("+", "-"), LayoutConfig())


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        ("looks right", "-", "good_token 'looks right' is .* tokens"),
        ("+", "", "bad_token '' is 0 tokens"),
        ("+", "+", "are the same"),
    ],
)
def test_tokens_must_be_two_single_ones(good: str, bad: str, message: str) -> None:
    with pytest.raises(DreamPRMError, match=message):
        random_prm(replace(TOKEN, good_token=good, bad_token=bad))


def untied() -> Any:
    torch.manual_seed(0)
    backbone = build_model(processor())
    backbone.lm_head.weight = torch.nn.Parameter(backbone.lm_head.weight.detach().clone())
    return backbone


@pytest.mark.parametrize(("head", "trained"), [("value", False), ("vocab", True), ("token", True)])
def test_an_output_embedding_is_frozen_where_it_is_not_used(head: str, trained: bool) -> None:
    model = PRM(untied(), processor(), PRMConfig(head=head))
    assert model.backbone.lm_head.weight.requires_grad is trained


ADAPTED = Lora(r=4, target_modules=("q_proj", "lm_head"), vision=True)


@pytest.mark.parametrize("options", [ADAPTED, Lora(r=4, modules_to_save=("lm_head",))])
def test_an_adapted_output_embedding_is_followed(options: Lora) -> None:
    model = PRM(untied(), processor(), TOKEN)
    batch = model.encoder()(PAIRS)
    before = model(batch)
    model.eval().add_lora(options)
    for name, p in model.named_parameters():
        if "lm_head" in name and p.requires_grad:
            torch.nn.init.normal_(p, std=0.1)
    ours = model(batch)
    assert (ours - before).abs().max() > 0.01
    close(ours[batch.mask], own_difference(model, batch))


@pytest.mark.parametrize("head", ["value", "vocab", "token"])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_bf16_base_gives_fp32_logits_near_those_of_fp32(head: str, autocast: bool) -> None:
    full = random_prm(PRMConfig(head=head))
    batch = full.encoder()(PAIRS)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected = full(batch)
        full.backbone.to(torch.bfloat16)
        found = full(batch)
    assert found.dtype == expected.dtype == torch.float32
    assert (found - expected).abs().max() < 0.1 * expected[batch.mask].abs().max() + 0.05


@pytest.mark.parametrize("head", ["value", "token"])
@pytest.mark.parametrize("autocast", [False, True])
def test_what_is_trained_is_fp32_and_small_steps_are_kept(head: str, autocast: bool) -> None:
    model = random_prm(PRMConfig(head=head))
    model.backbone.to(torch.bfloat16)
    frozen = model.backbone.model.visual
    frozen.requires_grad_(False)
    model.fp32_trainables()
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in frozen.parameters()} == {torch.bfloat16}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-6)
    norm = model.backbone.model.language_model.norm.weight
    before = norm.detach().clone()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = model(model.encoder()(PAIRS)).square().sum()
    loss.backward()
    optimizer.step()
    assert (norm - before).abs().max() > 0
    assert (norm.bfloat16() == before.bfloat16()).all(), "bf16 would have lost the step"
