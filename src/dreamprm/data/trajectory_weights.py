"""Files of weights: what `dreamprm weigh` and training write and read.

Of domains they are one JSON object, with the weight as a number or, where it was learned, with its
95% interval and what that says; of trajectories JSON lines:

    {"chartqa": {"weight": 1.5, "low": 1.1, "high": 1.7, "verdict": "up"}}
    {"question_id": "q1", "sample_index": 0, "domain": "chartqa", "weight": 1.5}

The domain is there for people and tools; a trajectory is found by its question and sample index.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, FiniteFloat, NonNegativeInt

from dreamprm.data.files import atomic_write, in_row, load_json_object
from dreamprm.data.own import to_line
from dreamprm.data.rows import each_row
from dreamprm.errors import DataError
from dreamprm.records import Question, Record, Trajectory, domain_of


class TrajectoryWeight(Record):
    """One line: the weight of one trajectory; 0 leaves it out."""

    question_id: str
    sample_index: Annotated[int, Field(strict=True)]
    domain: str
    weight: Annotated[float, Field(strict=True, allow_inf_nan=False)]


class DomainWeight(Record):
    """A domain's weight, and its 95% interval where it was learned.

    Attributes:
        verdict: `up`, `down`, or `not told apart` from 1 (the interval holds it).
    """

    weight: FiniteFloat
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    verdict: str | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Low and high, where there are both."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def verdict(low: float, high: float, start: float = 1.0) -> str:
    """What a 95% interval says of a value that began at `start`."""
    return "down" if high < start else "up" if low > start else "not told apart"


class Window(Record):
    """One line of a training history: losses and weights of the domains after a window.

    Attributes:
        intervals: 95%, of the weights.
        meta_part: the part of the meta set that the window read.
        effects: of a larger weight of each domain on the meta set, as far as this window can tell.
    """

    step: NonNegativeInt
    weights: dict[str, FiniteFloat]
    intervals: dict[str, tuple[FiniteFloat, FiniteFloat]] | None = None
    meta_part: NonNegativeInt | None = None
    effects: dict[str, FiniteFloat] | None = None
    lower_loss: float | None = None
    meta_loss: float | None = None
    trajectories: int | None = None


def write_weights(
    path: str | Path, pairs: Sequence[tuple[Question, Trajectory]], weights: Sequence[float]
) -> None:
    """Write one line per trajectory, replacing the file in one step.

    Args:
        path: a .jsonl file.
        pairs: question and trajectory.
        weights: one per trajectory. Learned ones may be negative (DreamPRM-1.5).

    Raises:
        DataError: a weight is not finite.
        DreamPRMError: the file cannot be written.
    """
    path = Path(path)
    with atomic_write(path) as file:
        for row, ((question, t), weight) in enumerate(zip(pairs, weights, strict=True), start=1):
            facts: dict[str, Any] = {"question_id": t.question_id, "sample_index": t.sample_index}
            facts |= {"domain": domain_of(question, t), "weight": float(weight)}
            with in_row(path, row):
                file.write(to_line(TrajectoryWeight.parse(facts), path.parent))


def read_domain_weights(path: str | Path) -> dict[str, DomainWeight]:
    """Weights by domain, with their intervals where the file has them.

    Raises:
        DataError: the file holds no such object, or (named by its domain) a weight is no number.
    """
    weights = load_json_object(path)
    if not weights:
        raise DataError("must be an object {domain: weight}", file=path)
    read = {}
    for domain, weight in weights.items():
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if isinstance(weight, dict):
            with in_row(path, None):
                read[domain] = DomainWeight.parse(weight)
        elif is_number and abs(weight) <= sys.float_info.max:
            read[domain] = DomainWeight(weight=float(weight))
        else:
            raise DataError(f"must be a number, not {weight!r:.40}", file=path, field=domain)
    return read


def read_weights(path: str | Path) -> dict[tuple[str, int], float]:
    """Weights by (question_id, sample_index).

    Raises:
        DataError: naming file, row and field: a line that is no weight, a negative or non-finite
            one, a trajectory that comes twice; or no weight above 0 in the whole file.
    """
    weights: dict[tuple[str, int], float] = {}
    rows: dict[tuple[str, int], int] = {}
    for row, line in each_row(path):
        with in_row(path, row):
            record = TrajectoryWeight.parse(line)
            if record.weight < 0:
                raise DataError(
                    f"is {record.weight}; frozen weights must be 0 or more", field="weight"
                )
            key = (record.question_id, record.sample_index)
            if key in rows:
                message = f"trajectory {key[1]} of question '{key[0]}' has a weight already in row"
                message += f" {rows[key]}; remove one of the two"
                raise DataError(message, field="sample_index")
            rows[key], weights[key] = row, record.weight
    if not any(weight > 0 for weight in weights.values()):
        raise DataError("holds no weight above 0, so nothing would be trained on", file=path)
    return weights
