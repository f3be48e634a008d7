"""Units of measurement: few, and only those whose conversion is exact.

A unit that is not known here is a label ("18 apples"): it equals itself and can be left out, and is
never converted.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple


class Unit(NamedTuple):
    """What is measured, and the size in that dimension's base unit."""

    dimension: str
    factor: Fraction


PERCENT = Unit("percent", Fraction(1))
"""A percentage is a number too: 50% may be compared with 50 and with 0.5, see `answer_numbers`."""

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
_WORD = re.compile(r"[^\W\d_]+(?:[-'\u2019][^\W\d_]+)*")
_TINY_WORDS = {"of", "per", "a", "an"}
_NO_LABEL = re.compile(
    r"and|or|to|than|plus|minus|times|more|less|over|not|pi|sqrt|root|half|halves|quarter|"
    r"factorial|choose|mod|divided|squared|cubed|\w+(?:th|rd)s?",
    re.IGNORECASE,
)
_LONGEST_LABEL = 4  # words


def _names() -> tuple[dict[str, Unit], dict[str, Unit]]:
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


_UNITS, _BASES = _names()


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
        left, right = _power(top.strip()), _power(bottom.strip())
        if left is not None and right is not None:
            return Unit(f"{left.dimension}/{right.dimension}", left.factor / right.factor)
    return _power(text) or _label(text)


def _power(text: str) -> Unit | None:
    match = _POWER.fullmatch(text)
    if match is None:
        return _named(text)
    unit = _named(match["name"])
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


def _named(text: str) -> Unit | None:
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


def _label(text: str) -> Unit | None:
    """Words that can only say what was counted: "apples", "slices of pizza"."""
    words = text.split(" ")
    if len(words) > _LONGEST_LABEL:
        return None
    for word in words:
        if not _WORD.fullmatch(word) or _NO_LABEL.fullmatch(word):
            return None
        if len(word) < 3 and word not in _TINY_WORDS:
            return None
    name = " ".join(word.casefold().removesuffix("s") for word in words)
    return Unit(f"'{name}'", Fraction(1))
