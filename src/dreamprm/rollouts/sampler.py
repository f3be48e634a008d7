"""Completions of prefixes: from the store where they are there, from the policy where they are not.

Everything that samples goes through `Sampler`: candidates (the prefix without steps), labels,
search. A completion that has arrived is in the store before anybody sees it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from dreamprm.answers import RULES_VERSION, Verdict, extract_answer
from dreamprm.errors import DreamPRMError
from dreamprm.policy import STEP_SETTING, Completion, Policy, Reply, Request
from dreamprm.prompts import opening, step_end
from dreamprm.records import UNKNOWN_ANSWER, Question
from dreamprm.rollouts.budget import Budget, within
from dreamprm.rollouts.judge import Verifier
from dreamprm.rollouts.keys import (
    Generator,
    canonical,
    prefix_key,
    question_key,
    sample_seed,
    verdict_key,
)
from dreamprm.rollouts.store import Prefix, RolloutStore

UNDECIDED = ("judge_unclear", "timeout")
"""Rules that tell of a failure to decide; such verdicts are not kept, so a rerun tries again."""

_UNCLEAR_AT_FIRST = 20  # answers after which a judge that decided none is given up
_KEYS_KEPT = 10_000  # questions whose pictures need not be read again to name them


class Rollout(NamedTuple):
    """A whole reasoning: the given steps and a completion.

    Attributes:
        text: all of it; of a single step up to its end.
        answer: its final answer; None when it states none.
        verdict: is that right; None when the question's gold answer is not known.
        finish_reason: of the completion.
        beyond: what was sampled behind the end of a single step.
    """

    text: str
    answer: str | None
    verdict: Verdict | None
    finish_reason: str
    beyond: str = ""

    @property
    def correct(self) -> bool:
        """Does it reach the right answer?"""
        return self.verdict is not None and self.verdict.correct


class Sampler:
    """A policy, the store of what it wrote, and the verifier of its answers.

    Args:
        policy: who writes.
        store: open for writing.
        seed: of the run; another seed gives other completions of the same prefix.
        verifier: of final answers; the rules alone by default.
        budget: limits; by default none. It counts on from what the store has cost.
        root: folder that relative image paths start from.
    """

    def __init__(
        self,
        policy: Policy,
        store: RolloutStore,
        seed: int = 0,
        *,
        verifier: Verifier | None = None,
        budget: Budget | None = None,
        root: Path | None = None,
    ) -> None:
        self.policy, self.store, self.root = policy, store, root
        self.verifier = verifier or Verifier()
        self.budget = budget or Budget()
        self.budget.count_on(store)
        self.generator = Generator.of(policy, seed)
        self.alive = 2 * policy.concurrency + 2
        """Units of work that keep the policy's slots full while others are verified."""
        self.refusals: list[str] = []
        """Prefixes that the policy refused and the caller went on without; told at the end."""
        self.unstarted = 0
        """Prefixes behind which the policy, asked for a step, stopped before its first word."""
        self.decided_by_judge = 0
        self._stepwise = Generator(
            policy.name, canonical({**policy.settings, **STEP_SETTING}), seed
        )
        self._rules = f"{self.verifier.name}/{RULES_VERSION}"
        self._undecided: dict[tuple[str, str], Verdict] = {}
        self._names: OrderedDict[str, str] = OrderedDict()
        self._asked: dict[str, tuple[asyncio.Lock, int]] = {}
        self._calls = asyncio.Semaphore(self.alive)

    def question_key(self, question: Question) -> str:
        """See `keys.question_key`; remembered, because pictures have to be read for it."""
        if question.id not in self._names:
            self._names[question.id] = question_key(question, self.root)
            if len(self._names) > _KEYS_KEPT:
                self._names.popitem(last=False)
        return self._names[question.id]

    def prefix(self, question: Question, steps: Sequence[str], one_step: bool = False) -> Prefix:
        """The name of a prefix under this policy and seed; single steps have names of their own."""
        name = self.question_key(question)
        generator = self._stepwise if one_step else self.generator
        key = prefix_key(name, steps, generator)
        return Prefix(key, name, question.id, tuple(steps), generator)

    async def rollouts(
        self, question: Question, steps: Sequence[str], n: int, *, one_step: bool = False
    ) -> list[Rollout]:
        """The first n samples of a prefix, verified; what the store lacks is sampled.

        Args:
            one_step: see `Request.one_step`; an unfinished one has the finish reason `step` and no
                answer.

        Raises:
            RequestRefused: the policy refuses this prefix.
            BudgetSpent: the store has fewer, and the budget does not allow more.
            DreamPRMError: the policy cannot be used.
        """
        prefix = self.prefix(question, steps, one_step)
        async with self._alone_with(prefix.key):
            there = self.store.completions(prefix.key, n)
            while len(there) < n:
                request = Request(question, prefix.steps, one_step)
                reply = await self._sample(prefix, request, len(there), n - len(there))
                there += reply.completions
        return [
            Rollout(text, answer, await self.verify(question, answer), reason, beyond)
            for text, answer, reason, beyond in self._read(question, steps, there)
        ]

    @asynccontextmanager
    async def _alone_with(self, key: str) -> AsyncIterator[None]:
        """Two trajectories may ask for their common prefix at once; the second waits."""
        lock, users = self._asked.get(key, (asyncio.Lock(), 0))
        self._asked[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._asked[key]
            self._asked[key] = (lock, users - 1)
            if users == 1:
                del self._asked[key]

    def stored_rollouts(
        self, question: Question, steps: Sequence[str], n: int
    ) -> list[Rollout] | None:
        """The first n samples of a prefix if the store has them, verified, else None."""
        there = self.store.completions(self.prefix(question, steps).key, n)
        if len(there) < n:
            return None
        found = []
        for text, answer, reason, beyond in self._read(question, steps, there):
            verdict = self._known_verdict(question, answer)
            if verdict is None and question.answer != UNKNOWN_ANSWER:
                return None
            found.append(Rollout(text, answer, verdict, reason, beyond))
        return found

    async def _sample(self, prefix: Prefix, request: Request, first: int, n: int) -> Reply:
        seed = sample_seed(prefix.key, first)
        async with self._calls:
            reply = await within(self.budget, self.policy, request, n, seed)
        if not 1 <= len(reply.completions) <= n:
            raise DreamPRMError(
                f"policy {self.policy.name} gave {len(reply.completions)} completions where 1 to "
                f"{n} were asked for"
            )
        self.store.add(prefix, first, reply, self.budget.price(reply))
        return reply

    def _read(
        self, question: Question, steps: Sequence[str], completions: Sequence[Completion]
    ) -> Iterator[tuple[str, str | None, str, str]]:
        """(whole text, final answer, finish reason, what is behind a single step) of each."""
        begun = opening(steps)
        for text, reason in ((c.text, c.finish_reason) for c in completions):
            if reason == "step":
                end = step_end(begun, text)
                end = len(text) if end is None else end
                yield begun + text[:end].rstrip(), None, reason, text[end:]
                continue
            answer = extract_answer(text, question.options)
            if answer is None and reason == "stop":  # the steps state it, and no more was said
                answer = extract_answer(begun + text, question.options)
            yield begun + text, answer, reason, ""

    async def verify(self, question: Question, answer: str | None) -> Verdict | None:
        """Is an answer right? Each answer of a question is verified once; None without a gold."""
        if question.answer == UNKNOWN_ANSWER:
            return None
        known = self._known_verdict(question, answer)
        if known is not None or answer is None:
            return known
        verdict = await self.verifier.verdict(question, answer)
        name = verdict_key(question)
        if verdict.rule in UNDECIDED:
            self._undecided[name, answer] = verdict
            self._check_judge(verdict)
        else:
            self.decided_by_judge += verdict.rule == "judge"
            self.store.add_verdict(name, self._rules, answer, verdict.correct, verdict.rule)
        return verdict

    def _known_verdict(self, question: Question, answer: str | None) -> Verdict | None:
        if question.answer == UNKNOWN_ANSWER:
            return None
        if answer is None:
            return Verdict(False, "none")
        name = verdict_key(question)
        known = self.store.verdict(name, self._rules, answer)
        return self._undecided.get((name, answer)) if known is None else Verdict(*known)

    def undecided(self) -> Counter[str]:
        """Answers that this run called wrong for want of a verdict: how many, by rule."""
        return Counter(verdict.rule for verdict in self._undecided.values())

    def _check_judge(self, verdict: Verdict) -> None:
        unclear = self.undecided()["judge_unclear"]
        if not self.decided_by_judge and unclear >= _UNCLEAR_AT_FIRST:
            raise DreamPRMError(
                f"the judge gave no usable verdict on its first {unclear} answers; take a model "
                "that replies with one word when told to, or none"
            )
