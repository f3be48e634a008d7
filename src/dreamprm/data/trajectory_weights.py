"""Weights per trajectory as JSON lines: what `dreamprm weigh` and training write and read.

    {"question_id": "q1", "sample_index": 0, "domain": "chartqa", "weight": 1.5}

The domain is there for people and tools; a trajectory is found by its question and sample index.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from dreamprm.data.files import atomic_write
from dreamprm.data.own import iterate_rows, to_line
from dreamprm.errors import DataError
from dreamprm.records import Question, Record, Trajectory, domain_of


class TrajectoryWeight(Record):
    """One line: the weight of one trajectory; 0 leaves it out."""

    question_id: str
    sample_index: Annotated[int, Field(strict=True)]
    domain: str
    weight: Annotated[float, Field(strict=True, allow_inf_nan=False)]


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
            facts = {
                "question_id": t.question_id,
                "sample_index": t.sample_index,
                "domain": domain_of(question, t),
                "weight": float(weight),
            }
            try:
                file.write(to_line(TrajectoryWeight.parse(facts), path.parent))
            except DataError as error:
                raise error.at(file=path, row=row) from error


def read_weights(path: str | Path) -> dict[tuple[str, int], float]:
    """Weights by (question_id, sample_index).

    Raises:
        DataError: naming file, row and field: a line that is no weight, a negative or non-finite
            one, a trajectory that comes twice; or no weight above 0 in the whole file.
    """
    weights: dict[tuple[str, int], float] = {}
    rows: dict[tuple[str, int], int] = {}
    for row, line in iterate_rows(path):
        try:
            found = TrajectoryWeight.parse(line)
        except DataError as error:
            raise error.at(file=path, row=row) from error
        if found.weight < 0:
            raise DataError(
                f"is {found.weight}; frozen weights must be 0 or more",
                file=path,
                row=row,
                field="weight",
            )
        key = (found.question_id, found.sample_index)
        if key in rows:
            raise DataError(
                f"trajectory {key[1]} of question '{key[0]}' has a weight already in row "
                f"{rows[key]}; remove one of the two",
                file=path,
                row=row,
                field="sample_index",
            )
        rows[key], weights[key] = row, found.weight
    if not any(weight > 0 for weight in weights.values()):
        raise DataError("holds no weight above 0, so nothing would be trained on", file=path)
    return weights
