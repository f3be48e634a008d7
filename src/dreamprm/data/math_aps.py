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
from itertools import count
from typing import Any

from dreamprm.answers import extract_answer
from dreamprm.data.format import Format, Pair, Parse, Reading, holds, pair
from dreamprm.data.rows import Row, exact_text
from dreamprm.errors import DataError
from dreamprm.records import UNKNOWN_ANSWER, Label

Way = tuple[tuple[str, Label], ...]
"""Steps with their labels, from below the question on."""


def _parser(ways_of: Callable[[Any, str], list[Way]]) -> Parse:
    """Read rows whose `reasoning_steps` hold the ways to all leaves."""

    def parse(row: Row, reading: Reading) -> list[Pair]:
        text, answer = exact_text(row, "question"), UNKNOWN_ANSWER
        if row.get("final_answer", "") is not None:
            answer = exact_text(row, "final_answer")
        ways = ways_of(row.get("reasoning_steps"), text)
        question = reading.text_question(text, answer=answer)
        if not ways:
            raise DataError("holds no step; remove the row", field="reasoning_steps")
        pairs = []
        for way in ways:
            steps, labels = zip(*way, strict=True)
            pairs.append(pair(question, steps, answer=extract_answer(steps[-1]), labels=labels))
        return pairs

    return parse


def _ways_of_list(entries: Any, text: str) -> list[Way]:
    if not isinstance(entries, list):
        raise _wrong(0, "must be a list of {solution_prefix, mc_value}")
    above: list[tuple[str, Way]] = [(text, ())]  # the prefixes that the last one continues
    ways: list[Way] = []
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
        if ways and ways[-1] is parent:
            ways.pop()  # it is no leaf
        ways.append((*parent, (part, label)))
        above.append((prefix, ways[-1]))
    return ways


def _ways_of_tree(top: Any, text: str) -> list[Way]:
    numbers = count(1)

    def below(node: dict[str, Any], at: int, way: Way) -> Iterator[Way]:
        children = node.get("children")
        if not isinstance(children, list):
            raise _wrong(at, "children must be a list, [] at a leaf")
        if not children and way:
            yield way
        for child in children:
            number = next(numbers)
            label = _label(child, number)
            step = child.get("text")
            if not isinstance(step, str) or not step.strip():
                raise _wrong(number, "text is missing or empty")
            yield from below(child, number, (*way, (step, label)))

    _label(top, 0)
    ways = list(below(top, 0, ()))
    if not isinstance(top.get("text"), str):
        raise _wrong(0, "text is missing")
    return ways


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
    parse=_parser(_ways_of_list),
)
TREE = Format(
    name="math_aps_tree",
    about="MATH-APS, the tree of solution steps",
    fits=holds("reasoning_steps", dict, "question"),
    parse=_parser(_ways_of_tree),
    default_domain="math_aps",
)
