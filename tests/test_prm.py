"""The reward model: one pass scores every prefix, however the batch is laid out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dreamprm.errors import DreamPRMError
from dreamprm.prm.layout import Encoder, LayoutConfig
from dreamprm.prm.model import PRM, PRMConfig
from dreamprm.prm.scorer import StepScorer
from dreamprm.records import Trajectory
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


@pytest.mark.parametrize("head", ["value", "vocab"])
def test_one_pass_gives_the_scores_of_one_pass_per_prefix(head: str) -> None:
    model = random_prm(PRMConfig(head=head))
    together = logits(model, MIXED, LayoutConfig(name="trajectory"))
    apart = logits(model, MIXED, LayoutConfig(name="prefix"))
    assert together.shape == (4, 5)
    assert together.std() > 0.01
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layout", ["trajectory", "prefix"])
def test_scores_do_not_depend_on_the_padding_side(layout: str) -> None:
    model = random_prm()
    right = logits(model, MIXED, LayoutConfig(name=layout, padding_side="right"))
    left = logits(model, MIXED, LayoutConfig(name=layout, padding_side="left"))
    torch.testing.assert_close(right, left, atol=1e-4, rtol=1e-4)


def test_scores_do_not_depend_on_the_rest_of_the_batch() -> None:
    model = random_prm()
    together = logits(model, MIXED, LayoutConfig())
    for row, pair in enumerate(MIXED):
        alone = logits(model, [pair], LayoutConfig())[0]
        torch.testing.assert_close(together[row, : len(pair[1])], alone, atol=1e-4, rtol=1e-4)


def test_a_step_is_judged_by_what_comes_before_it_alone() -> None:
    model = random_prm()
    question = MIXED[0][0]
    one = logits(model, [(question, STEPS[:4])], LayoutConfig())[0]
    other = logits(model, [(question, (*STEPS[:3], "Step 4: 9 + 9 = 1"))], LayoutConfig())[0]
    torch.testing.assert_close(one[:3], other[:3], atol=1e-5, rtol=1e-5)
    assert abs(float(one[3] - other[3])) > 1e-3


def test_the_image_matters() -> None:
    model = random_prm()
    one, other = picture_question("q", 1), picture_question("q", 2)
    a, b = (logits(model, [(q, STEPS[:2])], LayoutConfig()) for q in (one, other))
    assert (a - b).abs().max() > 1e-3


def test_padded_steps_are_masked_and_zero() -> None:
    batch = Encoder(processor())(MIXED)
    assert batch.mask.sum(dim=1).tolist() == [2, 5, 1, 4]
    scores = logits(random_prm(), MIXED, LayoutConfig())
    assert (scores[~batch.mask] == 0).all()


def test_a_step_tag_of_several_tokens_is_refused() -> None:
    with pytest.raises(DreamPRMError, match="must be one"):
        Encoder(processor(), LayoutConfig(step_tag="<the end of a step>"))


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


def test_the_scorer_gives_every_trajectory_its_scores() -> None:
    model = random_prm()
    pairs = [
        (question, Trajectory(question_id=question.id, steps=tuple(steps), sample_index=index))
        for index, (question, steps) in enumerate(MIXED * 3)
    ]
    found = {s.sample_index: s for s in StepScorer(model, batch_size=2).score(pairs)}
    expected = logits(model, MIXED, LayoutConfig())
    assert len(found) == len(pairs)
    for index, (question, t) in enumerate(pairs):
        assert found[index].question_id == question.id
        mine = torch.tensor(found[index].logits)
        torch.testing.assert_close(mine, expected[index % 4, : len(t.steps)], atol=1e-4, rtol=1e-4)
