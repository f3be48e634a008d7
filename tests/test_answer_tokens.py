"""A policy whose reasoning was cut before its answer is asked for one, where that is wanted."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamprm.answers import extract_answer
from dreamprm.cli import sample
from dreamprm.errors import DreamPRMError
from dreamprm.policy import Request
from dreamprm.policy.local import LocalPolicy
from dreamprm.tiny.world import WorldSize, build_world


def sampled(max_new_tokens: int, answer_tokens: int) -> list[str]:
    """Eight texts about questions of the embedded world, half of them begun."""
    questions = build_world(0, WorldSize(1, 1, 1)).test[:2]
    requests = [Request(questions[0]), Request(questions[1], ("Step 1: look at the picture",))]
    policy = LocalPolicy(
        "tiny/policy",
        prompt="bare",
        max_new_tokens=max_new_tokens,
        answer_tokens=answer_tokens,
        batch_size=3,
    )
    return [text for texts in policy.sample(requests, 4, seed=0) for text in texts]


def test_a_text_that_was_cut_before_its_answer_is_asked_for_one() -> None:
    cut, asked = sampled(5, 0), sampled(5, 1)
    assert sampled(5, 1) == asked
    assert not any(map(extract_answer, cut))
    for before, after in zip(cut, asked, strict=True):
        assert after.startswith(f"{before.rstrip()}\nFinal answer:")
        assert extract_answer(after)


def test_a_text_with_an_answer_is_left_alone() -> None:
    free = sampled(64, 0)
    answered = [text for text in free if extract_answer(text)]
    assert len(answered) > 4
    asked = sampled(64, 1)
    assert [text for text in asked if text in answered] == answered


def test_a_step_that_was_cut_is_no_answer() -> None:
    for text in ("Step 1: red is 3", "**Step 2:** 3 + 5 = 8", "step 3: so $x=8$"):
        assert extract_answer(text) is None
    assert extract_answer("3 + 5 = 8") == "3 + 5 = 8"


def test_fewer_than_no_tokens_are_refused() -> None:
    config = sample.Config(questions=Path("q.jsonl"), output=Path("c.jsonl"), answer_tokens=-1)
    with pytest.raises(DreamPRMError, match="answer_tokens is -1"):
        sample.run(config)
