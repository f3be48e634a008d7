"""All data formats by name: one table for reading, writing, converting and validating.

A format is told from the first rows of a file (`detect`), or named by the user (`find`).
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from dreamprm.data import (
    dreamprm_meta,
    dreamprm_train,
    first_error,
    math_aps,
    math_shepherd,
    mathvision,
    mmmu_pro,
    own,
    prm800k,
    prmbench,
    trl_stepwise,
    visualprm,
    visualprocessbench,
)
from dreamprm.data.format import Format, has
from dreamprm.data.rows import Row, each_row
from dreamprm.errors import DataError, offer
from dreamprm.records import Question, StepScores, Trajectory

_OURS = (*own.LINES, ".parquet")


def _holds_scores(row: Row, suffix: str) -> bool:
    scored = "logits" in row or ("step_scores" in row and "steps" not in row)
    return suffix in _OURS and "question_id" in row and scored


_FORMATS = (
    Format(
        name="questions",
        about="our questions, .jsonl or .parquet",
        holds="questions",
        fits=has("id", "domain", "text", suffixes=_OURS),
        own=Question,
        loses="trajectories",
    ),
    Format(
        name="trajectories",
        about="our trajectories, .jsonl or .parquet",
        holds="trajectories",
        fits=has("question_id", "steps", suffixes=_OURS),
        own=Trajectory,
        loses="questions",
    ),
    Format(
        name="scores",
        about="our step scores, .jsonl or .parquet",
        holds="scores",
        fits=_holds_scores,
        own=StepScores,
    ),
    dreamprm_train.FORMAT,
    dreamprm_meta.FORMAT,
    visualprm.CONVERSATIONS,
    visualprm.RAW,
    visualprocessbench.FORMAT,
    trl_stepwise.FORMAT,
    math_shepherd.FORMAT,
    prm800k.FORMAT,
    math_aps.LIST,
    math_aps.TREE,
    *first_error.FORMATS,
    prmbench.FORMAT,
    mathvision.FORMAT,
    mmmu_pro.FORMAT,
)
FORMATS = {known.name: known for known in _FORMATS}
"""Name -> format. At most one of them fits a row."""

WRITTEN = tuple(known.name for known in _FORMATS if known.is_written)
"""Names of the formats that are written."""


def find(name: str) -> Format:
    """The format of a name; where there is none, a DataError names the nearest."""
    if name in FORMATS:
        return FORMATS[name]
    raise DataError(f"unknown format '{name}'; {offer(name, FORMATS)}")


def detect(path: str | Path) -> Format | None:
    """The format of a file, told from its first rows; None where they fit none.

    Raises:
        DataError: the file cannot be opened, or none of its rows can be read.
    """
    suffix = Path(path).suffix.lower()
    rows: list[Row] = []
    if suffix == ".parquet":
        from dreamprm.data.arrow import parquet_columns

        rows = [dict.fromkeys(parquet_columns(Path(path)))]
    elif suffix in (".json", *own.LINES):
        unread: list[DataError] = []  # the very first row may be the bad one
        rows = [row for _, row in islice(each_row(path, unread.append), 20)]
        if unread and not rows:
            raise unread[0]
    return next((known for row in rows for known in _FORMATS if known.fits(row, suffix)), None)


def choose(path: str | Path, name: str | None) -> Format:
    """The format of a name; without one, that which the first rows of a file show.

    Raises:
        DataError: there is no such name, or the rows fit no format or cannot be read.
    """
    format = detect(path) if name is None else find(name)
    if format is None:
        message = f"the first rows fit no format; name it, known are {', '.join(FORMATS)}"
        raise DataError(message, file=path)
    return format
