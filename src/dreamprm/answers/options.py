"""Which option of a question a text means.

A text names an option by its letter ("B", "(b)", "Option B: 4 cm", "4 cm (B)"), by its text or by
an equal value. A letter outranks the text beside it: "(A) 4 cm" where B is 4 cm chooses A. A letter
counts only where it is used as one: "A cat", "I think" and "D-day" hold none. "A, C" and "A and C"
choose both, which is right where the gold answer is both; "A or B" chooses nothing. A letter means
nothing without the order of options that it belongs to: MMMU-Pro shows the options of MMMU in
another order and with more of them, so whatever crosses from one order to another goes by the
option's text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from dreamprm.answers.comparing import LONGEST_VALUE, compare
from dreamprm.answers.math_equal import NoReply
from dreamprm.answers.text import DOLLAR, clean, polarity, squeeze
from dreamprm.errors import DataError

_LEAD = re.compile(  # "So the correct answer is:", "option", "the best choice is option"
    r"(?:(?:so|thus|hence|therefore)\b,?\s*)?(?:the\s+)?(?:(?:correct|right|best|final)\s+)*"
    r"(?:answers?|options?|choices?|letter)\b"
    r"(?:\s*(?:is\b|are\b|:)\s*:?\s*(?=\S)|\s+(?=[(\[*]{0,3}[A-Za-z][)\]*]{0,3}(?![A-Za-z])))"
    r"|(?:(?:most )?likely|probably|maybe|clearly|indeed|definitely|either|therefore|okay|sure)\b"
    r"[\s:,]*|\u9009\u9879\s*|[\u2192\u2234]\s*",
    re.IGNORECASE,
)
_BEHIND_LETTER = (  # what may follow a capital letter that names an option
    r"(?=\s*(?:\Z|[\n,;!?)\]}\"`*$|/&\u2013\u2014\u3001\u3002\u548c\u53ca\u4e0e\u9879]"
    r"|\\[)\]]|:(?!\w)|:\s|\.(?![A-Za-z])|-\s|'(?!\w))"
    r"|\s+(?:because|since|is|and|or|as|with|due|for|which|rather|instead)\b|\s*[(\[]"
)
_LETTER = re.compile(
    r"[\s\"'`*_$]*(?:\\\(\s*)?(?:\\(?:text|mathrm|textbf|mathbf)\s*\{\s*)?(?:"
    r"(?P<bracketed>[(\[]\s*[A-Za-z]\s*[)\]])"
    rf"|(?P<article>[AI]){_BEHIND_LETTER})"
    rf"|(?P<bare>[B-HJ-Z]){_BEHIND_LETTER}|\s+(?:given|based)\b)"
    r"|(?P<small>[a-z])(?=\s*\Z|[):]|\.\s))"
)
_BETWEEN_LETTERS = re.compile(
    r"[\s)\]*.]*(?:(?P<or>(?:,\s*)?\bor\b)|[,;/&\u3001\u548c\u53ca\u4e0e]\s*(?:and\b)?|\band\b)\s*"
    r"|(?P<unclear>\.\s+(?=[A-Z]\s*\Z)|\s*(?=[(\[]\s*[A-Z]\s*[)\]]))"  # "A. B", "A (B)"
)
_TOGETHER = re.compile(r"[A-Z]{2,}")
_WITH_TEXT = re.compile(r"[(\[]*([A-Za-z])([\s.,:)\]\u2013\u2014-]+)(.+)", re.DOTALL)
_BEHIND_TEXT = re.compile(
    r"(.+?)(?:\s+|\s*[,;:\u2013\u2014-]\s*)"
    r"(?:[(\[]([A-Za-z])[)\]]|(?:option|choice|answer)\s+[(\[]?([A-Z])[)\]]?)",
    re.DOTALL,
)


class Letters(NamedTuple):
    """Letters that a text begins with, as places of options, and where they stand."""

    places: tuple[int, ...]
    start: int
    end: int


class Mention(NamedTuple):
    """Where a text names an option by the option's text, and which one."""

    place: int
    start: int
    end: int


class Meant(NamedTuple):
    """The options that a text means, one but for questions with several right ones, and why."""

    places: tuple[int, ...]
    rule: str

    @property
    def position(self) -> int:
        return self.places[0]


def letter_index(letter: str) -> int:
    """A -> 0, B -> 1, ..."""
    return ord(letter) - ord("A")


def skip_lead(text: str, start: int = 0) -> int:
    """Where a text goes on behind what only announces an answer."""
    for _ in range(3):
        lead = _LEAD.match(text, start)
        start = lead.end() if lead else start
    return start


def without_lead(text: str) -> str:
    """A text without what only announces an answer.

    Example:
        >>> without_lead("The correct answer is: option B")
        'B'
    """
    return clean(text[skip_lead(text) :])


def letters_at(text: str, start: int = 0) -> Letters | None:
    """The letters that name options at one place of a text; None for none, and for "A or B".

    Example:
        >>> letters_at("C, I think"), letters_at("A cat"), letters_at("A and C")
        (Letters(places=(2,), start=0, end=1), None, Letters(places=(0, 2), start=0, end=7))
    """
    match = _LETTER.match(text, start)
    if match is None:
        return None
    begin, end = match.span(str(match.lastgroup))
    places = [_place(match)]
    while between := _BETWEEN_LETTERS.match(text, end):
        match = _LETTER.match(text, between.end())
        if match is None or match["small"]:
            break
        if (between["or"] or between["unclear"] is not None) and _place(match) not in places:
            return None
        places.append(_place(match))
        end = match.end(str(match.lastgroup))
    return Letters(tuple(dict.fromkeys(places)), begin, end)


def letters_together(text: str, number: int) -> tuple[int, ...]:
    """The places that "ACD" names among a number of options; none where it is another word."""
    places = tuple(map(letter_index, text)) if _TOGETHER.fullmatch(text) else ()
    is_list = all(a < b for a, b in pairwise(places)) and max(places, default=0) < number
    return places if is_list else ()


def _place(match: re.Match[str]) -> int:
    return letter_index(match[str(match.lastgroup)].strip("()[] \t\n").upper())


def place_of(text: str, options: Sequence[str]) -> int | None:
    """Which option a text is, but for dress, case and spaces.

    Example:
        >>> place_of("**paris**.", ["Rome", "Paris"])
        1
    """
    text = clean(text)
    places = _places(tuple(options))
    return places.get(text, places.get(squeeze(text)))


@lru_cache(maxsize=4096)
def _places(options: tuple[str, ...]) -> dict[str, int]:
    """Options by their texts; of two that differ by case only, each by its own."""
    texts = [(clean(option), i) for i, option in enumerate(options)][::-1]
    return {squeeze(text): i for text, i in texts} | dict(texts)


def mentions(text: str, options: Sequence[str]) -> list[Mention]:
    """Every place where a text holds the text of an option, as words of their own.

    The longest option counts: "2.2" names 2.2 and not 2. Options of one letter, yes and no are
    words of any sentence and never mentioned.

    Example:
        >>> mentions("It is 2.2 or so.", ["2", "2.2", "22"])
        [Mention(place=1, start=6, end=9)]
    """
    bare = squeeze(text)
    if not any(squeeze(one).replace(DOLLAR, "") in bare for one in _places(tuple(options))):
        return []  # a pattern takes longer to make than most texts to read
    pattern = _mention_pattern(tuple(options))
    if pattern is None:
        return []
    return [Mention(int(str(m.lastgroup)[1:]), *m.span()) for m in pattern.finditer(text)]


@lru_cache(maxsize=4096)
def _mention_pattern(options: tuple[str, ...]) -> re.Pattern[str] | None:
    texts = [(clean(option), i) for i, option in enumerate(options)]
    named = [(t, i) for t, i in texts if (len(t) > 1 or t.isdigit()) and polarity(t) is None]
    named.sort(key=lambda one: -len(one[0]))
    parts = [f"(?P<o{i}>{_as_words(text)})" for text, i in named]
    return re.compile("|".join(parts), re.IGNORECASE) if parts else None


def _as_words(text: str) -> str:
    words = r"\s+".join(map(re.escape, text.split()))
    words = words.replace(DOLLAR, r"\\?[$\uff04]?").replace(r",\s+", ",").replace(",", r",\s*")
    left = r"(?<![\w\\^/\u221a])(?<!\d[.,:])" + (r"(?<!-)" if text[0].isdigit() else "")
    right = r"(?![\w^\u221a\u00b0/]|[.,:]\d|-\w|\s*[*+=<>\u00d7]|\s*\\[a-z])"
    return left * text[0].isalnum() + words + right * text[-1].isalnum()


def option_meant(text: str, options: Sequence[str]) -> Meant | None:
    """The one option that a cleaned text means: by its text, letter or an equal value.

    None where it means none or several of them, where an equal value fits several, or where that
    takes too long to find out.
    """
    try:
        meant = find_option(text, options)
    except NoReply:
        return None
    return meant if meant and len(meant.places) == 1 else None


def find_option(text: str, options: Sequence[str]) -> Meant | None:
    """`option_meant`, for several options too, and for callers who want to know of a timeout.

    Raises:
        NoReply: a comparison took too long.
    """
    bare = without_lead(text)
    for one in dict.fromkeys((text, bare, text.removeprefix("A: "))):
        if len(one) > 1 and (place := place_of(one, options)) is not None:
            return Meant((place,), "option_text")
    if not bare or len(text) > LONGEST_VALUE:
        return None
    if (place := letter_beside_text(bare, options)) is not None:
        return Meant((place,), "letter")
    if together := letters_together(bare, len(options)):
        return Meant(together, "letter")
    letters = letters_at(bare)
    if letters and max(letters.places) < len(options):
        return Meant(letters.places, "letter")
    if (place := place_of(bare, options)) is not None:
        return Meant((place,), "option_text")
    texts = [clean(option) for option in options]
    verdicts = [compare(bare, other) for other in texts]
    equal = [i for i, one in enumerate(verdicts) if one.correct]
    if len({squeeze(texts[i]) for i in equal}) != 1:
        return None
    return Meant((equal[0],), verdicts[equal[0]].rule)


def letter_beside_text(text: str, options: Sequence[str]) -> int | None:
    """Place of the letter before or behind an option's text, whichever option's text that is.

    Args:
        text: without lead, see `without_lead`.
    """
    if len(text) > LONGEST_VALUE:
        return None
    place = None
    if before := _WITH_TEXT.fullmatch(text):
        letter, between, rest = before.groups()
        own = letter_index(letter.upper())
        is_article = letter == "A" and between.isspace() and rest[0].isalpha()
        is_label = letter == "A" and between.startswith(":")  # "A: ..." answers "Q: ..."
        is_letter = letter.isupper() and not is_article and not is_label
        if (is_letter and place_of(rest, options) is not None) or (
            place_of(rest, options[own : own + 1]) is not None
        ):
            place = own
    behind = _BEHIND_TEXT.fullmatch(text)
    if place is None and behind and place_of(behind[1], options) is not None:
        place = letter_index((behind[2] or behind[3]).upper())
    return place if place is not None and place < len(options) else None


def gold_option(gold: str, options: Sequence[str]) -> Meant:
    """The option that a gold answer, a letter or a text, means; several for "A, C".

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
    place = place_of(text, options)
    if place is None:
        raise DataError(
            f"the right option '{text}' is not among the {len(options)} options that were shown; "
            "every answer would be wrong, so correct or remove the question",
            field="options",
        )
    return place
