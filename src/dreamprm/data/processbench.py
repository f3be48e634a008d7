"""ProcessBench (arXiv 2412.06559): text solutions with their first wrong step, and back.

It is the plainest of the text-only formats, so what all of them share (Math-Shepherd, PRM800K,
MATH-APS, PRMBench) stands here too: rows, exact texts, questions, hard labels. None of them strips
a text, because a file that is read and written again must come out as it was.
"""

from __future__ import annotations

import re
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
from dreamprm.data.files import (
    BadRow,
    refuse,
    write_json_rows,
)
from dreamprm.data.row_files import read_pairs
from dreamprm.data.rows import (
    own_extra,
    plain_text,
    question_of,
    rest_of,
    steps_with_answer,
    text_question,
)
from dreamprm.errors import DataError
from dreamprm.records import Question, Trajectory

_NAME = "processbench"
_USED = ("generator", "problem", "steps", "final_answer_correct", "label")
_SUBSET = re.compile(r"(?P<subset>[A-Za-z]\w*)-\d+")


def read_processbench(
    path: str | Path,
    *,
    image_root: str | Path | None = None,
    domain: str = _NAME,
    bad_row: BadRow = refuse,
) -> tuple[list[Question], list[Trajectory]]:
    """Read a JSON list or JSONL file of ProcessBench.

    `label` is the 0-based first wrong step, -1 for none. The steps before it are right; nothing is
    known of those after it, so they have no label. Gold answers are not in the file.

    Args:
        path: the file.
        image_root: not used, the format has no images; all readers take it.
        domain: domain of all questions; the subset (`gsm8k` in the id `gsm8k-0`) is the subject.
        bad_row: told each row that cannot be read; by default the first one ends the reading.

    Raises:
        DataError: names the row and field of what is wrong.
    """

    def parse(row: dict[str, Any], number: int) -> list[tuple[Question, Trajectory]]:
        subset = _SUBSET.fullmatch(exact_text(row, "id"))
        question = text_question(
            exact_text(row, "problem"), domain, subject=subset["subset"] if subset else None
        )
        steps = text_list(row, "steps")
        outcome = row.get("final_answer_correct")
        if not isinstance(outcome, bool):
            message = f"must be true or false, not {outcome!r}"
            raise DataError(message, field="final_answer_correct")
        first = row.get("label")
        if not is_whole(first) or not -1 <= first < len(steps):
            message = f"must be the 0-based first wrong step of {len(steps)}, or -1, not {first!r}"
            raise DataError(message, field="label")
        right = len(steps) if first < 0 else first
        labels = [*[RIGHT] * right, WRONG, *[None] * len(steps)][: len(steps)]
        trajectory = {
            "question_id": question.id,
            "steps": steps,
            "answer": extract_answer(steps[-1]),
            "outcome": outcome,
            "labels": labels,
            "policy": exact_text(row, "generator"),
            "extra": rest_of(row, _USED, _NAME),
        }
        return [(question, Trajectory.parse(trajectory))]

    return read_pairs(path, parse, bad_row)


def write_processbench(
    path: str | Path, questions: Iterable[Question], trajectories: Iterable[Trajectory]
) -> None:
    """Write one row per trajectory, as a JSON list. Gold answers are lost.

    Raises:
        DataError: a trajectory has no outcome, a soft label, a step without label before the first
            wrong one or with a label after it; a question has images.
    """
    by_id = {question.id: question for question in questions}
    rows = []
    for trajectory in trajectories:
        question = question_of(trajectory, by_id)
        if trajectory.outcome is None:
            raise cannot_hold(
                trajectory, "has no outcome; verify its final answer first", field="outcome"
            )
        row = {
            "id": f"{question.id}-{trajectory.sample_index}",
            **own_extra(trajectory, _NAME),
            "generator": trajectory.policy,
            "problem": plain_text(question),
            "steps": steps_with_answer(trajectory, _NAME),
            "final_answer_correct": trajectory.outcome,
            "label": _first_wrong(trajectory),
        }
        rows.append(row)
    write_json_rows(path, rows)


def _first_wrong(trajectory: Trajectory) -> int:
    """0-based index of the first wrong step, -1 for none."""
    labels = trajectory.labels or (None,) * len(trajectory.steps)
    for i in range(len(labels)):
        if not is_right(trajectory, i):
            for later, label in enumerate(labels[i + 1 :], start=i + 2):
                if label is not None:
                    message = f"has a label on step {later}, behind the first wrong step {i + 1}"
                    message += "; this format marks only the first, so set later labels to None"
                    raise cannot_hold(trajectory, message)
            return i
    return -1
