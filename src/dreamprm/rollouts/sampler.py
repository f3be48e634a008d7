"""Completions of prefixes: from the store where they are there, from the policy where they are not.

Everything that samples goes through `Sampler`: candidates (the prefix without steps), labels,
search. A completion that has arrived is in the store before anybody sees it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from dreamprm.answers import RULES_VERSION, Verdict, extract_answer
from dreamprm.errors import DreamPRMError
from dreamprm.policy import Policy, Reply, Request
from dreamprm.prompts import opening
from dreamprm.records import UNKNOWN_ANSWER, Question
from dreamprm.rollouts.budget import Budget
from dreamprm.rollouts.judge import Verifier
from dreamprm.rollouts.keys import Generator, prefix_key, question_key, sample_seed, verdict_key
from dreamprm.rollouts.store import Prefix, RolloutStore

_KEYS_KEPT = 10_000  # questions whose pictures need not be read again to name them


class Rollout(NamedTuple):
    """A whole reasoning: the given steps and a completion.

    Attributes:
        text: all of it.
        answer: its final answer; None when it states none.
        verdict: is that right; None when the question's gold answer is not known.
        finish_reason: of the completion.
    """

    text: str
    answer: str | None
    verdict: Verdict | None
    finish_reason: str

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

    def prefix(self, question: Question, steps: Sequence[str]) -> Prefix:
        """The name of a prefix under this policy and seed."""
        name = self.question_key(question)
        key = prefix_key(name, steps, self.generator)
        return Prefix(key, name, question.id, tuple(steps), self.generator)

    def stored(self, question: Question, steps: Sequence[str]) -> int:
        """How many completions of a prefix the store has."""
        return len(self.store.completions(self.prefix(question, steps).key))

    async def rollouts(self, question: Question, steps: Sequence[str], n: int) -> list[Rollout]:
        """The first n samples of a prefix, verified; what the store lacks is sampled.

        Raises:
            RequestRefused: the policy refuses this prefix.
            BudgetSpent: the store has fewer, and the budget does not allow more.
            DreamPRMError: the policy cannot be used.
        """
        prefix = self.prefix(question, steps)
        async with self._alone_with(prefix.key):
            there = self.store.completions(prefix.key, n)
            while len(there) < n:
                reply = await self._sample(prefix, question, len(there), n - len(there))
                there += reply.completions
        return await self._verified(question, steps, [(c.text, c.finish_reason) for c in there])

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

    async def stored_rollouts(
        self, question: Question, steps: Sequence[str], n: int
    ) -> list[Rollout] | None:
        """The first n samples of a prefix if the store has them, else None."""
        there = self.store.completions(self.prefix(question, steps).key, n)
        if len(there) < n:
            return None
        return await self._verified(question, steps, [(c.text, c.finish_reason) for c in there])

    async def _sample(self, prefix: Prefix, question: Question, first: int, n: int) -> Reply:
        async with self._calls:
            self.budget.begin_call()
            reply = None
            try:
                request = Request(question, prefix.steps)
                reply = await self.policy.sample(request, n, sample_seed(prefix.key, first))
            finally:
                self.budget.end_call(reply)
        if not 1 <= len(reply.completions) <= n:
            raise DreamPRMError(
                f"policy {self.policy.name} gave {len(reply.completions)} completions where 1 to "
                f"{n} were asked for"
            )
        self.store.add(prefix, first, reply, self.budget.price(reply))
        return reply

    async def _verified(
        self, question: Question, steps: Sequence[str], texts: Sequence[tuple[str, str]]
    ) -> list[Rollout]:
        begun = opening(steps)
        found = []
        for text, reason in texts:
            answer = extract_answer(text, question.options)
            verdict = await self.verify(question, answer)
            found.append(Rollout(begun + text, answer, verdict, reason))
        return found

    async def verify(self, question: Question, answer: str | None) -> Verdict | None:
        """Is an answer right? Each answer of a question is verified once; None without a gold."""
        if question.answer == UNKNOWN_ANSWER:
            return None
        if answer is None:
            return Verdict(False, "none")
        name, verifier = verdict_key(question), f"{self.verifier.name}/{RULES_VERSION}"
        known = self.store.verdict(name, verifier, answer)
        if known is not None:
            return Verdict(*known)
        verdict = await self.verifier.verdict(question, answer)
        self.store.add_verdict(name, verifier, answer, verdict.correct, verdict.rule)
        return verdict
