"""VisualProcessBench (arXiv 2503.10291): responses of known models, each step judged by people.

A step is right (1), wrong (-1) or neutral (0). What is neutral says nothing about the step, so it
becomes "not labelled". The step that states the answer is judged like the others, so it stays one.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dreamprm.answers import extract_answer
from dreamprm.data.as_read import fill, gaps_unless, layout_of, pieces_of, read_rows, write_rows
from dreamprm.data.fields import Row, cannot_hold, exact_text, step_texts
from dreamprm.data.files import BadRow, refuse
from dreamprm.data.row_images import image_references, images_of, kept_images
from dreamprm.data.rows import question_of_row, row_text
from dreamprm.errors import DataError
from dreamprm.prompts import question_text
from dreamprm.records import UNKNOWN_ANSWER, Label, Question, Trajectory

_NAME = "visualprocessbench"
_RESPONSE = ("steps", "process_correctness")
_UNKNOWN_POLICY = "unknown"  # the record's default
_JUDGED: dict[int, Label | None] = {1: Label(1.0), -1: Label(0.0), 0: None}


def read_visualprocessbench(
    path: str | Path,
    *,
    image_root: str | Path | None = None,
    domain: str = _NAME,
    bad_row: BadRow = refuse,
) -> tuple[list[Question], list[Trajectory]]:
    """Read a JSON list or JSONL file of VisualProcessBench.

    Args:
        path: the file.
        image_root: folder that image paths start from; the file's own by default.
        domain: domain of rows that have no `data_source`.
        bad_row: told of each row that cannot be read; when it returns, the row is left out.

    Raises:
        DataError: names the row and field of what is wrong.
    """
    return read_rows(path, image_root, domain, bad_row, _NAME, _parse, _row)


def _parse(row: Row, root: Path, domain: str) -> tuple[Question, Trajectory, Row]:
    text = exact_text(row, "question")
    response = row.get("response")
    if not isinstance(response, dict):
        message = "must be an object with 'steps' and 'process_correctness'"
        raise DataError(message, field="response")
    steps = step_texts(response.get("steps"), "response.steps")
    judged = response.get("process_correctness")
    if not isinstance(judged, list) or len(judged) != len(steps):
        message = f"must be a list of {len(steps)} verdicts, one per step"
        raise DataError(message, field="response.process_correctness")
    for i, verdict in enumerate(judged, start=1):
        if isinstance(verdict, bool) or verdict not in (1, -1, 0):
            message = f"the verdict on step {i} is {verdict!r}, not 1, -1 or 0"
            raise DataError(message, field="response.process_correctness")
    question = question_of_row(
        {"image_path": image_references(row, "image")},
        text,
        root,
        row_text(row, "data_source") or domain,
        answer=row_text(row, "answer"),
    )
    trajectory = Trajectory.parse(
        {
            "question_id": question.id,
            "steps": steps,
            "answer": extract_answer("\n\n".join(steps), question.options),
            "labels": [_JUDGED[verdict] for verdict in judged],
            "policy": row_text(row, "policy_model") or _UNKNOWN_POLICY,
        }
    )
    layout: Row = {
        "question": gaps_unless(question_text(question), text, pieces_of(question)),
        "response": {key: response[key] for key in response if key not in _RESPONSE} or None,
        "images": kept_images(row, "image"),
    }
    return question, trajectory, layout


def write_visualprocessbench(
    path: str | Path, questions: Iterable[Question], trajectories: Iterable[Trajectory]
) -> None:
    """Write one row per trajectory, as JSONL, or as a JSON list where `path` ends in `.json`.

    Steps without a label are written as neutral. Ids, final answers and outcomes are lost.

    Raises:
        DataError: a trajectory has no labels, or one between 0 and 1, or an image held as bytes.
    """
    write_rows(path, questions, trajectories, _NAME, _row)


def _row(question: Question, trajectory: Trajectory, folder: Path) -> Row:
    layout = layout_of(trajectory, _NAME)
    if trajectory.labels is None:
        raise cannot_hold(trajectory, "has no labels, and this format needs them; label its steps")
    judged = []
    for i, label in enumerate(trajectory.labels, start=1):
        if label is not None and label.value not in (0, 1):
            message = f"has a label of {label.value:g} at step {i}, and this format"
            raise cannot_hold(trajectory, f"{message} takes right or wrong; set a threshold first")
        judged.append(0 if label is None else 1 if label.value else -1)
    more = layout.get("response")
    row: Row = {
        "image": [],
        **images_of(question, trajectory, "image", layout, folder, as_list=True),
    }
    row["question"] = fill(layout.get("question"), pieces_of(question), question_text(question))
    if question.answer != UNKNOWN_ANSWER:
        row["answer"] = question.answer
    row["response"] = {
        **(more if isinstance(more, dict) else {}),
        "steps": list(trajectory.steps),
        "process_correctness": judged,
    }
    if trajectory.policy != _UNKNOWN_POLICY:
        row["policy_model"] = trajectory.policy
    if question.domain != _NAME:
        row["data_source"] = question.domain
    return row
