"""The reward model: one pass scores every prefix, however the batch is laid out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dreamprm.errors import DreamPRMError
from dreamprm.prm.layout import INSTRUCTION, Encoder, LayoutConfig
from dreamprm.prm.lora import Lora
from dreamprm.prm.model import PRM, PRMConfig, trainable_prm
from tests.tiny_models import STEPS, picture_question, processor, random_prm

MIXED = [
    (picture_question("one", 1), STEPS[:2]),
    (picture_question("none", 2, images=0), STEPS[:5]),
    (picture_question("two", 3, images=2), STEPS[:1]),
    (picture_question("three", 4), STEPS[:4]),
]


def logits(model: PRM, pairs: list, layout: LayoutConfig) -> torch.Tensor:
    with torch.inference_mode():
        return model(Encoder(model.processor, layout)(pairs))


def test_one_pass_gives_the_scores_of_one_pass_per_prefix_with_the_papers_head() -> None:
    model = random_prm(PRMConfig(head="vocab"))
    together = logits(model, MIXED, LayoutConfig(name="trajectory"))
    apart = logits(model, MIXED, LayoutConfig(name="prefix"))
    assert together.shape == (4, 5)
    assert together.std() > 0.01
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=1e-4)


def test_a_step_is_judged_by_what_comes_before_it_alone() -> None:
    model = random_prm()
    question = MIXED[0][0]
    one = logits(model, [(question, STEPS[:4])], LayoutConfig())[0]
    other = logits(model, [(question, (*STEPS[:3], "Step 4: 9 + 9 = 1"))], LayoutConfig())[0]
    torch.testing.assert_close(one[:3], other[:3], atol=1e-5, rtol=1e-5)
    assert abs(float(one[3] - other[3])) > 1e-3


def test_padded_steps_are_masked_and_zero() -> None:
    batch = Encoder(processor())(MIXED)
    assert batch.mask.sum(dim=1).tolist() == [2, 5, 1, 4]
    scores = logits(random_prm(), MIXED, LayoutConfig())
    assert (scores[~batch.mask] == 0).all()


@pytest.mark.parametrize("head", ["value", "vocab"])
def test_a_saved_model_scores_as_before(tmp_path: Path, head: str) -> None:
    config = PRMConfig(head=head, layout=replace(LayoutConfig(), padding_side="left"))
    model = random_prm(config)
    model.save_pretrained(tmp_path, {"d": 1.0})
    loaded = PRM.from_pretrained(tmp_path).eval()
    assert loaded.config == config
    before, after = (logits(m, MIXED, m.config.layout) for m in (model, loaded))
    torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-5)
    assert not list(tmp_path.glob("*.bin")), "no pickle"


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
