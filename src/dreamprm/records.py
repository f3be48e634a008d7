"""The records that every part of the library exchanges.

The unit is the trajectory, never the prefix row: all steps of a trajectory are scored in one
forward pass. Monte Carlo labels keep their counts, so that a label of 1 of 1 and one of 8 of 8 stay
different things.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    JsonValue,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    model_validator,
)

from dreamprm.errors import DataError

MOST_STEPS = 10_000
LONGEST_STEP = 1_000_000  # characters
"""Limits of a trajectory, a hundred times what real ones have."""

UNKNOWN_ANSWER = "(unknown)"
"""Gold answer of a question whose source has outcomes but no gold answer (DreamPRM's meta set)."""


@dataclass(frozen=True, slots=True)
class Label:
    """Label of a prefix: how likely it leads to the right answer, in [0, 1].

    A Monte Carlo label keeps its counts (`Label.of`); that of a judge, a person or another model is
    a value alone. In files it is `[correct, total]` or a bare number.

    Example:
        >>> Label.of(3, 4).value, Label(0.75) == Label.of(3, 4)
        (0.75, False)
    """

    value: float
    correct: int | None = None
    total: int | None = None

    @classmethod
    def of(cls, correct: int, total: int) -> Self:
        """Of a Monte Carlo estimate: `correct` of `total` completions reached the right answer."""
        return cls(correct / total, correct, total)

    def counts(self) -> tuple[int, int]:
        """`correct` and `total` of a Monte Carlo label; a ValueError for a value alone."""
        if self.correct is None or self.total is None:
            raise ValueError(f"the label {self.value:g} has no counts")
        return self.correct, self.total

    def to_json(self) -> float | list[int]:
        """As it stands in files; `parse` is the way back."""
        return self.value if self.total is None else list(self.counts())

    @classmethod
    def parse(cls, written: Any) -> Self:
        """A label from a number, from `[correct, total]`, or from an object with these fields.

        Raises:
            ValueError: it is none of these, or outside 0-1.
        """
        if isinstance(written, Mapping):
            counts = [written.get("correct"), written.get("total")]
            written = written.get("value") if counts == [None, None] else counts
        if isinstance(written, list | tuple) and len(written) == 2:
            correct, total = written
            if not (_is_whole(correct) and _is_whole(total)):
                raise ValueError(f"is {correct!r} of {total!r}; both must be whole numbers")
            if total < 1 or not 0 <= correct <= total:
                raise ValueError(
                    f"is {correct} of {total}, outside 0-1; need 0 <= correct <= total and "
                    "total >= 1"
                )
            return cls.of(int(correct), int(total))
        if isinstance(written, bool) or not isinstance(written, int | float):
            raise ValueError(
                f"is {written!r:.40}; give a number from 0 to 1, [correct, total] or null"
            )
        if not 0 <= written <= 1:
            raise ValueError(f"is {written}, outside 0-1; correct it")
        return cls(float(written))


def _is_whole(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1


def _parse_labels(written: Any) -> tuple[Label | None, ...] | None:
    if written is None:
        return None
    if not isinstance(written, list | tuple):
        raise ValueError("must be a list with one label per step")
    labels: list[Label | None] = []
    for i, one in enumerate(written, start=1):
        if one is None or type(one) is Label:
            labels.append(one)
            continue
        try:
            labels.append(Label.parse(one))
        except ValueError as error:
            raise ValueError(f"label of step {i} {error}") from None
    return tuple(labels)


def _labels_to_json(labels: tuple[Label | None, ...] | None) -> list[Any] | None:
    return None if labels is None else [label and label.to_json() for label in labels]


Labels = Annotated[
    tuple[Label | None, ...] | None,
    PlainValidator(_parse_labels),
    PlainSerializer(_labels_to_json),
]


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
            raise first_error(error) from error


def first_error(error: ValidationError) -> DataError:
    """What pydantic finds wrong first, with the field's name."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or None
    return DataError(first["msg"].removeprefix("Value error, "), field=field)


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
        check_json("extra", self.extra)
        return self


class Trajectory(Record):
    """One full reasoning about a question. Candidates of one question differ in `sample_index`.

    Attributes:
        steps: text of each step, in order, without the final-answer line.
        answer: the final answer as extracted from the text; None when there is none.
        outcome: is the final answer right; None when it was not verified.
        labels: per step a label or None (not labelled); None when no step is labelled.
        domain: where its labels come from, where that is not its question's domain; see
            `domain_of`.
        policy: name of the model that wrote it.
        extra: what the source tells besides, by name, so that a converted file loses nothing.
    """

    question_id: str
    steps: tuple[str, ...]
    answer: str | None = None
    outcome: bool | None = None
    labels: Labels = None
    domain: str | None = None
    policy: str = "unknown"
    sample_index: int = 0
    extra: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.steps:
            raise ValueError("steps: a trajectory without steps cannot be scored; remove the row")
        if len(self.steps) > MOST_STEPS:
            message = f"steps: {len(self.steps):,} steps, and {MOST_STEPS:,} are the limit; remove"
            raise ValueError(f"{message} the row")
        for i, step in enumerate(self.steps, start=1):
            if not step.strip():
                raise ValueError(f"steps: step {i} is empty; remove it, and its label")
            if len(step) > LONGEST_STEP:
                message = f"steps: step {i} has {len(step):,} characters, and {LONGEST_STEP:,} are"
                raise ValueError(f"{message} the limit; split it, or remove the row")
        if self.domain is not None and not self.domain.strip():
            raise ValueError("domain is empty; give it a value or leave it out")
        check_json("extra", self.extra)
        if self.labels is not None and len(self.labels) != len(self.steps):
            raise ValueError(
                f"labels: {len(self.labels)} labels for {len(self.steps)} steps; give one per step "
                "(null where a step is not labelled)"
            )
        return self


def domain_of(question: Question, trajectory: Trajectory) -> str:
    """The domain whose weight a trajectory has: its own, or else its question's."""
    return trajectory.domain or question.domain


def check_json(field: str, content: dict[str, JsonValue]) -> None:
    """NaN and infinity pass for numbers in Python, and in no other reader of JSON.

    Raises:
        ValueError: naming the field.
    """
    if content:
        try:
            json.dumps(content, allow_nan=False)
        except ValueError as error:
            raise ValueError(f"{field}: {error}; leave the value out") from None


class StepScores(Record):
    """A PRM's raw output for one trajectory: one logit per step (sigmoid gives the step score).

    Scores of other programs may be given as `step_scores` in 0-1, in place of `logits`.

    Attributes:
        cut: steps at the end that lie beyond the backbone's context and have no logit.
        steps_digest: `digest_of` the steps that were judged; None in older files.
    """

    question_id: str
    sample_index: int
    logits: tuple[FiniteFloat, ...]
    cut: int = 0
    steps_digest: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_step_scores(cls, row: Any) -> Any:
        if not isinstance(row, Mapping) or "step_scores" not in row:
            return row
        if "logits" in row:
            raise ValueError("logits and step_scores are both given; leave one out")
        rest = {name: value for name, value in row.items() if name != "step_scores"}
        try:
            return rest | {"logits": logits_of(row["step_scores"])}
        except TypeError:
            raise ValueError("step_scores must be a list of numbers") from None

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
        return self.steps_digest is None or self.steps_digest == digest_of(trajectory.steps)


def logits_of(step_scores: Sequence[float]) -> tuple[float, ...]:
    """Step scores in [0, 1] -> logits.

    Exact 0 and 1 get logits beyond those of all other doubles (-744.4 and 744.4): the order of any
    two scores is kept, ties stay ties, and a step scored 1 leaves a product as it is.

    Raises:
        ValueError: a value outside [0, 1] or not a number.
    """
    if not all(0 <= p <= 1 for p in step_scores):  # also catches nan
        raise ValueError("a step score lies outside 0-1; are these logits?")
    largest = -math.log(math.ulp(0.0))
    return tuple(
        largest if p == 1 else math.log(p) - math.log1p(-p) if p > 0 else -largest
        for p in step_scores
    )


def digest_of(steps: Sequence[str]) -> str:
    """12 hexadecimal digits that tell one text of steps from another."""
    text = json.dumps(list(steps)).encode()
    return hashlib.sha256(text).hexdigest()[:12]
