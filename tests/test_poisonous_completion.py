"""A store that holds a completion which nobody can read is gone through all the same.

Such texts come from broken servers and from models that repeat themselves. They are in the store
for good, so whatever fails on one would fail on every rerun.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from dreamprm.cli import main
from dreamprm.policy import Request
from dreamprm.records import Label, Question
from dreamprm.rollouts.labels import FixedCompletions, label_trajectories
from dreamprm.rollouts.sampler import Sampler, sample_candidates, stored_candidates
from dreamprm.rollouts.store import RolloutStore
from tests.scripted_policy import Scripted

LONGEST_S = 60.0
"""Each takes a few seconds on two cores; what is not linear takes hours."""

POISONS = {
    "open tags": "<answer>" * 3000,
    "nested tags": "<answer>" * 3000 + "8" + "</answer>" * 3000,
    "open boxes": "\\boxed{" * 3000,
    "nested boxes": "\\boxed{" * 3000 + "8" + "}" * 3000,
    "nested brackets": "(" * 3000 + "8" + ")" * 3000,
    "a rule": "-" * 100_000,
    "a long number": "Final answer: " + "9" * 100_000,
    "a long line": "a" * 10_000_000,
    "many lines": "a\n" * 2_000_000,
    "many sentences": "the answer is " * 100_000,
}


@pytest.mark.parametrize("poison", POISONS)
def test_one_poisonous_completion_costs_itself_and_never_the_run(
    tmp_path: Path, poison: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def say(request: Request, seed: int, index: int) -> str:
        if request.question.id == "q0" and index == 0:
            return POISONS[poison]
        return "Step 1: 3 + 4 = 7\nFinal answer: 7"

    asked = [Question(id=f"q{i}", domain="d", text=f"t{i}", answer="7") for i in range(3)]
    began = time.monotonic()
    for _ in range(2):  # the second run reads what the first one has stored
        with RolloutStore(tmp_path / "rollouts.db") as store:
            sampler = Sampler(Scripted(say), store)
            sampled = asyncio.run(sample_candidates(sampler, asked, 2))
            candidates = list(stored_candidates(sampler, asked, 2))
            labelled, trajectories = asyncio.run(
                label_trajectories(
                    sampler, {q.id: q for q in asked}, candidates, FixedCompletions(2)
                )
            )
        assert sampled.stopped is None and not sampled.refused
        assert labelled.stopped is None and not labelled.refused
        assert [t.outcome for t in candidates] == [False, True, True, True, True, True]
        assert trajectories[-1].labels == (Label.of(2, 2),)
        assert trajectories[1].labels == (Label.of(1, 2),), "its completion 0 is the poison"
    assert main(["status", "--store", str(tmp_path / "rollouts.db")]) == 0
    assert "completions" in capsys.readouterr().out
    assert time.monotonic() - began < LONGEST_S
