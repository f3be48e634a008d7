"""MATH-APS: ways through a tree, exact counts, the list and the tree, what is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamprm.data.math_aps import (
    read_math_aps,
    read_math_aps_tree,
    write_math_aps,
    write_math_aps_tree,
)
from dreamprm.errors import DataError
from dreamprm.records import UNKNOWN_ANSWER, Label, Question, Trajectory
from tests.test_formats_processbench import (
    from_elsewhere,
    load,
    mutated,
    rewritten,
    save,
    survives_or_is_refused,
)

BOTH = pytest.mark.parametrize(
    ("read", "write", "name"),
    [
        (read_math_aps, write_math_aps, "math-aps.jsonl"),
        (read_math_aps_tree, write_math_aps_tree, "math-aps-tree.jsonl"),
    ],
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
    (("It is 14.",), ((1, 1),)),
    (("Multiply first.", "12 + 2 = 14."), ((15, 16), (1, 1))),
    (("Multiply first.", "So 20."), ((15, 16), (0, 1))),
    (("Multiply first.", "12 + 2 = \\boxed{14}."), ((15, 16), (1, 1))),
    (("So 20.",), ((0, 1),)),
]


def test_every_way_to_a_leaf_of_the_tree_is_a_trajectory(tmp_path: Path) -> None:
    (question,), trajectories = read_math_aps_tree(save(tmp_path, [TREE]))
    assert [(tuple(map(str.strip, one.steps)), one.labels) for one in trajectories] == WAYS
    assert trajectories[3].steps[1] == "12 + 2 = \\boxed{14}. "
    assert [one.sample_index for one in trajectories] == [0, 1, 2, 3, 4]
    assert trajectories[3].answer == "14"
    assert (question.text, question.answer) == (Q, "14")


def test_the_list_holds_the_same_trajectories_as_the_tree(tmp_path: Path) -> None:
    _, trajectories = read_math_aps(save(tmp_path, [LIST]))
    assert [(one.steps, one.labels) for one in trajectories] == WAYS


@BOTH
def test_the_value_of_the_question_alone_is_in_its_extra(
    tmp_path: Path, read: Any, write: Any, name: str
) -> None:
    (question,), _ = read(save(tmp_path, [TREE if "tree" in name else LIST]))
    assert question.extra == {"math_aps": {"mc_value": 0.75}}


@BOTH
def test_published_rows_survive_reading_and_writing(
    real_data: Path, tmp_path: Path, read: Any, write: Any, name: str
) -> None:
    source = real_data / "prm_formats" / name
    assert rewritten(read, write, source, tmp_path) == load(source)


@BOTH
def test_published_rows_have_as_many_trajectories_as_leaves(
    real_data: Path, read: Any, write: Any, name: str
) -> None:
    questions, trajectories = read(real_data / "prm_formats" / name)
    assert len(questions) == 3  # though question_id is not unique
    assert len(trajectories) == (242 if "tree" in name else 132)
    values = {label for one in trajectories for label in one.labels}
    assert max(total for _, total in values) == 32
    assert all(step.strip() for one in trajectories for step in one.steps)


def test_rows_of_all_kinds_survive_reading_and_writing(tmp_path: Path) -> None:
    trees = [
        TREE,
        {**TREE, "question_id": 4},
        row(node(Q, 0.5, node("a", 1 / 3, visits=7), visits=9), final_answer=None, more=[1]),
        row(node("another text", 0.5, node(" a\n", 0.1))),
    ]
    lists = [
        LIST,
        {**LIST, "final_answer": None},
        row([*LIST["reasoning_steps"][1:]]),
        row([{"solution_prefix": f"{Q} a \n", "mc_value": 1, "x": 0}]),
    ]
    path = save(tmp_path, trees)
    assert rewritten(read_math_aps_tree, write_math_aps_tree, path, tmp_path) == trees
    path = save(tmp_path, lists)
    assert rewritten(read_math_aps, write_math_aps, path, tmp_path) == lists


def test_two_trees_over_one_question_keep_their_own_values(tmp_path: Path) -> None:
    second = row(node(Q, 0.25, node("b", 0.5)))
    path = save(tmp_path, [TREE, second])
    questions, trajectories = read_math_aps_tree(path)
    assert len(questions) == 1
    assert [one.sample_index for one in trajectories] == [0, 1, 2, 3, 4, 5]
    assert rewritten(read_math_aps_tree, write_math_aps_tree, path, tmp_path) == [TREE, second]


def test_a_tree_can_be_written_as_a_list_and_back(tmp_path: Path) -> None:
    write_math_aps(tmp_path / "list.jsonl", *read_math_aps_tree(save(tmp_path, [TREE])))
    write_math_aps_tree(tmp_path / "tree.jsonl", *read_math_aps(tmp_path / "list.jsonl"))
    expected = copy.deepcopy(TREE)
    expected["reasoning_steps"]["children"][2]["children"][0]["text"] = "12 + 2 = \\boxed{14}."
    assert load(tmp_path / "tree.jsonl") == [expected]


@settings(max_examples=300)
@given(
    st.floats(0, 1) | st.integers(1, 64).flatmap(lambda n: st.integers(0, n).map(lambda k: k / n))
)
def test_counts_give_the_very_same_value_back(value: float) -> None:
    survives_or_is_refused(
        read_math_aps_tree, write_math_aps_tree, row(node(Q, 1, node("a", value)))
    )


@pytest.mark.parametrize("total", [1, 2, 3, 7, 16, 32, 48, 1000])
def test_counts_are_the_smallest_that_give_the_value(tmp_path: Path, total: int) -> None:
    values = [node("a", correct / total) for correct in (0, 1, total - 1)]
    path = save(tmp_path, [row(node(Q, 1, *values))])
    labels = [one.labels[0] for one in read_math_aps_tree(path)[1] if one.labels]
    assert labels == [(0, 1), (1, total), (total - 1, total) if total > 1 else (0, 1)]


def test_a_changed_leaf_is_written_from_the_record(tmp_path: Path) -> None:
    (question,), trajectories = read_math_aps_tree(save(tmp_path, [TREE]))
    trajectories[2] = trajectories[2].model_copy(
        update={
            "steps": ("Multiply first.", "So 14."),
            "labels": (Label.of(15, 16), Label.of(3, 4)),
        }
    )
    question = question.model_copy(update={"text": "Sum?", "answer": "15"})
    write_math_aps_tree(tmp_path / "out.jsonl", [question], trajectories)
    expected = copy.deepcopy(TREE) | {"question": "Sum?", "final_answer": "15"}
    expected["reasoning_steps"]["text"] = "Sum?"
    expected["reasoning_steps"]["children"][1]["children"][1] = node("So 14.", 0.75)
    assert load(tmp_path / "out.jsonl") == [expected]


@BOTH
def test_a_shared_step_that_is_changed_in_one_trajectory_splits_the_tree(
    tmp_path: Path, read: Any, write: Any, name: str
) -> None:
    source = save(tmp_path, [TREE if "tree" in name else LIST])
    questions, trajectories = read(source)
    trajectories[2] = trajectories[2].model_copy(
        update={"labels": (Label.of(1, 2), Label.of(0, 1))}
    )
    write(tmp_path / "out.jsonl", questions, trajectories)
    again = read(tmp_path / "out.jsonl")[1]
    assert [(one.steps, one.labels) for one in again] == [
        (one.steps, one.labels) for one in trajectories
    ]


def candidates() -> tuple[list[Question], list[Trajectory]]:
    """Three trajectories that no reader has made: two share a step, two are equal."""
    about: dict[str, Any] = {"math_aps": {"mc_value": 0.5}}
    question = Question(id="q", domain="d", text=Q, answer="14", extra=about)
    label = Label.of(3, 8)
    return [question], [
        Trajectory(question_id="q", steps=steps, labels=(label, label), sample_index=i)
        for i, steps in enumerate([("a", "b"), ("a", "c"), ("a", "c")])
    ]


def test_candidates_from_elsewhere_share_their_first_steps_and_equal_ones_stay_apart(
    tmp_path: Path,
) -> None:
    write_math_aps_tree(tmp_path / "out.jsonl", *candidates())
    ends = [node("b", 0.375), node("c", 0.375), node("c", 0.375)]
    root = node(Q, 0.5, node("a", 0.375, *ends))
    assert load(tmp_path / "out.jsonl") == [{**row(root), "question_id": "q"}]


def test_candidates_from_elsewhere_make_a_list_that_reads_back(tmp_path: Path) -> None:
    questions, trajectories = candidates()
    write_math_aps(tmp_path / "out.jsonl", questions, trajectories)
    (question,), again = read_math_aps(tmp_path / "out.jsonl")
    assert question.extra == questions[0].extra
    assert [(one.steps, one.labels) for one in again] == [
        (one.steps, one.labels) for one in trajectories
    ]


@BOTH
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"labels": (Label.of(1, 2), None)},
            "trajectory 3 of question 'q' has no label on step 2",
        ),
        ({"labels": None}, "has no label on step 1"),
        ({"images": ("a.png",)}, "question 'q' has images"),
        ({"question_id": "r"}, "question 'r', which is not among the questions"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(
    tmp_path: Path, read: Any, write: Any, name: str, changes: dict[str, Any], message: str
) -> None:
    questions, trajectories = from_elsewhere(**changes)
    about = {"extra": {"math_aps": {"mc_value": 0.5}}}
    with pytest.raises(DataError, match=message):
        write(tmp_path / name, [questions[0].model_copy(update=about)], trajectories)
    assert not list(tmp_path.iterdir())


def test_a_tree_needs_the_value_of_the_question_alone_and_a_list_does_not(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="question 'q' has no value of its own"):
        write_math_aps_tree(tmp_path / "tree.jsonl", *from_elsewhere())
    write_math_aps(tmp_path / "list.jsonl", *from_elsewhere())
    prefixes = [
        one["solution_prefix"] for one in load(tmp_path / "list.jsonl")[0]["reasoning_steps"]
    ]
    text = "1 + 1?\nOptions: (A) 2 (B) 3"
    assert prefixes == [
        f"{text}\n\nOne and one.",
        f"{text}\n\nOne and one.\n\nThat is two.\nFinal answer: 2",
    ]


def entry(prefix: Any, value: Any) -> dict[str, Any]:
    return {"solution_prefix": prefix, "mc_value": value}


A = entry(f"{Q} a", 1.0)


def check_refused(read: Callable[..., Any], path: Path, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert (caught.value.file, caught.value.row) == (path, 2)
    errors: list[DataError] = []
    assert len(read(path, bad_row=errors.append)[1]) == 2 * len(WAYS)
    assert [error.row for error in errors] == [2]


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
def test_a_broken_list_is_refused_with_file_row_and_field(
    tmp_path: Path, steps: Any, message: str
) -> None:
    check_refused(read_math_aps, save(tmp_path, [LIST, row(steps), LIST]), message)


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
def test_a_broken_tree_is_refused_with_file_row_and_field(
    tmp_path: Path, steps: Any, message: str
) -> None:
    check_refused(read_math_aps_tree, save(tmp_path, [TREE, row(steps), TREE]), message)


@BOTH
@pytest.mark.parametrize("field", ["question", "final_answer", "reasoning_steps"])
def test_a_missing_field_is_refused(
    tmp_path: Path, read: Any, write: Any, name: str, field: str
) -> None:
    found = dict(TREE if "tree" in name else LIST)
    del found[field]
    with pytest.raises(DataError, match=f"row 1, field '{field}'"):
        read(save(tmp_path, [found]))


def test_a_missing_answer_may_be_null(tmp_path: Path) -> None:
    (question,), _ = read_math_aps(save(tmp_path, [{**LIST, "final_answer": None}]))
    assert question.answer == UNKNOWN_ANSWER


@settings(max_examples=300)
@given(mutated(LIST))
def test_a_mutated_list_comes_out_as_it_went_in_or_is_refused(found: Any) -> None:
    survives_or_is_refused(read_math_aps, write_math_aps, found)


@settings(max_examples=300)
@given(mutated(TREE))
def test_a_mutated_tree_comes_out_as_it_went_in_or_is_refused(found: Any) -> None:
    survives_or_is_refused(read_math_aps_tree, write_math_aps_tree, found)
