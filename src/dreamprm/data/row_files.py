"""Files of other people's rows, read one row at a time, so that a bad row can be left out."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dreamprm.data.files import (
    BadRow,
    atomic_write,
    open_for_reading,
)
from dreamprm.errors import DataError
from dreamprm.records import Question, Trajectory


def each_row(path: str | Path, bad_row: BadRow) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (1-based row, object) of a JSON list or of a JSONL file, which is read line by line."""
    with open_for_reading(path) as file:
        start = file.read(64)
        begin = len(_BOM) if start.startswith(_BOM) else 0
        is_list = start[begin:].lstrip().startswith(b"[")
        whole = is_list or start[begin:].split(b"\n")[0].strip() == b"{"  # written over many lines
        file.seek(begin)
        for number, part in enumerate([file.read()] if whole else file, start=1):
            if not part.strip():
                continue
            try:
                found = json.loads(part)
            except (ValueError, RecursionError) as error:
                row = None if whole else number
                message = f"not JSON ({error}); correct it, or make the file again if it is cut off"
                bad_row(DataError(message, file=path, row=row))
                continue
            halves = b"\\ud" in part.lower()  # of a surrogate pair; alone it is no character
            for place, row in enumerate(found if is_list else [found], start=number):
                if not isinstance(row, dict):
                    message = "is no object; correct or remove it"
                    bad_row(DataError(message, file=path, row=place))
                elif halves and _HALF.search(json.dumps(row, ensure_ascii=False)):
                    message = "holds half a character (\\ud800 to \\udfff); correct its text"
                    bad_row(DataError(message, file=path, row=place))
                else:
                    yield place, row


def read_pairs(
    path: str | Path,
    parse: Callable[[dict[str, Any], int], list[tuple[Question, Trajectory]]],
    bad_row: BadRow,
) -> tuple[list[Question], list[Trajectory]]:
    """Records of all rows; trajectories of one question get consecutive sample indices.

    Args:
        path: the file.
        parse: from a row and its number to the trajectories in it, each with its question.
        bad_row: told each row on which `parse` raises a DataError.
    """
    questions: dict[str, Question] = {}
    trajectories: list[Trajectory] = []
    samples: dict[str, int] = defaultdict(int)
    for number, row in each_row(path, bad_row):
        try:
            found = parse(row, number)
        except DataError as error:
            bad_row(error.at(file=path, row=number))
            continue
        for question, trajectory in found:
            questions.setdefault(question.id, question)
            index = {"sample_index": samples[question.id]}
            trajectories.append(trajectory.model_copy(update=index))
            samples[question.id] += 1
    return list(questions.values()), trajectories


def write_jsonl_rows(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSONL file, replacing it in one step."""
    with atomic_write(path) as file:
        for number, row in enumerate(rows, start=1):
            try:
                file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            except RecursionError as error:
                message = "is nested too deeply for JSON; write fewer steps"
                raise DataError(message, file=path, row=number) from error


_BOM = b"\xef\xbb\xbf"
_HALF = re.compile(r"[\ud800-\udfff]")


def rows_of(
    trajectories: Iterable[Trajectory],
    place: Callable[[Trajectory], tuple[Hashable, Hashable] | None],
) -> list[list[Trajectory]]:
    """Trajectories that are to be written as one row, in the order of their first ones.

    Args:
        trajectories: all trajectories.
        place: the row that one comes from and its place in it; None for a row of its own. A place
            that is taken opens a new row, so that joined files do not run into one another.
    """
    groups: list[dict[Hashable, Trajectory]] = []
    latest: dict[Hashable, dict[Hashable, Trajectory]] = {}
    for trajectory in trajectories:
        found = place(trajectory)
        row, slot = found or (None, None)
        if found is None or row not in latest or slot in latest[row]:
            latest[row] = {}
            groups.append(latest[row])
        latest[row][slot] = trajectory
    return [list(group.values()) for group in groups]
