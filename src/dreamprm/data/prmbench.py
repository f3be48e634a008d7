"""PRMBench (arXiv 2501.03124): solutions with planted errors beside their originals.

A row holds a right solution, `original_process`, and what a model made of it, `modified_process`,
with its wrong steps in `error_steps`: 1-based, unlike ProcessBench, and all of them, not only the
first. In the classes `redundency` (so spelled) and `circular` a wrong step may be true but idle.

A row gives two trajectories, the modified process and the original one. Their questions are one
record where the texts are equal. `extra` tells the two apart (`process`), names the row that they
share, and keeps what else the row says (class and `idx`, which is unique within a class only).
"""

from __future__ import annotations

from dreamprm.answers import extract_answer
from dreamprm.data.format import Format, Pair, Reading, has, pair
from dreamprm.data.rows import RIGHT, WRONG, Row, exact_text, is_whole, text_list
from dreamprm.errors import DataError

_SIDES = ("modified", "original")
_USED = (*(f"{side}_{part}" for side in _SIDES for part in ("question", "process")), "error_steps")


def _parse(row: Row, reading: Reading) -> list[Pair]:
    wrong = row.get("error_steps")
    count = len(text_list(row, "modified_process"))
    if not isinstance(wrong, list) or not all(is_whole(i) and 1 <= i <= count for i in wrong):
        message = f"must list 1-based steps of the {count} in 'modified_process', not {wrong!r:.60}"
        raise DataError(message, field="error_steps")
    pairs: list[Pair] = []
    for side in _SIDES:
        question = reading.text_question(exact_text(row, f"{side}_question"))
        steps = text_list(row, f"{side}_process")
        errors = wrong if side == "modified" else []
        extra: Row = {"row": reading.number, "process": side}
        if side == "modified":
            extra["of_row"] = {name: value for name, value in row.items() if name not in _USED}
        labels = [WRONG if i in errors else RIGHT for i in range(1, len(steps) + 1)]
        told = {"answer": extract_answer(steps[-1]), "extra": {"prmbench": extra}}
        pairs.append(pair(question, steps, labels=labels, **told))
    return pairs


FORMAT = Format(
    name="prmbench",
    about="PRMBench: a solution with planted errors beside its original",
    fits=has("modified_process", "original_process"),
    parse=_parse,
)
