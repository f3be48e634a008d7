"""Reading a file for its account: on behind every row that cannot be read."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dreamprm.data import known, own
from dreamprm.data.claims import Claim
from dreamprm.data.files import DataWarning
from dreamprm.data.format import Format
from dreamprm.data.row_files import each_row
from dreamprm.errors import DataError
from dreamprm.records import Question, StepScores, Trajectory


@dataclass
class Loaded:
    """What was found in one file, or in our questions and trajectories that belong together.

    Attributes:
        name: of the file or files.
        format: its name.
        rows: how many there are; None where it was not counted.
        bad: what the reader said of rows that it could not read.
        told: what the reader warned of.
        claims: (place, what the row says), where rows say more than records.
        repeated: places of rows that are equal to an earlier one.
        is_whole: are questions and trajectories both there, so that none may be missing?
    """

    name: str
    format: str
    rows: int | None = None
    questions: list[Question] = field(default_factory=list)
    trajectories: list[Trajectory] = field(default_factory=list)
    scores: list[StepScores] = field(default_factory=list)
    bad: list[DataError] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    claims: list[tuple[str, Claim]] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    is_whole: bool = False

    def by_id(self) -> dict[str, Question]:
        """Questions by their ids."""
        return {question.id: question for question in self.questions}


def load(
    path: str | Path, *, format: str | None = None, image_root: str | Path | None = None
) -> Loaded:
    """Read a file of any format.

    Args:
        path: the file.
        format: name of the format; by default told from the first rows.
        image_root: folder that image paths start from; the file's own by default.

    Raises:
        DataError: the file cannot be opened, or its format is not known.
    """
    path = Path(path)
    found = known.choose(path, format)
    loaded = Loaded(str(path), found.name, is_whole=found.holds == "pair")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", DataWarning)
        read = found.read(
            path, image_root=image_root, without_response="drop", bad_row=loaded.bad.append
        )
    loaded.questions, loaded.trajectories, loaded.scores = read
    if found.claim is None:  # else what the reader warns of is looked for in the claims
        loaded.told = [str(w.message) for w in told if issubclass(w.category, DataWarning)]
    if path.suffix.lower() == ".parquet":
        loaded.rows = len(read.questions) + len(read.trajectories) + len(read.scores)
    else:
        _read_rows(loaded, path, found)
    return loaded


def load_ours(
    questions: Sequence[Path],
    trajectories: Sequence[Path],
    *,
    image_root: str | Path | None = None,
) -> Loaded:
    """Read questions and trajectories of ours that belong together."""
    names = " + ".join(map(str, [*questions, *trajectories]))
    loaded = Loaded(names, "questions + trajectories", rows=0)
    loaded.is_whole = bool(questions and trajectories)
    for path in questions:
        part = own.read(path, Question, image_root=image_root, bad_row=loaded.bad.append)
        ids = loaded.by_id()
        for question in part:
            if question.id in ids:
                message = f"question id '{question.id}' is already used in another file"
                loaded.bad.append(DataError(message, file=path, field="id"))
            else:
                loaded.questions.append(question)
    for path in trajectories:
        loaded.trajectories += own.read(path, Trajectory, bad_row=loaded.bad.append)
    for path in [*questions, *trajectories]:
        if path.suffix.lower() != ".parquet":
            _read_rows(loaded, path, None)
    return loaded


def _read_rows(loaded: Loaded, path: Path, found: Format | None) -> None:
    """Count the rows, find equal ones, and note what they claim."""
    first: dict[str, int] = {}
    count = 0
    unread: list[DataError] = []
    for number, row in each_row(path, unread.append):
        count += 1
        written = json.dumps(row, sort_keys=True)
        if first.setdefault(written, number) != number:
            loaded.repeated.append(f"{_place(number, row)} like row {first[written]}")
        if found is not None and found.claim is not None:
            loaded.claims.append((_place(number, row), found.claim(row)))
    loaded.rows = (loaded.rows or 0) + count + len(unread)


def _place(number: int, row: Mapping[str, Any]) -> str:
    identity = row.get("id")
    told = f" (id {identity})" if isinstance(identity, str | int) else ""
    return f"row {number}{told}"
