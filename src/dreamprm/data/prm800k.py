"""PRM800K (arXiv 2305.20050): what people said of every step of text solutions, and back.

A row is one sitting of one labeler. For each step of the solution it holds one or more completions,
candidates for that step with a rating each, and which of them was chosen to go on with. In phase 1
a labeler could write a completion of their own where all were bad.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from dreamprm.data.fields import RIGHT, WRONG, cannot_hold, exact_text, is_right, is_whole
from dreamprm.data.files import BadRow, refuse
from dreamprm.data.row_files import read_pairs, rows_of
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
from dreamprm.records import UNKNOWN_ANSWER, Label, Question, Trajectory

_NAME = "prm800k"
_ANSWER = "\n\n# Answer\n\n"
_HUMAN = "human"
_STEP = ("completions", "human_completion", "chosen_completion")
_LABELS: dict[int | None, Label | None] = {1: RIGHT, -1: WRONG, 0: None, None: None}


def read_prm800k(
    path: str | Path,
    *,
    image_root: str | Path | None = None,
    domain: str = _NAME,
    bad_row: BadRow = refuse,
) -> tuple[list[Question], list[Trajectory]]:
    """Read a JSONL file or JSON list of PRM800K (raw labels, both phases).

    The main trajectory of a row follows, step by step, the chosen completion; where none was chosen
    the labeler's own; else the only one there is. Where it can follow none, it ends. Every other
    completion is a trajectory of its own, directly behind the main one: the steps before it as in
    the main one, with their labels, and then itself.

    A rating of 1 is a right step, -1 a wrong one; 0 (true, but no progress) and no rating give no
    label, and `extra` tells which of them it was. A finish reason of "solution" means that the main
    trajectory reached the right answer, so its outcome is true; other outcomes are not known.

    Args:
        path: the file.
        image_root: not used, the format has no images; all readers take it.
        domain: domain of all questions.
        bad_row: told each row that cannot be read; by default the first one ends the reading.

    Raises:
        DataError: names the row and field of what is wrong, also where a row has no completion.
    """

    def parse(row: dict[str, Any], number: int) -> list[tuple[Question, Trajectory]]:
        asked, label = _part(row, "question"), _part(row, "label")
        if "ground_truth_answer" not in asked:
            raise DataError("has no ground_truth_answer (null if not known)", field="question")
        known = asked["ground_truth_answer"] not in (None, "")
        question = text_question(
            exact_text(asked, "problem"),
            domain,
            answer=exact_text(asked, "ground_truth_answer") if known else UNKNOWN_ANSWER,
        )
        walk = _walk(label)
        solved = label.get("finish_reason") == "solution"
        of_row = rest_of(row, ("question", "label"), "row")
        held = ("problem", "ground_truth_answer") if known else ("problem",)
        of_row |= rest_of(asked, held, "question")
        held = ("steps", "finish_reason") if solved else ("steps",)
        of_row |= rest_of(label, held, "label")
        if walk.end is not None:
            of_row["end"] = walk.end
        pairs: list[tuple[Question, Trajectory]] = []

        def add(taken: list[_Taken], own: dict[str, Any], outcome: bool | None = None) -> None:
            first = {} if pairs else {"of_row": of_row}
            labels = [one.label for one in taken]
            trajectory = {
                "question_id": question.id,
                "steps": [one.text for one in taken],
                "answer": _answer(taken[-1].text),
                "outcome": outcome,
                "labels": labels if any(labels) else None,
                "extra": {_NAME: {"row": number, **own, **first}},
            }
            pairs.append((question, Trajectory.parse(trajectory)))

        if walk.path:
            add(walk.path, {"path": walk.places}, True if solved else None)
        for before, place, taken in walk.branches:
            add([*walk.path[:before], taken], {"place": place, "rest": taken.rest})
        if not pairs:
            raise DataError("holds no completion; remove the row", field="label.steps")
        return pairs

    return read_pairs(path, parse, bad_row)


def write_prm800k(
    path: str | Path, questions: Iterable[Question], trajectories: Iterable[Trajectory]
) -> None:
    """Write one JSON line per row that was read, and one per trajectory from elsewhere.

    The main trajectory is written as the chosen path, the others as what stands beside it. An
    outcome is told by the finish reason: "solution" is right, "found_error" wrong. Policies and the
    outcomes of other completions are lost.

    Raises:
        DataError: a label is soft; a trajectory that shares steps with the main one differs there;
            a question has images.
    """
    by_id = {question.id: question for question in questions}
    rows = []
    for group in rows_of(trajectories, _place):
        question = question_of(group[0], by_id)
        main = next((one for one in group if "place" not in own_extra(one, _NAME)), None)
        known = (own_extra(one, _NAME).get("of_row") for one in group)
        of_row = next((found for found in known if found), {"label": {"finish_reason": None}})
        asked = {
            "problem": plain_text(question),
            "ground_truth_answer": None,
            **of_row.get("question", {}),
        }
        if question.answer != UNKNOWN_ANSWER:
            asked["ground_truth_answer"] = question.answer
        label = {"steps": _steps(main, group, of_row.get("end")), **of_row.get("label", {})}
        if main and main.outcome is not None:
            label["finish_reason"] = "solution" if main.outcome else "found_error"
        rows.append({**of_row.get("row", {}), "question": asked, "label": label})
    write_rows(path, rows)


class _Taken(NamedTuple):
    """A completion: what a record holds of it, and the rest of its fields."""

    text: str
    label: Label | None
    rest: dict[str, Any]


class _Walk(NamedTuple):
    """The main path, where its steps stood, what branches off, and the step where it ended."""

    path: list[_Taken]
    places: list[dict[str, Any]]
    branches: list[tuple[int, int | str, _Taken]]
    end: dict[str, Any] | None


def _walk(label: dict[str, Any]) -> _Walk:
    """Follow the chosen completions."""
    steps = label.get("steps")
    if not isinstance(steps, list):
        raise DataError("must be a list of steps", field="label.steps")
    path: list[_Taken] = []
    places: list[dict[str, Any]] = []
    branches: list[tuple[int, int | str, _Taken]] = []
    end: dict[str, Any] | None = None
    for number, step in enumerate(steps, start=1):
        if end is not None:
            message = (
                f"step {number - 1} chooses none of its completions, yet step {number} goes on"
            )
            raise DataError(f"{message}; choose one or cut the row there", field="label.steps")
        if not isinstance(step, dict) or not set(_STEP) <= set(step):
            message = f"step {number} must be an object with {', '.join(_STEP)}"
            raise DataError(message, field="label.steps")
        found = _completions(step, number)
        chosen = step["chosen_completion"]
        if chosen is not None and not (is_whole(chosen) and chosen in found):
            message = f"step {number} chooses completion {chosen!r}, which it does not have"
            raise DataError(f"{message}; correct chosen_completion (0-based)", field="label.steps")
        place: int | str | None = chosen
        if place is None and (_HUMAN in found or len(found) == 1):
            place = _HUMAN if _HUMAN in found else 0
        branches += [(len(path), at, taken) for at, taken in found.items() if at != place]
        rest = {name: value for name, value in step.items() if name not in _STEP}
        if not step["completions"]:
            rest["completions"] = step["completions"]  # [] or null
        if place is None:
            end = rest
            continue
        told: dict[str, Any] = {"place": place, "rest": found[place].rest}
        if rest:
            told["step"] = rest
        if chosen is None and place != _HUMAN:
            told["chosen"] = False
        path.append(found[place])
        places.append(told)
    return _Walk(path, places, branches, end)


def _completions(step: dict[str, Any], number: int) -> dict[int | str, _Taken]:
    """All completions of a step, by their index; the labeler's own as "human"."""
    listed = step["completions"] or []
    if not isinstance(listed, list):
        raise DataError(f"step {number}: completions must be a list", field="label.steps")
    found: dict[int | str, Any] = dict(enumerate(listed))
    if step["human_completion"] is not None:
        found[_HUMAN] = step["human_completion"]
    for place, completion in found.items():
        where = f"step {number}, completion {place}"
        if not isinstance(completion, dict) or not isinstance(completion.get("text"), str):
            raise DataError(f"{where} must be an object with a text", field="label.steps")
        rating = completion.get("rating", "missing")
        if rating is not None and not (is_whole(rating) and -1 <= rating <= 1):
            message = f"{where}: rating must be -1, 0, 1 or null, not {rating!r:.20}"
            raise DataError(message, field="label.steps")
        label = _LABELS[rating]
        used = ("text",) if label is None else ("text", "rating")
        rest = {name: value for name, value in completion.items() if name not in used}
        found[place] = _Taken(completion["text"], label, rest)
    return found


def _steps(
    main: Trajectory | None, group: list[Trajectory], end: dict[str, Any] | None
) -> list[dict[str, Any]]:
    """The steps of a row. Without a main trajectory the longest way to a branch stands for it."""
    branches = [one for one in group if one is not main]
    trunk = main or max(branches, key=lambda one: len(one.steps))
    length = len(trunk.steps) - (main is None)
    texts = steps_with_answer(trunk, _NAME, _answer, _ANSWER)
    places = own_extra(trunk, _NAME).get("path", [])
    count = max([length + (end is not None), *(len(branch.steps) for branch in branches)])
    rows: list[dict[str, Any]] = []
    for i in range(count):
        told: dict[str, Any] = {"place": -1, "rest": {"flagged": None}}
        if i < len(places):
            told = places[i]
        here: list[tuple[Any, dict[str, Any]]] = []
        if i < length:
            here.append((told["place"], _completion(trunk, i, texts[i], told["rest"])))
        for branch in branches:
            if len(branch.steps) == i + 1:
                _check_shared(branch, trunk, length)
                own = own_extra(branch, _NAME)
                done = _completion(branch, i, branch.steps[i], own.get("rest", {}))
                here.append((own["place"], done))
        listed = sorted((one for one in here if one[0] != _HUMAN), key=lambda one: one[0])
        human = next((done for at, done in here if at == _HUMAN), None)
        is_chosen = i < length and told["place"] != _HUMAN and told.get("chosen", True)
        rest = told.get("step", {}) if i < length else end or {}
        rows.append(
            {
                "completions": [],
                **rest,
                **({"completions": [done for _, done in listed]} if listed else {}),
                "human_completion": human,
                "chosen_completion": listed.index(here[0]) if is_chosen else None,
            }
        )
    return rows


def _completion(trajectory: Trajectory, i: int, text: str, rest: dict[str, Any]) -> dict[str, Any]:
    """A completion as it is written; where there is no label, `rest` tells 0 from null."""
    completion = {"text": text, "rating": None, **rest}
    if trajectory.labels and trajectory.labels[i] is not None:
        completion["rating"] = 1 if is_right(trajectory, i) else -1
    return completion


def _check_shared(branch: Trajectory, trunk: Trajectory, length: int) -> None:
    """A branch must go the trunk's way up to its last step."""
    count = len(branch.steps) - 1
    labels = [one.labels or (None,) * len(one.steps) for one in (branch, trunk)]
    if (
        count > length
        or branch.steps[:count] != trunk.steps[:count]
        or labels[0][:count] != labels[1][:count]
    ):
        raise cannot_hold(
            branch,
            f"was read beside trajectory {trunk.sample_index}, and the steps or labels before its "
            "last step are no longer the same; change both, or clear extra['prm800k'] of one",
            field="steps",
        )


def _part(row: dict[str, Any], field: str) -> dict[str, Any]:
    value = row.get(field)
    if not isinstance(value, dict):
        raise DataError("is missing or no object; correct or remove the row", field=field)
    return value


def _answer(step: str) -> str | None:
    """The answer that a last step states below its heading."""
    _, mark, answer = step.rpartition(_ANSWER)
    return answer.strip() or None if mark else None


def _place(trajectory: Trajectory) -> tuple[Hashable, Hashable] | None:
    """The row that a trajectory was read from, and its place there."""
    own = own_extra(trajectory, _NAME)
    if "row" not in own or not {"path", "place"} & set(own):
        return None
    slot = (len(trajectory.steps), str(own["place"])) if "place" in own else "main"
    return (trajectory.question_id, str(own["row"])), slot
