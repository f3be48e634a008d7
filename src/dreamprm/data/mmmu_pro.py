"""Stored predictions on MMMU-Pro (arXiv 2409.02813), one JSON object per line; read only.

`options` is a list written as text. The `answer` letter belongs to the order of options in this
very row, which is not MMMU's: the same question has another letter in files made from the version
with four options. Compare answers across files by the option's text, never by its letter.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from dreamprm.answers import extract_answer
from dreamprm.data.fields import exact_text
from dreamprm.data.files import BadRow, refuse
from dreamprm.data.row_files import each_row
from dreamprm.data.rows import rest_of
from dreamprm.data.text import parse_response
from dreamprm.errors import DataError
from dreamprm.records import Question, Trajectory

_NAME = "mmmu_pro"
_USED = ("id", "question", "options", "answer", "subject", "response", "if_right")


def read_mmmu_pro(
    path: str | Path,
    *,
    image_root: str | Path | None = None,
    domain: str = _NAME,
    bad_row: BadRow = refuse,
) -> tuple[list[Question], list[Trajectory]]:
    """Read predictions, one trajectory per row. A row without an id gets its number for one.

    Args:
        path: the file.
        image_root: not used, the file names no images; all readers take it.
        domain: domain of all questions.
        bad_row: told of each row that cannot be read; when it returns, the row is left out.

    Raises:
        DataError: names the row and field of what is wrong.
    """
    questions: dict[str, Question] = {}
    trajectories: list[Trajectory] = []
    samples: dict[str, int] = {}
    for number, row in each_row(path, bad_row):
        try:
            question, trajectory = _parse(row, number, domain)
            if questions.setdefault(question.id, question) != question:
                message = f"id '{question.id}' stands for two different questions; make ids unique"
                raise DataError(message, field="id")
        except DataError as error:
            bad_row(error.at(file=path, row=number))
            continue
        index = samples.get(question.id, 0)
        samples[question.id] = index + 1
        trajectories.append(trajectory.model_copy(update={"sample_index": index}))
    return list(questions.values()), trajectories


def _parse(row: dict[str, Any], number: int, domain: str) -> tuple[Question, Trajectory]:
    options = _options(row.get("options"))
    subject = row.get("subject")
    question = Question.parse(
        {
            "id": exact_text(row, "id") if "id" in row else str(number),
            "domain": domain,
            "text": exact_text(row, "question"),
            "options": options,
            "answer": exact_text(row, "answer"),
            "subject": subject or None,
        }
    )
    outcome = row.get("if_right")
    if outcome not in (None, True, False):
        raise DataError(f"must be true or false, not {outcome!r:.40}", field="if_right")
    response = exact_text(row, "response")
    trajectory = Trajectory.parse(
        {
            "question_id": question.id,
            "steps": parse_response(response),
            "answer": extract_answer(response, options),
            "outcome": None if outcome is None else bool(outcome),
            "extra": rest_of(row, _USED, _NAME),
        }
    )
    return question, trajectory


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
