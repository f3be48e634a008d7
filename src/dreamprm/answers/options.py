"""Options of a question: which one a text means, and how to shuffle them safely.

A text names an option by its letter ("B", "(b)", "Option B: 4 cm", "4 cm (B)"), by its text or by
an equal value. A letter outranks the text beside it: "(A) 4 cm" where B is 4 cm chooses A. Two
different letters ("A, E", "(A) and (B)") choose nothing. A letter means nothing without the order
of options that it belongs to: MMMU-Pro shows the options of MMMU in another order and with more of
them, so whatever crosses from one order to another goes by the option's text.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import NamedTuple

from dreamprm.answers.formula import same_math
from dreamprm.answers.math_equal import NoReply
from dreamprm.answers.quantities import parse_quantity, same_quantity
from dreamprm.answers.text import clean, polarity, same_text, squeeze, yes_no
from dreamprm.errors import DataError
from dreamprm.prompts import option_letter
from dreamprm.records import Question

_OPENING = r"(?:(?:so|thus|hence|therefore)\b,?\s*)?(?:the\s+)?(?:(?:correct|right|best|final)\s+)*"
_STATING = re.compile(
    rf"{_OPENING}(?:answer|option|choice)\s*(?:is\b|:)\s*:?\s*(?=\S)", re.IGNORECASE
)
_NAMING = re.compile(
    rf"{_OPENING}(?:answer|option|choice)\s+(?=[(\[]?[A-Z][)\]]?(?![A-Z]))", re.IGNORECASE
)
_LETTER = re.compile(
    r"\(([A-Za-z])\)|\[([A-Za-z])\]|([a-z])(?=$|\))"
    r"|([A-Z])(?=$|[):,]|\.(?![A-Za-z])|\s+[(\[]|\s+is\s+(?:the\s+)?(?:correct|right|best)\b)"
)
_ONE = r"(?:[(\[]([A-Za-z])[)\]]|([A-Z])(?![A-Za-z']))"
_ANOTHER = re.compile(rf"[)\].:,\s]*(?:[,;&/]|(?:and|or)\b)\s*{_ONE}")
_NOTHING_BUT_LETTERS = re.compile(rf"(?:[\s,;:.&/)\]]|\b(?:and|or)\b|{_ONE})+")
_WITH_TEXT = re.compile(r"([A-Za-z])([\s.,:)\]\u2013\u2014-]+)(.+)", re.DOTALL)
_BEHIND = re.compile(
    r"(.+?)(?:\s+|\s*[,;:\u2013\u2014-]\s*)"
    r"(?:[(\[]([A-Za-z])[)\]]|(?:option|choice|answer)\s+[(\[]?([A-Z])[)\]]?)",
    re.DOTALL,
)


def letter_index(letter: str) -> int:
    """A -> 0, B -> 1, ..."""
    return ord(letter) - ord("A")


def without_lead(text: str) -> str:
    """A text without what only announces an answer.

    Example:
        >>> without_lead("The correct answer is: option B")
        'B'
    """
    stated = clean(_STATING.sub("", text, count=1)) if _STATING.match(text) else text
    return clean(_NAMING.sub("", stated, count=1)) if _NAMING.match(stated) else stated


def letter_in(text: str) -> str | None:
    """The letter that a text begins with as one names an option; None where it goes on to others.

    Example:
        >>> letter_in("Option B: 4 cm"), letter_in("A, E"), letter_in("A beautiful city")
        ('B', None, None)
    """
    text = without_lead(text)
    match = _LETTER.match(text)
    if match is None:
        return None
    letter = _first(match)
    rest = text[match.end() :]
    following = [_ANOTHER.match(rest)]
    if _NOTHING_BUT_LETTERS.fullmatch(rest):
        following += re.finditer(_ONE, rest)
    return letter if all(_first(other) == letter for other in following if other) else None


def letter_beside_text(text: str, texts: Sequence[str]) -> str | None:
    """The letter before or behind the text of an option, whichever option's text that is.

    Args:
        text: without lead, see `without_lead`.
        texts: of the options, cleaned.
    """

    def is_option(part: str, options: Sequence[str]) -> bool:
        part = clean(part)
        return any(same_text(part, one) or squeeze(part) == squeeze(one) for one in options)

    before = _WITH_TEXT.fullmatch(text.lstrip("(["))
    if before is not None:
        letter, between, rest = before.groups()
        index = letter_index(letter.upper())
        if is_option(rest, texts[index : index + 1]):
            return letter.upper()
        may_be_article = letter in "aA" and between.isspace() and rest[0].isalpha()
        if letter.isupper() and not may_be_article and is_option(rest, texts):
            return letter
    behind = _BEHIND.fullmatch(text)
    if behind is not None and is_option(behind[1], texts):
        return (behind[2] or behind[3]).upper()
    return None


def _first(match: re.Match[str]) -> str:
    return str(next(filter(None, match.groups()))).upper()


_ABOUT_OTHERS = re.compile(
    r"\b(?i:of (?:the|these) (?:above|below|others?|options)|both of (?:them|these))\b"
    r"|\b(?i:both|neither|only|options?|choices?) \(?[A-Z]\b"
    r"|(?:^|\s)\(?[A-Z]\)? (?:and|or|&) \(?[A-Z]\b"
)


class Meant(NamedTuple):
    """The option that a text means, and the rule that says so."""

    position: int
    rule: str


def option_meant(text: str, options: Sequence[str]) -> Meant | None:
    """The option that a cleaned text means: by its text, its letter, an equal value, or yes or no.

    None where it means none of them, where an equal value fits several, or where that takes too
    long to find out.
    """
    try:
        return find_option(text, options)
    except NoReply:
        return None


def find_option(text: str, options: Sequence[str]) -> Meant | None:
    """`option_meant`, for a caller that wants to know when it took too long.

    Raises:
        NoReply: a comparison took too long.
    """
    if not text:
        return None
    texts = [clean(option) for option in options]
    bare = without_lead(text)
    for one in dict.fromkeys((text, bare)):
        for i, option in enumerate(texts):
            if len(one) > 1 and (same_text(one, option) or squeeze(one) == squeeze(option)):
                return Meant(i, "option_text")
    letter = letter_beside_text(bare, texts) or letter_in(text)
    if letter is not None and letter_index(letter) < len(options):
        return Meant(letter_index(letter), "letter")
    rule, equal = _equal_options(bare, texts)
    distinct = {squeeze(texts[i]) for i in equal}
    return Meant(equal[0], rule) if len(distinct) == 1 else None


def _equal_options(text: str, texts: Sequence[str]) -> tuple[str, list[int]]:
    """The options of equal value by the first rule that finds any, and that rule."""
    quantity = parse_quantity(text)
    said = yes_no(text)
    if equal := [i for i, other in enumerate(texts) if squeeze(text) == squeeze(other)]:
        return "option_text", equal
    if quantity is not None:
        others = [parse_quantity(other) for other in texts]
        equal = [i for i, o in enumerate(others) if o is not None and same_quantity(quantity, o)]
        if equal:
            return "number", equal
    if equal := [i for i, other in enumerate(texts) if same_math(text, other)]:
        return "math", equal
    if said is not None:
        return "yes_no", [i for i, other in enumerate(texts) if polarity(other) == said]
    return "no_match", []


def gold_option(gold: str, options: Sequence[str]) -> Meant:
    """The option that a gold answer, a letter or a text, means.

    Raises:
        DataError: it means none of them.
    """
    try:
        meant = find_option(clean(gold), options)
    except NoReply:
        raise DataError(
            f"comparing the gold answer '{gold:.80}' with its options takes too long; give the "
            "letter of the right one instead",
            field="answer",
        ) from None
    if meant is None:
        raise DataError(
            f"the gold answer '{gold:.80}' is none of its {len(options)} options, or fits several; "
            "correct the answer or give the options that it belongs to",
            field="answer",
        )
    return meant


def position_of(text: str, options: Sequence[str]) -> int:
    """Where an option of another order stands in this one; found by text, never by letter.

    Raises:
        DataError: it is not there.
    """
    for i, option in enumerate(options):
        if same_text(clean(option), clean(text)):
            return i
    raise DataError(
        f"the right option '{text}' is not among the {len(options)} options that were shown; every "
        "answer would be wrong, so correct or remove the question",
        field="options",
    )


def shuffle_options(question: Question, seed: int) -> Question:
    """The question with its options in another order, its gold letter moved along.

    The order depends on the seed and the question's id. A question without options is returned as
    it is, and so is one whose options speak of each other ("all of the above", "both A and B").

    Raises:
        DataError: the gold answer is none of the options.

    Example:
        >>> q = Question(id="1", domain="d", text="?", options=("Lyon", "Paris"), answer="B")
        >>> s = shuffle_options(q, 1)
        >>> s.options["AB".index(s.answer)]
        'Paris'
    """
    if not question.options or any(map(_ABOUT_OTHERS.search, question.options)):
        return question
    meant = gold_option(question.answer, question.options)
    order = list(range(len(question.options)))
    random.Random(f"{seed}/{question.id}").shuffle(order)
    answer = question.answer
    if meant.rule == "letter":
        answer = option_letter(order.index(meant.position))
    options = tuple(question.options[i] for i in order)
    return question.model_copy(update={"options": options, "answer": answer})
