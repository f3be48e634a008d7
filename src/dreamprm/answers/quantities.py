r"""Quantities as people write them: numbers with or without a unit, times of day, ranges, dates.

Numbers: `1,234.5`, `10 000`, `10{,}000`, `3.0e4`, `3 \times 10^4`, `1/2`, `1\frac{1}{2}`,
`3 million`, `$5`, `12 cm`, `120^\circ`, `50%`. Values are exact fractions; nothing is compared as
a float. Units are few, and only those whose conversion is exact; a unit that is not known is a
label ("18 apples"): it equals itself, can be left out, and is never converted. A time of day is a
number of seconds. A range or a date is several numbers and no calculation: computer algebra takes
"15-20" for -5 and "2010-05-03" for 2002.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from dreamprm.answers.text import DOLLAR, clean


class Unit(NamedTuple):
    """What is measured, and the size in that dimension's base unit."""

    dimension: str
    factor: Fraction

    @property
    def is_label(self) -> bool:
        """Does it only say what was counted?"""
        return self.dimension.startswith("'")


class Quantity(NamedTuple):
    """A number and its unit; None for a bare number."""

    value: Fraction
    unit: Unit | None = None


PERCENT = Unit("percent", Fraction(1))
"""A percentage is a number too: 50% may be compared with 50 and with 0.5, see `same_quantity`."""

TIME_OF_DAY = Unit("time of day", Fraction(1))

_SIZES: dict[str, dict[str, str]] = {  # the names of a unit, and its size
    "length": {"m meter metre": "1", "in inch inches": "0.0254", "ft foot feet": "0.3048",
               "yd yard": "0.9144", "mi mile": "1609.344"},
    "mass": {"g gram gramme": "1", "lb lbs pound": "453.59237", "oz ounce": "28.349523125",
             "ton tonne": "1000000"},
    "time": {"s sec second": "1", "min mins minute": "60", "h hr hrs hour": "3600",
             "day": "86400", "week": "604800"},
    "months": {"month": "1", "yr year": "12"},  # neither has an exact length in days
    "length/time": {"mph": "0.44704"},
    "length^3": {"l L liter litre": "0.001"},
    "angle": {"\u00b0 deg degree": "1"},
    "celsius": {"\u00b0c \u00b0C celsius": "1"},  # a temperature is never converted
    "fahrenheit": {"\u00b0f \u00b0F fahrenheit": "1"},
    "dollar": {DOLLAR + " $ dollar usd": "1", "\u00a2 cent": "0.01"},
    "euro": {"\u20ac euro eur": "1"},
    "pound sterling": {"\u00a3 gbp": "1"},
    "force": {"N newton": "1"},
    "energy": {"J joule": "1"},
    "power": {"W watt": "1"},
    "voltage": {"V volt": "1"},
    "current": {"A amp ampere": "1"},
    "frequency": {"Hz hertz": "1"},
    "pressure": {"Pa pascal": "1"},
    "amount": {"mol mole": "1"},
    "resistance": {"\u03a9 ohm": "1"},
}  # fmt: skip
_UNITS = {
    name: Unit(dimension, Fraction(size))
    for dimension, sizes in _SIZES.items()
    for names, size in sizes.items()
    for name in names.split()
}
_METRIC = ["length", "mass", "time", "length^3", "force", "energy", "power", "voltage", "current"]
_METRIC += ["frequency", "pressure", "amount", "resistance"]
_WITH_PREFIX = {name for kind in _METRIC for name in next(iter(_SIZES[kind])).split()}
_PREFIXES = {
    "k": "1000", "c": "0.01", "m": "0.001", "\u00b5": "1e-6", "\u03bc": "1e-6", "u": "1e-6",
    "n": "1e-9", "M": "1e6", "G": "1e9", "d": "0.1",
    "kilo": "1000", "centi": "0.01", "milli": "0.001", "micro": "1e-6", "nano": "1e-9",
    "mega": "1e6", "giga": "1e9", "deci": "0.1",
}  # fmt: skip
_UNIT_SPELLINGS = (
    (re.compile(r"\b(?:sq\.?|square)\s+([^\s/]+)"), r"\1^2"),
    (re.compile(r"\bcubic\s+([^\s/]+)"), r"\1^3"),
    (re.compile(r"\s+squared|\u00b2"), "^2"),
    (re.compile(r"\s+cubed|\u00b3"), "^3"),
    (re.compile(r"\s*\^\s*\{?([23])\}?"), r"^\1"),
    (re.compile(r"\s+per\s+|\s*/\s*"), "/"),
    (re.compile(r"\u00b0 "), "\u00b0"),
    (re.compile(r"degrees? (?=celsius|fahrenheit)", re.IGNORECASE), ""),
)
_POWER = re.compile(r"([^\d^]+?)\^?([23])?")
_LABEL_WORD = re.compile(r"(?:[^\W\d_]{2,}|a)[^\W\d_]*(?:[-'\u2019][^\W\d_]+)*")
_NO_LABEL = re.compile(
    r"and|or|to|than|plus|minus|times|more|less|over|not|pi|sqrt|root|half|halves|quarter|"
    r"factorial|choose|mod|divided|squared|cubed|\w+(?:th|rd)s?|(?!of|an)\w\w",
    re.IGNORECASE,
)
_LONGEST_LABEL = 4  # words


@lru_cache(maxsize=4096)
def parse_unit(text: str) -> Unit | None:
    """The unit that a text names, or None where it is no unit and no label.

    Example:
        >>> parse_unit("cm^2")
        Unit(dimension='length^2', factor=Fraction(1, 10000))
        >>> parse_unit("apples").dimension
        "'apple'"
    """
    text = " ".join(text.strip("() \t\n").split())
    if text in ("%", "percent", "per cent"):
        return PERCENT
    written = text
    for pattern, plain in _UNIT_SPELLINGS:
        written = pattern.sub(plain, written)
    parts = [_unit_power(part) for part in written.split("/")]
    if len(parts) <= 2 and (top := parts[0]) is not None and (bottom := parts[-1]) is not None:
        if len(parts) == 1:
            return top
        return Unit(f"{top.dimension}/{bottom.dimension}", top.factor / bottom.factor)
    words = text.split()
    is_label = all(_LABEL_WORD.fullmatch(w) and not _NO_LABEL.fullmatch(w) for w in words)
    if not words or not is_label or len(words) > _LONGEST_LABEL:
        return None
    name = " ".join(word.casefold().removesuffix("s") for word in words)
    return Unit(f"'{name}'", Fraction(1))


def _unit_power(text: str) -> Unit | None:
    match = _POWER.fullmatch(text)
    unit = _unit_named(match[1]) if match else None
    if match is None or unit is None or match[2] is None:
        return unit
    return Unit(f"{unit.dimension}^{match[2]}", unit.factor ** int(match[2]))


def _unit_named(text: str) -> Unit | None:
    """A unit of the table, with or without prefix or plural."""
    spellings = [text, text.lower()] if len(text) > 1 else [text]
    spellings += [s[:-1] for s in spellings if len(s) > 3 and s.endswith("s")]
    for spelling in spellings:
        if spelling in _UNITS:
            return _UNITS[spelling]
        for prefix, factor in _PREFIXES.items():
            base = spelling.removeprefix(prefix)
            if base != spelling and base in _WITH_PREFIX:
                return Unit(_UNITS[base].dimension, _UNITS[base].factor * Fraction(factor))
    return None


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
    (re.compile("[\u2012-\u2015\u2212]"), "-"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\!"), ""),
    (re.compile("\\\\[,;: ]|[~\u00a0\u2009\u202f]"), " "),
    (re.compile(r"\\([%&])"), r"\1"),
    (re.compile(r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-z]))|\\degree(?![a-z])"), "\u00b0"),
    (re.compile(r"\\times(?![a-z])|\\cdot(?![a-z])|[\u00d7\u00b7]"), "*"),
    (re.compile("[\u00bc-\u00be\u2150-\u215e]"), lambda half: _spelled_fraction(half[0])),
)
_LONGEST_NUMBER = 100  # characters
_TEENS = (
    "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen"
    "|sixteen|seventeen|eighteen|nineteen"
)
_TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
_SMALL = {word: i for i, word in enumerate(_TEENS.split("|"))} | {
    word: 10 * i for i, word in enumerate(_TENS.split("|"), start=2)
}
_SCALES = "|".join(_COUNTS)
_PARTS = {"half": 2, "halve": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "tenth": 10}
_PART = rf"(?:{'|'.join(_PARTS)})(?=s?\b)"
_SMALL_WORDS = (
    rf"(?:(?:{_TENS})\b(?:[ -](?:{_TEENS})\b)?|(?:{_TEENS})\b)(?:[ -](?:{_SCALES})\b){{0,2}}"
)
_NUMBER_WORD = re.compile(  # "minus two", "a dozen", "one hundred and five", "two thirds"
    rf"\b(?P<minus>(?:minus|negative) )?(?:(?P<whole>(?:an? (?:{_SCALES})\b|{_SMALL_WORDS})"
    rf"(?:(?<=hundred|housand|million|billion)(?: and|,)? {_SMALL_WORDS}){{0,3}})"
    rf"(?:(?P<and> and an?)?[ -](?P<part>{_PART})s?)?|(?P<alone>half\b|an? {_PART}))",
    re.IGNORECASE,
)
_ABOUT = re.compile(
    r"(?:approximately|approx\.?|about|around|roughly|\\approx(?![a-z])|[\u2248~])\s*",
    re.IGNORECASE,
)
_COUNTING = re.compile(r"(?:^|\b(?:is|are|only|exactly|just)\s+)$")
_CLOCK = re.compile(
    r"(\d{1,2})(?::([0-5]\d)(?::([0-5]\d))?)?\s*(?:([ap])\.?\s*m\b\.?)?", re.IGNORECASE
)
_EXACT_ENOUGH = 6  # decimals from which a decimal stands for the repeating fraction it rounds
_MOST_DECIMALS = 40


@lru_cache(maxsize=65536)
def parse_quantity(text: str) -> Quantity | None:
    r"""The quantity that a whole text states, or None.

    Example:
        >>> parse_quantity("1\\frac{1}{2}").value
        Fraction(3, 2)
        >>> parse_quantity("3:00 P.M.") == parse_quantity("15:00")
        True
        >>> parse_quantity("10 or 12") is None
        True
    """
    text = clean(text)
    if len(text) > _LONGEST_NUMBER:
        return None
    if about := _ABOUT.match(text):
        text = clean(text[about.end() :])
    if word := _NUMBER_WORD.match(text):
        text = str(_word_value(word)) + text[word.end() :]
    text = _plainly(text)
    if text.startswith("$") and text.count("$") == 2:  # "$12$ cm"
        text = clean(text[1:].replace("$", " ", 1))
    if clock := _CLOCK.fullmatch(text):
        return _time_of_day(clock)
    match = _QUANTITY.fullmatch(text)
    value = match and _number(match)
    if match is None or value is None:
        return None
    rest = match["rest"]
    if count := _COUNT.fullmatch(rest):
        value, rest = value * _COUNTS[count[1].casefold()], count[2]
    rest = rest.strip()
    if not rest and not match["money"]:
        return Quantity(value)
    unit = parse_unit(rest or match["money"])
    if unit is None or (match["money"] and unit != parse_unit(match["money"])):
        return None  # "$5 million dollars" is money, "$5 cm" is nothing
    return Quantity(value, unit)


def _plainly(text: str) -> str:
    for pattern, plain in _SPELLINGS:
        text = pattern.sub(plain, text)
    return text.strip()


def _spelled_fraction(character: str) -> str:
    return " " + unicodedata.normalize("NFKC", character).replace("\u2044", "/")


def _time_of_day(match: re.Match[str]) -> Quantity | None:
    """A bare number is none; "4:30" may be morning, afternoon or a ratio, and is none either."""
    hour, minute, second = (int(part or 0) for part in match.groups()[:3])
    if match[4] and 1 <= hour <= 12:
        hour = hour % 12 + (12 if match[4] in "pP" else 0)
    elif match[4] is None and match[2] is None:
        return Quantity(Fraction(hour))
    elif match[4] or not 12 < hour < 24:
        return None
    return Quantity(Fraction(3600 * hour + 60 * minute + second), TIME_OF_DAY)


def _word_value(word: re.Match[str]) -> Fraction:
    total = group = 0
    for one in re.findall("[a-z]+", (word["whole"] or "").casefold()):
        if one in _SMALL:
            group += _SMALL[one]
        elif one in ("hundred", "dozen"):
            group = (group or 1) * _COUNTS[one]
        elif one in _COUNTS:
            total, group = total + (group or 1) * _COUNTS[one], 0
    value = Fraction(total + group)
    if part := word["part"] or word["alone"]:
        fraction = Fraction(1, _PARTS[part.casefold().split()[-1]])
        value = value * fraction if word["part"] and not word["and"] else value + fraction
    return -value if word["minus"] else value


def number_words(text: str) -> list[re.Match[str]]:
    """The numbers that a sentence writes in words; "one" only where it counts something."""
    return [
        word
        for word in _NUMBER_WORD.finditer(text)
        if not (word["alone"] or word[0].casefold() == "one")
        or _COUNTING.search(text[: word.start()])
    ]


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
    decimals = [d for d in map(_decimals, (value, gold)) if d is not None]
    if len(decimals) != 1 or decimals[0] < _EXACT_ENOUGH:
        return False
    return abs(value - gold) < Fraction(1, 10 ** decimals[0])


def _decimals(value: Fraction) -> int | None:
    """Decimals needed to write a value in full; None where they never end."""
    return next((d for d in range(_MOST_DECIMALS) if 10**d % value.denominator == 0), None)


def _number(match: re.Match[str]) -> Fraction | None:
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


_BETWEEN = re.compile(rf"(?<=[\w%\u00b0])(?:\s+to\s+|\s*-{{1,3}}\s*)(?=[\d{DOLLAR}])")
_END = re.compile(  # "15", "$15", "15%", "15 cm", but not "15m", which may be a product
    rf"-?{DOLLAR}? ?\d[\d,]*(?:\.\d+)?(?: ?[%\u00b0]| ?[A-Za-z]{{2,}}.*| [^\d/*^].*)?"
)


def parse_range(text: str) -> list[Quantity] | None:
    """The ends of a range ("15-20 cm", "15 to 20"), or the parts of a date ("2010-05-03").

    Only plain decimals count: "1/2 - 1/3", "12 - 15m" and "-5 - 3" are calculations.
    """
    text = _plainly(clean(text).replace("$", " "))
    parts = _BETWEEN.split(text)
    if len(parts) < 2 or not all(map(_END.fullmatch, parts)):
        return None
    ends = [end for part in parts if (end := parse_quantity(part)) is not None]
    if len(ends) < len(parts) or (text.startswith("-") and " to " not in text):
        return None
    return [Quantity(end.value, end.unit or ends[-1].unit) for end in ends]
