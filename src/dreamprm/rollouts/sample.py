"""Candidates: N full reasonings per question, verified against the gold answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import JsonValue

from dreamprm.prompts import split_steps
from dreamprm.records import Question, Trajectory
from dreamprm.rollouts.sampler import Rollout, Sampler
from dreamprm.rollouts.work import Outcome, work_through


async def sample_candidates(
    sampler: Sampler,
    questions: Sequence[Question],
    n: int,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[Outcome, list[Trajectory]]:
    """See to it that the store has n candidates of each question; what is there costs nothing.

    Args:
        progress: called with the number of questions done.

    Returns:
        How it ended, and the candidates of all questions that have n of them, in order.

    Example:
        with RolloutStore("rollouts.db") as store:
            sampler = Sampler(LocalPolicy("tiny/policy", prompt="bare"), store)
            outcome, candidates = asyncio.run(sample_candidates(sampler, questions, 8))
    """

    async def do(question: Question) -> None:
        await sampler.rollouts(question, (), n)

    outcome = await work_through(questions, do, sampler.alive, progress)
    refused = {unit.id for unit, _ in outcome.refused if isinstance(unit, Question)}
    found: list[Trajectory] = []
    for question in questions:
        if question.id not in refused:
            rollouts = await sampler.stored_rollouts(question, (), n) or []
            name = sampler.policy.name
            found += (to_trajectory(question, r, name, i) for i, r in enumerate(rollouts))
    return outcome, found


def to_trajectory(
    question: Question, rollout: Rollout, policy: str, sample_index: int
) -> Trajectory:
    """A rollout as a trajectory.

    A response without any step (a bare answer) has its whole text as its only step, so that it can
    still be scored.
    """
    steps, _ = split_steps(rollout.text)
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
