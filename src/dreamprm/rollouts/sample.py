"""Candidates: N full reasonings per question, verified against the gold answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from pydantic import JsonValue

from dreamprm.errors import DataError
from dreamprm.prompts import split_open, split_steps
from dreamprm.records import Question, Trajectory
from dreamprm.rollouts.sampler import Rollout, Sampler
from dreamprm.rollouts.work import Outcome, work_through


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
            sampler = Sampler(LocalPolicy("tiny/policy", prompt="bare"), store)
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
    still be scored.
    """
    is_open = rollout.finish_reason == "step"
    steps = split_open(rollout.text) if is_open else split_steps(rollout.text)[0]
    facts: dict[str, JsonValue] = {}
    if rollout.verdict is not None:
        facts["rule"] = rollout.verdict.rule
    if rollout.finish_reason != "stop":
        facts["finish_reason"] = rollout.finish_reason
    return Trajectory(
        question_id=question.id,
        steps=tuple(steps) or (rollout.text.strip() or "(no response)",),
        answer=rollout.answer,
        outcome=None if rollout.verdict is None else rollout.verdict.correct,
        policy=policy,
        sample_index=sample_index,
        extra=facts,
    )
