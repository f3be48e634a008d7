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
from dreamprm.answers.options import letter_index, mentions, option_meant
from dreamprm.answers.quantities import parse_quantity
from dreamprm.answers.text import clean, polarity
from dreamprm.data.rows import Row
from dreamprm.errors import DataError
from dreamprm.evaluation.benchmarks.base import (
    Benchmark,
    Response,
    groups_by,
    letter_or_text,
)
from dreamprm.prompts import option_letter
from dreamprm.records import Question

_NUMBER = re.compile(r"(?<![\w.])[-−]?\d[\d,]*(?:\.\d+)?|(?<![\w.])[-−]?\.\d+")
_REFUSES = re.compile(
    r"can\s?not|can't|impossible|not possible|unable|insufficient|not enough|none of the|don't"
    r"|do(?:es)? not|doesn't|not (?:provide|give|contain|include)|no (?:information|option)",
    re.IGNORECASE,
)
_PLEASANTRY = re.compile(
    r"\n[ \t]*(?:I hope|Is there any|Do you (?:have|want|need)|Let me know|Would you|Please let"
    r"|If you)[^\n]*",
    re.IGNORECASE,
)
NONE_OF_THEM = "None of the options match this answer."
UNDETERMINED, UNANSWERED, ABSENT = "Cannot be determined", "Cannot be answered", "N/A"
REFUSALS = (NONE_OF_THEM, UNDETERMINED, UNANSWERED, ABSENT)
"""What a response without an answer is noted as."""

_NEW_QUESTION = re.compile(r"\n[ \t]*(?:Question|Solution|Q)\s*\d*:")
_NEXT_TURN = re.compile(r"\n[ \t]*(?:Human|User):")
_DENIES = re.compile(
    r"\b(?:not|no|never|cannot|neither|isn't|doesn't|aren't|don't)\b", re.IGNORECASE
)
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
    text, is_alone = _answering_part(text)
    stated = extract_answer(text, question.options)
    if question.options:
        return _choice(text, stated, question.options, may_imply=is_alone)
    if question.extra.get("answer_type") in ("integer", "float"):
        return _number(text, stated)
    return stated


def states_answer(question: Question, text: str) -> bool:
    """Does a response state an answer, one of the choices if there are any, or is it inferred?"""
    stated = extract_answer(_answering_part(text)[0], question.options)
    if stated is None or not question.options:
        return stated is not None
    return option_meant(clean(stated), question.options) is not None


def _answering_part(text: str) -> tuple[str, bool]:
    """The part of a response that was extracted from, and whether that is all of it.

    Some models go on with questions of their own, and the extraction answered the last of them.
    """
    text = _PLEASANTRY.sub("", _NEXT_TURN.split(text.strip())[0]).strip()
    parts = [part for part in _NEW_QUESTION.split(text) if part.strip()] or [text]
    answered = [part for part in parts if not part.rstrip().endswith("?")]
    return (answered or parts)[-1], len(parts) == 1


def _choice(text: str, stated: str | None, choices: tuple[str, ...], *, may_imply: bool) -> str:
    if stated is not None:
        meant = option_meant(clean(stated), choices)
        return stated if meant is None else option_letter(meant.position)
    for sentence in _backwards(text):
        if _REFUSES.search(sentence):
            if letters := _LETTER.findall(sentence):  # of a choice that the model added
                return str(letters[-1])
            return _refusal(sentence.lower(), text.lower())
        if named := mentions(sentence, choices):
            return option_letter(named[-1].place)
    says = {polarity(clean(choice)): choice for choice in choices}
    sentences = _backwards(text)
    if None in says or not sentences:
        return ABSENT
    words = [choice for choice in choices if re.search(rf"\b{choice}\b", text, re.IGNORECASE)]
    if words:
        low = text.lower()
        return max(words, key=lambda choice: low.rfind(choice.lower()))
    return says[_DENIES.search(sentences[-1]) is None] if may_imply else ABSENT


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


def _number(text: str, stated: str | None) -> str:
    """The last number of the last sentence that has one; a bold one and one behind '=' first."""
    for part in ([stated] if stated else []) + _backwards(text):
        quantity = parse_quantity(part) if part == stated else None
        if quantity is not None and quantity.value.denominator == 1:
            return str(quantity.value)
        bold = [b for b in _BOLD.findall(part) if _NUMBER.search(b)]
        likely = bold[-1] if bold else part
        behind = re.split("[=\u2248]", likely)[-1]
        numbers = _NUMBER.findall(behind) or _NUMBER.findall(likely)
        if numbers:
            return str(numbers[-1]).replace(",", "").replace("\u2212", "-")
    return ABSENT


def _backwards(text: str) -> list[str]:
    return [s for s in reversed(_SENTENCE.split(text)) if s.strip()]


def response_of(row: Row) -> Response:
    """A row of its output file, an object of pid -> row; `extraction` comes later on."""
    name = row["pid"] if "pid" in row else row["id"]
    return Response(str(name), row["response"] or "", row.get("extraction"))


MATHVISTA = Benchmark(
    name="mathvista",
    count=1000,
    right=right,
    extract=extract,
    groups=groups_by("task", skills="skills", context="context", grade="grade"),
    output=(("pid", "response"), ("id", "response")),
    response_of=response_of,
    refusals=REFUSALS,
)
