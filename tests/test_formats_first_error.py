"""Benchmarks of first errors beside ProcessBench: which step is the wrong one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dreamprm.data import known, read_pair
from dreamprm.errors import DataError
from dreamprm.records import UNKNOWN_ANSWER, Label, Question, Trajectory
from tests.format_rows import sample_rows

RIGHT, WRONG = Label(1.0), Label(0.0)


def read(folder: Path, *rows: Any) -> tuple[list[Question], list[Trajectory]]:
    """Of a file that is told by its rows."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_pair(folder / "rows.jsonl")


def sample(name: str, folder: Path) -> dict[str, Any]:
    return sample_rows(known.find(name), folder)[-1]


def test_big_bench_mistake_counts_from_zero_and_null_is_none(tmp_path: Path) -> None:
    (first, second), (wrong, right) = read(
        tmp_path, *sample_rows(known.find("big_bench_mistake"), tmp_path)
    )
    assert (wrong.labels, right.labels) == ((WRONG, None), (RIGHT,))
    assert (first.options, first.answer, second.answer) == (("Ann.", "Bo."), "B", "2")
    assert (wrong.answer, wrong.outcome, right.outcome) == ("A", False, True)
    assert wrong.extra == {"first_error": {"id": "1", "index": 0}}


@pytest.mark.parametrize("value", [2, -1, True, "1", 1.0])
def test_an_index_that_is_no_step_is_refused(value: object, tmp_path: Path) -> None:
    row = sample_rows(known.find("big_bench_mistake"), tmp_path)[0] | {"mistake_index": value}
    message = "row 1, field 'mistake_index': must be the 0-based first wrong step of 2, or null"
    with pytest.raises(DataError, match=message):
        read(tmp_path, row)


@pytest.mark.parametrize(
    ("verdict", "step", "labels"),
    [
        ("wrong", 1, (WRONG, None)),
        ("wrong", "Step 2", (RIGHT, WRONG)),
        ("correct", "N/A", (RIGHT, RIGHT)),
        ("wrong", "N/A", None),
        ("wrong", 3, None),
    ],
)
def test_mr_gsm8k_counts_from_one(
    verdict: str, step: object, labels: object, tmp_path: Path
) -> None:
    row = sample("mr_gsm8k", tmp_path) | {
        "model_output_solution_correctness": verdict,
        "model_output_solution_first_error_step": step,
    }
    [question], [trajectory] = read(tmp_path, row)
    assert trajectory.labels == labels
    assert (question.answer, question.subject, trajectory.outcome) == ("2", "original", False)
    assert trajectory.steps == ("Step 1: 1 + 1 = 3", "Step 2: #### 3")
    assert trajectory.extra["first_error"]["id"] == "a-1"


def test_a_verdict_in_other_words_is_refused(tmp_path: Path) -> None:
    row = sample("mr_gsm8k", tmp_path) | {"model_output_solution_correctness": "perhaps"}
    with pytest.raises(DataError, match="must be correct, wrong or incorrect, not 'perhaps'"):
        read(tmp_path, row)


def test_a_step_of_mr_math_is_a_list_of_lines(tmp_path: Path) -> None:
    _, [trajectory] = read(tmp_path, sample("mr_math", tmp_path))
    assert trajectory.steps == ("1. Add.\n1 + 1", "2. So 2.")
    assert (trajectory.labels, trajectory.outcome) == ((RIGHT, RIGHT), True)


@pytest.mark.parametrize(
    ("lines", "error", "steps", "labels"),
    [
        (  # the number is that of a mark, not of a line
            ["Given:", "Step 1: Add.", "1 + 1", "", "**Step 2:** By step 1 it is 3.", "Step 2: no"],
            "2",
            ("Given:\nStep 1: Add.\n1 + 1", "**Step 2:** By step 1 it is 3.\nStep 2: no"),
            (RIGHT, WRONG),
        ),
        (["Step 1: a", "Solution: B", "So B."], "2", ("Step 1: a", "Solution: B\nSo B."), None),
        (["a", "", "b"], "2", ("a", "b"), None),  # no marks: each line is a step
        ("def f():\n\n    return 1", "    return 1", ("def f():", "    return 1"), None),
    ],
)
def test_mr_ben_names_a_step_by_its_number(
    lines: object, error: str, steps: object, labels: object, tmp_path: Path
) -> None:
    solution = sample("mr_ben", tmp_path)["u-1"][0] | {
        "Model_Solution_Steps": lines,
        "Model_Solution_First_Error_Step": error,
    }
    for row in (solution, {"u-1": [solution]}):  # one by one, or by question
        [question], [trajectory] = read(tmp_path, row)
        assert trajectory.steps == steps
        assert trajectory.labels == (labels or (RIGHT, WRONG))
        assert (question.options, question.answer) == (("2", "3"), "A")
        assert trajectory.extra["first_error"]["id"] == "u-1/m"


def test_only_mathchecks_process_judging_tells_of_steps(tmp_path: Path) -> None:
    [question], [trajectory] = read(tmp_path, *sample_rows(known.find("mathcheck"), tmp_path))
    assert trajectory.steps == ("Step 1: Look.", "Step 2: It is 7.\nThe answer is 7.")
    assert trajectory.labels == (RIGHT, WRONG)
    assert question.images == (str(tmp_path / "a.jpg"),)
    assert (question.answer, question.subject) == (UNKNOWN_ANSWER, "seed_question")
