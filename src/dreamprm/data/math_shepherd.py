"""Math-Shepherd (arXiv 2312.08935): text solutions with + or - on every step, and back.

A row holds question and solution as one text, twice: in `input` each step ends in the tag "ки", in
`label` the same text has + or - in the tag's place. The border between question and first step is
not marked otherwise than by "Step 1:".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any

from dreamprm.answers import extract_answer
from dreamprm.data.fields import RIGHT, WRONG, cannot_hold, exact_text, is_right
from dreamprm.data.files import BadRow, refuse
from dreamprm.data.row_files import read_pairs
from dreamprm.data.row_files import write_jsonl_rows as write_rows
from dreamprm.data.rows import (
    own_extra,
    plain_text,
    question_of,
    rest_of,
    steps_with_answer,
    text_question,
)
from dreamprm.errors import DataError
from dreamprm.records import Question, Trajectory

TAG = "ки"
"""Ends every step of `input`. Its two letters are one token of the Llama tokenizers."""

_NAME = "math_shepherd"
_FIRST = re.compile(r"step\s*1\s*:", re.IGNORECASE)


def read_math_shepherd(
    path: str | Path,
    *,
    image_root: str | Path | None = None,
    domain: str = _NAME,
    bad_row: BadRow = refuse,
) -> tuple[list[Question], list[Trajectory]]:
    """Read a JSONL file or JSON list of Math-Shepherd.

    The first step begins at "Step 1:", or behind the last question mark where there is no such
    mark. The published file has a few tags inside questions; they are taken out of the text. Spaces
    around steps are no part of them. The file names neither gold answers nor outcomes.

    Args:
        path: the file.
        image_root: not used, the format has no images; all readers take it.
        domain: domain of all questions; `task` (GSM8K, MATH) is the subject.
        bad_row: told each row that cannot be read; by default the first one ends the reading.

    Raises:
        DataError: names the row and field of what is wrong.
    """

    def parse(row: dict[str, Any], number: int) -> list[tuple[Question, Trajectory]]:
        chunks, signs = _chunks(row)
        text, parts, inside = _split(chunks)
        steps = [part.strip() for part in parts]
        if not all(steps):
            raise DataError(f"step {steps.index('') + 1} is empty; remove the row", field="input")
        spaces = [
            [part[: len(part) - len(part.lstrip())], part[len(part.rstrip()) :]] for part in parts
        ]
        kept = rest_of(row, ("input", "label", "task"), _NAME).get(_NAME, {})
        if spaces != _usual_spaces(len(steps)) or chunks[-1]:
            kept |= {"spaces": spaces, "end": chunks[-1]}
        if inside:
            places = accumulate(len(chunk) for chunk in chunks[:inside])
            kept["tags_in_question"] = [list(tag) for tag in zip(places, signs, strict=False)]
        question = text_question(text, domain, subject=exact_text(row, "task"))
        trajectory = {
            "question_id": question.id,
            "steps": steps,
            "answer": extract_answer(steps[-1]),
            "labels": [RIGHT if sign == "+" else WRONG for sign in signs[inside:]],
            "extra": {_NAME: kept},
        }
        return [(question, Trajectory.parse(trajectory))]

    return read_pairs(path, parse, bad_row)


def write_math_shepherd(
    path: str | Path, questions: Iterable[Question], trajectories: Iterable[Trajectory]
) -> None:
    """Write one JSON line per trajectory. Gold answers, outcomes and policies are lost.

    Steps from elsewhere get their marks ("Step 1: ...") unless the first one has it.

    Raises:
        DataError: a step has no label or a soft one; a text holds the tag; a question has images.
    """
    by_id = {question.id: question for question in questions}
    rows = []
    for trajectory in trajectories:
        question = question_of(trajectory, by_id)
        text = plain_text(question)
        steps = steps_with_answer(trajectory, _NAME, mark=" The answer is: ")
        if _NAME not in trajectory.extra and not _FIRST.match(steps[0]):
            steps = [f"Step {i}: {step}" for i, step in enumerate(steps, start=1)]
        if any(TAG in part for part in (text, *steps)):
            message = f"holds '{TAG}' in its text, which ends a step in this format; leave it out"
            raise cannot_hold(trajectory, message, field="steps")
        kept = own_extra(trajectory, _NAME)
        spaces, end = kept.pop("spaces", []), kept.pop("end", "")
        tags = kept.pop("tags_in_question", [])
        if len(spaces) != len(steps):
            spaces, end = _usual_spaces(len(steps)), ""
        first, *others = (
            before + step + after for step, (before, after) in zip(steps, spaces, strict=True)
        )
        first = text + first
        cuts = [0, *(place for place, _ in tags), len(first)]
        chunks = [*(first[start:stop] for start, stop in pairwise(cuts)), *others]
        signs = [sign for _, sign in tags]
        signs += ["+" if is_right(trajectory, i) else "-" for i in range(len(steps))]
        rows.append(
            {
                "input": "".join(chunk + TAG for chunk in chunks) + end,
                "label": _labelled([*chunks, end], signs),
                "task": question.subject or question.domain,
                **kept,
            }
        )
    write_rows(path, rows)


def _chunks(row: dict[str, Any]) -> tuple[list[str], list[str]]:
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
    if not set(signs) <= {"+", "-"} or label != _labelled(chunks, signs):
        message = f"must repeat 'input' with + or - in place of each of its {len(signs)} tags"
        raise DataError(f"{message}; correct or remove the row", field="label")
    return chunks, signs


def _labelled(chunks: list[str], signs: list[str]) -> str:
    return "".join(chain(*zip(chunks, [*signs, ""], strict=True)))


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
    text = head.rstrip()
    first = head[len(text) :] + chunks[inside][border:]
    return text, [first, *chunks[inside + 1 : -1]], inside


def _usual_spaces(count: int) -> list[list[str]]:
    """What stands before and behind each step in nearly all rows."""
    return [[" ", " "], *[["\n", " "]] * (count - 1)]
