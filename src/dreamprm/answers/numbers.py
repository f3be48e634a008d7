r"""Numbers as people write them, with or without a unit, and whether two of them are the same.

`1,234.5`, `10 000`, `10{,}000`, `3.0e4`, `3 \times 10^4`, `1/2`, `1\frac{1}{2}`, `3 million`,
`$5`, `12 cm`, `120^\circ`, `50%`. Values are exact fractions; nothing is compared as a float.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from dreamprm.answers.text import DOLLAR, clean
from dreamprm.answers.units import PERCENT, Unit, parse_unit


class Quantity(NamedTuple):
    """A number and its unit; None for a bare number."""

    value: Fraction
    unit: Unit | None = None


_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,3}(?: \d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+"
_QUANTITY = re.compile(
    rf"(?P<sign>[-+]?)\s*(?P<money>[{DOLLAR}$\u20ac\u00a3]?)\s*(?P<inner>[-+]?)\s*(?:"
    r"(?:(?P<whole>\d+)(?:\s+|\s*(?=\\)))?(?:\\[dt]?frac\s*\{\s*(?P<a>\d+)\s*\}\s*\{\s*(?P<b>\d+)\s*\}"
    r"|(?<=\s)(?P<c>\d+)\s*/\s*(?P<d>\d+))"
    rf"|(?P<top>{_DIGITS})\s*/\s*(?P<bottom>-?(?:{_DIGITS}))"
    rf"|(?P<number>{_DIGITS})"
    r"(?:[eE](?P<e>[-+]?\d{1,3})(?!\d)|\s*[*x]\s*10\s*\^\s*\{?\s*(?P<power>[-+]?\d{1,3})\s*\}?(?!\d))?"
    r")(?P<rest>.*)",
    re.DOTALL,
)
_COUNTS = {
    "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
    "dozen": 12,
}  # fmt: skip
_COUNT = re.compile(rf"\s*({'|'.join(_COUNTS)})s?\b(.*)", re.IGNORECASE | re.DOTALL)
_SPELLINGS = (
    (re.compile("[\u2212\u2013]"), "-"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\!"), ""),
    (re.compile("\\\\[,;: ]|[~\u00a0\u2009\u202f]"), " "),
    (re.compile(r"\\([%&])"), r"\1"),
    (re.compile(r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-z]))|\\degree(?![a-z])"), "\u00b0"),
    (re.compile(r"\\times(?![a-z])|\\cdot(?![a-z])|[\u00d7\u00b7]"), "*"),
)
_LONGEST = 100  # characters
_EXACT_ENOUGH = 6  # decimals from which a decimal stands for the repeating fraction it rounds


@lru_cache(maxsize=65536)
def parse_quantity(text: str) -> Quantity | None:
    r"""The quantity that a whole text states, or None.

    Example:
        >>> parse_quantity("1\\frac{1}{2}").value
        Fraction(3, 2)
        >>> parse_quantity("10 or 12") is None
        True
    """
    text = clean(text)
    if len(text) > _LONGEST:
        return None
    for pattern, plain in _SPELLINGS:
        text = pattern.sub(plain, text)
    if text.startswith("$") and text.count("$") == 2:  # "$12$ cm"
        text = clean(text[1:].replace("$", " ", 1))
    match = _QUANTITY.fullmatch(text.strip())
    value = match and _value(match)
    if match is None or value is None:
        return None
    rest = match["rest"]
    if count := _COUNT.fullmatch(rest):
        value, rest = value * _COUNTS[count[1].casefold()], count[2]
    rest = rest.strip()
    if match["money"]:
        unit = parse_unit(match["money"])
        if rest and parse_unit(rest) != unit:  # "$5 million dollars", but not "$5 cm"
            return None
        return Quantity(value, unit)
    if not rest:
        return Quantity(value)
    unit = parse_unit(rest)
    return None if unit is None else Quantity(value, unit)


def same_quantity(
    answer: Quantity, gold: Quantity, unit: str | None = None, precision: int | None = None
) -> bool:
    """Is it the same quantity?

    A unit that one side leaves out is taken from the other; two units are compared after
    conversion, and different where there is none. A bare number may stand for a percentage as 50
    or as 0.5.

    Args:
        unit: of a gold answer that is a bare number.
        precision: decimals, in the gold answer's unit, that the answer must agree to; None: exact.
    """
    wanted = gold.unit or (parse_unit(unit) if unit else None)
    value = answer.value
    if answer.unit is not None and wanted is not None:
        if answer.unit.dimension != wanted.dimension:
            return False
        value = value * answer.unit.factor / wanted.factor
    elif wanted == PERCENT:
        return any(_equal(v, gold.value, precision) for v in (value, value * 100))
    elif answer.unit == PERCENT:
        return any(_equal(v, gold.value, precision) for v in (value, value / 100))
    return _equal(value, gold.value, precision)


def _equal(value: Fraction, gold: Fraction, precision: int | None) -> bool:
    if precision is not None:
        half = Fraction(1, 2 * 10**precision)  # both ways to round a tie are accepted
        return abs(value - round(gold, precision)) <= half
    if value == gold:
        return True
    one, other = _decimals(value), _decimals(gold)
    if (one is None) == (other is None):
        return False
    decimals = one if one is not None else other
    assert decimals is not None
    return decimals >= _EXACT_ENOUGH and abs(value - gold) < Fraction(1, 10**decimals)


def _decimals(value: Fraction) -> int | None:
    """Decimals needed to write a value in full; None where they never end."""
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    return max(twos, fives) if rest == 1 else None


def _value(match: re.Match[str]) -> Fraction | None:
    top, bottom = match["a"] or match["c"], match["b"] or match["d"]
    if top is not None:
        if not int(bottom):
            return None
        value = Fraction(match["whole"] or 0) + Fraction(int(top), int(bottom))
    elif match["top"] is not None:
        divisor = _decimal(match["bottom"])
        if not divisor:
            return None
        value = _decimal(match["top"]) / divisor
    else:
        exponent = int(match["e"] or match["power"] or 0)
        value = _decimal(match["number"]) * Fraction(10) ** exponent
    negative = (match["sign"] == "-") != (match["inner"] == "-")
    return -value if negative else value


def _decimal(text: str) -> Fraction:
    return Fraction(text.replace(",", "").replace(" ", ""))
