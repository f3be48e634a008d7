"""LoRA: adapters on a frozen base, saved as such, loaded, trained on, merged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

from dreamprm.errors import DreamPRMError
from dreamprm.models.loading import resolve
from dreamprm.prm.folder import LayoutConfig, PRMConfig
from dreamprm.prm.layout import Batch
from dreamprm.prm.lora import Lora
from dreamprm.prm.model import PRM
from tests.tiny_models import STEPS, close, picture_question, random_prm

PAIRS = [(picture_question("one", 1), STEPS[:2]), (picture_question("two", 2), STEPS[:3])]
SMALL = Lora(r=4, alpha=8)
CONFIGS = {
    "value": PRMConfig(head="value"),
    "vocab": PRMConfig(head="vocab"),
    "token": PRMConfig(head="token", layout=LayoutConfig(name="turns")),
}


def lora_prm(head: str = "value", options: Lora = SMALL, base: str = "tiny", **kwargs: Any) -> PRM:
    """With weights as after training: a fresh adapter and a fresh head change nothing."""
    torch.manual_seed(0)
    model = PRM.from_backbone(base, CONFIGS[head], lora=options, **kwargs)
    for name, p in model.named_parameters():
        if "lora_B" in name or name.startswith("head."):
            torch.nn.init.normal_(p, std=0.02)
    return model.eval()


@torch.inference_mode()
def logits(model: PRM) -> torch.Tensor:
    return model.eval()(model.encoder()(PAIRS))


def trainable(model: PRM) -> dict[str, torch.nn.Parameter]:
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


def test_fresh_adapters_change_no_score_and_a_step_moves_them_and_the_head_alone() -> None:
    plain = random_prm(CONFIGS["value"])
    before = logits(plain)
    plain.base = "tiny"
    plain.add_lora(SMALL)
    torch.testing.assert_close(logits(plain), before, atol=0, rtol=0)

    model = lora_prm()
    old = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model(model.encoder()(PAIRS)).square().sum().backward()
    optimizer.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, old[n])}
    adapters = {n for n in moved if "lora_" in n}
    assert moved - adapters == {"head.weight"}
    assert all(".language_model.layers." in n for n in adapters)
    assert len(adapters) == 4 * 7 * 2, "4 layers of 7 linear layers, A and B each"


def test_an_unknown_layer_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(DreamPRMError, match="'query'; there are: down_proj, .*q_proj"):
        lora_prm(options=Lora(target_modules=("query",)))
    with pytest.raises(DreamPRMError, match="no module 'score'"):
        lora_prm(options=Lora(modules_to_save=("score",)))


@pytest.mark.parametrize("head", list(CONFIGS))
def test_a_saved_adapter_scores_as_before_without_its_base(tmp_path: Path, head: str) -> None:
    model = lora_prm(head)
    model.save_pretrained(tmp_path, {"d": 1.0})
    files = {p.name for p in tmp_path.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "prm_config.json"} <= files
    assert "model.safetensors" not in files and not list(tmp_path.glob("*.bin"))
    facts = json.loads((tmp_path / "adapter_config.json").read_text())
    assert facts["base_model_name_or_path"] == "tiny", "a name, not a path of this machine"
    loaded = PRM.from_pretrained(tmp_path)
    assert loaded.config == model.config
    assert not trainable(loaded)
    close(logits(loaded), logits(model))
    going_on = PRM.from_pretrained(tmp_path, trainable=True)
    assert set(trainable(going_on)) == set(trainable(model))
    going_on.save_pretrained(tmp_path / "again")
    close(logits(PRM.from_pretrained(tmp_path / "again")), logits(model))


@pytest.mark.parametrize("head", list(CONFIGS))
def test_a_merged_model_scores_as_before_and_needs_no_adapter(tmp_path: Path, head: str) -> None:
    model = lora_prm(head)
    before = logits(model)
    model.save_pretrained(tmp_path)  # its adapter files must not be left over
    model.save_pretrained(tmp_path, merged=True)
    assert not list(tmp_path.glob("adapter_*"))
    loaded = PRM.from_pretrained(tmp_path)
    close(logits(loaded), before)
    close(logits(model), before)
    assert "lora_" in "".join(trainable(model)), "the model itself goes on with its adapters"
    AutoModelForImageTextToText.from_pretrained(tmp_path)


def test_modules_to_save_are_trained_whole_in_fp32_and_saved(tmp_path: Path) -> None:
    model = lora_prm(options=Lora(r=4, modules_to_save=("merger",)))
    whole = [p for n, p in trainable(model).items() if "merger" in n]
    assert whole
    for p in whole:
        torch.nn.init.normal_(p, std=0.05)
    model.save_pretrained(tmp_path)
    close(logits(PRM.from_pretrained(tmp_path)), logits(model))
    model.save_pretrained(tmp_path / "merged", merged=True)
    close(logits(PRM.from_pretrained(tmp_path / "merged")), logits(model))
    loaded = PRM.from_pretrained(tmp_path, trainable=True, dtype=torch.bfloat16)
    assert {p.dtype for p in trainable(loaded).values()} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        loaded(loaded.encoder()(PAIRS)).sum().backward()
    assert all(p.grad is not None for p in trainable(loaded).values())


def test_training_goes_on_from_a_full_model_in_full_or_with_adapters(tmp_path: Path) -> None:
    model = random_prm(CONFIGS["value"])
    model.save_pretrained(tmp_path / "full")
    assert not trainable(PRM.from_pretrained(tmp_path / "full"))
    loaded = PRM.from_pretrained(tmp_path / "full", trainable=True)
    assert set(trainable(loaded)) == set(trainable(model))
    loaded.add_lora(SMALL)
    loaded.save_pretrained(tmp_path / "adapter")
    again = PRM.from_pretrained(tmp_path / "adapter", trainable=True)
    close(logits(again), logits(model))
    with pytest.raises(DreamPRMError, match="holds the adapters' base model"):
        loaded.save_pretrained(tmp_path / "full")


def test_the_base_is_found_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(resolve("tiny"), tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    model = lora_prm(base="base")
    model.save_pretrained("prm")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    close(logits(PRM.from_pretrained("../prm")), logits(model))


@pytest.mark.parametrize("head", list(CONFIGS))
@pytest.mark.parametrize("autocast", [False, True])
def test_adapters_and_head_are_fp32_on_a_bf16_base(head: str, autocast: bool) -> None:
    model = lora_prm(head, dtype=torch.bfloat16)
    assert {p.dtype for p in trainable(model).values()} == {torch.float32}
    frozen = {p.dtype for p in model.parameters() if not p.requires_grad}
    assert frozen == {torch.bfloat16}
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = model(model.encoder()(PAIRS))
    assert found.dtype == torch.float32
    found.sum().backward()
    assert all(p.grad is not None for p in trainable(model).values())
    expected = logits(lora_prm(head))
    assert (found - expected).abs().max() < 0.1 * expected.abs().max()


def gradients(model: PRM, batch: Batch) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model.train()(batch).square().sum().backward()
    return {n: p.grad.clone() for n, p in trainable(model).items() if p.grad is not None}


@pytest.mark.parametrize("kind", ["full", "adapters", "adapters added last"])
def test_checkpointing_gives_the_same_gradients(kind: str) -> None:
    model = random_prm(CONFIGS["value"]) if kind == "full" else lora_prm()
    batch = model.encoder()(PAIRS)
    expected = gradients(model, batch)
    if kind == "adapters added last":
        state = model.state_dict()
        model = PRM.from_backbone("tiny", CONFIGS["value"], gradient_checkpointing=True)
        model.add_lora(SMALL)
        model.load_state_dict(state)
    else:
        model.gradient_checkpointing_enable()
    calls: list[int] = []
    layer = next(m for n, m in model.named_modules() if n.endswith("language_model.layers.0.mlp"))
    layer.register_forward_pre_hook(lambda *a: calls.append(1))
    recomputed = gradients(model, batch)
    assert len(calls) == 2, "computed once more in the backward pass"
    assert set(recomputed) == set(expected) == set(trainable(model))
    for name, grad in recomputed.items():
        torch.testing.assert_close(grad, expected[name], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "adapters"),
    [(Lora(r=4, target_modules=("q_proj", "v_proj")), 4 * 2 * 2), (Lora(r=4, vision=True), 76)],
)
def test_what_is_adapted_can_be_chosen(options: Lora, adapters: int) -> None:
    names = [n for n in trainable(lora_prm(options=options)) if "lora_" in n]
    assert len(names) == adapters
    assert any(".visual." in n for n in names) is options.vision
    assert not any("lm_head" in n for n in names)


def test_what_cannot_be_done_with_adapters_is_one_line(tmp_path: Path) -> None:
    base, prm = tmp_path / "base", tmp_path / "prm"
    shutil.copytree(resolve("tiny"), base)
    model = lora_prm(base=str(base))
    model.save_pretrained(prm)
    with pytest.raises(DreamPRMError, match="has adapters already"):
        model.add_lora()
    with pytest.raises(DreamPRMError, match="holds adapters, not a whole backbone"):
        PRM.from_backbone(str(prm))
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(DreamPRMError, match="no longer at '.*base'; give base_model"):
        PRM.from_pretrained(prm)
    moved = PRM.from_pretrained(prm, base_model=str(tmp_path / "elsewhere"))
    close(logits(moved), logits(model))
    facts = json.loads((prm / "adapter_config.json").read_text())
    facts |= {"r": 8, "base_model_name_or_path": "tiny"}
    (prm / "adapter_config.json").write_text(json.dumps(facts))
    with pytest.raises(DreamPRMError, match="onto 'tiny': .*size mismatch") as caught:
        PRM.from_pretrained(prm)
    assert "\n" not in str(caught.value)
    nameless = random_prm()
    nameless.add_lora(SMALL)
    with pytest.raises(DreamPRMError, match="no name or path"):
        nameless.save_pretrained(tmp_path / "nameless")
