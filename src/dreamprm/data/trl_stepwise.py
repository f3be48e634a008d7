"""TRL's stepwise supervision: a `prompt`, its `completions` (the steps), and their `labels`.

This is the plainest of the row formats, so what all of them share to lose nothing stands here, too.
A row is read into records; what the records have no field for lies in `extra[<format>]`; and where
our writer would write a row otherwise than it was (spaces, headers, a number as text), only that
difference is noted in `extra[<format>_as_read]`. A note says what stands around the parts that
records hold, or "where you would write X, there stood Y", so an edited record is written as edited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from dreamprm.answers import extract_answer
from dreamprm.data.as_read import fill, gaps_unless, layout_of, pieces_of, read_rows, write_rows
from dreamprm.data.fields import Row, cannot_hold, exact_text, label_of_score, step_texts
from dreamprm.data.files import BadRow, refuse
from dreamprm.data.row_images import image_references, images_of, kept_images
from dreamprm.data.rows import question_of_row
from dreamprm.errors import DataError
from dreamprm.prompts import question_text
from dreamprm.records import Question, Trajectory

_NAME = "trl_stepwise"


def read_trl_stepwise(
    path: str | Path,
    *,
    image_root: str | Path | None = None,
    domain: str = _NAME,
    bad_row: BadRow = refuse,
) -> tuple[list[Question], list[Trajectory]]:
    """Read a JSON list or JSONL file of stepwise supervision.

    A label is true, false, or a probability, which becomes the smallest fraction of the same value.
    Rows of one prompt and the same images are candidates of one question.

    Args:
        path: the file.
        image_root: folder that image paths start from; the file's own by default.
        domain: domain of all questions, because the file names none.
        bad_row: told of each row that cannot be read; when it returns, the row is left out.

    Raises:
        DataError: names the row and field of what is wrong.
    """
    return read_rows(path, image_root, domain, bad_row, _NAME, _parse, _row)


def _parse(row: Row, root: Path, domain: str) -> tuple[Question, Trajectory, Row]:
    if isinstance(row.get("prompt"), list):
        message = "is a conversation, which stepwise supervision has no form for; make it one text"
        raise DataError(message, field="prompt")
    text = exact_text(row, "prompt")
    steps = step_texts(row.get("completions"), "completions")
    labels = row.get("labels")
    if not isinstance(labels, list) or len(labels) != len(steps):
        raise DataError("must be a list with one label per completion", field="labels")
    images = {"image_path": image_references(row, "images")}
    question = question_of_row(images, text, root, domain)
    trajectory = Trajectory.parse(
        {
            "question_id": question.id,
            "steps": steps,
            "answer": extract_answer("\n\n".join(steps), question.options),
            "labels": [label_of_score(label, "labels") for label in labels],
        }
    )
    layout: Row = {
        "prompt": gaps_unless(question_text(question), text, pieces_of(question)),
        "labels": {int: "int", float: "float"}.get(type(labels[0])),
        "images": kept_images(row, "images"),
    }
    return question, trajectory, layout


def write_trl_stepwise(
    path: str | Path, questions: Iterable[Question], trajectories: Iterable[Trajectory]
) -> None:
    """Write one row per trajectory, as JSONL, or as a JSON list where `path` ends in `.json`.

    Labels are all true or false, or all probabilities, as `datasets` needs them; counts, ids,
    outcomes and gold answers have no place in this format.

    Raises:
        DataError: a step has no label, or an image is held as bytes.
    """
    write_rows(path, questions, trajectories, _NAME, _row)


def _row(question: Question, trajectory: Trajectory, folder: Path) -> Row:
    layout = layout_of(trajectory, _NAME)
    labels = [label for label in trajectory.labels or () if label is not None]
    if len(labels) != len(trajectory.steps):
        raise cannot_hold(
            trajectory, "has a step without a label; label every step, or leave it out"
        )
    values: list[float] = [label.value for label in labels]
    hard = set(values) <= {0.0, 1.0}
    form = layout.get("labels") if hard else "float"
    kind: Callable[[float], float] = {"int": int, "float": float}.get(str(form), bool)
    return {
        "prompt": fill(layout.get("prompt"), pieces_of(question), question_text(question)),
        "completions": list(trajectory.steps),
        "labels": [kind(value) for value in values],
        **images_of(question, trajectory, "images", layout, folder, as_list=True),
    }
