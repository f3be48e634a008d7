"""PRMBench (arXiv 2501.03124): solutions with planted errors beside their originals, and back.

A row holds a right solution, `original_process`, and what a model made of it, `modified_process`,
with its wrong steps in `error_steps`: 1-based, unlike ProcessBench, and all of them, not only the
first. In the classes `redundency` (so spelled) and `circular` a wrong step may be true but idle.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dreamprm.answers import extract_answer
from dreamprm.data.fields import (
    RIGHT,
    WRONG,
    cannot_hold,
    exact_text,
    is_right,
    is_whole,
    text_list,
)
from dreamprm.data.files import BadRow, refuse
from dreamprm.data.row_files import read_pairs, rows_of
from dreamprm.data.row_files import write_jsonl_rows as write_rows
from dreamprm.data.rows import own_extra, plain_text, question_of, rest_of, text_question
from dreamprm.errors import DataError
from dreamprm.records import Question, Trajectory

_NAME = "prmbench"
_SIDES = ("modified", "original")
_USED = (*(f"{side}_{part}" for side in _SIDES for part in ("question", "process")), "error_steps")


def read_prmbench(
    path: str | Path,
    *,
    image_root: str | Path | None = None,
    domain: str = _NAME,
    bad_row: BadRow = refuse,
) -> tuple[list[Question], list[Trajectory]]:
    """Read a JSONL file or JSON list of PRMBench.

    A row gives two trajectories: the modified process, which the benchmark scores, and the original
    one, all right. Their questions are one record where the texts are equal. Rows of other error
    classes repeat an original; those trajectories are equal but for `sample_index`. `extra` tells
    the two apart (`process`) and keeps class, reason and `idx` (unique within a class only).

    Args:
        path: the file.
        image_root: not used, the format has no images; all readers take it.
        domain: domain of all questions.
        bad_row: told each row that cannot be read; by default the first one ends the reading.

    Raises:
        DataError: names the row and field of what is wrong.
    """

    def parse(row: dict[str, Any], number: int) -> list[tuple[Question, Trajectory]]:
        wrong = row.get("error_steps")
        count = len(text_list(row, "modified_process"))
        if not isinstance(wrong, list) or not all(is_whole(i) and 1 <= i <= count for i in wrong):
            message = (
                f"must list 1-based steps of the {count} in 'modified_process', not {wrong!r:.60}"
            )
            raise DataError(message, field="error_steps")
        pairs = []
        for side in _SIDES:
            question = text_question(exact_text(row, f"{side}_question"), domain)
            steps = text_list(row, f"{side}_process")
            errors = wrong if side == "modified" else []
            extra: dict[str, Any] = {"row": number, "process": side}
            if side == "modified":
                extra |= rest_of(row, _USED, "of_row")
                if wrong != sorted(set(wrong)):
                    extra["error_steps"] = wrong
            trajectory = {
                "question_id": question.id,
                "steps": steps,
                "answer": extract_answer(steps[-1]),
                "labels": [WRONG if i in errors else RIGHT for i in range(1, len(steps) + 1)],
                "extra": {_NAME: extra},
            }
            pairs.append((question, Trajectory.parse(trajectory)))
        return pairs

    return read_pairs(path, parse, bad_row)


def write_prmbench(
    path: str | Path, questions: Iterable[Question], trajectories: Iterable[Trajectory]
) -> None:
    """Write one JSON line per pair of trajectories. Gold answers, outcomes and policies are lost.

    A pair is two trajectories whose `extra["prmbench"]` has the same `row`, and "modified" or
    "original" as `process`.

    Raises:
        DataError: one of a pair is missing; a step has no label or a soft one, or is wrong in an
            original; a question has images.
    """
    by_id = {question.id: question for question in questions}
    rows = []
    for group in rows_of(trajectories, _place):
        if len(group) < len(_SIDES):
            raise cannot_hold(
                group[0],
                "has no partner, and this format holds a modified and an original solution in one "
                "row; name both in extra['prmbench'] by 'row' and 'process', or leave it out",
                field="extra",
            )
        row: dict[str, Any] = {}
        for trajectory in group:
            own = own_extra(trajectory, _NAME)
            side = own["process"]
            row[f"{side}_question"] = plain_text(question_of(trajectory, by_id))
            row[f"{side}_process"] = list(trajectory.steps)
            wrong = [i + 1 for i in range(len(trajectory.steps)) if not is_right(trajectory, i)]
            if side == "modified":
                as_read = own.get("error_steps", wrong)
                row["error_steps"] = as_read if sorted(set(as_read)) == wrong else wrong
                row |= own.get("of_row", {})
            elif wrong:
                message = f"is an original process with a wrong step {wrong[0]}, and this format"
                raise cannot_hold(trajectory, f"{message} calls all of them right; correct labels")
        rows.append(row)
    write_rows(path, rows)


def _place(trajectory: Trajectory) -> tuple[Any, str] | None:
    own = own_extra(trajectory, _NAME)
    if own.get("process") not in _SIDES:
        return None
    return str(own.get("row")), own["process"]
