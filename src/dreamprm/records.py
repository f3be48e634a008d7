"""The records that every part of the library exchanges.

The unit is the trajectory, never the prefix row: all steps of a trajectory are scored in one
forward pass. Monte Carlo labels keep their counts, so that a label of 1 of 1 and one of 8 of 8 stay
different things.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    JsonValue,
    ValidationError,
    model_validator,
)

from dreamprm.errors import DataError

UNKNOWN_ANSWER = "(unknown)"
"""Gold answer of a question whose source has outcomes but no gold answer (DreamPRM's meta set)."""


class StepLabel(NamedTuple):
    """Monte Carlo label of a prefix: `correct` of `total` completions reached the right answer."""

    correct: int
    total: int

    @property
    def value(self) -> float:
        """Estimated probability, in [0, 1], that the prefix leads to the right answer."""
        return self.correct / self.total


class Record(BaseModel):
    """Base of all records: immutable, no unknown fields, errors name the field."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def parse(cls, row: Any) -> Self:
        """Validate an outside row.

        Raises:
            DataError: naming the first bad field; the reader adds file and row.
        """
        try:
            return cls.model_validate(row)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or None
            message = first["msg"].removeprefix("Value error, ")
            raise DataError(message, field=field) from error


class Question(Record):
    """A question about zero or more images.

    Attributes:
        id: unique within a file set.
        domain: the data set it comes from; carries one weight.
        text: the question, without options.
        images: paths (relative to the file that holds the record), or encoded bytes.
        options: texts of the options, without letters; empty for an open question.
        answer: gold answer: a letter where there are options, else text or a number.
        subject: finer grouping within a domain (MMMU has 30).
        extra: what the source tells besides, by name; `unit` and `precision` (decimals) of a number
            and further accepted `answers` are heeded when an answer is verified.
    """

    id: str
    domain: str
    text: str
    images: tuple[str | bytes, ...] = ()
    options: tuple[str, ...] = ()
    answer: str
    subject: str | None = None
    extra: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for field in ("id", "domain", "text", "answer"):
            if not getattr(self, field).strip():
                raise ValueError(f"{field} is empty; give it a value or remove the row")
        _check_extra(self.extra)
        return self


class Trajectory(Record):
    """One full reasoning about a question. Candidates of one question differ in `sample_index`.

    Attributes:
        steps: text of each step, in order, without the final-answer line.
        answer: the final answer as extracted from the text; None when there is none.
        outcome: is the final answer right; None when it was not verified.
        labels: per step a Monte Carlo label or None (not labelled); None when no step is labelled.
        policy: name of the model that wrote it.
        extra: what the source tells besides, by name, so that a converted file loses nothing.
    """

    question_id: str
    steps: tuple[str, ...]
    answer: str | None = None
    outcome: bool | None = None
    labels: tuple[StepLabel | None, ...] | None = None
    policy: str = "unknown"
    sample_index: int = 0
    extra: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.steps:
            raise ValueError("steps: a trajectory without steps cannot be scored; remove the row")
        for i, step in enumerate(self.steps, start=1):
            if not step.strip():
                raise ValueError(f"steps: step {i} is empty; remove it, and its label")
        _check_extra(self.extra)
        if self.labels is None:
            return self
        if len(self.labels) != len(self.steps):
            raise ValueError(
                f"labels: {len(self.labels)} labels for {len(self.steps)} steps; give one per step "
                "(null where a step is not labelled)"
            )
        for i, label in enumerate(self.labels, start=1):
            if label is None:
                continue
            if label.total < 1 or not 0 <= label.correct <= label.total:
                raise ValueError(
                    f"labels: label of step {i} is {label.correct} of {label.total}, outside 0-1; "
                    "need 0 <= correct <= total and total >= 1"
                )
        return self


def _check_extra(extra: dict[str, JsonValue]) -> None:
    """NaN and infinity pass for numbers in Python, and in no other reader of JSON."""
    if extra:
        try:
            json.dumps(extra, allow_nan=False)
        except ValueError as error:
            raise ValueError(f"extra: {error}; leave the value out") from None


class StepScores(Record):
    """A PRM's raw output for one trajectory: one logit per step (sigmoid gives the step score).

    Attributes:
        cut: steps at the end that lie beyond the backbone's context and have no logit.
        steps_digest: `digest_of` the steps that were judged; None in files of before it was noted.
    """

    question_id: str
    sample_index: int
    logits: tuple[FiniteFloat, ...]
    cut: int = 0
    steps_digest: str | None = None

    @classmethod
    def of(cls, trajectory: Trajectory, logits: tuple[float, ...]) -> Self:
        """The scores of a trajectory, with fewer logits than steps where some were cut."""
        return cls(
            question_id=trajectory.question_id,
            sample_index=trajectory.sample_index,
            logits=logits,
            cut=len(trajectory.steps) - len(logits),
            steps_digest=digest_of(trajectory.steps),
        )

    def are_of(self, trajectory: Trajectory) -> bool:
        """Were these very steps judged? True where the file does not tell."""
        return self.steps_digest in (None, digest_of(trajectory.steps))


def digest_of(steps: Sequence[str]) -> str:
    """12 hexadecimal digits that tell one text of steps from another."""
    text = json.dumps(list(steps)).encode()
    return hashlib.sha256(text).hexdigest()[:12]
