"""Clock times, ranges and dates: several numbers that are no calculation.

Computer algebra takes "15-20" for -5, "2010-05-03" for 2002, and drops the "p.m." of "3:00 p.m.".
"""

from __future__ import annotations

import re
from typing import NamedTuple

from dreamprm.answers.numbers import Quantity, parse_quantity, same_quantity
from dreamprm.answers.text import DOLLAR, clean


class Clock(NamedTuple):
    """A time of day; `is_certain` where morning and afternoon are told apart."""

    seconds: int
    is_certain: bool


_SPACES = re.compile(r"\\[,;: ]|[~\s\u00a0\u2009\u202f]+")
_DEGREE = re.compile(r"\s*\^\s*\{?\s*\\circ(?![a-z])\s*\}?|\\degree(?![a-z])")
_CLOCK = re.compile(r"(\d{1,2})(?::(\d{2})(?::(\d{2}))?)? ?(?:([ap])\.? ?m\b\.?)?", re.IGNORECASE)
_BETWEEN = re.compile(
    rf"(?<=[\w%\u00b0])(?: to | ?(?:-{{1,3}}|[\u2012-\u2015\u2212]) ?)(?=[\d{DOLLAR}])"
)
_END = re.compile(  # "15", "$15", "15%", "15 cm", but not "15m", which may be a product
    rf"-?{DOLLAR}? ?\d[\d,]*(?:\.\d+)?(?: ?[%\u00b0]| ?[A-Za-z]{{2,}}.*| [^\d/*^].*)?"
)


def parse_clock(text: str) -> Clock | None:
    """The time of day that a text states, or None.

    Example:
        >>> parse_clock("3:00 P.M.") == parse_clock("15:00"), parse_clock("2:3")
        (True, None)
    """
    match = _CLOCK.fullmatch(_plain(text))
    if match is None or (match[2] is None and match[4] is None):
        return None
    hour, minute, second = (int(part or 0) for part in match.groups()[:3])
    if minute > 59 or second > 59 or hour > 23:
        return None
    if match[4]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if match[4] in "pP" else 0)
    is_certain = bool(match[4]) or hour > 12
    return Clock(3600 * hour + 60 * minute + second, is_certain)


def parse_range(text: str) -> tuple[Quantity, ...] | None:
    """The ends of a range ("15-20 cm", "15 to 20"), or the parts of a date ("2010-05-03").

    Only plain decimals count: "1/2 - 1/3" and "12 - 15m" are calculations.
    """
    parts = _BETWEEN.split(_plain(text))
    if len(parts) < 2 or not all(map(_END.fullmatch, parts)):
        return None
    if parts[0].startswith("-") and " to " not in text:
        return None
    found = [quantity for part in parts if (quantity := parse_quantity(part)) is not None]
    if len(found) < len(parts):
        return None
    return tuple(Quantity(one.value, one.unit or found[-1].unit) for one in found)


def same_span(answer: str, gold: str) -> bool | None:
    """Is it the same time of day or the same range? None where the two are not both of one kind."""
    clocks = parse_clock(answer), parse_clock(gold)
    if clocks[0] is not None and clocks[1] is not None:
        return clocks[0] == clocks[1]
    ends, wanted = parse_range(answer), parse_range(gold)
    if ends is None or wanted is None:
        return None
    return len(ends) == len(wanted) and all(map(same_quantity, ends, wanted))


def is_span(text: str) -> bool:
    """Is it a range, a date or a time with a.m. or p.m.? "1:30" alone may be a ratio."""
    clock = parse_clock(text)
    return parse_range(text) is not None or (clock is not None and bool(re.search("[aApP]", text)))


def _plain(text: str) -> str:
    text = _DEGREE.sub("\u00b0", clean(text).replace("\\%", "%").replace("$", " "))
    return _SPACES.sub(" ", text).strip()
