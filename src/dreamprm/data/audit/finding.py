"""One thing that is wrong or odd in a data file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dreamprm.records import Question, Trajectory

Severity = Literal["error", "warning", "note"]
SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """A defect and where it is.

    Attributes:
        severity: an error makes the data unfit for use, a warning may, a note does not.
        name: of the kind of defect, for programs.
        count: how many rows, records or pairs have it.
        message: what is wrong, and how to mend it.
        where: the first few.
    """

    severity: Severity
    name: str
    count: int
    message: str
    where: tuple[str, ...] = ()


def shown(places: Sequence[str]) -> tuple[str, ...]:
    """The first few of all places."""
    return tuple(places[:SHOWN])


def place(record: Question | Trajectory) -> str:
    """How a record is named in a finding."""
    if isinstance(record, Question):
        return f"question {record.id}"
    return f"question {record.question_id}, candidate {record.sample_index}"


def share(count: int, total: int) -> str:
    """'3 of 4', or 'all 4'."""
    return f"all {total}" if count == total else f"{count} of {total}"
