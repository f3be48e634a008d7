"""A policy that says what the test tells it to, and notes what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from dreamprm.policy import Completion, Reply, Request
from dreamprm.records import Question, Trajectory
from dreamprm.rollouts.sampler import Outcome, Sampler, sample_candidates, stored_candidates
from dreamprm.steps import opening, step_end

Say = Callable[[Request, int, int], str]
"""(request, seed of the call, index within the call) -> text."""


class Scripted:
    """Answers with `say`; gives at most `most` completions a call.

    Args:
        say: what it says.
        most: completions per call, as a server that ignores n would.
        tokens: prompt and completion tokens that each call is said to cost.
        fail: called before each answer; may raise.
        finish_reason: of all completions.
        stops_at_steps: does it end where a single step ends, when asked to?
    """

    def __init__(
        self,
        say: Say,
        *,
        name: str = "scripted",
        concurrency: int = 4,
        most: int = 1000,
        tokens: tuple[int, int] = (0, 0),
        fail: Callable[[Request], None] = lambda request: None,
        finish_reason: str = "stop",
        stops_at_steps: bool = True,
        **settings: Any,
    ) -> None:
        self._finish_reason, self._stops_at_steps = finish_reason, stops_at_steps
        self.name, self.slots, self.settings = name, concurrency, settings
        self._say, self._most, self._tokens, self._fail = say, most, tokens, fail
        self.asked: list[tuple[str, tuple[str, ...], int]] = []
        self.in_flight = self.most_in_flight = 0

    async def sample(self, request: Request, n: int, seed: int) -> Reply:
        self.asked.append((request.question.id, request.steps, n))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(0)
            self._fail(request)
            texts = [self._say(request, seed, i) for i in range(min(n, self._most))]
            return Reply(tuple(self._completion(request, text) for text in texts), *self._tokens)
        finally:
            self.in_flight -= 1

    def _completion(self, request: Request, text: str) -> Completion:
        if request.one_step and self._stops_at_steps:
            end = step_end(opening(request.steps), text)
            if end is not None:
                return Completion(text[:end].rstrip(), "step")
        return Completion(text, self._finish_reason)

    async def close(self) -> None:
        pass


def right_after_good_steps(request: Request, seed: int, index: int) -> str:
    """Begins with a good step; right with certainty unless a step is bad, then always wrong."""
    if not request.steps:
        return f"Step 1: good\nStep 2: {seed % 3}\nFinal answer: {7 if index % 2 else 8}"
    wrong = any("bad" in step for step in request.steps)
    return f"Step 9: on\nFinal answer: {99 if wrong else 7}"


def questions(count: int, answer: str = "7") -> list[Question]:
    """Questions q0, q1, ... with one gold answer."""
    return [Question(id=f"q{i}", domain="d", text=f"t{i}", answer=answer) for i in range(count)]


def sample(sampler: Sampler, asked: Sequence[Question], n: int) -> tuple[Outcome, list[Trajectory]]:
    """N candidates of each question, through the store."""
    outcome = asyncio.run(sample_candidates(sampler, asked, n))
    return outcome, list(stored_candidates(sampler, asked, n))
