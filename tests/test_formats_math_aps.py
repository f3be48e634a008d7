"""MATH-APS: ways through a tree, exact counts, the list and the tree, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dreamprm.errors import DataError
from dreamprm.records import UNKNOWN_ANSWER, Trajectory
from tests.format_rows import check_refused, reader, save

read_math_aps_tree = reader("math_aps_tree")
read_math_aps = reader("math_aps")

BOTH = pytest.mark.parametrize(
    ("read", "name"),
    [(read_math_aps, "math-aps.jsonl"), (read_math_aps_tree, "math-aps-tree.jsonl")],
)
Q = "2 + 3 * 4?"


def node(text: str, value: float, *children: Any, **more: Any) -> dict[str, Any]:
    return {"text": text, "mc_value": value, "children": list(children), **more}


def row(steps: Any, **more: Any) -> dict[str, Any]:
    return {
        "question": Q,
        "final_answer": "14",
        "reasoning_steps": steps,
        "question_id": 3,
        **more,
    }


TREE = row(
    node(
        Q,
        0.75,
        node("It is 14.", 1.0),
        node("Multiply first.", 0.9375, node("12 + 2 = 14.", 1.0), node("So 20.", 0.0)),
        node("Multiply first.", 0.9375, node("12 + 2 = \\boxed{14}. ", 1.0)),
        node("So 20.", 0.0),
    )
)
LIST = row(
    [
        {"solution_prefix": Q, "mc_value": 0.75},
        {"solution_prefix": f"{Q}\n\n It is 14.", "mc_value": 1.0},
        {"solution_prefix": f"{Q}\n\nMultiply first.", "mc_value": 0.9375},
        {"solution_prefix": f"{Q}\n\nMultiply first.\n\n12 + 2 = 14.", "mc_value": 1.0},
        {"solution_prefix": f"{Q}\n\nMultiply first.\n\n\n So 20.", "mc_value": 0.0},
        {"solution_prefix": f"{Q}\n\nMultiply first.", "mc_value": 0.9375},
        {"solution_prefix": f"{Q}\n\nMultiply first.12 + 2 = \\boxed{{14}}. ", "mc_value": 1.0},
        {"solution_prefix": f"{Q}\n\nSo 20.", "mc_value": 0.0},
    ]
)
WAYS = [
    (("It is 14.",), (1.0,)),
    (("Multiply first.", "12 + 2 = 14."), (0.9375, 1.0)),
    (("Multiply first.", "So 20."), (0.9375, 0.0)),
    (("Multiply first.", "12 + 2 = \\boxed{14}."), (0.9375, 1.0)),
    (("So 20.",), (0.0,)),
]


def values_of(trajectory: Trajectory) -> tuple[float, ...]:
    return tuple(label.value for label in trajectory.labels or () if label)


def test_every_way_to_a_leaf_of_the_tree_is_a_trajectory(tmp_path: Path) -> None:
    (question,), trajectories = read_math_aps_tree(save(tmp_path, [TREE]))
    assert [(tuple(map(str.strip, one.steps)), values_of(one)) for one in trajectories] == WAYS
    assert trajectories[3].steps[1] == "12 + 2 = \\boxed{14}. "
    assert [one.sample_index for one in trajectories] == [0, 1, 2, 3, 4]
    assert trajectories[3].answer == "14"
    assert (question.text, question.answer) == (Q, "14")


def test_the_list_holds_the_same_trajectories_as_the_tree(tmp_path: Path) -> None:
    _, trajectories = read_math_aps(save(tmp_path, [LIST]))
    assert [(one.steps, values_of(one)) for one in trajectories] == WAYS


@BOTH
def test_published_rows_have_as_many_trajectories_as_leaves(
    real_data: Path, read: Any, name: str
) -> None:
    questions, trajectories = read(real_data / "prm_formats" / name)
    assert len(questions) == 3  # though question_id is not unique
    assert len(trajectories) == (242 if "tree" in name else 132)
    values = {value for one in trajectories for value in values_of(one)}
    assert all(value * 32 == int(value * 32) for value in values), "shares of up to 32 completions"
    assert all(step.strip() for one in trajectories for step in one.steps)


def entry(prefix: Any, value: Any) -> dict[str, Any]:
    return {"solution_prefix": prefix, "mc_value": value}


A = entry(f"{Q} a", 1.0)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (None, "field 'reasoning_steps': must be a list of {solution_prefix, mc_value}"),
        ([], "field 'reasoning_steps': holds no step"),
        ([entry(Q, 0.5)], "field 'reasoning_steps': holds no step"),
        ([A, entry(Q, 0.5)], "node 2: adds no text to what it continues"),
        ([entry(Q, 1), entry(f"{Q}\n", 1)], "node 2: adds no text"),
        ([A, entry("other text", 1)], "node 2: solution_prefix must be text that begins with the"),
        ([entry(None, 1)], "node 1: solution_prefix must be text"),
        ([A, entry(f"{Q} a b", 1.01)], "node 2: must be an object with a mc_value from 0 to 1"),
        ([entry(f"{Q} a", -0.1)], "mc_value from 0 to 1"),
        ([entry(f"{Q} a", True)], "mc_value from 0 to 1"),
        ([entry(f"{Q} a", None)], "mc_value from 0 to 1"),
        (["a"], "node 1: must be an object"),
    ],
)
def test_a_broken_list_is_refused_and_can_be_passed_over(
    tmp_path: Path, steps: Any, message: str
) -> None:
    check_refused("math_aps", tmp_path, LIST, row(steps), message)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "field 'reasoning_steps': must be an object with a mc_value from 0 to 1"),
        (node(Q, 0.5), "field 'reasoning_steps': holds no step"),
        (node(Q, 2, node("a", 1)), "mc_value from 0 to 1"),
        ({"mc_value": 1, "children": [node("a", 1)]}, "field 'reasoning_steps': text is missing"),
        (node(Q, 1, node("a", 1, node("b", 1.5))), "node 2: must be an object with a mc_value"),
        (node(Q, 1, node(" ", 1)), "node 1: text is missing or empty"),
        (node(Q, 1, node("a", 1), {"text": "b", "mc_value": 1}), "node 2: children must be a list"),
        (node(Q, 1, 7), "node 1: must be an object"),
    ],
)
def test_a_broken_tree_is_refused_and_can_be_passed_over(
    tmp_path: Path, steps: Any, message: str
) -> None:
    check_refused("math_aps_tree", tmp_path, TREE, row(steps), message)


@BOTH
@pytest.mark.parametrize("field", ["question", "final_answer", "reasoning_steps"])
def test_a_missing_field_is_refused(tmp_path: Path, read: Any, name: str, field: str) -> None:
    found = dict(TREE if "tree" in name else LIST)
    del found[field]
    with pytest.raises(DataError, match=f"row 1, field '{field}'"):
        read(save(tmp_path, [found]))


def test_a_missing_answer_may_be_null(tmp_path: Path) -> None:
    (question,), _ = read_math_aps(save(tmp_path, [{**LIST, "final_answer": None}]))
    assert question.answer == UNKNOWN_ANSWER
