"""What every search method works with: one question, a policy to continue it, a judge, a budget.

A continuation is sampled to its end, so each is a finished candidate and nothing that was paid for
is thrown away: whatever a method explores, the answer is chosen among all candidates it has seen.
The same prefix asked for again gives the completions that are there and costs nothing, in this run
or, from the store, in the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from dreamprm.errors import DreamPRMError
from dreamprm.records import Question, Trajectory
from dreamprm.rollouts.sample import to_trajectory
from dreamprm.rollouts.sampler import Sampler
from dreamprm.search.aggregation import aggregate

Steps = tuple[str, ...]


class StepJudge(Protocol):
    """Scores reasonings about one question, whole or not; `prm.scorer.StepScorer` is one."""

    def score_steps(
        self, question: Question, candidates: Sequence[Sequence[str]]
    ) -> list[tuple[float, ...]]: ...


@dataclass(frozen=True)
class Candidate:
    """A finished reasoning and what the judge says of it.

    Attributes:
        logits: one per step; fewer where steps are beyond the judge's context; none without judge.
        tokens: of what was sampled for it, behind the prefix it was continued from; 0 where nobody
            counts them.
    """

    trajectory: Trajectory
    logits: tuple[float, ...]
    tokens: int

    @property
    def steps(self) -> Steps:
        return self.trajectory.steps


@dataclass
class Asked:
    """One question under search.

    Args:
        question: to be answered.
        sampler: policy and store.
        judge: of steps; None for methods that vote alone.
        count_tokens: of a text; None where there is no tokenizer.
        aggregation: of step logits to one score.
        max_completions: of this question.
        max_tokens: sampled for this question; checked before each wave.
        scoring: held while the judge works; one judge serves all questions.
    """

    question: Question
    sampler: Sampler
    judge: StepJudge | None
    count_tokens: Callable[[str], int] | None
    aggregation: str = "mean_logit"
    max_completions: int = 8
    max_tokens: int | None = None
    scoring: asyncio.Lock = field(default_factory=asyncio.Lock)
    candidates: list[Candidate] = field(default_factory=list)
    _known: dict[Steps, list[Candidate]] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Sampled so far."""
        return sum(c.tokens for c in self.candidates)

    @property
    def left(self) -> int:
        """Completions that the budget still allows."""
        if self.max_tokens is not None and self.tokens >= self.max_tokens:
            return 0
        return self.max_completions - len(self.candidates)

    async def continue_from(self, prefix: Steps, n: int) -> list[Candidate]:
        """The first n continuations of a prefix, fewer where the budget ends; scored.

        Raises:
            RequestRefused, BudgetSpent, DreamPRMError: see `Sampler.rollouts`.
        """
        there = self._known.setdefault(prefix, [])
        wanted = len(there) + min(n - len(there), self.left)
        if wanted > len(there):
            rollouts = await self.sampler.rollouts(self.question, prefix, wanted)
            made: list[tuple[Trajectory, int]] = []
            for rollout in rollouts[len(there) :]:
                index = len(self.candidates) + len(made)
                t = to_trajectory(self.question, rollout, self.sampler.policy.name, index)
                made.append((t, self._sampled(rollout.text, prefix)))
            logits = await self._judged([t.steps for t, _ in made])
            new = [Candidate(t, z, tokens) for (t, tokens), z in zip(made, logits, strict=True)]
            there += new
            self.candidates += new
        return there[:n]

    def score(self, candidate: Candidate, steps: int | None = None) -> float:
        """Aggregated score of a candidate, or of its first so many steps."""
        logits = candidate.logits[:steps]
        if not logits:
            raise DreamPRMError("this method needs a reward model; give --prm")
        return aggregate(logits, self.aggregation)

    def _sampled(self, text: str, prefix: Steps) -> int:
        if self.count_tokens is None:
            return 0
        begun = self.count_tokens("\n".join(prefix)) if prefix else 0
        return max(1, self.count_tokens(text) - begun)

    async def _judged(self, candidates: list[Steps]) -> list[tuple[float, ...]]:
        judge = self.judge
        if judge is None:
            return [()] * len(candidates)
        async with self.scoring:  # in a thread, so that requests in flight are not held up
            return await asyncio.to_thread(judge.score_steps, self.question, candidates)


def is_finished(candidate: Candidate, depth: int) -> bool:
    """Has it no step behind the first `depth`?"""
    return len(candidate.steps) <= depth
