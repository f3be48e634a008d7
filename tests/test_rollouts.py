"""Candidates and Monte Carlo labels, from a policy that says what the test tells it to."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dreamprm.policy import Request
from dreamprm.records import Question, StepLabel, Trajectory
from dreamprm.rollouts.label import label_trajectories
from dreamprm.rollouts.sample import sample_candidates


class Scripted:
    """Right with certainty after a good step, wrong after a bad one; counts what it is asked."""

    name, batch_size = "scripted", 8

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    def sample(self, requests: Sequence[Request], n: int, seed: int) -> list[list[str]]:
        self.asked += [(r.question.id, r.steps) for r in requests]
        texts = []
        for request in requests:
            if not request.steps:
                texts.append(
                    [f"Step 1: good\nStep 2: {i}\nFinal answer: {i + seed % 1}" for i in range(n)]
                )
            elif any("bad" in step for step in request.steps):
                texts.append(["Final answer: 99"] * n)
            else:
                texts.append([f"Step 9: on\nFinal answer: {i % 2 + 7}" for i in range(n)])
        return texts


def questions(count: int) -> list[Question]:
    return [Question(id=f"q{i}", domain="d", text="t", answer="7") for i in range(count)]


def test_candidates_are_split_verified_and_numbered() -> None:
    (candidates,) = sample_candidates(Scripted(), questions(1), 8, seed=0)
    assert [t.sample_index for t in candidates] == list(range(8))
    assert candidates[7].steps == ("Step 1: good", "Step 2: 7")
    assert [t.outcome for t in candidates] == [False] * 7 + [True]


def test_labels_count_completions_that_reach_the_right_answer() -> None:
    trajectory = Trajectory(question_id="q0", steps=("Step 1: good", "Step 2: bad", "Step 3: good"))
    (labelled,) = label_trajectories(
        Scripted(), {q.id: q for q in questions(1)}, [trajectory], completions=4, seed=0
    )
    assert labelled.labels == (StepLabel(2, 4), StepLabel(0, 4), StepLabel(0, 4))


def test_a_shared_prefix_is_completed_once() -> None:
    policy = Scripted()
    shared = [
        Trajectory(question_id="q0", steps=("Step 1: good", f"Step 2: {i}"), sample_index=i)
        for i in range(3)
    ]
    found = list(label_trajectories(policy, {q.id: q for q in questions(1)}, shared, 2, seed=0))
    assert len(found) == 3
    assert sorted(policy.asked) == sorted({("q0", t.steps[:i]) for t in shared for i in (1, 2)}), (
        "each distinct prefix exactly once"
    )


def test_a_domain_can_have_its_own_number_of_completions() -> None:
    trajectory = Trajectory(question_id="q0", steps=("Step 1: good",))
    by_id = {q.id: q for q in questions(1)}
    (found,) = label_trajectories(Scripted(), by_id, [trajectory], 4, 0, per_domain={"d": 1})
    assert found.labels == (StepLabel(1, 1),)


@pytest.mark.parametrize("kept", [0, 2, 5])
def test_resuming_asks_only_for_what_is_missing_and_gives_the_same(kept: int) -> None:
    whole = list(sample_candidates(Scripted(), questions(5), 4, seed=1))
    policy = Scripted()
    done = {group[0].question_id for group in whole[:kept]}
    rest = list(sample_candidates(policy, questions(5), 4, seed=1, done=done))
    assert rest == whole[kept:]
    if kept == 5:
        assert not policy.asked
