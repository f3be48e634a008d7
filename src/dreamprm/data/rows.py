"""What the readers of other people's JSON rows share: ids, questions, images, gold answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from dreamprm.answers import extract_answer
from dreamprm.data.files import (
    image_from_disk,
    image_to_disk,
)
from dreamprm.data.text import parse_question
from dreamprm.errors import DataError
from dreamprm.prompts import question_text
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


def text_question(
    text: str,
    domain: str,
    *,
    answer: str = UNKNOWN_ANSWER,
    subject: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Question:
    """A question whose id is a hash of what the source tells of it; its text is taken as it is."""
    digest = hashlib.sha256(repr((domain, subject, text, answer)).encode()).hexdigest()
    return Question.parse(
        {
            "id": digest[:16],
            "domain": domain,
            "text": text,
            "answer": answer,
            "subject": subject,
            "extra": extra or {},
        }
    )


def own_extra(record: Question | Trajectory, name: str) -> dict[str, Any]:
    """What the reader of a format has kept in a record for the writer of the same format."""
    own = record.extra.get(name)
    return dict(own) if isinstance(own, dict) else {}


def plain_text(question: Question) -> str:
    """Question and options as one text; images have no place in it."""
    if question.images:
        raise DataError(
            f"question '{question.id}' has images, and this format holds text only; leave the "
            "question out or write another format",
            field="images",
        )
    return question_text(question)


def steps_with_answer(
    trajectory: Trajectory,
    name: str,
    read: Callable[[str], str | None] = extract_answer,
    mark: str = "\nFinal answer: ",
) -> list[str]:
    """The steps, with the answer in the last one.

    Steps that were read from this format hold their answer as they are. Those from elsewhere come
    without their final-answer line, so it is added where the last step does not state it.

    Args:
        trajectory: its steps and its answer.
        name: the format's name, under which its reader keeps extras.
        read: finds the answer in a last step, as the format's reader does.
        mark: what stands before an answer in this format.
    """
    *before, last = trajectory.steps
    if trajectory.answer is None or name in trajectory.extra or read(last) == trajectory.answer:
        return [*before, last]
    return [*before, f"{last}{mark}{trajectory.answer}"]


def same_question(question: Question, questions: dict[str, Question]) -> Question:
    """The first question of this id (`rows.remember`); other options are another question, too."""
    remember(question, questions)
    known = questions[question.id]
    if known.options != question.options:
        message = f"id '{question.id}' stands for two lists of options; make ids unique"
        raise DataError(message, field="id")
    return known


def add_question(question: Question, questions: dict[str, Question]) -> None:
    """`same_question`, and take its gold answer; another gold answer is refused."""
    known = same_question(question, questions)
    if known.answer == UNKNOWN_ANSWER:
        questions[question.id] = known.model_copy(update={"answer": question.answer})
    elif question.answer not in (known.answer, UNKNOWN_ANSWER):
        message = f"the same question has the answer '{known.answer}' above; correct one of them"
        raise DataError(message, field="answer")
