"""VisualProcessBench (arXiv 2503.10291): responses of known models, each step judged by people.

A step is right (1), wrong (-1) or neutral (0). What is neutral says nothing about the step, so it
becomes "not labelled". The step that states the answer is judged like the others, so it stays one.
"""

from __future__ import annotations

from dreamprm.answers import extract_answer
from dreamprm.data.format import Format, Pair, Reading, holds, pair
from dreamprm.data.rows import RIGHT, WRONG, Row, exact_text, row_text, text_list
from dreamprm.errors import DataError

_LABELS = {1: RIGHT, -1: WRONG, 0: None}


def _parse(row: Row, reading: Reading) -> list[Pair]:
    text = exact_text(row, "question")
    response = row.get("response")
    if not isinstance(response, dict):
        message = "must be an object with 'steps' and 'process_correctness'"
        raise DataError(message, field="response")
    steps = text_list(response, "steps", "response.steps")
    judged = response.get("process_correctness")
    if not isinstance(judged, list) or len(judged) != len(steps):
        message = f"must be a list of {len(steps)} verdicts, one per step"
        raise DataError(message, field="response.process_correctness")
    for i, verdict in enumerate(judged, start=1):
        if isinstance(verdict, bool) or verdict not in (1, -1, 0):
            message = f"the verdict on step {i} is {verdict!r}, not 1, -1 or 0"
            raise DataError(message, field="response.process_correctness")
    question = reading.question(
        {"image": row.get("image")},  # ids are not used: they number rows, not questions
        text,
        "image",
        domain=row_text(row, "data_source"),
        answer=row_text(row, "answer"),
    )
    labels = [_LABELS[verdict] for verdict in judged]
    answer = extract_answer("\n\n".join(steps), question.options)
    policy = row_text(row, "policy_model") or "unknown"
    return [pair(question, steps, answer=answer, labels=labels, policy=policy)]


FORMAT = Format(
    name="visualprocessbench",
    about="VisualProcessBench: steps judged by people",
    fits=holds("response", dict, "question"),
    parse=_parse,
)
