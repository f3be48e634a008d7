"""PRM800K (arXiv 2305.20050): what people said of every step of text solutions (both phases).

A row is one sitting of one labeler. For each step of the solution it holds one or more completions,
candidates for that step with a rating each, and which of them was chosen to go on with. In phase 1
a labeler could write a completion of their own where all were bad.

The main trajectory of a row follows, step by step, the chosen completion; where none was chosen the
labeler's own; else the only one there is. Where it can follow none, it ends. Every other completion
is a trajectory of its own, directly behind the main one: the steps before it as in the main one,
with their labels, and then itself. A rating of 1 is a right step, -1 a wrong one; 0 (true, but no
progress) and no rating give no label. A finish reason of "solution" means that the main trajectory
reached the right answer; other outcomes are not known.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from dreamprm.data.format import Format, Pair, Reading, holds, pair
from dreamprm.data.rows import RIGHT, WRONG, Row, exact_text, is_whole
from dreamprm.errors import DataError
from dreamprm.records import UNKNOWN_ANSWER, Label

_ANSWER = "\n\n# Answer\n\n"
_HUMAN = "human"
_STEP = ("completions", "human_completion", "chosen_completion")
_LABELS: dict[int | None, Label | None] = {1: RIGHT, -1: WRONG, 0: None, None: None}


class _Completion(NamedTuple):
    text: str
    label: Label | None


def _parse(row: Row, reading: Reading) -> list[Pair]:
    asked, label = _part(row, "question"), _part(row, "label")
    if "ground_truth_answer" not in asked:
        raise DataError("has no ground_truth_answer (null if not known)", field="question")
    known = asked["ground_truth_answer"] not in (None, "")
    question = reading.text_question(
        exact_text(asked, "problem"),
        answer=exact_text(asked, "ground_truth_answer") if known else UNKNOWN_ANSWER,
    )
    path, branches = _walk(label)
    solved = True if label.get("finish_reason") == "solution" else None
    ways = [(path, solved)] if path else []
    ways += [([*path[:before], completion], None) for before, completion in branches]
    if not ways:
        raise DataError("holds no completion; remove the row", field="label.steps")
    pairs: list[Pair] = []
    for way, outcome in ways:
        steps, labels = [one.text for one in way], [one.label for one in way]
        told = {"answer": _answer(steps[-1]), "labels": labels if any(labels) else None}
        pairs.append(pair(question, steps, outcome=outcome, **told))
    return pairs


def _walk(label: Row) -> tuple[list[_Completion], list[tuple[int, _Completion]]]:
    """The chosen completions, and the others, each with the number of steps before it."""
    steps = label.get("steps")
    if not isinstance(steps, list):
        raise DataError("must be a list of steps", field="label.steps")
    path: list[_Completion] = []
    branches: list[tuple[int, _Completion]] = []
    ended = False
    for number, step in enumerate(steps, start=1):
        if ended:
            message = f"step {number - 1} chooses none of its completions, yet step {number} goes"
            raise DataError(f"{message} on; choose one or cut the row there", field="label.steps")
        if not isinstance(step, dict) or not set(_STEP) <= set(step):
            message = f"step {number} must be an object with {', '.join(_STEP)}"
            raise DataError(message, field="label.steps")
        completions = _completions(step, number)
        chosen = step["chosen_completion"]
        if chosen is not None and not (is_whole(chosen) and chosen in completions):
            message = f"step {number} chooses completion {chosen!r}, which it does not have"
            raise DataError(f"{message}; correct chosen_completion (0-based)", field="label.steps")
        place: int | str | None = chosen
        if place is None and (_HUMAN in completions or len(completions) == 1):
            place = _HUMAN if _HUMAN in completions else 0
        branches += [(len(path), one) for at, one in completions.items() if at != place]
        ended = place is None
        path += [one for at, one in completions.items() if at == place]
    return path, branches


def _completions(step: Row, number: int) -> dict[int | str, _Completion]:
    """All completions of a step, by their index; the labeler's own as "human"."""
    listed = step["completions"] or []
    if not isinstance(listed, list):
        raise DataError(f"step {number}: completions must be a list", field="label.steps")
    given: dict[int | str, Any] = dict(enumerate(listed))
    if step["human_completion"] is not None:
        given[_HUMAN] = step["human_completion"]
    completions: dict[int | str, _Completion] = {}
    for place, completion in given.items():
        where = f"step {number}, completion {place}"
        if not isinstance(completion, dict) or not isinstance(completion.get("text"), str):
            raise DataError(f"{where} must be an object with a text", field="label.steps")
        rating = completion.get("rating", "missing")
        if rating is not None and not (is_whole(rating) and -1 <= rating <= 1):
            message = f"{where}: rating must be -1, 0, 1 or null, not {rating!r:.20}"
            raise DataError(message, field="label.steps")
        completions[place] = _Completion(completion["text"], _LABELS[rating])
    return completions


def _part(row: Row, field: str) -> Row:
    value = row.get(field)
    if not isinstance(value, dict):
        raise DataError("is missing or no object; correct or remove the row", field=field)
    return value


def _answer(step: str) -> str | None:
    """The answer that a last step states below its heading."""
    _, mark, answer = step.rpartition(_ANSWER)
    return answer.strip() or None if mark else None


FORMAT = Format(
    name="prm800k",
    about="PRM800K: completions per step, rated by people",
    fits=holds("question", dict, "label"),
    parse=_parse,
)
