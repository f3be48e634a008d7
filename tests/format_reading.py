"""Reading and writing of a format by its name, for the tests of the formats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dreamprm.data import known
from dreamprm.records import Question, Trajectory

Pair = tuple[list[Question], list[Trajectory]]


def reader(name: str) -> Callable[..., Pair]:
    """Path and options of `Format.read` -> questions and trajectories."""

    def read(path: str | Path, **options: Any) -> Pair:
        records = known.FORMATS[name].read(path, **options)
        return records.questions, records.trajectories

    return read


def writer(name: str) -> Callable[[str | Path, Sequence[Question], Sequence[Trajectory]], None]:
    """The writer of a format that is written."""
    write = known.FORMATS[name].write
    assert write is not None
    return write
