"""TRL's stepwise supervision, read and written: a `prompt`, its `completions`, and their `labels`.

A label is true, false, or a probability. Rows of one prompt and the same images are candidates of
one question.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dreamprm.answers import extract_answer
from dreamprm.data.format import Format, Pair, Reading, cannot_hold, has, outside_images, pair
from dreamprm.data.rows import Row, exact_text, label_of_score, text_list
from dreamprm.errors import DataError
from dreamprm.prompts import question_text
from dreamprm.records import Question, Trajectory


def _parse(row: Row, reading: Reading) -> list[Pair]:
    if isinstance(row.get("prompt"), list):
        message = "is a conversation, which stepwise supervision has no form for; make it one text"
        raise DataError(message, field="prompt")
    text = exact_text(row, "prompt")
    steps = text_list(row, "completions")
    labels = row.get("labels")
    if not isinstance(labels, list) or len(labels) != len(steps):
        raise DataError("must be a list with one label per completion", field="labels")
    question = reading.question({"images": row.get("images")}, text, "images")
    values = [label_of_score(label, "labels") for label in labels]
    answer = extract_answer("\n\n".join(steps), question.options)
    return [pair(question, steps, answer=answer, labels=values)]


def _rows(pairs: Iterator[tuple[Question, Trajectory]], folder: Path) -> Iterator[Row]:
    """One row per trajectory; refused where a step has no label.

    Labels of a row are all true or false, or all probabilities, as `datasets` needs them.
    """
    for question, trajectory in pairs:
        values = [label.value for label in trajectory.labels or () if label is not None]
        if len(values) != len(trajectory.steps):
            message = "has a step without a label; label every step, or leave it out"
            raise cannot_hold(trajectory, message)
        hard = set(values) <= {0.0, 1.0}
        row: Row = {
            "prompt": question_text(question),
            "completions": list(trajectory.steps),
            "labels": [bool(value) for value in values] if hard else values,
        }
        if images := outside_images(question, trajectory, folder, listed=True):
            row["images"] = images
        yield row


FORMAT = Format(
    name="trl_stepwise",
    about="TRL's stepwise supervision: prompt, completions, labels",
    fits=has("prompt", "completions", "labels"),
    parse=_parse,
    to_rows=_rows,
    loses="ids, domains, subjects, gold answers, outcomes, label counts and policies",
)
