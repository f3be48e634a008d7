"""What the readers of other people's JSON rows share: ids, questions, images, gold answers."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from dreamprm.errors import DataError
from dreamprm.formats.files import image_from_disk, image_to_disk
from dreamprm.formats.text import parse_question
from dreamprm.records import UNKNOWN_ANSWER, Question, Trajectory

WithoutResponse = Literal["refuse", "drop"]
"""What to do with rows that hold no response."""


def row_text(row: dict[str, Any], field: str) -> str:
    """A field as stripped text; '' when it is missing or null."""
    value = row.get(field)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"must be text, not {type(value).__name__}", field=field)
    return str(value).strip()


def required_text(row: dict[str, Any], field: str) -> str:
    """A field that must hold text."""
    text = row_text(row, field)
    if not text:
        raise DataError("is missing or empty; give it a value or remove the row", field=field)
    return text


def rest_of(row: dict[str, Any], used: Collection[str], name: str) -> dict[str, Any]:
    """What a row holds besides the fields that are `used`, as a record's `extra`.

    It lies under the name of the format, so that a writer of that format, and no other, puts it
    back: reading and writing loses nothing, and converting mixes nothing up.
    """
    rest = {field: value for field, value in row.items() if field not in used}
    return {name: rest} if rest else {}


def question_of_row(
    row: dict[str, Any],
    text: str,
    root: Path,
    domain: str,
    *,
    image_field: str = "image_path",
    answer: str = "",
    subject: str | None = None,
) -> Question:
    """The question that a row is about.

    Args:
        row: the outside row; its `id` is used, and if it has none, a hash of text and images.
        text: the question, with options in the form '(A) ... (B) ...' behind 'Options:'.
        root: folder that image paths start from.
        domain: the question's domain.
        image_field: the field that names an image, or a list of them; may be missing.
        answer: gold answer, '' when the source gives none.
        subject: finer grouping.
    """
    images = row.get(image_field) or ()
    if isinstance(images, str):
        images = (images,)
    if not all(isinstance(image, str) for image in images):
        raise DataError("must be a path or a list of paths", field=image_field)
    content, options = parse_question(text)
    digest = hashlib.sha256(repr((domain, text, tuple(images))).encode()).hexdigest()
    return Question.parse(
        {
            "id": row_text(row, "id") or digest[:16],
            "domain": domain,
            "text": content,
            "images": tuple(image_from_disk(image, root) for image in images),
            "options": options,
            "answer": answer or UNKNOWN_ANSWER,
            "subject": subject,
        }
    )


def remember(question: Question, questions: dict[str, Question]) -> None:
    """Add a question to `questions`; one id for two different questions is an error."""
    known = questions.setdefault(question.id, question)
    if (known.text, known.images, known.domain) != (
        question.text,
        question.images,
        question.domain,
    ):
        raise DataError(
            f"id '{question.id}' stands for two different questions; make ids unique", field="id"
        )


def learn_answer(
    question_id: str, trajectory_answer: str | None, questions: dict[str, Question]
) -> None:
    """Take the answer of a right response for the gold answer where the source gives none."""
    question = questions[question_id]
    if trajectory_answer and question.answer == UNKNOWN_ANSWER:
        questions[question_id] = question.model_copy(update={"answer": trajectory_answer})


def question_of(trajectory: Trajectory, by_id: dict[str, Question]) -> Question:
    """The question of a trajectory, which must be there."""
    if trajectory.question_id not in by_id:
        raise DataError(
            f"a trajectory belongs to question '{trajectory.question_id}', which is not among the "
            "questions; add the question or remove the trajectory",
            field="question_id",
        )
    return by_id[trajectory.question_id]


def outside_id(question_id: str) -> int | str:
    """Ids of the paper's files are numbers; ours are text."""
    is_number = (
        question_id.isascii() and question_id.isdigit() and str(int(question_id)) == question_id
    )
    return int(question_id) if is_number else question_id


def outside_image(question: Question, folder: Path) -> str | list[str]:
    """The image path for a file in `folder`; a list when there is not exactly one."""
    paths = []
    for image in question.images:
        if isinstance(image, bytes):
            raise DataError(
                f"question '{question.id}' holds its image as bytes, and this format takes paths "
                "only; save the images as files first",
                field="images",
            )
        paths.append(image_to_disk(image, folder))
    return paths[0] if len(paths) == 1 else paths
