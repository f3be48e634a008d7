"""MATH-Vision (arXiv 2402.14804): 3,040 questions, 16 subjects, five levels.

Its score takes an answer for right if it is the gold answer in spelling (where there are choices,
the letter or the choice's text), or if both are expressions of numbers whose values agree to two
decimals. Nothing is taken off a text, so that `120` is no `120°`.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable
from fractions import Fraction

from dreamprm.data.rows import Row
from dreamprm.evaluation.benchmarks.base import Benchmark, Groups, Response, letter_or_text
from dreamprm.evaluation.results import subject_of
from dreamprm.records import Question

_LARGEST_POWER = 4096
_OPERATORS: dict[type[ast.AST], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def right(question: Question, answer: str | None) -> bool:
    """The verdict that the published result counts."""
    if answer is None or not answer.strip():
        return False
    letter, gold = question.answer, letter_or_text(question)
    if answer.strip().lower() in (letter.strip().lower(), gold.strip().lower()):
        return True
    one, other = values(answer), values(gold)
    return one is not None and one == other


def values(text: str) -> tuple[float, ...] | None:
    """Values to two decimals of an expression of numbers, or of the parts of a ratio; else None.

    >>> values("$\\\\frac{3^{2}-1}{4}$"), values("2\\\\sqrt{10}"), values("1: 2"), values("9 cm")
    ((2.0,), (6.32,), (1.0, 2.0), None)
    """
    rounded = []
    for part in re.sub(r"[\s$]", "", text).replace("\\\\", "\\").split(":"):
        try:
            rounded.append(round(float(_evaluate(ast.parse(_python(part), mode="eval").body)), 2))
        except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
            return None
    return tuple(rounded)


def _python(latex: str) -> str:
    """Fractions, roots, powers and pi in Python's notation, from the inside out."""
    before = ""
    while latex != before:
        before = latex
        latex = re.sub(r"\\[dt]?frac{([^{}]*)}{([^{}]*)}", r"((\1)/(\2))", latex)
        latex = re.sub(r"\\sqrt{([^{}]*)}", r"((\1)**(1/2))", latex)
        latex = re.sub(r"\^{([^{}]*)}", r"**(\1)", latex)
    latex = latex.replace("\\pi", "(pi)").replace("\\cdot", "*").replace("^", "**")
    return re.sub(r"(?<=[\d)])(?=\()", "*", latex)  # 6(pi), 2(10**...)


def _evaluate(node: ast.AST) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return Fraction(str(node.value))
    if isinstance(node, ast.Name) and node.id == "pi":
        return Fraction(math.pi)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_evaluate(node.operand)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        base, power = _evaluate(node.left), _evaluate(node.right)
        if power.denominator == 1 and abs(power) <= _LARGEST_POWER and base < _LARGEST_POWER:
            return base ** int(power)
        if base >= 0:
            return Fraction(float(base) ** float(power))
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_evaluate(node.left), _evaluate(node.right))
    raise ValueError("no expression of numbers")


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
    about="3,040 questions of competitions, 16 subjects, 5 levels (arXiv 2402.14804)",
    count=3040,
    right=right,
    groups=groups,
    output=(("id", "response"), ("id", "model_answer")),
    response_of=response_of,
    rules="equal spelling, or equal value to two decimals",
)
