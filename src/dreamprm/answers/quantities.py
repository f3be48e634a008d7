r"""Quantities as people write them: numbers with or without a unit, times of day, ranges, dates.

Numbers: `1,234.5`, `10 000`, `10{,}000`, `3.0e4`, `3 \times 10^4`, `1/2`, `1\frac{1}{2}`,
`3 million`, `$5`, `12 cm`, `120^\circ`, `50%`. Values are exact fractions; nothing is compared as
a float. Units are few, and only those whose conversion is exact; a unit that is not known is a
label ("18 apples"): it equals itself, can be left out, and is never converted. Times, ranges and
dates are several numbers that are no calculation: computer algebra takes "15-20" for -5,
"2010-05-03" for 2002, and drops the "p.m." of "3:00 p.m.".
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


PERCENT = Unit("percent", Fraction(1))
"""A percentage is a number too: 50% may be compared with 50 and with 0.5, see `same_quantity`."""

_TABLE: dict[str, tuple[str, str]] = {
    # length, in metres; "in" is also a word, but not between a number and the end
    "in inch inches": ("length", "0.0254"),
    "ft foot feet": ("length", "0.3048"),
    "yd yard": ("length", "0.9144"),
    "mi mile": ("length", "1609.344"),
    # mass, in grams
    "lb lbs pound": ("mass", "453.59237"),
    "oz ounce": ("mass", "28.349523125"),
    "ton tonne": ("mass", "1000000"),
    # time, in seconds; months and years have no exact length in days
    "sec second": ("time", "1"),
    "min mins minute": ("time", "60"),
    "h hr hrs hour": ("time", "3600"),
    "day": ("time", "86400"),
    "week": ("time", "604800"),
    "month": ("months", "1"),
    "yr yrs year": ("months", "12"),
    # angle; a temperature is never converted
    "\u00b0 deg degree": ("angle", "1"),
    "mph": ("length/time", "0.44704"),
    "\u00b0c celsius": ("celsius", "1"),
    "\u00b0f fahrenheit": ("fahrenheit", "1"),
    # money, in units of the currency
    "\uff04 $ dollar usd": ("dollar", "1"),
    "\u00a2 cent": ("dollar", "0.01"),
    "\u20ac euro eur": ("euro", "1"),
    "\u00a3 gbp": ("pound sterling", "1"),
    # prefixes apply to these
    "m meter metre": ("length", "1"),
    "g gram gramme": ("mass", "1"),
    "s": ("time", "1"),
    "l L liter litre": ("length^3", "0.001"),
    "N newton": ("force", "1"),
    "J joule": ("energy", "1"),
    "W watt": ("power", "1"),
    "V volt": ("voltage", "1"),
    "A amp ampere": ("current", "1"),
    "Hz hertz": ("frequency", "1"),
    "Pa pascal": ("pressure", "1"),
    "mol mole": ("amount", "1"),
    "\u03a9 ohm": ("resistance", "1"),
}
_PREFIXES = {
    "k": "1000", "c": "0.01", "m": "0.001", "\u00b5": "1e-6", "\u03bc": "1e-6", "u": "1e-6",
    "n": "1e-9", "M": "1e6", "G": "1e9", "d": "0.1",
    "kilo": "1000", "centi": "0.01", "milli": "0.001", "micro": "1e-6", "nano": "1e-9",
    "mega": "1e6", "giga": "1e9", "deci": "0.1",
}  # fmt: skip
_WITH_PREFIX = {"length", "mass", "time", "length^3", "force", "energy", "power", "voltage"} | {
    "current", "frequency", "pressure", "amount", "resistance"
}  # fmt: skip
_POWER = re.compile(
    r"(?P<before>(?:sq\.?|square|cubic)\s+)?(?P<name>[^\s^\d]+?)"
    r"(?:\s*\^?\s*\{?(?P<exponent>[23])\}?|(?P<sign>[\u00b2\u00b3])|\s+(?P<after>squared|cubed))?"
)
_LABEL_WORD = re.compile(r"[^\W\d_]+(?:[-'\u2019][^\W\d_]+)*")
_TINY_LABEL_WORDS = {"of", "per", "a", "an"}
_NO_LABEL = re.compile(
    r"and|or|to|than|plus|minus|times|more|less|over|not|pi|sqrt|root|half|halves|quarter|"
    r"factorial|choose|mod|divided|squared|cubed|\w+(?:th|rd)s?",
    re.IGNORECASE,
)
_LONGEST_LABEL = 4  # words


def _unit_names() -> tuple[dict[str, Unit], dict[str, Unit]]:
    """All names, and those of them that take a prefix."""
    names: dict[str, Unit] = {}
    bases: dict[str, Unit] = {}
    for written, (dimension, factor) in _TABLE.items():
        words = written.split()
        unit = Unit(dimension, Fraction(factor))
        names |= dict.fromkeys(words, unit)
        if dimension in _WITH_PREFIX and unit.factor in (1, Fraction("0.001")):
            bases |= dict.fromkeys(words, unit)
    for word in ("sec", "second"):
        bases.pop(word)
    for scale in ("celsius", "fahrenheit"):
        names |= dict.fromkeys((f"degree {scale}", f"degrees {scale}"), names[scale])
    return names, bases


_UNITS, _BASES = _unit_names()


@lru_cache(maxsize=4096)
def parse_unit(text: str) -> Unit | None:
    """The unit that a text names, or None where it is no unit and no label.

    Example:
        >>> parse_unit("cm^2")
        Unit(dimension='length^2', factor=Fraction(1, 10000))
        >>> parse_unit("apples").dimension
        "'apple'"
    """
    text = " ".join(text.strip("() \t\n").split()).replace("\u00b0 ", "\u00b0")
    if text in ("%", "percent", "per cent"):
        return PERCENT
    top, slash, bottom = re.sub(r"\s+per\s+", "/", text).partition("/")
    if slash:
        left, right = _unit_power(top.strip()), _unit_power(bottom.strip())
        if left is not None and right is not None:
            return Unit(f"{left.dimension}/{right.dimension}", left.factor / right.factor)
    return _unit_power(text) or _counted(text)


def _unit_power(text: str) -> Unit | None:
    match = _POWER.fullmatch(text)
    if match is None:
        return _unit_named(text)
    unit = _unit_named(match["name"])
    words = (match["before"] or "") + (match["after"] or "") + (match["sign"] or "")
    if "cub" in words or "\u00b3" in words or match["exponent"] == "3":
        exponent = 3
    elif words or match["exponent"]:
        exponent = 2
    else:
        return unit
    if unit is None:
        return None
    return Unit(f"{unit.dimension}^{exponent}", unit.factor**exponent)


def _unit_named(text: str) -> Unit | None:
    """A unit of the table, with or without prefix or plural."""
    spellings = [text, text.lower()] if len(text) > 1 else [text]
    spellings += [s[:-1] for s in spellings if len(s) > 3 and s.endswith("s")]
    for spelling in spellings:
        if spelling in _UNITS:
            return _UNITS[spelling]
        for prefix, factor in _PREFIXES.items():
            base = _BASES.get(spelling.removeprefix(prefix))
            if spelling.startswith(prefix) and base is not None:
                return Unit(base.dimension, base.factor * Fraction(factor))
    return None


def _counted(text: str) -> Unit | None:
    """Words that can only say what was counted: "apples", "slices of pizza"."""
    words = text.split(" ")
    if len(words) > _LONGEST_LABEL:
        return None
    for word in words:
        if not _LABEL_WORD.fullmatch(word) or _NO_LABEL.fullmatch(word):
            return None
        if len(word) < 3 and word not in _TINY_LABEL_WORDS:
            return None
    name = " ".join(word.casefold().removesuffix("s") for word in words)
    return Unit(f"'{name}'", Fraction(1))


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
_FRACTION_CHARACTER = re.compile("[\u00bc-\u00be\u2150-\u215e]")
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
    if len(text) > _LONGEST_NUMBER:
        return None
    if about := _ABOUT.match(text):
        text = clean(text[about.end() :])
    text = _FRACTION_CHARACTER.sub(_spelled_fraction, text)
    if word := _NUMBER_WORD.match(text):
        text = str(_word_value(word)) + text[word.end() :]
    for pattern, plain in _SPELLINGS:
        text = pattern.sub(plain, text)
    if text.startswith("$") and text.count("$") == 2:  # "$12$ cm"
        text = clean(text[1:].replace("$", " ", 1))
    match = _QUANTITY.fullmatch(text.strip())
    value = match and _number(match)
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


def _spelled_fraction(character: re.Match[str]) -> str:
    return " " + unicodedata.normalize("NFKC", character[0]).replace("\u2044", "/")


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
    match = _CLOCK.fullmatch(_span_text(text))
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
    parts = _BETWEEN.split(_span_text(text))
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


def _span_text(text: str) -> str:
    text = _DEGREE.sub("\u00b0", clean(text).replace("\\%", "%").replace("$", " "))
    return _SPACES.sub(" ", text).strip()
