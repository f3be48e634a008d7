"""Column maps of published benchmarks whose schema needs a line of code.

MMMU's options are a text that holds a Python list, its images lie in seven columns, and its open
questions may have several accepted answers. MathVista names the right choice by its text and groups
questions in nested metadata.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from dreamprm.data.sources.columns import ColumnMap, Row, column
from dreamprm.errors import DataError

MMMU_SUBJECTS = (
    *("Accounting", "Agriculture", "Architecture_and_Engineering", "Art", "Art_Theory"),
    *("Basic_Medical_Science", "Biology", "Chemistry", "Clinical_Medicine", "Computer_Science"),
    *("Design", "Diagnostics_and_Laboratory_Medicine", "Economics", "Electronics"),
    *("Energy_and_Power", "Finance", "Geography", "History", "Literature", "Manage"),
    *("Marketing", "Materials", "Math", "Mechanical_Engineering", "Music", "Pharmacy"),
    *("Physics", "Psychology", "Public_Health", "Sociology"),
)
"""The 30 subsets."""

_SEVEN = tuple(f"image_{i}" for i in range(1, 8))


def with_before(question: str, context: str) -> Callable[[Row], str]:
    """The question, with another column, where it is not empty, on lines of its own before it."""

    def text(row: Row) -> str:
        before, asked = column(row, context), column(row, question)
        if not isinstance(asked, str):
            raise DataError(f"must be text, not {type(asked).__name__}", field=question)
        before = before.strip() if isinstance(before, str) else ""
        return f"{before}\n{asked}" if before and asked.strip() else asked

    return text


def mmmu_subject(row: Row) -> str | None:
    """'validation_Art_Theory_3' -> 'Art_Theory'."""
    parts = str(column(row, "id")).split("_")
    return "_".join(parts[1:-1]) or None


def mmmu_answers(row: Row) -> list[str]:
    """All accepted answers: of an open question they may be a Python list as text."""
    answer = column(row, "answer")
    if answer == "?":
        message = "is not published for this split; read dev or validation"
        raise DataError(message, field="answer")
    if isinstance(answer, str) and answer.startswith("[") and answer.endswith("]"):
        try:
            listed = ast.literal_eval(answer)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return [answer]  # an interval such as [0, 1) or a formula
        if isinstance(listed, list) and listed and all(isinstance(one, str) for one in listed):
            return listed
    return [answer]


def _first_answer(row: Row) -> Any:
    return mmmu_answers(row)[0]


def _several_answers(row: Row) -> list[str] | None:
    answers = mmmu_answers(row)
    return answers if len(answers) > 1 else None


MMMU = ColumnMap(
    id="id",
    text="question",
    images=_SEVEN,
    options="options",
    answer=_first_answer,
    answer_is="letter",
    subject=mmmu_subject,
    extra={"answers": _several_answers, "subfield": "subfield"},
)

MMMU_PRO = ColumnMap(
    id="id",
    text="question",
    images=_SEVEN,
    options="options",
    answer_is="letter",
    subject="subject",
)


def _asked_in_the_image(row: Row) -> str:
    return "<image 1>" if column(row, "image") is not None else ""


MMMU_PRO_VISION = ColumnMap(
    id="id",
    text=_asked_in_the_image,
    images="image",
    options="options",
    answer_is="letter",
    subject="subject",
)


def _of_metadata(name: str) -> Callable[[Row], Any]:
    def take(row: Row) -> Any:
        metadata = column(row, "metadata")
        return metadata.get(name) if isinstance(metadata, dict) else None

    return take


MATHVISTA = ColumnMap(
    id="pid",
    text="question",
    images="image",
    options="choices",
    answer="answer",
    answer_is="text",
    subject=_of_metadata("task"),
    unit="unit",
    precision="precision",
    extra={
        "question_type": "question_type",
        "answer_type": "answer_type",
        "skills": _of_metadata("skills"),
        "context": _of_metadata("context"),
        "grade": _of_metadata("grade"),
    },
)

MMSTAR = ColumnMap(
    id="index",
    text="question",
    images="image",
    answer_is="text",  # a letter, whose options are in the question's text
    subject="category",
    extra={"l2_category": "l2_category"},
)
