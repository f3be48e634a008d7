"""Stored predictions on MMMU-Pro (arXiv 2409.02813), one JSON object per line.

`options` is a list, in some files written as text. The `answer` letter belongs to the order of
options in this very row, which is not MMMU's: the same question has another letter in files made
from the version with four options. Where a row has `shuffled_options`, these were asked, and
`shuffled_options_answer` is their letter. Compare answers across files by the option's text, never
by its letter. The rows name no images. A row without an id gets its number for one.
"""

from __future__ import annotations

from dreamprm.answers import extract_answer
from dreamprm.data.format import Format, Pair, Reading, holds, pair
from dreamprm.data.rows import Row, exact_text, true_or_false, written_value
from dreamprm.data.text import parse_response
from dreamprm.errors import DataError
from dreamprm.records import Question


def _parse(row: Row, reading: Reading) -> list[Pair]:
    options, answer = asked_options(row)
    question = Question.parse(
        {
            "id": exact_text(row, "id") if "id" in row else str(reading.number),
            "domain": reading.domain,
            "text": exact_text(row, "question"),
            "options": options,
            "answer": answer,
            "subject": row.get("subject") or None,
        }
    )
    response = exact_text(row, "response")
    told = {"outcome": true_or_false(row, "if_right"), "answer": extract_answer(response, options)}
    return [pair(question, parse_response(response), **told)]


def asked_options(row: Row) -> tuple[tuple[str, ...], str]:
    """The options in the order in which they were asked, and the letter of the right one.

    Raises:
        DataError: no list of texts, or no letter.
    """
    field = "shuffled_options" if row.get("shuffled_options") else "options"
    written = row.get(field)
    options = written_value(written) if isinstance(written, str) else written
    if isinstance(options, list) and len(options) == 1 and isinstance(options[0], list):
        [options] = options  # one published row has its list in another list
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise DataError("must be a list of texts, or one written as text", field=field)
    letter = "answer" if field == "options" else "shuffled_options_answer"
    return tuple(options), exact_text(row, letter)


FORMAT = Format(
    name="mmmu_pro",
    about="stored predictions on MMMU-Pro",
    fits=holds("options", str, "question", "answer", "response"),
    parse=_parse,
)
