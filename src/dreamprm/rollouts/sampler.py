"""Completions of prefixes: from the store where they are there, from the policy where they are not.

Candidates (the prefix without steps), labels and search all sample through `Sampler`; a completion
is in the store before it is returned. `work_through` does many units at once: enough to keep the
policy's slots full, and no more, so memory does not grow with the job. When the policy can no
longer be used, or the budget is spent, no unit is begun, and what is in flight is kept.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar
from weakref import WeakValueDictionary

from pydantic import JsonValue

from dreamprm.answers import RULES_VERSION, Verdict, read_answer
from dreamprm.errors import DataError, DreamPRMError
from dreamprm.policy import (
    STEP_SETTING,
    Completion,
    NoReply,
    Reply,
    Request,
    RequestRefused,
    Writer,
)
from dreamprm.policy.policy import Policy
from dreamprm.records import LONGEST_STEP, UNKNOWN_ANSWER, Question, Trajectory
from dreamprm.rollouts.budget import Budget, BudgetSpent, Metered
from dreamprm.rollouts.judge import Verifier
from dreamprm.rollouts.store import (
    Generator,
    Prefix,
    RolloutStore,
    canonical,
    prefix_key,
    question_key,
    sample_seed,
    verdict_key,
)
from dreamprm.steps import opening, split_open, split_steps, step_end
from dreamprm.unread import Unread

T = TypeVar("T")


@dataclass
class Outcome:
    """How a pass over the units ended.

    Attributes:
        refused: units that were left out, and why.
        stopped: why the pass ended before all units were done; None if it did not.
    """

    refused: list[tuple[object, str]] = field(default_factory=list)
    stopped: DreamPRMError | None = None


async def work_through(
    units: Iterable[T],
    do: Callable[[T], Awaitable[None]],
    alive: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Outcome:
    """Do every unit, `alive` of them at a time.

    Args:
        units: taken one by one, when there is room; may be a generator over a large file.
        do: does one. `RequestRefused` and `DataError` concern this unit alone, any other
            `DreamPRMError` ends the pass.
        alive: units in work at once.
        progress: called with 1 for each unit that ended, refused ones included.
    """
    outcome = Outcome()
    source = iter(units)

    async def worker() -> None:
        for unit in source:
            if outcome.stopped is not None:
                return
            try:
                await do(unit)
                progress(1)
            except (RequestRefused, DataError) as error:
                outcome.refused.append((unit, str(error)))
                progress(1)
            except DreamPRMError as error:
                # Many units meet the same end; the first to tell is the reason.
                if outcome.stopped is None or isinstance(outcome.stopped, BudgetSpent):
                    outcome.stopped = error
                return

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(alive):
                group.create_task(worker())
    except BaseExceptionGroup as bugs:  # one is enough to find the mistake in our code
        raise bugs.exceptions[0] from None
    return outcome


async def all_of(parts: Iterable[Awaitable[T]]) -> list[T]:
    """Await all; an error of one is raised only when the others have ended and are kept."""
    results = await asyncio.gather(*parts, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]


UNDECIDED = ("judge_unclear", "timeout")
"""Rules that tell of a failure to decide; such verdicts are not kept, so a rerun tries again."""

_UNANSWERED_AT_FIRST = 20  # prefixes after which a policy that answered none is given up
_UNCLEAR_AT_FIRST = 20  # answers after which a judge that decided none is given up


class Rollout(NamedTuple):
    """A whole reasoning: the given steps and a completion.

    Attributes:
        text: all of it; of a single step up to its end.
        answer: its final answer; None when it states none.
        verdict: is that right; None when the question's gold answer is not known.
        finish_reason: of the completion.
        beyond: what was sampled behind the end of a single step.
        unread: why a finished one states no answer, see `dreamprm.unread`.
    """

    text: str
    answer: str | None
    verdict: Verdict | None
    finish_reason: str
    beyond: str = ""
    unread: str | None = None

    @property
    def correct(self) -> bool:
        """Does it reach the right answer?"""
        return self.verdict is not None and self.verdict.correct


def _read(
    question: Question, steps: Sequence[str], completions: Sequence[Completion]
) -> Iterator[Rollout]:
    """What completions of a prefix say, without verdicts."""
    begun = opening(steps)
    for text, reason in ((c.text, c.finish_reason) for c in completions):
        if reason == "step":
            end = step_end(begun, text)
            end = len(text) if end is None else end
            yield Rollout(begun + text[:end].rstrip(), None, None, reason, text[end:])
            continue
        answer, why, *_ = read_answer(text, question.options)
        if answer is None and reason == "stop":  # the steps state it, and no more was said
            answer, why, *_ = read_answer(begun + text, question.options)
        unread = None if answer is not None else "cut" if reason == "length" else why
        yield Rollout(begun + text, answer, None, reason, unread=unread)


class Sampler:
    """A policy, the store of what it wrote, and the verifier of its answers.

    Args:
        policy: who writes.
        store: open for writing.
        seed: of the run; another seed gives other completions of the same prefix. None: the policy
            sends no seed; what the store has is found again all the same.
        verifier: of final answers; the rules alone by default.
        budget: limits; by default none. It counts on from what the store has cost.
    """

    def __init__(
        self,
        policy: Writer,
        store: RolloutStore,
        seed: int | None = 0,
        *,
        verifier: Verifier | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.policy, self.store = policy, store
        self.verifier = verifier or Verifier()
        self.budget = budget or Budget()
        self.budget.count_on(store)
        self.generator = Generator.of(policy, seed)
        self.alive = 2 * policy.slots + 2
        """Units of work that keep the policy's slots full while others are verified."""
        self.refusals: list[str] = []
        """Prefixes that the policy refused and the caller went on without; told at the end."""
        self.unstarted = 0
        """Prefixes behind which the policy, asked for a step, stopped before its first word."""
        self.unanswered = 0
        """Prefixes that got no reply to use, in this run or before; told at the end."""
        self.unread = Unread()
        """Whole completions, each counted once however often it is asked for."""
        self.decided_by_judge = 0
        self._counted: Counter[str] = Counter()  # key of a prefix -> completions in `unread`
        self._stepwise = replace(
            self.generator, settings=canonical({**policy.settings, **STEP_SETTING})
        )
        self._rules = f"{self.verifier.name}/{RULES_VERSION}"
        self._undecided: dict[tuple[str, str], Verdict] = {}
        self._names: dict[str, str] = {}
        self._asked: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._calls = asyncio.Semaphore(self.alive)

    def prefix(self, question: Question, steps: Sequence[str], one_step: bool = False) -> Prefix:
        """The name of a prefix under this policy and seed; single steps have names of their own."""
        if question.id not in self._names:  # pictures have to be read for it
            self._names[question.id] = question_key(question)
        name = self._names[question.id]
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
            RequestRefused: the policy refuses this prefix, or gave no reply to use (`NoReply`), now
                or in an earlier run.
            BudgetSpent: the store has fewer, and the budget does not allow more.
            DreamPRMError: the policy cannot be used.
        """
        prefix = self.prefix(question, steps, one_step)
        # Two trajectories may ask for their common prefix at once; the second waits.
        lock = self._asked.setdefault(prefix.key, asyncio.Lock())
        async with lock:
            completions = self.store.completions(prefix.key, n)
            if len(completions) < n and (why := self.store.why_unanswered(prefix.key)):
                self.unanswered += 1
                raise NoReply(f"{why}; it was not asked again")
            while len(completions) < n:
                request, first = Request(question, prefix.steps, one_step), len(completions)
                reply = await self._sample(prefix, request, first, n - first)
                completions += reply.completions
        rollouts = list(_read(question, steps, completions))
        self._count_unread(prefix, rollouts)
        return [r._replace(verdict=await self.verify(question, r.answer)) for r in rollouts]

    def _count_unread(self, prefix: Prefix, rollouts: Sequence[Rollout]) -> None:
        before = self._counted[prefix.key]
        self._counted[prefix.key] = max(before, len(rollouts))
        for rollout in rollouts[before:]:
            if rollout.finish_reason != "step":
                self.unread.add(prefix.question_id, rollout.text, rollout.unread)

    def stored_rollouts(
        self, question: Question, steps: Sequence[str], n: int
    ) -> list[Rollout] | None:
        """The first n samples of a prefix if the store has them, verified, else None."""
        completions = self.store.completions(self.prefix(question, steps).key, n)
        if len(completions) < n:
            return None
        rollouts = [
            rollout._replace(verdict=self._known_verdict(question, rollout.answer))
            for rollout in _read(question, steps, completions)
        ]
        unverified = any(rollout.verdict is None for rollout in rollouts)
        return None if unverified and question.answer != UNKNOWN_ANSWER else rollouts

    async def _sample(self, prefix: Prefix, request: Request, first: int, n: int) -> Reply:
        seed = sample_seed(prefix.key, first)
        async with self._calls:
            try:
                reply = await self.budget.sample(self.policy, request, n, seed)
            except NoReply as error:
                self._note_unanswered(prefix, str(error))
                raise
        if not 1 <= len(reply.completions) <= n:
            raise DreamPRMError(
                f"policy {self.policy.name} gave {len(reply.completions)} completions where 1 to "
                f"{n} were asked for"
            )
        self.store.add(prefix, first, reply, self.budget.price(reply))
        return reply

    def _note_unanswered(self, prefix: Prefix, why: str) -> None:
        self.store.add_unanswered(prefix, why)
        self.unanswered += 1
        if self.unanswered == _UNANSWERED_AT_FIRST and not self.store.counts()["rollouts"]:
            raise DreamPRMError(
                f"policy {self.policy.name} gave no reply to use to the first {self.unanswered} "
                f"requests: {why}; mend the server, then run again with --ask_again true"
            )

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


@asynccontextmanager
async def open_sampler(
    policy: Writer, store: RolloutStore, seed: int | None = None
) -> AsyncIterator[Sampler]:
    """A sampler of a policy, with the seed, the budget and the judge of its options.

    Args:
        policy: stays open.
        store: open for writing.
        seed: in place of the policy's own.
    """
    if not isinstance(policy, Policy):
        yield Sampler(policy, store, seed or 0)
        return
    given, policy = policy, _continuing_as_before(policy, store)
    if policy.ask_again:
        store.forget_unanswered()
    budget = Budget(
        max_tokens=policy.budget_tokens,
        max_cost=policy.budget_cost,
        prompt_price=policy.prompt_token_price,
        completion_price=policy.completion_token_price,
    )
    judge = None
    if policy.judge_model:
        from dreamprm.policy.served import EndpointPolicy

        judge = Metered(EndpointPolicy(policy.judge()), budget, store)
    try:
        await policy.connect()
        yield Sampler(
            policy,
            store,
            policy.seed if seed is None else seed,
            verifier=Verifier(judge),
            budget=budget,
        )
    finally:
        if policy is not given:
            await policy.close()
        if judge is not None:
            await judge.close()


def _continuing_as_before(policy: Policy, store: RolloutStore) -> Policy:
    """With the continuation that `auto` was in an earlier run; tried anew, it might be another."""
    if not policy.base_urls or policy.continuation != "auto":
        return policy
    now = policy.settings_of_served()
    for generator in store.generators():
        before = json.loads(generator.settings)
        if all(before.get(name) == value for name, value in now.items()):
            return replace(policy, continuation=before["continuation"])
    return policy


async def sample_candidates(
    sampler: Sampler,
    questions: Sequence[Question],
    n: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Outcome:
    """See to it that the store has n verified candidates of each question; what is there is free.

    Args:
        progress: called with the number of questions done.

    Returns:
        Which questions were refused, and why it stopped early if it did.

    Example:
        with RolloutStore("rollouts.db") as store:
            sampler = Sampler(Policy("tiny/policy"), store)
            asyncio.run(sample_candidates(sampler, questions, 8))
            candidates = list(stored_candidates(sampler, questions, 8))
    """

    async def do(question: Question) -> None:
        await sampler.rollouts(question, (), n)

    return await work_through(questions, do, sampler.alive, progress)


def stored_candidates(
    sampler: Sampler, questions: Iterable[Question], n: int
) -> Iterator[Trajectory]:
    """The candidates of the questions that have n of them, in order; read one by one."""
    for question in questions:
        try:
            rollouts = sampler.stored_rollouts(question, (), n) or []
        except DataError:  # an image that is gone; sampling has told so
            continue
        for index, rollout in enumerate(rollouts):
            yield to_trajectory(question, rollout, sampler.policy.name, index)


def to_trajectory(
    question: Question, rollout: Rollout, policy: str, sample_index: int
) -> Trajectory:
    """A rollout as a trajectory.

    A response without any step (a bare answer) has its whole text as its only step, so that it can
    still be scored. A step is cut at the limit of a trajectory.
    """
    is_open = rollout.finish_reason == "step"
    steps = split_open(rollout.text) if is_open else split_steps(rollout.text)[0]
    facts: dict[str, JsonValue] = {}
    if rollout.verdict is not None:
        facts["rule"] = rollout.verdict.rule
    if rollout.finish_reason != "stop":
        facts["finish_reason"] = rollout.finish_reason
    if rollout.unread is not None:
        facts["unread"] = rollout.unread
    steps = steps or [rollout.text.strip() or "(no response)"]
    return Trajectory(
        question_id=question.id,
        steps=tuple(step[:LONGEST_STEP] for step in steps),
        answer=rollout.answer,
        outcome=None if rollout.verdict is None else rollout.verdict.correct,
        policy=policy,
        sample_index=sample_index,
        extra=facts,
    )
