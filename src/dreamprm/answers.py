"""The one place that finds the final answer in a text and decides whether it is right.

Cheap comparisons come first (letters, option texts, equal words, numbers); math-verify is asked
only when both sides look like mathematics and are not plain numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

from dreamprm.errors import DataError
from dreamprm.math_equal import math_equal
from dreamprm.records import UNKNOWN_ANSWER

_FINAL = re.compile(
    r"(?:final\s+answer[*_]*(?:\s+is\b|\s*:)|^[\s#>*_-]*answer[*_]*\s*:)"
    r"[*_: \t]*(?P<answer>[^\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
_IS = re.compile(
    r"\b(?:answer|option|choice)\s+is\s*:?\s*(?P<answer>[^\n]*?)(?:\.(?=\s|$)|$)",
    re.IGNORECASE | re.MULTILINE,
)
_LETTER = re.compile(
    r"(?:option\s+|choice\s+)?(?:\(([A-Za-z])\)|([A-Z])(?=$|[).:])|([a-z])(?=$|\)))"
)
_LAST_LETTER = re.compile(r"(?:^|\s)\(?\*{0,2}([A-Z])\*{0,2}\)?[.*]*$")
_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?")
_WRAPPERS = (("$", "$"), ("**", "**"), ("`", "`"), (r"\(", r"\)"), (r"\[", r"\]"), ('"', '"'))
_LONGEST_BARE = 40  # characters of a response that is nothing but a formula
_STEP = re.compile(r"[\W_]*step\s+\d", re.IGNORECASE)  # a reasoning that was cut, no answer
_EMPTY = ("", "\\[", "\\(", "$", "$$", "```")
_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}")
_MATH = re.compile(r"[\d\\^_={}/*+<>\u03c0\u221a]|\bpi\b|\bsqrt\b")


def extract_answer(text: str, options: Sequence[str] = ()) -> str | None:
    """The final answer that a response states, or None.

    Looks for, in this order: the last "Final answer: ..." (or a line "Answer: ..."), the last
    `\\boxed{}`, the last "the answer is ...", and at the end of the text an option's letter or
    text, or a whole text that is one number or formula.

    Args:
        text: the response.
        options: the option texts of the question, if it has any.

    Example:
        >>> extract_answer("Step 1: 3 + 5 = 8\\nFinal answer: **8**.")
        '8'
    """
    finals = list(_FINAL.finditer(text))
    if finals:
        for line in text[finals[-1].start("answer") :].split("\n"):
            boxed = _last_boxed(line)
            answer = _clean(line if boxed is None else boxed)
            if answer not in _EMPTY:  # "### Final answer:" may be a heading
                return answer
    boxed = _last_boxed(text)
    if boxed is not None and (answer := _clean(boxed)):
        return answer
    statements = _IS.findall(text)
    if statements and (answer := _clean(statements[-1])):
        return answer
    stripped = text.strip()
    last_line = _clean(stripped.rsplit("\n", 1)[-1])
    if any(_same_text(last_line, _clean(option)) for option in options):
        return last_line
    letter = _LAST_LETTER.search(stripped)
    if letter and (_index(letter[1]) < len(options) or last_line.strip("()") == letter[1]):
        return letter[1]
    is_bare = "\n" not in stripped and len(stripped) <= _LONGEST_BARE and not _STEP.match(stripped)
    return last_line if is_bare and _MATH.search(last_line) else None


def verify_answer(answer: str | None, gold: str, options: Sequence[str] = ()) -> bool:
    """Is `answer` right?

    Args:
        answer: as `extract_answer` gives it; None is wrong.
        gold: a letter or an option's text where there are options; else text, number or formula.
        options: the option texts, in the order of their letters.

    Raises:
        DataError: the gold answer is not known, so every answer would be called wrong.

    Example:
        >>> verify_answer("(B) 4 cm", "B", ["3 cm", "4 cm"]), verify_answer("0.5", "1/2")
        (True, True)
    """
    if gold == UNKNOWN_ANSWER:
        raise DataError("the question has no gold answer to verify against", field="answer")
    if answer is None:
        return False
    if not options and answer == gold:
        return bool(answer.strip())
    answer, gold = _clean(answer), _clean(gold)
    if not answer:
        return False
    if options:
        right = _option(gold, options)
        if right is not None:
            return _option(answer, options) == right
    if _same_text(answer, gold):
        return True
    if len(gold) == 1 and gold.isupper() and (letter := _letter(answer)):
        return letter == gold
    left, number = _number(answer), _number(gold)
    if left is not None and number is not None:
        if answer.endswith("%") != gold.endswith("%"):
            return number in (left, left / 100, left * 100)
        return left == number
    return _math(answer, gold)


def _last_boxed(text: str) -> str | None:
    """What stands in the last complete `\\boxed{...}`, braces balanced."""
    start = text.rfind("\\boxed{")
    while start >= 0:
        depth = 0
        for end in range(start + 6, len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if depth == 0:
                return text[start + 7 : end]
        start = text.rfind("\\boxed{", 0, start)
    return None


@lru_cache(maxsize=65536)
def _clean(text: str) -> str:
    """Take off markdown, math delimiters, `\\text{}` and a final full stop."""
    before = None
    while text != before:
        before = text
        text = text.strip().rstrip("*_").removesuffix(".").strip()
        for left, right in _WRAPPERS:
            if len(text) > len(left) + len(right) - 1 and text.startswith(left):
                inner = text[len(left) :].removesuffix(right)
                text = inner if left not in inner else text
        text = _TEXT.sub(r"\1", text)
    return text


def _same_text(left: str, right: str) -> bool:
    return left == right or " ".join(left.casefold().split()) == " ".join(right.casefold().split())


def _letter(text: str) -> str | None:
    match = _LETTER.match(text)
    return match and next(filter(None, match.groups())).upper()


def _index(letter: str) -> int:
    return ord(letter) - ord("A")


def _option(text: str, options: Sequence[str]) -> int | None:
    """Index of the option that a text means: by letter, by its text, or by its number."""
    for i, option in enumerate(options):
        if len(text) > 1 and _same_text(text, _clean(option)):
            return i
    letter = _letter(text)
    if letter is not None and _index(letter) < len(options):
        return _index(letter)
    number = _number(text)
    texts = [_clean(option) for option in options]
    equal = [i for i, other in enumerate(texts) if _squeeze(text) == _squeeze(other)]
    if not equal and number is not None:
        equal = [i for i, other in enumerate(texts) if _number(other) == number]
    elif not equal and _MATH.search(text):
        equal = [i for i, other in enumerate(texts) if _math(text, other)]
    return equal[0] if len(equal) == 1 else None


def _squeeze(text: str) -> str:
    """Text without what differs between two ways to write one formula: spaces and dollar signs."""
    return "".join(text.casefold().replace("$", "").split())


def _math(left: str, right: str) -> bool:
    """Ask math-verify, where both sides look like mathematics."""
    if not _MATH.search(left) or not _MATH.search(right):
        return False
    return math_equal(_latex(left), _latex(right))


@lru_cache(maxsize=65536)
def _number(text: str) -> Fraction | None:
    """The value of a plain number, a fraction of two, or a percentage (without its sign)."""
    text = text.removesuffix("%").removesuffix("\\").strip().lstrip("$").replace("{,}", ",")
    top, slash, bottom = text.partition("/")
    parts = []
    for piece in (top, bottom) if slash else (top,):
        part = piece.strip().replace("\u2212", "-")
        if not _NUMBER.fullmatch(part) or len(part) > 100:
            return None
        if "," in part and not re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+(\.\d*)?", part):
            return None
        parts.append(Fraction(part.replace(",", "")))
    if slash and not parts[1]:
        return None
    return parts[0] / parts[1] if slash else parts[0]


def _latex(text: str) -> str:
    """Plain notation that math-verify does not know or misreads ("x + sqrt(4)"), as LaTeX."""
    text = text.replace("\u03c0", "\\pi ").replace("\u221a", "\\sqrt ")
    text = re.sub(r"(?<!\\)sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    return re.sub(r"(?<![\\a-zA-Z])pi\b", r"\\pi ", text)
