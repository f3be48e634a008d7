r"""The text of an answer without what only dresses it.

Models write one answer as `8`, `**8**.`, `$8$`, `\boxed{8}` or `\text{8}`; all comparisons work on
what is left after `clean`. Everything here takes time linear in the length of the text.
"""

from __future__ import annotations

import re
from functools import lru_cache

DOLLAR = "\uff04"
"""Stands for a dollar sign that means money, so that it is not taken for a math delimiter."""

_LONGEST = 2000  # characters; a longer text is prose, and layers are taken off one by one
_WRAPPERS = (
    ("$$", "$$"),
    ("$", "$"),
    ("`", "`"),
    (r"\(", r"\)"),
    (r"\[", r"\]"),
    ('"', '"'),
    ("\u201c", "\u201d"),
    ("<answer>", "</answer>"),
)
_TEXT = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_MONEY = re.compile(r"([-+]?)\$(\s*[-+]?[\d.][\d.,]*(?:\s*[A-Za-z]+)*)")
_BRACE = re.compile(r"\\f?box(?:ed)?\s*\{|[{}]")
_YES = re.compile(r"yes|true|correct|\u662f\u7684?|\u5bf9\u7684?|\u6b63\u786e", re.IGNORECASE)
_NO = re.compile(r"no|false|incorrect|\u5426|\u4e0d\u662f|\u4e0d\u5bf9|\u9519\u8bef", re.IGNORECASE)
_OPENING = re.compile(  # "Yes", "Yes, because ...", but neither "No idea" nor "Yes and no"
    r"([a-z]+|[\u4e00-\u9fff]{1,2})(?:\W*\Z|\s*[,.;:!\u2013\u2014]|\s+-|"
    r"\s+(?:because|since|as|it|this|that|the|they|there)\b)",
    re.IGNORECASE,
)


@lru_cache(maxsize=65536)
def clean(text: str) -> str:
    r"""Take off markdown, math delimiters, a box, `\text{}` and a final full stop.

    Example:
        >>> clean("**$\\boxed{\\text{12 cm}}$**.")
        '12 cm'
    """
    if len(text) > _LONGEST:
        return text.strip()
    text = text.replace("\\$", DOLLAR).replace("\\displaystyle", "")
    before = None
    while text != before:
        before = text
        text = text.strip().rstrip("*_").lstrip("*").removesuffix(".").removesuffix("\u3002")
        text = text.strip()
        money = _MONEY.fullmatch(text)
        if money:
            return money[1] + DOLLAR + money[2].strip()
        if (match := _BRACE.match(text)) and len(match[0]) > 1:
            boxes = find_boxes(text)
            if boxes and boxes[-1] == (match.end(), len(text) - 1):
                text = text[match.end() : -1]
        text = _TEXT.sub(r"\1", text)
        for left, right in _WRAPPERS:
            if len(text) > len(left) + len(right) - 1 and text.startswith(left):
                inner = text[len(left) :].removesuffix(right)
                is_pair = left not in inner or (left == "$" and bool(_MONEY.fullmatch(inner)))
                text = inner if is_pair else text
    return text


def same_text(left: str, right: str) -> bool:
    """Equal but for case and spaces."""
    return left == right or " ".join(left.casefold().split()) == " ".join(right.casefold().split())


def squeeze(text: str) -> str:
    """Text without what differs between two ways to write one formula: spaces and dollar signs."""
    return "".join(text.casefold().replace("$", "").split())


def polarity(text: str) -> bool | None:
    """True for a lone yes, False for a lone no."""
    if _YES.fullmatch(text):
        return True
    return False if _NO.fullmatch(text) else None


def yes_no(text: str) -> bool | None:
    """What a text that opens with yes or no says."""
    opening = _OPENING.match(text)
    return polarity(opening[1]) if opening else None


def find_boxes(text: str) -> list[tuple[int, int]]:
    r"""Start and end of what each complete `\boxed{...}` holds, in the order they close."""
    boxes: list[tuple[int, int]] = []
    opened: list[int | None] = []  # of each open brace: where a box's content starts, or None
    for brace in _BRACE.finditer(text):
        if brace[0] == "}":
            start = opened.pop() if opened else None
            if start is not None:
                boxes.append((start, brace.start()))
        else:
            opened.append(None if brace[0] == "{" else brace.end())
    return boxes
