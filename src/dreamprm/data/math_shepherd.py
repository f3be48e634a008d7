"""Math-Shepherd (arXiv 2312.08935): text solutions with + or - on every step.

A row holds question and solution as one text, twice: in `input` each step ends in the tag "ки", in
`label` the same text has + or - in the tag's place. The first step begins at "Step 1:", or behind
the last question mark where there is no such mark. The published file has a few tags inside
questions; they are taken out of the text. Spaces around steps are no part of them. The file names
neither gold answers nor outcomes; `task` (GSM8K, MATH) is the subject.
"""

from __future__ import annotations

import re
from itertools import accumulate, chain

from dreamprm.answers import extract_answer
from dreamprm.data.format import Format, Pair, Reading, has, pair
from dreamprm.data.rows import RIGHT, WRONG, Row, exact_text
from dreamprm.errors import DataError

TAG = "ки"
"""Ends every step of `input`. Its two letters are one token of the Llama tokenizers."""

_FIRST = re.compile(r"step\s*1\s*:", re.IGNORECASE)


def _parse(row: Row, reading: Reading) -> list[Pair]:
    chunks, signs = _chunks(row)
    text, parts, inside = _split(chunks)
    steps = [part.strip() for part in parts]
    if not all(steps):
        raise DataError(f"step {steps.index('') + 1} is empty; remove the row", field="input")
    question = reading.text_question(text, subject=exact_text(row, "task"))
    labels = [RIGHT if sign == "+" else WRONG for sign in signs[inside:]]
    return [pair(question, steps, answer=extract_answer(steps[-1]), labels=labels)]


def _chunks(row: Row) -> tuple[list[str], list[str]]:
    """The texts between the tags of `input` and the signs that stand in their places in `label`."""
    chunks = exact_text(row, "input").split(TAG)
    label = exact_text(row, "label")
    if len(chunks) == 1:
        raise DataError(f"holds no step tag '{TAG}'; remove the row", field="input")
    if chunks[-1].strip():
        message = f"goes on behind the last tag '{TAG}', and that has no label; remove the row"
        raise DataError(message, field="input")
    ends = accumulate(len(chunk) + 1 for chunk in chunks[:-1])
    signs = [label[end - 1 : end] for end in ends]
    labelled = "".join(chain(*zip(chunks, [*signs, ""], strict=True)))
    if not set(signs) <= {"+", "-"} or label != labelled:
        message = f"must repeat 'input' with + or - in place of each of its {len(signs)} tags"
        raise DataError(f"{message}; correct or remove the row", field="label")
    return chunks, signs


def _split(chunks: list[str]) -> tuple[str, list[str], int]:
    """Question, steps (with spaces around them), and how many tags stand inside the question."""
    marks = ((i, _FIRST.search(chunk)) for i, chunk in enumerate(chunks[:-1]))
    inside, border = next(((i, mark.start()) for i, mark in marks if mark), (0, -1))
    if border < 0:
        border = chunks[0].rfind("?") + 1
    if not border:
        message = "has neither text before 'Step 1:' nor a question mark that ends the question"
        raise DataError(f"{message}; mark the first step", field="input")
    head = "".join(chunks[:inside]) + chunks[inside][:border]
    return head.rstrip(), [chunks[inside][border:], *chunks[inside + 1 : -1]], inside


FORMAT = Format(
    name="math_shepherd",
    about="Math-Shepherd: text with + or - in place of every step tag",
    fits=has("input", "label", "task"),
    parse=_parse,
)
