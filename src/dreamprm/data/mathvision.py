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

from dreamprm.data.files import check_new_id, image_from_disk
from dreamprm.data.format import Format, Pair, Reading, has
from dreamprm.data.own import LINES
from dreamprm.data.rows import Row, required_text, row_text
from dreamprm.errors import DataError
from dreamprm.prompts import option_letter
from dreamprm.records import Question

_MARK = re.compile(r"<image(\d+)>")
_MARKS_APART = re.compile(r"(?:^|(?<=[.?!)]))(?:[^\S\n]*<image\d+>)+[^\S\n]*$", re.MULTILINE)
IN_THE_IMAGE = "Answer the question in the image."


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


def _parse(row: Row, reading: Reading) -> list[Pair]:
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
    question = Question.parse(
        {
            "id": required_text(row, "id"),
            "domain": reading.domain,
            "text": without_marks(required_text(row, "question")) or IN_THE_IMAGE,
            "images": (image_from_disk(image, reading.root),) if image else (),
            "options": tuple(_MARK.sub(r"[image \1]", option) for option in options),
            "answer": answer,
            "subject": row_text(row, "subject") or None,
            "extra": {} if row.get("level") is None else {"level": str(row["level"])},
        }
    )
    check_new_id(question.id, reading.number, reading.rows_of_ids, reading.path)
    return [(question, None)]


FORMAT = Format(
    name="mathvision",
    about="questions of MATH-Vision",
    holds="questions",
    fits=has("question", "image", "options", suffixes=LINES),
    parse=_parse,
)
