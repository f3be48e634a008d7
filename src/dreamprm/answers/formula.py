"""Are two texts the same formula? Which pairs may be compared as such, and in which notation.

math-verify drops what it cannot read: it finds "5 m east" equal to "5 m west", and 2 sqrt(3) cm to
2 sqrt(3) m. So words are looked at and units are taken off before it is asked.
"""

from __future__ import annotations

import re

from dreamprm.answers.math_equal import math_equal
from dreamprm.answers.quantities import Unit, parse_unit
from dreamprm.answers.text import DOLLAR

_MATH = re.compile(r"[\d\\^_={}/*+<>\u03c0\u221a\u221e]|\bpi\b|\bsqrt\b")
_COMMAND = re.compile(r"\\(?:begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+")
_WORD = re.compile(r"[A-Za-z]{2,}")
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_NAMED = re.compile(  # "AB =", "m\angle ABC =", "f(x) ="
    r"\s*(?:m\s*)?(?:\\[a-z]+\s*)?\{?[A-Za-z]{1,3}\}?(?:_\{?\w+\}?)?(?:\([a-z, ]*\))?\s*=(?!.*=)"
)
_KNOWN = {
    *("sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh"),
    *("tanh", "log", "ln", "lg", "exp", "sqrt", "frac", "min", "max", "gcd", "lcm", "mod", "det"),
    *("abs", "pi", "theta", "alpha", "beta", "gamma", "phi", "inf", "infty", "infinity"),
    *("and", "or"),
}
_LONGEST_PRODUCT = 4  # letters of "abcd" where it means a * b * c * d
_DROPPED = re.compile(  # by math-verify: "30\u00b0 N", "4:30 p.m."
    r"(?:\u00b0|\\circ\s*\}?|\\degree)\s*(?![CF]\b)([A-Z]{1,2})\b|\d\s*([AaPp])\.?\s?[Mm]\b"
)
_SIGNS = {
    "\u03c0": "\\pi ", "\u221a": "\\sqrt ", "\u2264": "\\le ", "\u2265": "\\ge ",
    "\u221e": "\\infty ", "\u222a": "\\cup ", DOLLAR: "",
}  # fmt: skip
_GAP = re.compile(r"(?<=[\w})\]])(?:\s|~|\\[,;: ])+(?=[A-Za-z])|(?<=[})\]])(?=[A-Za-z])")
_SQUARES = re.compile(r"(?:(?:square|sq\.?|cubic)\s+)?units?(?:\s*\^\s*\{?[23]\}?)?")


def looks_like_math(text: str) -> bool:
    """Has it anything that prose does not have?"""
    return _MATH.search(text) is not None


def is_formula(text: str) -> bool:
    """Is it mathematics without words?"""
    words = _WORD.findall(_COMMAND.sub(" ", text))
    return looks_like_math(text) and not _CHINESE.search(text) and all(map(_is_known, words))


def same_formula(answer: str, gold: str) -> bool | None:
    """Is it the same formula, in plain or LaTeX notation? None where one of the two is none.

    Raises:
        NoReply: the comparison took too long.
    """
    if not looks_like_math(answer) or not looks_like_math(gold):
        return None
    # one pair of delimiters may stand around a part: "$2\\sqrt{3}$ cm"
    (left, unit), (right, other) = (_apart(t.replace("$", " ").strip()) for t in (answer, gold))
    if unit is not None and other is not None and unit != other:
        return False
    return _are_formulas(left, right) and math_equal(_latex(left), _latex(right))


def _apart(text: str) -> tuple[str, Unit | None]:
    r"""A formula apart from the unit behind it: "6\pi cm^2", "2\sqrt{3} square units"."""
    for gap in _GAP.finditer(text):
        formula, tail = text[: gap.start()], text[gap.end() :]
        if _SQUARES.fullmatch(tail):
            return formula, None
        unit = parse_unit(tail)
        is_product = len(tail) == 1 and formula[-1].isalpha()  # "a g"
        if unit is not None and not unit.is_label and not is_product:
            return formula, unit
    return text, None


def _are_formulas(left: str, right: str) -> bool:
    """Words are only allowed where they can be products of the letters that the other side has."""
    if _DROPPED.findall(left) != _DROPPED.findall(right):
        return False
    sides = [_COMMAND.sub(" ", _NAMED.sub("", text, count=1)) for text in (left, right)]
    sides = [_WORD.sub(lambda word: "" if _is_known(word[0]) else word[0], side) for side in sides]
    words = [word for side in sides for word in _WORD.findall(side)]
    if any(len(word) > _LONGEST_PRODUCT for word in words):
        return False
    letters = [set(re.findall("[a-z]", side.casefold())) for side in sides]
    return not words or letters[0] == letters[1]


def _is_known(word: str) -> bool:
    if word.casefold() in _KNOWN:
        return True
    unit = parse_unit(word)
    return unit is not None and not unit.is_label


def _latex(text: str) -> str:
    """Plain notation that math-verify does not know or misreads ("x + sqrt(4)"), as LaTeX."""
    for sign, command in _SIGNS.items():
        text = text.replace(sign, command)
    text = re.sub(r"(?<!\\)sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    return re.sub(r"(?<![\\a-zA-Z])pi\b", r"\\pi ", text)
