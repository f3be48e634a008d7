"""Letters that name options: "B", "(b)", "Option B: 4 cm", "the correct answer is B", "4 cm (B)".

A letter outranks the text beside it: who writes "(A) 4 cm" where B is 4 cm has chosen A. Two
different letters ("A, E", "(A) and (B)") choose nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dreamprm.answers.text import clean, same_text, squeeze

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
