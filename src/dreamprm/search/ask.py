"""What every search method works with: one question, a policy to continue it, a judge, a budget.

A continuation goes to its end, or, as methods over steps want it, to the end of its next step. What
has ended is a candidate, whatever a method explored it for: the answer is chosen among all of them.
The same prefix asked for again gives the completions that are there and costs nothing, in this run
or, from the store, in the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from dreamprm.errors import DreamPRMError
from dreamprm.policy import RequestRefused
from dreamprm.prompts import is_marked, join_steps, opening, step_stops
from dreamprm.records import Question, Trajectory
from dreamprm.rollouts.sample import to_trajectory
from dreamprm.rollouts.sampler import Rollout, Sampler
from dreamprm.search.aggregation import aggregate

Steps = tuple[str, ...]

WAVE = 4
"""Completions that are sampled before it is looked at what they say, or cost."""


class StepJudge(Protocol):
    """Scores reasonings about one question, whole or not; `prm.scorer.StepScorer` is one."""

    def score_steps(
        self, question: Question, candidates: Sequence[Sequence[str]]
    ) -> list[tuple[float, ...]]: ...


@dataclass(frozen=True)
class Candidate:
    """A reasoning and what the judge says of it.

    Attributes:
        trajectory: its steps; an open one has no answer yet.
        logits: one per step; fewer where steps are beyond the judge's context; none without judge.
        tokens: of what was sampled for it, behind the prefix it was continued from; 0 where nobody
            counts them.
        spent: tokens sampled for the question when it was there.
        open: stopped at the end of a step, not finished.
    """

    trajectory: Trajectory
    logits: tuple[float, ...]
    tokens: int
    spent: int = 0
    open: bool = False

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
        max_completions: of this question, single steps included.
        max_tokens: sampled for this question; `WAVE` completions come first, then as many as fit at
            the mean length so far.
        one_step: continuations end at the end of a step, where the policy can stop there.
        scoring: held while the judge works; one judge serves all questions.

    Attributes:
        candidates: finished ones, in the order in which they came.
        tokens: sampled so far.
        sampled: completions so far.
    """

    question: Question
    sampler: Sampler
    judge: StepJudge | None
    count_tokens: Callable[[str], int] | None
    aggregation: str = "mean_logit"
    max_completions: int = 8
    max_tokens: int | None = None
    one_step: bool = False
    scoring: asyncio.Lock = field(default_factory=asyncio.Lock)
    candidates: list[Candidate] = field(default_factory=list, init=False)
    tokens: int = field(default=0, init=False)
    sampled: int = field(default=0, init=False)
    _known: dict[Steps, list[Candidate]] = field(default_factory=dict, init=False)

    @property
    def left(self) -> int:
        """Completions that the budget still allows; one is kept to finish a reasoning with."""
        kept = self.one_step and not self.candidates
        allowed = self.max_completions - self.sampled - kept
        if self.max_tokens is None:
            return allowed
        room = self.max_tokens - self.tokens
        if room <= 0:
            return 0
        fitting = room * self.sampled // self.tokens if self.tokens else WAVE
        return min(allowed, max(1, fitting))

    async def continue_from(self, prefix: Steps, n: int) -> list[Candidate]:
        """The first n continuations of a prefix, fewer where the budget ends; scored.

        A prefix that the policy refuses, as too long, has none; other lines go on.

        Raises:
            RequestRefused: the policy refuses the question.
            BudgetSpent, DreamPRMError: see `Sampler.rollouts`.
        """
        there = self._known.setdefault(prefix, [])
        while (more := min(n - len(there), self.left)) > 0:
            new = await self._sample(prefix, len(there), len(there) + more, self.one_step)
            if not new:  # refused
                break
            there += new
        if there and all(c.open and not is_longer(c.steps, prefix) for c in there):
            # The server stops before it has written anything, as where a chat template takes the
            # line's end from the prefix: the rest in one piece, then.
            self.sampler.unstarted += 1
            more = min(n, self.left)
            if more > 0:
                there[:0] = await self._sample(prefix, 0, more, one_step=False)
        return there[:n]

    async def finish(self) -> None:
        """Where nothing has ended, write the deepest of the open reasonings, the best one, out.

        This is sampled also where `max_tokens` is spent: an answer is what they were spent for.
        """
        if self.candidates or not self.one_step or self.max_tokens == 0:
            return
        begun = [c for known in self._known.values() for c in known if c.open]
        best = max(begun, key=lambda c: (len(c.steps), self.score(c)), default=None)
        if not (best and await self._sample(best.steps, 0, 1, one_step=False)):
            await self._sample((), 0, 1, one_step=False)

    async def _sample(self, prefix: Steps, start: int, end: int, one_step: bool) -> list[Candidate]:
        """Continuations number `start` to `end` of a prefix; the finished become candidates."""
        try:
            rollouts = await self.sampler.rollouts(self.question, prefix, end, one_step=one_step)
        except RequestRefused as error:
            if not prefix:
                raise
            where = f"question '{self.question.id}', {len(prefix)} steps"
            self.sampler.refusals.append(f"{where}: {error}")
            return []
        new: list[Candidate] = []
        ended = len(self.candidates)
        for rollout in rollouts[start:]:
            t = to_trajectory(self.question, rollout, self.sampler.policy.name, ended)
            is_open = one_step and rollout.finish_reason == "step"
            tokens = self._tokens_of(rollout, t.steps, prefix)
            self.tokens += tokens
            ended += not is_open
            new.append(Candidate(t, (), tokens, self.tokens, is_open))
        self.sampled += len(new)
        logits = await self._judged([c.steps for c in new])
        new = [replace(c, logits=z) for c, z in zip(new, logits, strict=True)]
        self.candidates += [c for c in new if not c.open]
        return new

    def score(self, candidate: Candidate, steps: int | None = None) -> float:
        """Aggregated score of a candidate, or of its first so many steps."""
        logits = candidate.logits[:steps]
        if not logits:
            raise DreamPRMError("this method needs a reward model; give --prm")
        return aggregate(logits, self.aggregation)

    def _tokens_of(self, rollout: Rollout, steps: Steps, prefix: Steps) -> int:
        """Of what was sampled, the beginning of the next step that showed the end of one too.

        A server does not hand that out; it is the text that it was told to stop at.
        """
        if self.count_tokens is None:
            return 0
        text = rollout.text + rollout.beyond
        if rollout.finish_reason == "step" and not rollout.beyond:
            text += step_stops(prefix, marked=is_marked(steps))[0]
        begun = self.count_tokens(opening(prefix)) if prefix else 0
        return max(1, self.count_tokens(text) - begun)

    async def _judged(self, candidates: list[Steps]) -> list[tuple[float, ...]]:
        judge = self.judge
        if judge is None:
            return [()] * len(candidates)
        async with self.scoring:  # in a thread, so that requests in flight are not held up
            return await asyncio.to_thread(judge.score_steps, self.question, candidates)


def is_longer(steps: Steps, prefix: Steps) -> bool:
    """Is there more text in these steps? Only then may a search go on from them: it must end."""
    return len(join_steps(steps)) > len(join_steps(prefix))
