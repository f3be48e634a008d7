"""What a format can have no place for, and how much of it some records hold.

The table of formats names these by key; `dreamprm convert` tells those that apply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import gcd

from dreamprm.records import UNKNOWN_ANSWER, Question, Trajectory

Count = Callable[[Sequence[Question], Sequence[Trajectory]], int]


@dataclass(frozen=True)
class Loss:
    """Something that is left out.

    Attributes:
        what: in words, behind a number.
        count: how much of it some records hold.
    """

    what: str
    count: Count


def _of_questions(test: Callable[[Question], object]) -> Count:
    return lambda questions, trajectories: sum(bool(test(q)) for q in questions)


def _of_trajectories(test: Callable[[Trajectory], object]) -> Count:
    return lambda questions, trajectories: sum(bool(test(t)) for t in trajectories)


def _unanswered(questions: Sequence[Question], trajectories: Sequence[Trajectory]) -> int:
    answered = {trajectory.question_id for trajectory in trajectories}
    return sum(question.id not in answered for question in questions)


def _repeats(questions: Sequence[Question], trajectories: Sequence[Trajectory]) -> int:
    return len(trajectories) - len({(t.question_id, t.steps) for t in trajectories})


def _with_extra(questions: Sequence[Question], trajectories: Sequence[Trajectory]) -> int:
    records: list[Question | Trajectory] = [*questions, *trajectories]
    return sum(bool(record.extra) for record in records)


def _counts(trajectory: Trajectory) -> bool:
    """Is there a label whose value alone does not give its counts back?"""
    return any(
        label and label.total and gcd(*label.counts()) > 1 for label in trajectory.labels or ()
    )


LOSSES = {
    "questions": Loss("questions", lambda questions, trajectories: len(questions)),
    "trajectories": Loss("trajectories", lambda questions, trajectories: len(trajectories)),
    "unanswered": Loss("questions without a trajectory", _unanswered),
    "repeats": Loss("trajectories with the steps of another one", _repeats),
    "ids": Loss("question ids", _of_questions(lambda q: q.id)),
    "domains": Loss("domains of questions", _of_questions(lambda q: q.domain)),
    "subjects": Loss("subjects of questions", _of_questions(lambda q: q.subject)),
    "options": Loss(
        "lists of options (they become part of the text)", _of_questions(lambda q: q.options)
    ),
    "gold": Loss("gold answers", _of_questions(lambda q: q.answer != UNKNOWN_ANSWER)),
    "answers": Loss(
        "final answers, unless the steps state them", _of_trajectories(lambda t: t.answer)
    ),
    "outcomes": Loss("outcomes", _of_trajectories(lambda t: t.outcome is not None)),
    "wrong_outcomes": Loss(
        "outcomes of wrong answers", _of_trajectories(lambda t: t.outcome is False)
    ),
    "labels": Loss("trajectories' labels", _of_trajectories(lambda t: any(t.labels or ()))),
    "counts": Loss(
        "trajectories' label counts (only their ratio stays)", _of_trajectories(_counts)
    ),
    "policies": Loss("policies", _of_trajectories(lambda t: t.policy != "unknown")),
    "extra": Loss("records' extra facts", _with_extra),
}
"""Key -> what it is."""


def lost(
    loses: Iterable[str], questions: Sequence[Question], trajectories: Sequence[Trajectory]
) -> str:
    """What of some records is left out by a format that loses these, in words; "" for nothing."""
    told = [
        f"{count} {LOSSES[key].what}"
        for key in loses
        if (count := LOSSES[key].count(questions, trajectories))
    ]
    return ", ".join(told)
