r"""MATH-Vision (arXiv 2402.14804): 3,040 questions, 16 subjects, five levels.

Its own script (evaluation/ of mathllm/MATH-V) is followed here, with its flaws. It reads an answer
by a few fixed phrases and writes it small and without spaces. The answer is right if it is spelled
like the gold letter or the gold option, or if both have the same value to two decimals. The script
takes the value from latex2sympy, which reads a formula as far as it can and ignores the rest:
`3}.theansweris3` is 3, `1:2` is 0.5, `2\frac{1}{2}` is a product. Nothing is taken off a gold
answer, so that `120` is no `120°`.
"""

from __future__ import annotations

import math
import operator
import re
from collections import deque
from collections.abc import Callable
from fractions import Fraction

from dreamprm.data.rows import Row
from dreamprm.evaluation.benchmarks.base import Benchmark, Groups, Response, letter_or_text
from dreamprm.evaluation.results import subject_of
from dreamprm.records import Question

_STATEMENTS = ("final answer is", "answer is", "correct answer is", "answer should be")
_NUMBER = re.compile(r"\s*[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?\s*", re.IGNORECASE)
_DROPPED = re.compile(
    r"\\(?:text|mbox|left|right|!|\$|%)|\$|\^\{\\circ\}|\^\\circ|\{m\}\^3|m\^3|\{units\}|units"
    r"|\{km\}|km"
)
_IMAGE = re.compile(r"\[image (\d+)\]")  # as our questions write the mark `<image1>`

_IGNORED = re.compile(r"[$~]|\\(?:displaystyle|q?quad|left|right|,)|(?<=\\)[dt](?=frac)")
_NAMES = (  # known to latex2sympy, so that it stops at them in "triangles" and "eighths" as well
    *("tr", "gcd", "lcm", "floor", "ceil", "eye", "eig", "zeros", "ones", "cols", "rows", "diag"),
    *("norm", "rank", "matrix"),
)
_TOKEN = re.compile(
    r"(?:\d*(?:,\d{3})*\.\d+|\d+(?:,\d{3})*)(?:\\%)?"
    r"|\\(?:frac|binom|sqrt|pi|times|cdot|div|(?:arc)?(?:sin|cos|tan)|log|\\)"
    rf"|{'|'.join(_NAMES)}|\S"
)
_STOPS = {"", ")", "]", "}", "&", "_", ".", "\\\\", *_NAMES}
_DIGIT = re.compile(r"\d")
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_FUNCTIONS: dict[str, Callable[[float], float]] = {
    **{"\\sin": math.sin, "\\cos": math.cos, "\\tan": math.tan, "\\log": math.log10},
    **{"\\arcsin": math.asin, "\\arccos": math.acos, "\\arctan": math.atan},
}
_STARTS = {*_CLOSING, "\\pi", "\\frac", "\\binom", "\\sqrt", *_FUNCTIONS}
_PRODUCTS: dict[str, Callable[[float, float], float]] = {
    **dict.fromkeys(("*", "\\times", "\\cdot"), operator.mul),
    **dict.fromkeys(("/", "\\div", ":"), operator.truediv),
}
_LONGEST = 2000  # characters of a formula
_DEEPEST = 50  # groups within groups
_LARGEST = 4096  # power of a whole number


def extract(question: Question, text: str) -> str | None:
    """The answer as the benchmark's script writes it.

    Where the script sees none it keeps the whole response, which may yet be right; where that is
    several words and wrong, this is None.
    """
    whole = text = text.strip()
    for letter in "ABCDE":
        endings = (f" {letter}.", f" ({letter}).")
        openings = (f"{letter}\n", f"({letter})\n", f"({letter}) {letter}\n")
        if text.endswith(endings) or text.startswith(openings):
            text = letter
    behind_is = text.rpartition("is ")[2].rstrip(".")
    if _NUMBER.fullmatch(behind_is):
        text = behind_is
    if "oxed{" in text:
        text = text if text.count("oxed{") == 1 else "\\boxed{" + text.rpartition("oxed{")[2]
    else:
        for statement in _STATEMENTS:
            for the in ("the", "The"):
                _, stated, behind = text.rpartition(f"{the} {statement}")
                if stated:
                    text = behind.strip().split("\n")[0].split(". ")[0]
    answer = _without_dress(text.lower())
    is_prose = text == whole and "oxed{" not in text and " " in text
    return None if is_prose and not right(question, answer) else answer


def _without_dress(text: str) -> str:
    """The content of the box, behind an equals sign, without spaces and what else is dropped."""
    text = text.replace("{}", "")
    boxed, closed, _ = text.partition("oxed{")[2].rpartition("}")
    if closed:
        text = boxed
    before, closed, _ = text.partition("}")
    if closed and "{" not in before:
        text = before
    text = text.rpartition("=")[2].rpartition("\\approx")[2]
    text = re.sub(r"\\+", r"\\", text.replace(" ", "").replace("\\,", "").replace("\n", ""))
    text = re.sub(r"[td]frac", "frac", _DROPPED.sub("", text))
    text = f"0{text}" if text.startswith(".") else text
    if "sqrt" in text:
        text = re.sub(r"\\sqrt([^{])", r"\\sqrt{\1}", text)
        text = re.sub(r"\\frac([^{])([^{])", r"\\frac{\1}{\2}", text)
        text = re.sub(r"\\frac([^{])\{", r"\\frac{\1}{", text)
    text = re.sub(r"\(([a-e])\)", r"\1", text)
    text = re.sub(r"\{([a-e])\}", r"\1", text)
    return text.rstrip(".").lstrip(":").strip()


def right(question: Question, answer: str | None) -> bool:
    """The verdict that the published result counts."""
    option = _IMAGE.sub(r"<image\1>", letter_or_text(question))
    return any(_same((answer or "").lower(), gold.lower()) for gold in (question.answer, option))


def _same(answer: str, gold: str) -> bool:
    if not answer.strip() or not gold.strip():
        return False
    if answer.strip() == gold.strip() or _with_values(answer) == _with_values(gold):
        return True
    one = value(answer)
    return one is not None and one == value(gold)


def _with_values(text: str) -> str:
    """A point or an interval with the values of its parts; any other text as it is."""
    parts = text[1:-1].split(",")
    if len(parts) == 1 or text[0] + text[-1] not in ("()", "[]"):
        return text
    values = [value(part) for part in parts]
    return text if None in values else f"{text[0]}{values}{text[-1]}"


def value(text: str) -> float | None:
    """The value to two decimals of the formula that a text begins with; None where there is none.

    >>> value("$\\\\frac{3^{2}-1}{4}$"), value("2\\\\sqrt{10}.so"), value("1: 2"), value("9 cm")
    (2.0, 6.32, 0.5, None)
    """
    reader = _Reader(text)
    try:
        result = reader.sum()
        return round(result, 2) if reader.next in _STOPS else None
    except (ValueError, ArithmeticError, TypeError):  # a complex number is not rounded
        return None


class _Reader:
    """Works out a formula of numbers from left to right; ValueError where it is none.

    Grouped as latex2sympy does: factors side by side bind closer than a division, `2^3^2` is 64.
    Whole numbers stay whole, as in Python.
    """

    def __init__(self, text: str) -> None:
        text = text[:_LONGEST]
        text = _IGNORED.sub(lambda ignored: "" if ignored[0].isalpha() else " ", text)
        self._tokens: deque[str] = deque([*_TOKEN.findall(text), ""])
        self._depth = 0

    @property
    def next(self) -> str:
        return self._tokens[0]

    def _take(self, *wanted: str) -> str:
        return self._tokens.popleft() if self.next in wanted else ""

    def sum(self) -> float:
        total = self._product()
        while sign := self._take("+", "-"):
            term = self._product()
            total = total + term if sign == "+" else total - term
        return total

    def _product(self) -> float:
        result = self._factor()
        while sign := self._take(*_PRODUCTS):
            result = _PRODUCTS[sign](result, self._factor())
        return result

    def _factor(self) -> float:
        sign = 1
        while taken := self._take("+", "-"):
            sign = -sign if taken == "-" else sign
        result = self._power()
        while self.next in _STARTS or _DIGIT.search(self.next):
            result *= self._power()
        return sign * result

    def _power(self) -> float:
        base = self._part()
        while self._take("^"):
            exponent = self._group() if self.next == "{" else self._number()
            if abs(exponent) > _LARGEST or abs(base) > _LARGEST:
                raise ValueError("too large")
            base = base**exponent
        while mark := self._take("!", "'"):
            if mark == "!" and (base > _LARGEST or base % 1):
                raise ValueError("too large, or no whole number")
            base = math.factorial(int(base)) if mark == "!" else base
        return base

    def _part(self) -> float:
        if self.next in _CLOSING:
            return self._group()
        if self._take("\\frac"):
            return self._group("{") / self._group("{")
        if self._take("\\binom"):
            return math.comb(int(self._group("{")), int(self._group("{")))
        if self._take("\\sqrt"):
            if self.next != "[":
                return math.sqrt(self._group("{"))
            root = 1 / self._group("[")
            return math.pow(self._group("{"), root)
        if name := self._take(*_FUNCTIONS):
            return _FUNCTIONS[name](self._group() if self.next == "(" else self._product())
        return self._number()

    def _number(self) -> float:
        if self._take("\\pi"):
            return math.pi
        number, percent, _ = self._tokens.popleft().replace(",", "").partition("\\%")
        exact = Fraction(number) / (100 if percent else 1)
        return exact.numerator if exact.denominator == 1 else float(exact)

    def _group(self, *openings: str) -> float:
        opening = self._take(*(openings or _CLOSING))
        self._depth += 1
        if not opening or self._depth > _DEEPEST:
            raise ValueError("no group, or too deep")
        inner = self.sum()
        self._depth -= 1
        if not self._take(_CLOSING[opening]):
            raise ValueError("not closed")
        return inner


def groups(question: Question) -> Groups:
    """Subject, level, and the two together, as the published result lists them."""
    level, groups = question.extra.get("level"), subject_of(question)
    if level is None:
        return groups
    both = {"level and subject": (f"{level}, {question.subject}",)} if question.subject else {}
    return groups | {"level": (str(level),)} | both


def response_of(row: Row) -> Response:
    """A row of its output file; `model_answer` comes later on."""
    return Response(str(row["id"]), row.get("response"), row.get("model_answer"))


MATHVISION = Benchmark(
    name="mathvision",
    count=3040,
    right=right,
    extract=extract,
    groups=groups,
    output=(("id", "response"), ("id", "model_answer")),
    response_of=response_of,
)
