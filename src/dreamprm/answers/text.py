r"""The text of an answer without what only dresses it.

Models write one answer as `8`, `**8**.`, `$8$`, `\boxed{8}` or `\text{8}`; all comparisons work on
what is left after `clean`.
"""

from __future__ import annotations

import re
from functools import lru_cache

DOLLAR = "\uff04"
"""Stands for a dollar sign that means money, so that it is not taken for a math delimiter."""

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
_BOXED = "\\boxed{"
_YES = re.compile(r"yes|true|correct", re.IGNORECASE)
_NO = re.compile(r"no|false|incorrect", re.IGNORECASE)
_OPENING = re.compile(  # "Yes", "Yes, because ...", but neither "No idea" nor "Yes and no"
    r"([a-z]+)(?:\W*\Z|\s*[,.;:!\u2013\u2014]|\s+-|"
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
    text = text.replace("\\$", DOLLAR)
    before = None
    while text != before:
        before = text
        text = text.strip().rstrip("*_").lstrip("*").removesuffix(".").strip()
        money = _MONEY.fullmatch(text)
        if money:
            return money[1] + DOLLAR + money[2].strip()
        text = _TEXT.sub(r"\1", _unboxed(text))
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


def last_boxed(text: str) -> str | None:
    r"""What stands in the last complete `\boxed{...}`, braces balanced."""
    start = text.rfind(_BOXED)
    while start >= 0:
        inner = _braced(text, start + len(_BOXED))
        if inner is not None:
            return inner
        start = text.rfind(_BOXED, 0, start)
    return None


def _unboxed(text: str) -> str:
    """The content, where the whole text is one box."""
    if text.startswith(_BOXED):
        inner = _braced(text, len(_BOXED))
        if inner is not None and len(inner) == len(text) - len(_BOXED) - 1:
            return inner
    return text


def _braced(text: str, start: int) -> str | None:
    """From `start`, just behind an opening brace, up to the brace that closes it."""
    depth = 1
    for end in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[start:end]
    return None
