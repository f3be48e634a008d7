"""MathVista (arXiv 2310.02255): 1,000 questions of testmini, its score's rules, its output files.

Its verdicts look at an extraction that a language model makes of the response. `extract` does that
by rules: the stated final answer; else, from the last sentence backwards, the choice that is named,
or the last number; "N/A" and its kin where the response says that it cannot tell. The last matters,
because the score counts an answer that is no choice as the one with the nearest spelling: what a
refusal counts for is decided by the words in which it was extracted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from dreamprm.answers import Verdict, extract_answer
from dreamprm.answers.options import mentions, option_meant
from dreamprm.answers.quantities import parse_quantity
from dreamprm.answers.text import clean, polarity
from dreamprm.data.rows import Row
from dreamprm.errors import DataError
from dreamprm.evaluation.benchmarks.base import (
    Benchmark,
    Response,
    by_letter,
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
    """Does MathVista's score count the answer?"""
    return published_verdict(question, answer).correct


def is_nearest(question: Question, answer: str | None) -> bool:
    """Is the answer none of the choices, so that it counts as the one of nearest spelling?"""
    return published_verdict(question, answer).rule == "nearest_choice"


def published_verdict(question: Question, answer: str | None) -> Verdict:
    """The verdict that MathVista's own score counts; kept apart from ours, because it guesses.

    With choices: a letter in parentheses or a lone capital letter of a choice is that choice; all
    else is the choice with the smallest edit distance, the first among equals. Without: an integer
    is cut at the decimal point, a float is rounded to `precision`, and the text of the result must
    be the gold answer's; a list must be the same text.

    Raises:
        DataError: an unknown `answer_type` of the question, or a float without `precision`.

    Example:
        >>> q = Question(id="q", domain="d", text="?", options=("yes", "no"), answer="B")
        >>> published_verdict(q, "cannot say")
        Verdict(correct=True, rule='nearest_choice')
    """
    kind, precision = question.extra.get("answer_type") or "text", question.extra.get("precision")
    decimals = int(precision) if isinstance(precision, int | float) else None
    if kind not in ("text", "integer", "float", "list"):
        message = f"'{kind}' is none of text, integer, float, list"
        raise DataError(message, field="answer_type")
    if answer is None:
        return Verdict(False, "none")
    gold = letter_or_text(question)
    if question.options:
        return _choice_verdict(answer.strip(), gold, by_letter(question))
    if kind in ("text", "list"):
        return Verdict(answer == gold, "same_text")
    if kind == "float" and decimals is None:
        raise DataError("a float needs a number of decimals", field="precision")
    try:
        number = float(answer)
        text = str(int(number) if kind == "integer" else round(number, decimals))
    except (ValueError, OverflowError):
        return Verdict(False, "no_match")
    return Verdict(text == gold, "number")


def _choice_verdict(answer: str, gold: str, choices: Mapping[str, str]) -> Verdict:
    letters = _LETTER.findall(answer)
    letter = letters[0].upper() if letters else answer
    if letter in choices:
        return Verdict(choices[letter] == gold, "letter")
    if answer in choices.values():
        return Verdict(answer == gold, "option_text")
    nearest = min(choices.values(), key=lambda choice: _edit_distance(letter, choice))
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
    text, is_alone = answering_part(text)
    stated = extract_answer(text, question.options)
    if question.options:
        return _choice(text, stated, question.options, may_imply=is_alone)
    if question.extra.get("answer_type") in ("integer", "float"):
        return _number(text, stated)
    return stated


def answering_part(text: str) -> tuple[str, bool]:
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
    interprets=is_nearest,
)
