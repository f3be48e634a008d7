"""MATH-APS (OpenR, arXiv 2410.09671): trees of text solutions with Monte Carlo values.

OmegaPRM grows a tree over a question: a node is a piece of reasoning, and its `mc_value` is the
share of right answers among completions sampled from there. `math-aps-tree.jsonl` holds the tree;
`math-aps.jsonl` lists its nodes in the same order, each with the whole text from the question on,
and there a prefix hangs from the nearest one above it that it continues.

Every way from the question to a leaf is a trajectory, labelled with the values of its nodes;
trajectories that share nodes share their steps and labels. The files have shares and no counts.
`question_id` is not unique in them, so ids are hashes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from dreamprm.answers import extract_answer
from dreamprm.data.format import Format, Pair, Parse, Reading, holds, pair
from dreamprm.data.rows import Row, exact_text
from dreamprm.errors import DataError
from dreamprm.records import UNKNOWN_ANSWER, Label


@dataclass
class _Node:
    """A piece of reasoning."""

    text: str
    label: Label
    children: list[_Node] = field(default_factory=list)


_NO_STEP = Label(0.0)  # label of a root, which is the question


def _parser(grow: Callable[[Any, str], _Node]) -> Parse:
    """Read rows whose `reasoning_steps` become a tree by `grow`."""

    def parse(row: Row, reading: Reading) -> list[Pair]:
        text, answer = exact_text(row, "question"), UNKNOWN_ANSWER
        if row.get("final_answer", "") is not None:
            answer = exact_text(row, "final_answer")
        root = grow(row.get("reasoning_steps"), text)
        question = reading.text_question(text, answer=answer)
        pairs = [
            pair(
                question,
                [node.text for node in way],
                answer=extract_answer(way[-1].text),
                labels=[node.label for node in way],
            )
            for way in _ways(root)
        ]
        if not pairs:
            raise DataError("holds no step; remove the row", field="reasoning_steps")
        return pairs

    return parse


def _tree_of_list(entries: Any, text: str) -> _Node:
    root = _Node("", _NO_STEP)
    above = [(text, root)]
    if not isinstance(entries, list):
        raise _wrong(0, "must be a list of {solution_prefix, mc_value}")
    for number, entry in enumerate(entries, start=1):
        label = _label(entry, number)
        prefix = entry.get("solution_prefix")
        if not isinstance(prefix, str) or not prefix.startswith(text):
            raise _wrong(number, "solution_prefix must be text that begins with the question")
        if prefix == text and number == 1:
            continue
        while len(above) > 1 and (prefix == above[-1][0] or not prefix.startswith(above[-1][0])):
            above.pop()
        before, parent = above[-1]
        part = prefix[len(before) :].strip()
        if not part:
            raise _wrong(number, "adds no text to what it continues; remove it")
        node = _Node(part, label)
        parent.children.append(node)
        above.append((prefix, node))
    return root


def _tree_of_nodes(top: Any, text: str) -> _Node:
    root = _Node("", _NO_STEP)
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
            node = _Node(step, label)
            parent.children.append(node)
            hang(node, child, number)

    hang(root, top, 0)
    if not isinstance(top.get("text"), str):
        raise _wrong(0, "text is missing")
    return root


def _ways(root: _Node) -> Iterator[list[_Node]]:
    """Every way from below the root to a leaf, in the order of the file."""
    todo = [[node] for node in reversed(root.children)]
    while todo:
        way = todo.pop()
        if not way[-1].children:
            yield way
        todo += [[*way, child] for child in reversed(way[-1].children)]


def _label(node: Any, number: int) -> Label:
    value = node.get("mc_value") if isinstance(node, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise _wrong(number, f"must be an object with a mc_value from 0 to 1, not {node!r:.40}")
    return Label(float(value))


def _wrong(number: int, message: str) -> DataError:
    where = f"node {number}: " if number else ""
    return DataError(where + message, field="reasoning_steps")


LIST = Format(
    name="math_aps",
    about="MATH-APS, the flat list of solution prefixes",
    fits=holds("reasoning_steps", list, "question"),
    parse=_parser(_tree_of_list),
)
TREE = Format(
    name="math_aps_tree",
    about="MATH-APS, the tree of solution steps",
    fits=holds("reasoning_steps", dict, "question"),
    parse=_parser(_tree_of_nodes),
    default_domain="math_aps",
)
