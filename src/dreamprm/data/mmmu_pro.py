"""Stored predictions on MMMU-Pro (arXiv 2409.02813), one JSON object per line.

`options` is a list written as text. The `answer` letter belongs to the order of options in this
very row, which is not MMMU's: the same question has another letter in files made from the version
with four options. Compare answers across files by the option's text, never by its letter. The rows
name no images. A row without an id gets its number for one.
"""

from __future__ import annotations

import ast
from typing import Any

from dreamprm.answers import extract_answer
from dreamprm.data.format import Format, Pair, Reading, holds
from dreamprm.data.rows import Row, exact_text, true_or_false
from dreamprm.data.text import parse_response
from dreamprm.errors import DataError
from dreamprm.records import Question, Trajectory

_SHUFFLED = ("shuffled_options", "shuffled_options_answer")


def _parse(row: Row, reading: Reading) -> list[Pair]:
    options = _options(row.get("options"))
    question = Question.parse(
        {
            "id": exact_text(row, "id") if "id" in row else str(reading.number),
            "domain": reading.domain,
            "text": exact_text(row, "question"),
            "options": options,
            "answer": exact_text(row, "answer"),
            "subject": row.get("subject") or None,
        }
    )
    response = exact_text(row, "response")
    shuffled = {name: row[name] for name in _SHUFFLED if name in row}
    trajectory = {
        "question_id": question.id,
        "steps": parse_response(response),
        "answer": extract_answer(response, options),
        "outcome": true_or_false(row, "if_right"),
        "extra": {"mmmu_pro": shuffled} if shuffled else {},
    }
    return [(question, Trajectory.parse(trajectory))]


def _options(written: Any) -> tuple[str, ...]:
    """The options, which the file writes as a Python list."""
    try:
        options = ast.literal_eval(written) if isinstance(written, str) else written
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        options = None
    if isinstance(options, list) and len(options) == 1 and isinstance(options[0], list):
        [options] = options  # one published row has its list in another list
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise DataError("must be a list of texts, or one written as text", field="options")
    return tuple(options)


FORMAT = Format(
    name="mmmu_pro",
    about="stored predictions on MMMU-Pro",
    fits=holds("options", str, "question", "answer", "response"),
    parse=_parse,
)
