"""Responses that state no answer: how many and why, told apart from those that are wrong."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dreamprm.answers import read_answer
from dreamprm.errors import DataWarning
from dreamprm.records import Question, Trajectory

MUCH = 0.1  # share of responses without an answer that is worth a warning
_EXAMPLES = 3
_END = 60  # characters of an example


@dataclass
class Unread:
    """A count of responses, and of those that state no answer.

    Attributes:
        responses: how many there are in all.
        reasons: why one states no answer -> how many: `empty`, `refused`, `cut` (at the token limit
            or within a sentence), `unstated`.
        examples: the first few, with their last words.
    """

    responses: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, name: str, text: str, reason: str | None) -> None:
        """Count a response; `reason` is None where it states an answer."""
        self.responses += 1
        if reason is not None:
            self.reasons[reason] += 1
            if len(self.examples) < _EXAMPLES:
                self.examples.append(f"'{name}' ends with {text.strip()[-_END:]!r}")

    @property
    def is_much(self) -> bool:
        """Are they so many that an accuracy says as much of the form as of the model?"""
        return self.reasons.total() > MUCH * self.responses

    def line(self, what: str = "responses") -> str:
        """For example "12 of 400 responses state no answer: 7 cut, 5 refused"."""
        ordered = sorted(self.reasons.items(), key=lambda of: (-of[1], of[0]))
        counts = ", ".join(f"{count:,} {reason}" for reason, count in ordered)
        total = self.reasons.total()
        return f"{total:,} of {self.responses:,} {what} state no answer: {counts}"

    def warn(self, what: str = "responses") -> None:
        """Warn with examples where they are many."""
        if self.is_much:
            warnings.warn(
                f"{self.line(what)}; they count as wrong; {'; '.join(self.examples)}",
                DataWarning,
                stacklevel=3,
            )


def why_unread(text: str, options: Sequence[str] = ()) -> str | None:
    """Why a response states no answer; None where it states one."""
    reading = read_answer(text, options)
    return reading.rule if reading.answer is None else None


def why_unanswered(trajectory: Trajectory, options: Sequence[str] = ()) -> str | None:
    """Why a trajectory states no answer; None where it states one or was judged right.

    `extra["unread"]` says it where we sampled it; else the steps are all there is of its text.
    """
    if trajectory.answer is not None or trajectory.outcome:
        return None
    if isinstance(told := trajectory.extra.get("unread"), str):
        return told
    if trajectory.extra.get("finish_reason") == "length":
        return "cut"
    return why_unread("\n".join(trajectory.steps), options)


def unanswered(questions: Iterable[Question], trajectories: Sequence[Trajectory]) -> Unread:
    """Count the trajectories that state no answer.

    None are counted where some are right and not one has an answer: such files keep no answers.
    """
    options = {question.id: question.options for question in questions}
    unread = Unread()
    if any(t.outcome for t in trajectories) and all(t.answer is None for t in trajectories):
        return unread
    for t in trajectories:
        why = why_unanswered(t, options.get(t.question_id, ()))
        unread.add(f"{t.question_id}, candidate {t.sample_index}", "\n".join(t.steps), why)
    return unread
