"""MATH-APS (OpenR, arXiv 2410.09671): trees of text solutions with Monte Carlo values, and back.

OmegaPRM grows a tree over a question: a node is a piece of reasoning, and its `mc_value` is the
share of right answers among completions sampled from there. `math-aps-tree.jsonl` holds the tree;
`math-aps.jsonl` lists its nodes in the same order, each with the whole text from the question on.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

from dreamprm.answers import extract_answer
from dreamprm.data.fields import cannot_hold, exact_text
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

_NAME = "math_aps"
_USED = ("question", "final_answer", "reasoning_steps")


@dataclass
class _Node:
    """A piece of reasoning; `number` tells nodes of a row apart that say the same."""

    text: str
    label: Label
    number: str | None = None
    space: list[str] = field(default_factory=lambda: ["\n\n", ""])  # around it, in the list
    rest: dict[str, Any] = field(default_factory=dict)
    children: dict[Hashable, _Node] = field(default_factory=dict)

    def add(self, child: _Node) -> _Node:
        """The child that is the same, or this one as a new child."""
        return self.children.setdefault((child.number, child.text, child.label), child)


_NOTHING = Label.of(0, 1)  # label of a root, which is no step


def read_math_aps(
    path: str | Path,
    *,
    image_root: str | Path | None = None,
    domain: str = _NAME,
    bad_row: BadRow = refuse,
) -> tuple[list[Question], list[Trajectory]]:
    """Read the flat list, `math-aps.jsonl`.

    The tree is found again from the order of the list: a prefix hangs from the nearest one above it
    that it continues. Spaces around a step are no part of it. For the rest, arguments and errors
    included, see `read_math_aps_tree`.
    """
    return _read(path, domain, bad_row, _tree_of_list)


def read_math_aps_tree(
    path: str | Path,
    *,
    image_root: str | Path | None = None,
    domain: str = _NAME,
    bad_row: BadRow = refuse,
) -> tuple[list[Question], list[Trajectory]]:
    """Read the tree, `math-aps-tree.jsonl`.

    Every way from the question to a leaf is a trajectory, labelled with the values of its nodes;
    trajectories that share nodes share their steps and labels. The file has shares and no counts,
    so a label is the smallest pair of counts that gives the value. The value of the question alone
    is in the question's `extra`. `question_id` is not unique in the file, so ids are hashes.

    Args:
        path: the file.
        image_root: not used, the format has no images; all readers take it.
        domain: domain of all questions.
        bad_row: told each row that cannot be read; by default the first one ends the reading.

    Raises:
        DataError: names the row and field of what is wrong.
    """
    return _read(path, domain, bad_row, _tree_of_nodes)


def write_math_aps(
    path: str | Path, questions: Iterable[Question], trajectories: Iterable[Trajectory]
) -> None:
    """Write the flat list, one JSON line per row that was read.

    Trajectories from elsewhere share one row per question. Shared nodes are written once; where a
    trajectory was changed, it leaves the others at that step. Policies and outcomes are lost.

    Raises:
        DataError: a step has no label; a question has images.
    """

    def flat(question: Question, about: dict[str, Any], root: _Node) -> list[dict[str, Any]]:
        text = plain_text(question)
        found = [{"solution_prefix": text, **about}] if about else []
        todo = [(text, node) for node in reversed(root.children.values())]
        while todo:
            before, node = todo.pop()
            prefix = before + node.space[0] + node.text + node.space[1]
            found.append({"solution_prefix": prefix, "mc_value": node.label.value, **node.rest})
            todo += [(prefix, child) for child in reversed(node.children.values())]
        return found

    _write(path, questions, trajectories, flat)


def write_math_aps_tree(
    path: str | Path, questions: Iterable[Question], trajectories: Iterable[Trajectory]
) -> None:
    """Write the tree, one JSON line per row that was read; see `write_math_aps`.

    Raises:
        DataError: a step has no label; the value of a question alone is not known; a question has
            images.
    """

    def tree(question: Question, about: dict[str, Any], root: _Node) -> dict[str, Any]:
        if "mc_value" not in about:
            raise DataError(
                f"question '{question.id}' has no value of its own, and a tree begins with it; put "
                "it into extra['math_aps']['mc_value'] of the question, or write the list",
                field="extra",
            )
        return {"text": plain_text(question), **about, "children": _nested(root)}

    _write(path, questions, trajectories, tree)


def _read(
    path: str | Path,
    domain: str,
    bad_row: BadRow,
    grow: Callable[[Any, str], tuple[dict[str, Any], _Node]],
) -> tuple[list[Question], list[Trajectory]]:
    """Read rows whose `reasoning_steps` become a tree by `grow`."""
    seen: dict[str, dict[str, Any]] = {}

    def parse(row: dict[str, Any], number: int) -> list[tuple[Question, Trajectory]]:
        text, answer = exact_text(row, "question"), UNKNOWN_ANSWER
        if row.get("final_answer", "") is not None:
            answer = exact_text(row, "final_answer")
        about, root = grow(row.get("reasoning_steps"), text)
        extra = {_NAME: about} if about else {}
        question = text_question(text, domain, answer=answer, extra=extra)
        first: dict[str, Any] = {"of_row": {}, **rest_of(row, _USED, "of_row")}
        if seen.setdefault(question.id, about) != about:
            first["about"] = about  # of a second tree over the same question
        pairs = []
        for way in _ways(root):
            own = {"row": number, "nodes": [node.number for node in way], **first}
            for name in ("space", "rest"):
                values = [getattr(node, name) for node in way]
                if any(value != getattr(_Node("", _NOTHING), name) for value in values):
                    own[name] = values
            trajectory = {
                "question_id": question.id,
                "steps": [node.text for node in way],
                "answer": extract_answer(way[-1].text),
                "labels": [node.label for node in way],
                "extra": {_NAME: own},
            }
            pairs.append((question, Trajectory.parse(trajectory)))
            first = {}
        if not pairs:
            raise DataError("holds no step; remove the row", field="reasoning_steps")
        return pairs

    return read_pairs(path, parse, bad_row)


def _write(
    path: str | Path,
    questions: Iterable[Question],
    trajectories: Iterable[Trajectory],
    render: Callable[[Question, dict[str, Any], _Node], Any],
) -> None:
    """Write rows whose `reasoning_steps` are what `render` makes of a tree."""
    by_id = {question.id: question for question in questions}
    rows = []
    for group in rows_of(trajectories, _place):
        question = question_of(group[0], by_id)
        about, of_row = own_extra(question, _NAME), {"question_id": question.id}
        root = _Node("", _NOTHING)
        for trajectory in group:
            own = own_extra(trajectory, _NAME)
            about, of_row = own.get("about", about), own.get("of_row", of_row)
            _plant(root, trajectory, own)
        answer = None if question.answer == UNKNOWN_ANSWER else question.answer
        rows.append(
            {
                "question": plain_text(question),
                "final_answer": answer,
                "reasoning_steps": render(question, about, root),
                **of_row,
            }
        )
    write_rows(path, rows)


def _plant(root: _Node, trajectory: Trajectory, own: dict[str, Any]) -> None:
    """Add the nodes of a trajectory to a tree, as far as they are not there yet."""
    length = len(trajectory.steps)
    numbers, spaces, rests = (own.get(name, []) for name in ("nodes", "space", "rest"))
    node = root
    for i, step in enumerate(steps_with_answer(trajectory, _NAME)):
        label = trajectory.labels[i] if trajectory.labels else None
        if label is None:
            message = f"has no label on step {i + 1}, and every node has one; label it or leave"
            raise cannot_hold(trajectory, f"{message} the trajectory out")
        child = _Node(step, label)
        if len(numbers) == length:
            child.number = str(numbers[i])
        elif i == length - 1:
            child.number = f"end of {trajectory.sample_index}"  # equal candidates stay apart
        if len(spaces) == length:
            child.space = spaces[i]
        if len(rests) == length:
            child.rest = rests[i]
        node = node.add(child)


def _tree_of_list(entries: Any, text: str) -> tuple[dict[str, Any], _Node]:
    """What the list tells of the question alone, and the tree over it."""
    about: dict[str, Any] = {}
    root = _Node("", _NOTHING)
    above = [(text, root)]
    if not isinstance(entries, list):
        raise _wrong(0, "must be a list of {solution_prefix, mc_value}")
    for number, entry in enumerate(entries, start=1):
        label = _label(entry, number)
        prefix = entry.get("solution_prefix")
        if not isinstance(prefix, str) or not prefix.startswith(text):
            raise _wrong(number, "solution_prefix must be text that begins with the question")
        if prefix == text and number == 1:
            about = {name: value for name, value in entry.items() if name != "solution_prefix"}
            continue
        while len(above) > 1 and (prefix == above[-1][0] or not prefix.startswith(above[-1][0])):
            above.pop()
        before, parent = above[-1]
        part = prefix[len(before) :]
        if not part.strip():
            raise _wrong(number, "adds no text to what it continues; remove it")
        lead = len(part) - len(part.lstrip())
        space = [part[:lead], part[len(part.rstrip()) :]]
        rest = {k: v for k, v in entry.items() if k not in ("solution_prefix", "mc_value")}
        node = parent.add(_Node(part.strip(), label, str(number), space, rest))
        above.append((prefix, node))
    return about, root


def _tree_of_nodes(top: Any, text: str) -> tuple[dict[str, Any], _Node]:
    """What the root tells of the question alone, and the tree over it."""
    root = _Node("", _NOTHING)
    _label(top, 0)
    numbers = count(1)

    def hang(parent: _Node, value: dict[str, Any], at: int) -> None:
        children = value.get("children")
        if not isinstance(children, list):
            raise _wrong(at, "children must be a list, [] at a leaf")
        for child in children:
            number = next(numbers)
            label = _label(child, number)
            step = child.get("text")
            if not isinstance(step, str) or not step.strip():
                raise _wrong(number, "text is missing or empty")
            rest = {k: v for k, v in child.items() if k not in ("text", "mc_value", "children")}
            node = parent.add(_Node(step, label, str(number), rest=rest))
            hang(node, child, number)

    hang(root, top, 0)
    if not isinstance(top.get("text"), str):
        raise _wrong(0, "text is missing")
    used = ("children", "text") if top["text"] == text else ("children",)
    return {name: value for name, value in top.items() if name not in used}, root


def _ways(root: _Node) -> Iterator[list[_Node]]:
    """Every way from below the root to a leaf, in the order of the file."""
    todo = [[node] for node in reversed(root.children.values())]
    while todo:
        way = todo.pop()
        if not way[-1].children:
            yield way
        todo += [[*way, child] for child in reversed(way[-1].children.values())]


def _nested(node: _Node) -> list[dict[str, Any]]:
    """The children of a node as they are written."""
    return [
        {"text": one.text, "mc_value": one.label.value, **one.rest, "children": _nested(one)}
        for one in node.children.values()
    ]


def _label(node: Any, number: int) -> Label:
    """The smallest counts whose ratio is the `mc_value` of a node, to the last bit."""
    value = node.get("mc_value") if isinstance(node, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise _wrong(number, f"must be an object with a mc_value from 0 to 1, not {node!r:.40}")
    limits = (2**bits for bits in count(3))
    nearest = (Fraction(value).limit_denominator(limit) for limit in limits)
    found = next(one for one in nearest if one.numerator / one.denominator == value)
    return Label.of(found.numerator, found.denominator)


def _wrong(number: int, message: str) -> DataError:
    where = f"node {number}: " if number else ""
    return DataError(where + message, field="reasoning_steps")


def _place(trajectory: Trajectory) -> tuple[Hashable, Hashable]:
    """The row that a trajectory was read from, and its leaf; one row for all from elsewhere."""
    own = own_extra(trajectory, _NAME)
    if "row" in own and own.get("nodes"):
        return (trajectory.question_id, str(own["row"])), str(own["nodes"])
    return (trajectory.question_id, None), id(trajectory)
