"""A policy whose reasoning was cut before its answer is asked for one, where that is wanted."""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path

import pytest

from dreamprm.answers import extract_answer
from dreamprm.cli import sample
from dreamprm.errors import DreamPRMError
from dreamprm.policy import Reply, Request
from dreamprm.policy.local import LocalPolicy
from dreamprm.policy.options import PolicyOptions
from dreamprm.tiny.world import WorldSize, build_world


@cache
def policy(max_new_tokens: int, answer_tokens: int, batch_size: int = 3) -> LocalPolicy:
    sizes = {"max_new_tokens": max_new_tokens, "answer_tokens": answer_tokens}
    return LocalPolicy(PolicyOptions("tiny/policy", **sizes, per_device_batch_size=batch_size))


def replies(of: LocalPolicy) -> list[Reply]:
    """Four samples for each of two questions of the embedded world, one of them begun."""
    questions = build_world(0, WorldSize(1, 1, 1)).test[:2]
    requests = [Request(questions[0]), Request(questions[1], ("Step 1: look at the picture",))]

    async def both() -> list[Reply]:
        return await asyncio.gather(*(of.sample(request, 4, seed=0) for request in requests))

    return asyncio.run(both())


def sampled(max_new_tokens: int, answer_tokens: int, batch_size: int = 3) -> list[str]:
    found = replies(policy(max_new_tokens, answer_tokens, batch_size))
    return [completion.text for reply in found for completion in reply.completions]


def test_a_text_that_was_cut_before_its_answer_is_asked_for_one() -> None:
    cut, asked = sampled(5, 0), sampled(5, 1)
    assert not any(map(extract_answer, cut))
    for before, after in zip(cut, asked, strict=True):
        assert after.startswith(f"{before.rstrip()}\nFinal answer:")
        assert extract_answer(after)


def test_answers_do_not_depend_on_what_they_are_batched_with() -> None:
    assert sampled(5, 4) == sampled(5, 4) == sampled(5, 4, batch_size=64)
    assert len({text.partition("Final answer:")[2] for text in sampled(5, 4)}) > 1


def test_a_text_with_an_answer_is_left_alone() -> None:
    free = sampled(64, 0)
    answered = [text for text in free if extract_answer(text)]
    assert len(answered) > 4
    asked = sampled(64, 1)
    assert [text for text in asked if text in answered] == answered


def test_the_tokens_of_an_answer_count_and_the_prompt_counts_once() -> None:
    for cut, asked in zip(replies(policy(5, 0)), replies(policy(5, 1)), strict=True):
        assert asked.completion_tokens == cut.completion_tokens + 4 == 4 * (5 + 1)
        assert asked.prompt_tokens == cut.prompt_tokens


def test_the_finish_reason_is_that_of_the_answer() -> None:
    def reasons(answer_tokens: int) -> set[str]:
        found = replies(policy(5, answer_tokens))
        return {done.finish_reason for reply in found for done in reply.completions}

    assert reasons(1) == {"length"}
    assert reasons(64) == {"stop"}


def test_a_step_that_was_cut_is_no_answer() -> None:
    for text in ("Step 1: red is 3", "**Step 2:** 3 + 5 = 8", "step 3: so $x=8$"):
        assert extract_answer(text) is None
    assert extract_answer("3 + 5 = 8") == "3 + 5 = 8"


def test_fewer_than_no_tokens_are_refused() -> None:
    config = sample.Config(questions=Path("q.jsonl"), output=Path("c.jsonl"), answer_tokens=-1)
    with pytest.raises(DreamPRMError, match="answer_tokens is -1"):
        sample.run(config)
