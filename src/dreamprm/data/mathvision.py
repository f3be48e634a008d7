"""Questions of MATH-Vision (arXiv 2402.14804) as published: one JSON object per line.

`{"id", "question", "options", "answer", "solution", "level", "subject", "image"}`; the answer is a
letter where there are options. All pictures of a question are one image file, and `<image1>`,
`<image2>`, ... mark in the text where they stood. A mark behind the end of a sentence or on a line
of its own says nothing that the image does not, and is dropped; one inside a sentence ("the ant
<image1> walks home") stands for a word, and is kept in a form that no model takes for a token of
its own: "the ant [image 1] walks home".
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dreamprm.data.files import BadRow, check_new_id, image_from_disk, refuse
from dreamprm.data.row_files import each_row
from dreamprm.data.rows import required_text, row_text
from dreamprm.errors import DataError
from dreamprm.prompts import option_letter
from dreamprm.records import Question

_MARK = re.compile(r"<image(\d+)>")
_MARKS_APART = re.compile(r"(?:^|(?<=[.?!)]))(?:[^\S\n]*<image\d+>)+[^\S\n]*$", re.MULTILINE)
_ONLY_IN_THE_IMAGE = "Answer the question in the image."


def read_mathvision(
    path: str | Path,
    *,
    image_root: str | Path | None = None,
    domain: str = "mathvision",
    bad_row: BadRow = refuse,
) -> list[Question]:
    """Read the questions.

    Args:
        path: the JSONL file.
        image_root: folder that image paths start from; the file's own by default.
        domain: of all questions, because the file names none; `subject` comes from the file.
        bad_row: told of each row that cannot be read; when it returns, the row is left out.

    Raises:
        DataError: names the row and field of what is wrong.
    """
    path = Path(path)
    questions: list[Question] = []
    seen: dict[str, int] = {}
    root = path.parent if image_root is None else Path(image_root)
    for number, row in each_row(path, bad_row):
        try:
            question = _question(row, root, domain)
            check_new_id(question.id, number, seen, path)
        except DataError as error:
            bad_row(error.at(file=path, row=number))
            continue
        questions.append(question)
    return questions


def without_marks(text: str) -> str:
    """A question's text without the marks that say nothing; see the head of this module.

    Example:
        >>> without_marks("How many bricks?\\n<image1>")
        'How many bricks?'
        >>> without_marks("What is opposite to <image3>? <image4>")
        'What is opposite to [image 3]?'
    """
    lines = []
    for line in text.split("\n"):
        kept = _MARKS_APART.sub("", line).rstrip()
        if kept or not _MARK.search(line):
            lines.append(kept)
    return _MARK.sub(r"[image \1]", "\n".join(lines)).strip()


def _question(row: Any, folder: Path, domain: str) -> Question:
    options = row.get("options") or []
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise DataError("must be a list of texts", field="options")
    answer = required_text(row, "answer")
    letters = [option_letter(i) for i in range(len(options))]
    if options and answer not in (*letters, *options):
        raise DataError(
            f"'{answer}' is none of the {len(options)} options {letters[0]} to {letters[-1]}; "
            "correct the answer or the options",
            field="answer",
        )
    image = row_text(row, "image")
    return Question.parse(
        {
            "id": required_text(row, "id"),
            "domain": domain,
            "text": without_marks(required_text(row, "question")) or _ONLY_IN_THE_IMAGE,
            "images": (image_from_disk(image, folder),) if image else (),
            "options": tuple(_MARK.sub(r"[image \1]", option) for option in options),
            "answer": answer,
            "subject": row_text(row, "subject") or None,
            "extra": {} if row.get("level") is None else {"level": str(row["level"])},
        }
    )
