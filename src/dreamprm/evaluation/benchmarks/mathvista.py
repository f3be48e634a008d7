"""MathVista (arXiv 2310.02255): 1,000 questions of testmini, its score's rules, its output files.

Its verdicts look at an extraction that a language model makes of the response. `extract` does that
by rules: the stated final answer; else, from the last sentence backwards, the choice that is named,
or the last number; "N/A" and its kin where the response says that it cannot tell. The last matters,
because the score counts an answer that is no choice as the one with the nearest spelling: what a
refusal counts for is decided by the words in which it was extracted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dreamprm.answers import Verdict, extract_answer
from dreamprm.answers.options import letter_index
from dreamprm.data.rows import Row
from dreamprm.errors import DataError
from dreamprm.evaluation.benchmarks.base import (
    Benchmark,
    Response,
    groups_by,
    letter_or_text,
)
from dreamprm.records import Question

_NUMBER = re.compile(r"(?<![\w.])[-−]?\d[\d,]*(?:\.\d+)?|(?<![\w.])[-−]?\.\d+")
_REFUSES = re.compile(
    r"can\s?not|can't|impossible|not possible|unable|insufficient|not enough|none of the|don't"
    r"|do(?:es)? not|doesn't|not (?:provide|give|contain|include)|no (?:information|option)",
    re.IGNORECASE,
)
_PLEASANTRY = re.compile(
    r"\n\s*(?:I hope|Is there any|Do you (?:have|want|need)|Let me know|Would you|Please let"
    r"|If you)[^\n]*",
    re.IGNORECASE,
)
NONE_OF_THEM = "None of the options match this answer."
UNDETERMINED, UNANSWERED, ABSENT = "Cannot be determined", "Cannot be answered", "N/A"
REFUSALS = (NONE_OF_THEM, UNDETERMINED, UNANSWERED, ABSENT)
"""What a response without an answer is noted as."""

_LETTER = re.compile(r"\(([A-Za-z])\)")
_SENTENCE = re.compile(r"(?<=[.!?。])\s+|\n+")
_BOLD = re.compile(r"\*\*([^*\n]+)\*\*")


def right(question: Question, answer: str | None) -> bool:
    """`mathvista_verdict` with what the question says of its answer."""
    kind, precision = question.extra.get("answer_type"), question.extra.get("precision")
    return mathvista_verdict(
        answer,
        letter_or_text(question),
        question.options,
        answer_type=str(kind or "text"),
        precision=int(precision) if isinstance(precision, int | float) else None,
    ).correct


def mathvista_verdict(
    extraction: str | None,
    gold: str,
    choices: Sequence[str] = (),
    *,
    answer_type: str = "text",
    precision: int | None = None,
) -> Verdict:
    """The verdict that MathVista's own score counts; kept apart from ours, because it guesses.

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
        return _choice_verdict(extraction.strip(), gold, choices)
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


def _choice_verdict(extraction: str, gold: str, choices: Sequence[str]) -> Verdict:
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


def extract(question: Question, text: str) -> str | None:
    """The answer in a response, by rules."""
    text = _PLEASANTRY.sub("", text).strip()
    stated = extract_answer(text, question.options)
    if question.options:
        return _choice(text, stated, question.options)
    if question.extra.get("answer_type") in ("integer", "float"):
        return _number(text, stated)
    return stated


def _choice(text: str, stated: str | None, choices: tuple[str, ...]) -> str:
    if stated is not None:
        letter = re.match(r"\W*\(?([A-Z])\)?(?:\W|$)", stated)
        if letter and letter_index(letter[1]) < len(choices):
            return letter[1]
        begins = [c for c in choices if re.match(re.escape(c) + r"(?!\w)", stated, re.IGNORECASE)]
        named = begins or _named(choices, stated)
        return named[0] if begins or len(named) == 1 else stated
    for sentence in _backwards(text):
        letters = re.findall(r"\(([A-Z])\)", sentence) or re.findall(
            r"(?:答案是|选)\s*([A-Z])", sentence
        )
        letters = [x for x in letters if letter_index(x) < len(choices)]
        if len(set(letters)) == 1:
            return str(letters[0])
        if _REFUSES.search(sentence) and not letters:
            return _refusal(sentence.lower(), text.lower())
        if named := _named(choices, sentence):
            low = sentence.lower()
            return max(named, key=lambda c: (low.rfind(c.lower()), len(c)))
    return ABSENT


def _refusal(sentence: str, text: str) -> str:
    """In the words in which a language model would most likely note it."""
    if "none of" in sentence:
        return NONE_OF_THEM
    if "cannot be determined" in sentence:
        return UNDETERMINED
    vague = "given information" in sentence or "number of" in text
    if "cannot be answered" in sentence and vague:
        return UNANSWERED
    return ABSENT


def _named(choices: tuple[str, ...], text: str) -> list[str]:
    return [c for c in choices if re.search(rf"(?<!\w){re.escape(c)}(?!\w)", text, re.IGNORECASE)]


def _number(text: str, stated: str | None) -> str:
    """The last number of the last sentence that has one; a bold one and one behind '=' first."""
    for part in ([stated] if stated else []) + _backwards(text):
        bold = [b for b in _BOLD.findall(part) if _NUMBER.search(b)]
        likely = bold[-1] if bold else part
        behind = re.split("[=≈]", likely)[-1]
        numbers = _NUMBER.findall(behind) or _NUMBER.findall(likely)
        if numbers:
            return str(numbers[-1]).replace(",", "").replace("−", "-")
    return ABSENT


def _backwards(text: str) -> list[str]:
    return [s for s in reversed(_SENTENCE.split(text)) if s.strip()]


def response_of(row: Row) -> Response:
    """A row of its output file, an object of pid -> row; `extraction` comes later on."""
    name = row["pid"] if "pid" in row else row["id"]
    return Response(str(name), row["response"] or "", row.get("extraction"))


MATHVISTA = Benchmark(
    name="mathvista",
    about="1,000 questions of testmini, five tasks (arXiv 2310.02255)",
    count=1000,
    right=right,
    extract=extract,
    groups=groups_by("task", skills="skills", context="context", grade="grade"),
    output=(("pid", "response"), ("id", "response")),
    response_of=response_of,
    refusals=REFUSALS,
    rules="nearest choice; numbers to the precision asked for; otherwise equal text",
)
