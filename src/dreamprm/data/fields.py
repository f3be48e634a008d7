"""Single fields of other people's rows: texts, steps and labels, checked and unchanged.

Nothing is stripped here, because a file that is read and written again must come out as it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeGuard

from dreamprm.errors import DataError
from dreamprm.records import Label, Trajectory

Row = dict[str, Any]


def whole_characters(row: Row) -> Row:
    """A row without halves of characters (\\ud800 to \\udfff), which cannot be written."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        message = "holds half a character (\\ud800 to \\udfff); correct its text"
        raise DataError(message) from None
    return row


def step_texts(value: Any, field: str) -> tuple[str, ...]:
    """A field that must be a list of at least one step, unchanged."""
    if not isinstance(value, list) or not all(isinstance(step, str) for step in value):
        raise DataError("must be a list of texts, one per step", field=field)
    if not value:
        raise DataError("holds no step; remove the row", field=field)
    return tuple(value)


def label_of_score(score: Any, field: str) -> Label:
    """The label that true, false or a probability stands for."""
    if not isinstance(score, bool | int | float) or not 0 <= score <= 1:
        message = f"label {score!r} must be true, false, or a number from 0 to 1; correct it"
        raise DataError(message, field=field)
    return Label(float(score))


def exact_text(row: Mapping[str, Any], field: str) -> str:
    """A field that must hold text, with its spaces."""
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        told = "is missing or empty" if not value else f"must be text, not {value!r:.40}"
        raise DataError(f"{told}; give it a value or remove the row", field=field)
    return value


def text_list(row: Mapping[str, Any], field: str) -> list[str]:
    """A field that must hold a list of texts, at least one."""
    value = row.get(field)
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise DataError("must be a list of texts, at least one; remove the row", field=field)
    return value


def is_whole(value: object) -> TypeGuard[int]:
    """Is it a whole number? (For Python, true is one; for JSON it is not.)"""
    return isinstance(value, int) and not isinstance(value, bool)


RIGHT, WRONG = Label(1.0), Label(0.0)
"""Labels of a judge that says right or wrong."""


def is_right(trajectory: Trajectory, i: int) -> bool:
    """The hard label of step `i` (0-based), which must have one."""
    label = trajectory.labels[i] if trajectory.labels else None
    if label is None:
        message = f"has no label on step {i + 1}, and this format needs one; label it or leave it"
        raise cannot_hold(trajectory, f"{message} out")
    if 0 < label.value < 1:
        raise cannot_hold(
            trajectory,
            f"has the soft label {label.value:g} on step {i + 1}, and this format "
            "holds right or wrong only; turn labels into (1, 1) and (0, 1) by a threshold",
        )
    return label.value > 0


def cannot_hold(trajectory: Trajectory, message: str, field: str = "labels") -> DataError:
    """The error of a writer whose format has no place for what a trajectory holds."""
    index, question = trajectory.sample_index, trajectory.question_id
    return DataError(f"trajectory {index} of question '{question}' {message}", field=field)
