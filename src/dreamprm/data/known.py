"""All data formats by name: one table for reading, writing, converting and validating.

A format is told from the first rows of a file (`detect`), or named by the user (`find`).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

from dreamprm.data import (
    dreamprm_meta,
    dreamprm_train,
    math_aps,
    math_shepherd,
    mathvision,
    mmmu_pro,
    own,
    prm800k,
    prmbench,
    processbench,
    trl_stepwise,
    visualprm,
    visualprocessbench,
)
from dreamprm.data.format import Format
from dreamprm.data.rows import Row, each_row, first_rows
from dreamprm.errors import DataError, offer
from dreamprm.records import Question, StepScores, Trajectory


def _ours(*fields: str) -> Callable[[Row, str], bool]:
    return lambda row, suffix: suffix != ".json" and set(fields) <= set(row)


_FORMATS = (
    Format(
        name="questions",
        about="our questions, .jsonl or .parquet",
        holds="questions",
        fits=_ours("id", "domain", "text"),
        own=Question,
        write=lambda path, questions, trajectories: own.write(path, questions, Question),
        loses="trajectories",
    ),
    Format(
        name="trajectories",
        about="our trajectories, .jsonl or .parquet",
        holds="trajectories",
        fits=_ours("question_id", "steps"),
        own=Trajectory,
        write=lambda path, questions, trajectories: own.write(path, trajectories, Trajectory),
        loses="questions",
    ),
    Format(
        name="scores",
        about="our step scores, .jsonl or .parquet",
        holds="scores",
        fits=lambda row, suffix: (
            _ours("question_id", "logits")(row, suffix)
            or (_ours("question_id", "step_scores")(row, suffix) and "steps" not in row)
        ),
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
    processbench.FORMAT,
    prmbench.FORMAT,
    mathvision.FORMAT,
    mmmu_pro.FORMAT,
)
FORMATS = {known.name: known for known in _FORMATS}
"""Name -> format. At most one of them fits a row."""

WRITTEN = tuple(known.name for known in _FORMATS if known.write)
"""Names of the formats that are written."""


def find(name: str) -> Format:
    """The format of a name.

    Raises:
        DataError: there is none; names the nearest.
    """
    if name in FORMATS:
        return FORMATS[name]
    raise DataError(f"unknown format '{name}'; {offer(name, FORMATS)}")


def detect(path: str | Path) -> Format | None:
    """The format of a file, told from its first rows; None where they fit none.

    Raises:
        DataError: the file cannot be opened.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".json", ".jsonl", ".ndjson", ".parquet"):
        return None
    for row in islice(first_rows(path), 20):  # the very first one may be the bad one
        for known in _FORMATS:
            if known.fits(row, suffix):
                return known
    return None


def choose(path: str | Path, name: str | None) -> Format:
    """The format of a name; without one, that which the first rows of a file show.

    Raises:
        DataError: there is no such name, or the rows fit no format; tells the first bad row.
    """
    known = detect(path) if name is None else find(name)
    if known is not None:
        return known
    unread: list[DataError] = []
    if Path(path).suffix.lower() in (".json", *own.LINES):
        for _ in each_row(path, unread.append):
            pass
    hint = f"; the first bad row: {unread[0]}" if unread else ""
    message = f"the first rows fit no format; name it, known are {', '.join(FORMATS)}{hint}"
    raise DataError(message, file=path)
