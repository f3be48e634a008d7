"""What MathVista (arXiv 2310.02255) calls right: the published rules, for figures to compare with.

They are kept apart from `answers.verdict`, because they guess: an answer that is none of the
choices ("cannot be determined") counts as the choice with the most similar spelling.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dreamprm.answers.extract import Verdict
from dreamprm.answers.options import letter_index
from dreamprm.errors import DataError

_LETTER = re.compile(r"\(([A-Za-z])\)")


def mathvista_verdict(
    extraction: str | None,
    gold: str,
    choices: Sequence[str] = (),
    *,
    answer_type: str = "text",
    precision: int | None = None,
) -> Verdict:
    """The verdict that MathVista's own score counts.

    With choices: a letter in parentheses or a lone capital letter of a choice is that choice; all
    else is the choice with the smallest edit distance, the first among equals. Without: an integer
    is cut at the decimal point, a float is rounded to `precision`, and the text of the result must
    be the gold answer's; a list must be the same text.

    Args:
        extraction: the answer as it was extracted from the response.
        gold: the text of the right choice, or the answer.
        answer_type: `text`, `integer`, `float` or `list`.
        precision: decimals of a float.

    Raises:
        DataError: an unknown answer type, or a float without precision.

    Example:
        >>> mathvista_verdict("1.24", "1.2", answer_type="float", precision=1)
        Verdict(correct=True, rule='number')
        >>> mathvista_verdict("cannot say", "no", ["yes", "no"])
        Verdict(correct=True, rule='nearest_choice')
    """
    if answer_type not in ("text", "integer", "float", "list"):
        message = f"'{answer_type}' is none of text, integer, float, list"
        raise DataError(message, field="answer_type")
    if extraction is None:
        return Verdict(False, "none")
    if choices:
        return _choice(extraction.strip(), gold, choices)
    if answer_type in ("text", "list"):
        return Verdict(extraction == gold, "same_text")
    if answer_type == "float" and precision is None:
        raise DataError("a float needs a number of decimals", field="precision")
    try:
        number = float(extraction)
        text = str(int(number) if answer_type == "integer" else round(number, precision))
    except (ValueError, OverflowError):
        return Verdict(False, "no_match")
    return Verdict(text == gold, "number")


def _choice(extraction: str, gold: str, choices: Sequence[str]) -> Verdict:
    letters = _LETTER.findall(extraction)
    letter = letters[0].upper() if letters else extraction
    if len(letter) == 1 and 0 <= letter_index(letter) < len(choices):
        return Verdict(choices[letter_index(letter)] == gold, "letter")
    if extraction in choices:
        return Verdict(extraction == gold, "option_text")
    nearest = min(choices, key=lambda choice: _edit_distance(letter, choice))
    return Verdict(nearest == gold, "nearest_choice")


def _edit_distance(left: str, right: str) -> int:
    """Levenshtein: insertions, deletions and substitutions, each 1."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, start=1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(right, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]
