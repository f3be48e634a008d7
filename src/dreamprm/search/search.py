"""Searching for an answer: one question, a policy to continue its reasoning, a judge, a budget.

    first_sample, self_consistency, best_of_n, weighted_vote
                         independent candidates, all at once or in waves until they agree
    step_best_of_n       one line: of k continuations the best next step is kept
    beam_search          the best `width` prefixes are kept at every depth, k continuations of each
                         (arXiv 2408.03314)
    diverse_tree_search  `width` lines that never compete, so that one early mistake of the judge
                         cannot take all (search-and-learn's DVTS)

A continuation goes to its end, or, where a method asks for single steps, to the end of its next
step; its first step is what methods over steps judge. What has ended is a candidate, whatever it
was explored for: the answer is chosen among all of them. The same prefix asked for again gives the
completions that are there and costs nothing, in this run or, from the store, in the next.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Protocol

from scipy.stats import beta  # type: ignore[import-untyped]

from dreamprm.errors import DreamPRMError, offer
from dreamprm.policy import RequestRefused
from dreamprm.records import Question, Trajectory
from dreamprm.rollouts.sampler import Rollout, Sampler, to_trajectory
from dreamprm.search.aggregation import DEFAULT_AGGREGATION, aggregate, step_scores
from dreamprm.search.choosing import METHODS, PARALLEL, TREES, VOTES, Change, Choice, choose
from dreamprm.steps import is_marked, join_steps, opening, step_stops
from dreamprm.unread import why_unanswered

Steps = tuple[str, ...]

WAVE = 4
"""Completions that are sampled before it is looked at what they say, or cost."""


_JUDGING = ThreadPoolExecutor(1, thread_name_prefix="dreamprm-judge")
"""Judges work here, so that requests in flight are not held up; one judge serves all questions."""


class StepJudge(Protocol):
    """Scores reasonings about one question, whole or not; `prm.scorer.StepScorer` is one.

    One whose attribute `at_once` is true is asked from several threads.
    """

    def score_steps(
        self, question: Question, candidates: Sequence[Sequence[str]]
    ) -> list[tuple[float, ...]]:
        """One logit per step of each candidate."""
        ...


@dataclass(frozen=True)
class SearchOptions:
    """How to search.

    Attributes:
        method: one of `METHODS`.
        n: completions of a question at most.
        width: lines of beam and tree search.
        expand: continuations of a prefix, of the methods over steps.
        early_stop: of the parallel methods: stop once the leading answer is the policy's most
            frequent one with this probability.
        single_steps: methods over steps sample a step at a time; by default each continuation goes
            to its end, which costs more and is a candidate.
        max_tokens: sampled for a question; `WAVE` completions come first, then as many as fit at
            the mean length so far.
        aggregation: of step logits to one score.
    """

    method: str = "best_of_n"
    n: int = 8
    width: int = 2
    expand: int = 2
    early_stop: float | None = None
    single_steps: bool = False
    max_tokens: int | None = None
    aggregation: str = DEFAULT_AGGREGATION

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise DreamPRMError(
                f"there is no method '{self.method}'; {offer(self.method, METHODS)}"
            )
        for name in ("n", "width", "expand"):
            if getattr(self, name) < 1:
                raise DreamPRMError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.early_stop is not None and not 0.5 < self.early_stop < 1:
            raise DreamPRMError(f"early_stop is {self.early_stop}; it must be between 0.5 and 1")

    @property
    def needs_judge(self) -> bool:
        return self.method not in VOTES

    @property
    def stops_at_steps(self) -> bool:
        return self.single_steps and self.method in TREES


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
        text: as the policy wrote it, the prefix included.
    """

    trajectory: Trajectory
    logits: tuple[float, ...]
    tokens: int
    spent: int = 0
    open: bool = False
    text: str = ""

    @property
    def steps(self) -> Steps:
        return self.trajectory.steps

    @property
    def step_scores(self) -> tuple[float, ...]:
        """The logits as probabilities in 0-1."""
        return tuple(step_scores(self.logits))


@dataclass(frozen=True)
class SearchResult:
    """What a search came to.

    Attributes:
        chosen: the candidate whose answer is given.
        score: its aggregated score, a logit; None without a reward model.
        candidates: all that were finished, in order, each with its step scores.
        trace: the answer as the search went on, at each change; none where nobody counts tokens.
        tokens: sampled for all of it; None where nobody counts them.
        completions: sampled, single steps included.
        tied: candidates (or answers, where they vote) that were as good; the first is chosen.
    """

    chosen: Candidate
    score: float | None
    candidates: tuple[Candidate, ...]
    trace: tuple[Change, ...]
    tokens: int | None
    completions: int
    tied: int = 1

    @property
    def answer(self) -> str | None:
        """The final answer; None where the chosen reasoning states none."""
        return self.chosen.trajectory.answer

    @property
    def trajectory(self) -> Trajectory:
        """The chosen reasoning."""
        return self.chosen.trajectory

    def choice(self) -> Choice:
        """As a row of what `dreamprm select` writes."""
        t = self.trajectory
        return Choice(
            question_id=t.question_id,
            answer=t.answer,
            sample_index=t.sample_index,
            score=self.score,
            step_scores=self.chosen.step_scores if self.chosen.logits else None,
            tokens=self.tokens,
            completions=self.completions,
            outcome=t.outcome,
            steps=t.steps,
            changes=self.trace,
            tied=self.tied,
            unread=why_unanswered(t),
        )


@dataclass
class Search:
    """One question under search.

    Args:
        judge: of steps; None for methods that vote alone.
        count_tokens: of a text; None where there is no tokenizer.

    Attributes:
        candidates: finished ones, in the order in which they came.
        tokens: sampled so far.
        sampled: completions so far.
    """

    question: Question
    sampler: Sampler
    options: SearchOptions
    judge: StepJudge | None = None
    count_tokens: Callable[[str], int] | None = None
    candidates: list[Candidate] = field(default_factory=list, init=False)
    tokens: int = field(default=0, init=False)
    sampled: int = field(default=0, init=False)
    _known: dict[Steps, list[Candidate]] = field(default_factory=dict, init=False)

    async def run(self) -> SearchResult:
        """Sample by the method, and choose among what has ended.

        Raises:
            DreamPRMError: the method needs a judge and has none, or the budget allows no
                completion.
        """
        o = self.options
        if o.needs_judge and self.judge is None:
            raise DreamPRMError(f"method {o.method} needs a reward model; give --prm")
        if o.method in PARALLEL:
            await self._sample_parallel(1 if o.method == "first_sample" else o.n)
        elif o.method == "step_best_of_n":
            await self._step_best_of_n(o.expand * o.width)
        elif o.method == "beam_search":
            await self._beam_search()
        else:
            await self._diverse_tree_search()
        await self._finish()
        if not self.candidates:
            raise DreamPRMError(
                f"question '{self.question.id}': the budget allows no completion; raise it"
            )
        trace: list[Change] = []
        for i, candidate in enumerate(self.candidates, start=1):
            best = self._choose(self.candidates[:i])
            chosen = best[0]
            index = chosen.trajectory.sample_index
            if not trace or trace[-1].sample_index != index:
                trace.append(
                    Change(
                        tokens=candidate.spent,
                        sample_index=index,
                        outcome=chosen.trajectory.outcome,
                    )
                )
        return SearchResult(
            chosen=chosen,
            score=self.score(chosen) if chosen.logits else None,
            candidates=tuple(self.candidates),
            trace=tuple(trace) if self.count_tokens else (),
            tokens=self.tokens if self.count_tokens else None,
            completions=self.sampled,
            tied=len(best),
        )

    def _choose(self, candidates: list[Candidate]) -> list[Candidate]:
        method = self.options.method
        scores = None if method in VOTES else [self.score(c) for c in candidates]
        best = choose(method, [c.trajectory for c in candidates], scores)
        return [candidates[t.sample_index] for t in best]  # they are numbered as they came

    def score(self, candidate: Candidate, steps: int | None = None) -> float:
        """Aggregated score of a candidate, or of its first so many steps."""
        logits = candidate.logits[:steps]
        if not logits:
            raise DreamPRMError("this method needs a reward model; give --prm")
        return aggregate(logits, self.options.aggregation)

    # ---- methods

    async def _sample_parallel(self, n: int) -> None:
        """Sample up to n independent candidates, or in waves until they agree."""
        early_stop = self.options.early_stop
        wave = n if early_stop is None else WAVE
        while len(self.candidates) < n and self.left > 0:
            await self.continue_from((), min(n, len(self.candidates) + wave))
            answers = [c.trajectory.answer for c in self.candidates]
            if early_stop is not None and agreement(answers) >= early_stop:
                return

    async def _step_best_of_n(self, expand: int) -> None:
        """Follow the best next step to the end, of `expand` continuations at each depth."""
        prefix: Steps = ()
        while continuations := await self.continue_from(prefix, expand):
            best = max(continuations, key=lambda c: self.score(c, len(prefix) + 1))
            longer = _next_prefix(best, prefix)
            if longer is None or self.left <= 0:
                return
            prefix = longer

    async def _beam_search(self) -> None:
        """Keep the best `width` prefixes of a depth, and sample `expand` continuations of each."""
        width, expand = self.options.width, self.options.expand
        prefixes = await self._best_prefixes([()], width * expand, width)
        while prefixes and self.left > 0:
            prefixes = await self._best_prefixes(prefixes, expand, width)

    async def _diverse_tree_search(self) -> None:
        """`width` lines that begin with different first steps where there are such, each alone."""
        width, expand = self.options.width, self.options.expand
        lines = await self._best_prefixes([()], width * expand, width)
        while lines and self.left > 0:  # a depth of every line in turn, so that none starves
            longer = []
            for prefix in lines:
                longer += await self._best_prefixes([prefix], expand, 1)
            lines = longer

    async def _best_prefixes(self, prefixes: list[Steps], expand: int, width: int) -> list[Steps]:
        """Continue prefixes; the best distinct ones, a step longer, that go on.

        A prefix is as good as the best of its continuations.
        """
        scores: dict[Steps, float] = {}
        for before in prefixes:
            for c in await self.continue_from(before, expand):
                prefix = _next_prefix(c, before)
                if prefix is not None:
                    score = self.score(c, len(prefix))
                    scores[prefix] = max(scores.get(prefix, score), score)
        return sorted(scores, key=lambda p: -scores[p])[:width]

    # ---- sampling and scoring

    @property
    def left(self) -> int:
        """Completions that the budget still allows; one is kept to finish a reasoning with."""
        kept = self.options.stops_at_steps and not self.candidates
        allowed = self.options.n - self.sampled - kept
        if self.options.max_tokens is None:
            return allowed
        room = self.options.max_tokens - self.tokens
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
        known = self._known.setdefault(prefix, [])
        while (more := min(n - len(known), self.left)) > 0:
            new = await self._sample(prefix, len(known), len(known) + more)
            if not new:  # refused
                break
            known += new
        if known and all(c.open and not _is_longer(c.steps, prefix) for c in known):
            # The server stops before it has written anything, as where a chat template takes the
            # line's end from the prefix: the rest in one piece, then.
            self.sampler.unstarted += 1
            more = min(n, self.left)
            if more > 0:
                known[:0] = await self._sample(prefix, 0, more, whole=True)
        return known[:n]

    async def _finish(self) -> None:
        """Where nothing has ended, write the deepest of the open reasonings, the best one, out.

        This is sampled also where `max_tokens` is spent: an answer is what they were spent for.
        """
        if self.candidates or not self.options.stops_at_steps or self.options.max_tokens == 0:
            return
        begun = [c for known in self._known.values() for c in known if c.open]
        best = max(begun, key=lambda c: (len(c.steps), self.score(c)), default=None)
        if not (best and await self._sample(best.steps, 0, 1, whole=True)):
            await self._sample((), 0, 1, whole=True)

    async def _sample(
        self, prefix: Steps, start: int, end: int, *, whole: bool = False
    ) -> list[Candidate]:
        """Continuations number `start` to `end` of a prefix; the finished become candidates."""
        one_step = self.options.stops_at_steps and not whole
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
            new.append(Candidate(t, (), tokens, self.tokens, is_open, rollout.text))
        self.sampled += len(new)
        if self.judge is not None:
            threads = None if getattr(self.judge, "at_once", False) else _JUDGING
            logits = await asyncio.get_running_loop().run_in_executor(
                threads, self.judge.score_steps, self.question, [c.steps for c in new]
            )
            new = [replace(c, logits=z) for c, z in zip(new, logits, strict=True)]
        self.candidates += [c for c in new if not c.open]
        return new

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


def agreement(answers: list[str | None]) -> float:
    """Probability that the leading answer is the most frequent one of the policy.

    By the two leading counts alone: the mass above 1/2 of Beta(first + 1, second + 1)
    (Adaptive-Consistency, arXiv 2305.11860). Candidates without an answer have no vote.

    >>> round(agreement(["4", "4", "4", "4"]), 3)
    0.969
    >>> agreement(["4", "5"])
    0.5
    """
    counts = [count for _, count in Counter(a for a in answers if a is not None).most_common(2)]
    first, second = [*counts, 0, 0][:2]
    return float(beta.sf(0.5, first + 1, second + 1))


def _next_prefix(c: Candidate, prefix: Steps) -> Steps | None:
    """The prefix with the step that a continuation adds; None where nothing follows that."""
    if not c.open and len(c.steps) <= len(prefix) + 1:
        return None
    longer = c.steps[: len(prefix) + 1]
    return longer if _is_longer(longer, prefix) else None


def _is_longer(steps: Steps, prefix: Steps) -> bool:
    """Is there more text in these steps? Only then may a search go on from them: it must end."""
    return len(join_steps(steps)) > len(join_steps(prefix))
