"""ProcessBench (arXiv 2412.06559): text solutions with their first wrong step.

`label` is the 0-based first wrong step, -1 for none. The steps before it are right; nothing is
known of those after it, so they have no label. Gold answers are not in the file. The subset
(`gsm8k` in the id `gsm8k-0`) is the subject.
"""

from __future__ import annotations

import re

from dreamprm.answers import extract_answer
from dreamprm.data.format import Format, Pair, Reading, has, pair
from dreamprm.data.rows import RIGHT, WRONG, Row, exact_text, is_whole, text_list
from dreamprm.errors import DataError

_SUBSET = re.compile(r"(?P<subset>[A-Za-z]\w*)-\d+")


def _parse(row: Row, reading: Reading) -> list[Pair]:
    subset = _SUBSET.fullmatch(exact_text(row, "id"))
    question = reading.text_question(
        exact_text(row, "problem"), subject=subset["subset"] if subset else None
    )
    steps = text_list(row, "steps")
    outcome = row.get("final_answer_correct")
    if not isinstance(outcome, bool):
        raise DataError(f"must be true or false, not {outcome!r}", field="final_answer_correct")
    first = row.get("label")
    if not is_whole(first) or not -1 <= first < len(steps):
        message = f"must be the 0-based first wrong step of {len(steps)}, or -1, not {first!r}"
        raise DataError(message, field="label")
    right = len(steps) if first < 0 else first
    labels = [*[RIGHT] * right, WRONG, *[None] * len(steps)][: len(steps)]
    policy, answer = exact_text(row, "generator"), extract_answer(steps[-1])
    return [pair(question, steps, answer=answer, outcome=outcome, labels=labels, policy=policy)]


FORMAT = Format(
    name="processbench",
    about="ProcessBench: text solutions with their first wrong step",
    fits=has("steps", "final_answer_correct", "label"),
    parse=_parse,
)
