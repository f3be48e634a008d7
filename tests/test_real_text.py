"""What `experiments.real_text` trains on, and that its frozen layers change nothing."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
import torch

from dreamprm.prm.model import PRM
from dreamprm.prm.scorer import StepScorer
from dreamprm.records import Question, Trajectory
from experiments import real_text
from experiments.real_text import LABELLERS, PER_LABELLER, Cut, mixed, read_cut, shared_out
from tests.tiny_backbones import save_backbone


@pytest.fixture(scope="module")
def cut(real_data: Path) -> Cut:
    return read_cut(real_data / "pools", "gsm8k")


def test_questions_are_cut_in_half_quarter_and_quarter(cut: Cut) -> None:
    parts = [{group[0][0].id for group in part} for part in (cut.train, cut.meta, cut.test)]
    assert not any(a & b for a in parts for b in parts if a is not b)
    assert len(cut.test) == 125 and all(len(group) == 32 for group in cut.test)
    assert all(mixed(group) for group in (*cut.train, *cut.meta))
    assert len(cut.scored) == 32 * sum(mixed(group) for group in cut.test)


def test_each_labeller_gets_other_candidates_of_every_question(cut: Cut) -> None:
    labelled = shared_out(cut, seed=1)
    assert len({(t.question_id, t.sample_index) for t in labelled}) == len(labelled)
    for name in LABELLERS:
        mine = [t.question_id for t in labelled if t.domain == name]
        assert len(mine) == PER_LABELLER * len(set(mine)) == PER_LABELLER * len(cut.train)
    assert [t.labels for t in labelled] != [t.labels for t in shared_out(cut, seed=2)]


def test_planted_labellers_are_bad_as_planted(cut: Cut) -> None:
    group = [t for group in cut.train[:20] for _, t in group]
    scores = real_text.scores_by_candidate(cut.pool)

    def values(name: str) -> list[list[float]]:
        rows = real_text.labelled_by(name, group, scores, seed=1)
        return [[label.value for label in t.labels or () if label] for t in rows]

    teacher = values("qwen_prm")
    assert values("inverted") == [[1 - p for p in row] for row in teacher]
    shuffled = values("shuffled")
    assert shuffled != teacher
    assert sorted(chain(*shuffled)) == sorted(chain(*teacher))
    assert {p for row in values("all_ones") for p in row} == {1.0}
    assert [row[0] == 1 for row in values("outcome")] == [t.outcome for t in group]


@pytest.mark.parametrize(
    ("right", "plain"),
    [(["18", "$1{,}800$"], True), (["18", r"\frac{1}{2}"], False), (["x = 6"], False), ([], False)],
)
def test_answers_that_are_plain_numbers(right: list[str], plain: bool) -> None:
    wrong = Trajectory(question_id="q", steps=("?",), outcome=False, extra={"extracted": r"\pi"})
    candidates = [
        wrong.model_copy(update={"outcome": True, "extra": {"extracted": answer}})
        for answer in right
    ]
    assert real_text.has_plain_answer([wrong, *candidates]) is plain


def test_stored_states_give_the_scores_of_the_whole_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = str(save_backbone("llama", tmp_path / "backbone"))
    monkeypatch.setattr(real_text, "LAYERS", 2)
    monkeypatch.setattr(real_text, "TRAINED", 1)
    question = Question(id="q", domain="d", text="What is 2 + 3?", answer="5")
    steps = [("it is red", "so 3"), ("it is blue",), ("so", "4 then it is", "so 3")]
    pairs = [
        (question, Trajectory(question_id="q", sample_index=i, steps=one))
        for i, one in enumerate(steps)
    ]

    def scores(model: PRM) -> list[list[float]]:
        torch.manual_seed(0)
        torch.nn.init.normal_(model.head.weight, std=0.3)
        by_place = sorted(StepScorer(model, share_prefix=False).score(pairs), key=str)
        return [list(s.logits) for s in by_place]

    whole = scores(PRM.from_backbone(backbone))
    real_text.make_states(tmp_path, pairs, "d-test", (1, 1))
    model, frozen = real_text.make_model(tmp_path)
    assert len(frozen.stored) == 3
    cut_off = scores(model)
    assert not frozen.known  # nothing was computed again
    for one, other in zip(whole, cut_off, strict=True):
        assert one == pytest.approx(other, abs=2e-2)  # states are kept in half precision
