"""The training file of the paper's code (arXiv 2505.20241), `train.json`, and back.

A row is a prefix: `add` holds the response up to and including step `sid`, and `score` of `times`
completions sampled from there were right. We merge the rows of a question whose texts continue one
another into one trajectory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

from dreamprm.errors import DataError
from dreamprm.formats.files import load_json_rows, write_json_rows
from dreamprm.formats.rows import (
    WithoutResponse,
    outside_id,
    outside_image,
    question_of,
    question_of_row,
    remember,
    required_text,
    row_text,
)
from dreamprm.formats.text import parse_response, render_question, render_response
from dreamprm.records import Question, StepLabel, Trajectory

_Counts = dict[str, list[int]]  # prefix text -> [correct, total]


def read_train(
    path: str | Path,
    *,
    image_root: str | Path | None = None,
    allow_without_response: WithoutResponse = "refuse",
) -> tuple[list[Question], list[Trajectory]]:
    """Read the training file.

    Rows of one question are merged: the longest prefix gives the steps, the others label them. A
    prefix that several longer ones continue labels all of them. Where rows repeat a prefix, their
    counts are added. Rows without `score` and `times` (the paper's minimal form) get the fewest
    completions that explain their accuracy.

    Args:
        path: the file.
        image_root: folder that `image_path` starts from; the file's own by default.
        allow_without_response: "refuse" rows whose `add` is empty, or "drop" them.

    Raises:
        DataError: names the row and field of what is wrong.
    """
    path = Path(path)
    root = path.parent if image_root is None else Path(image_root)
    rows = load_json_rows(path)
    empty = [number for number, row in enumerate(rows, start=1) if not row_text(row, "add")]
    if empty and allow_without_response == "refuse":
        raise DataError(
            f"{len(empty)} of {len(rows)} rows without a response ('add' is empty); remove them, "
            "or read with allow_without_response='drop'",
            file=path,
            row=empty[0],
            field="add",
        )
    questions: dict[str, Question] = {}
    prefixes: dict[str, _Counts] = defaultdict(dict)
    for number, row in enumerate(rows, start=1):
        try:
            prefix = row_text(row, "add")
            if not prefix:
                continue
            question = question_of_row(
                row,
                required_text(row, "input"),
                root,
                required_text(row, "dataset"),
                answer=row_text(row, "ground_truth"),
            )
            remember(question, questions)
            label = _label(row)
        except DataError as error:
            raise error.at(file=path, row=number) from error
        counts = prefixes[question.id].setdefault(prefix, [0, 0])
        counts[0] += label.correct
        counts[1] += label.total
    trajectories = [
        trajectory
        for question_id, counts in prefixes.items()
        for trajectory in _merge(question_id, counts)
    ]
    return list(questions.values()), trajectories


def write_train(
    path: str | Path, questions: Iterable[Question], trajectories: Iterable[Trajectory]
) -> None:
    """Write one row per labelled step. Outcomes, answers, policies and extra images are lost."""
    path = Path(path)
    by_id = {question.id: question for question in questions}
    rows: list[dict[str, Any]] = []
    for trajectory in trajectories:
        question = question_of(trajectory, by_id)
        for i, label in enumerate(trajectory.labels or (), start=1):
            if label is None:
                continue
            rows.append(
                {
                    "id": outside_id(question.id),
                    "sid": i,
                    "input": render_question(question),
                    "add": render_response(trajectory.steps[:i], None),
                    "ground_truth": question.answer,
                    "image_path": outside_image(question, path.parent),
                    "dataset": question.domain,
                    "score": label.correct,
                    "times": label.total,
                    "accuracy": label.value,
                }
            )
    write_json_rows(path, rows)


def _merge(question_id: str, counts: _Counts) -> list[Trajectory]:
    """One trajectory per prefix that no other prefix continues."""
    trajectories: list[Trajectory] = []
    ends = [
        prefix
        for prefix in counts
        if not any(other != prefix and _continues(other, prefix) for other in counts)
    ]
    for index, whole in enumerate(ends):
        steps = parse_response(whole)
        labels: list[StepLabel | None] = [None] * len(steps)
        for prefix, (correct, total) in counts.items():
            if not _continues(whole, prefix):
                continue
            i = len(parse_response(prefix)) - 1
            old = labels[i] or StepLabel(0, 0)
            labels[i] = StepLabel(old.correct + correct, old.total + total)
        trajectories.append(
            Trajectory(
                question_id=question_id, steps=steps, labels=tuple(labels), sample_index=index
            )
        )
    return trajectories


def _continues(text: str, prefix: str) -> bool:
    """Does `text` begin with the steps of `prefix`? (Not with its characters: Step 1, Step 10.)"""
    if not text.startswith(prefix):
        return False
    steps = parse_response(prefix)
    return parse_response(text)[: len(steps)] == steps


def _label(row: dict[str, Any]) -> StepLabel:
    """Counts of a training row, checked against each other."""
    values: dict[str, float] = {}
    for field in ("score", "times", "accuracy"):
        value = row.get(field)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DataError(f"must be a number, not {value!r}", field=field)
        values[field] = value
    accuracy = values.get("accuracy")
    if accuracy is not None and not 0 <= accuracy <= 1:
        message = f"label {accuracy} is outside 0-1; correct it or remove the row"
        raise DataError(message, field="accuracy")
    if "score" in values and "times" in values:
        correct, total = values["score"], values["times"]
        if correct != int(correct) or total != int(total) or not 0 <= correct <= total or total < 1:
            message = f"{correct} of {total} completions is outside 0-1; correct it"
            raise DataError(message, field="score")
        if accuracy is not None and abs(accuracy - correct / total) > 0.005:
            message = f"{accuracy} is not score / times = {correct} / {total}; correct one of them"
            raise DataError(message, field="accuracy")
        return StepLabel(int(correct), int(total))
    if accuracy is None:
        raise DataError("is missing, and so are 'score' and 'times'", field="accuracy")
    fewest = next(
        fraction
        for limit in (16, 64, 256, 10**6)
        if abs((fraction := Fraction(accuracy).limit_denominator(limit)) - accuracy) < 1e-3
    )
    return StepLabel(fewest.numerator, fewest.denominator)
