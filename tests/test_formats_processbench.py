"""ProcessBench: which steps are labelled, what survives, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dreamprm.errors import DataError
from dreamprm.records import UNKNOWN_ANSWER
from tests.format_rows import RIGHT, WRONG, check_refused, reader, save

read_processbench = reader("processbench")

ROW = {
    "id": "gsm8k-0",
    "generator": "Qwen2-7B-Instruct",
    "problem": " 2 + 3 * 4 = ?\n",
    "steps": ["Add first: 5. ", "Then 5 * 4 = 20.", "The answer is \\boxed{20}."],
    "final_answer_correct": False,
    "label": 0,
}


def test_steps_before_the_first_error_are_right_and_those_after_it_unknown(tmp_path: Path) -> None:
    rows = [{**ROW, "label": label} for label in (0, 1, 2, -1)]
    _, trajectories = read_processbench(save(tmp_path, rows))
    assert [trajectory.labels for trajectory in trajectories] == [
        (WRONG, None, None),
        (RIGHT, WRONG, None),
        (RIGHT, RIGHT, WRONG),
        (RIGHT, RIGHT, RIGHT),
    ]


def test_a_row_becomes_a_question_and_a_trajectory_with_their_texts_unchanged(
    tmp_path: Path,
) -> None:
    (question,), (trajectory,) = read_processbench(save(tmp_path, [ROW]))
    assert question.text == " 2 + 3 * 4 = ?\n"
    assert (question.answer, question.subject) == (UNKNOWN_ANSWER, "gsm8k")
    assert question.domain == "processbench"
    assert list(trajectory.steps) == ROW["steps"]
    assert (trajectory.policy, trajectory.answer) == ("Qwen2-7B-Instruct", "20")
    assert trajectory.outcome is False


def test_rows_of_one_problem_are_candidates_of_one_question(tmp_path: Path) -> None:
    rows = [{**ROW, "id": f"gsm8k-{i}"} for i in range(3)]
    questions, trajectories = read_processbench(save(tmp_path, rows), domain="d")
    assert [question.domain for question in questions] == ["d"]
    assert [trajectory.sample_index for trajectory in trajectories] == [0, 1, 2]
    assert {trajectory.question_id for trajectory in trajectories} == {questions[0].id}


def test_ids_do_not_change_from_run_to_run(tmp_path: Path) -> None:
    (question,), _ = read_processbench(save(tmp_path, [ROW]))
    assert question.id == "aae63bc1cf1211e7"


@pytest.mark.parametrize(
    ("name", "count", "erroneous", "right_answer"),
    [("gsm8k", 400, 207, 7), ("math", 1000, 594, 94)],
)
def test_the_figures_of_the_published_sets_come_out(
    real_data: Path, name: str, count: int, erroneous: int, right_answer: int
) -> None:
    _, trajectories = read_processbench(real_data / "processbench" / f"{name}.json")
    wrong = [one for one in trajectories if one.labels and WRONG in one.labels]
    assert (len(trajectories), len(wrong)) == (count, erroneous)
    assert sum(one.outcome is True for one in wrong) == right_answer
    assert not any(one.labels is None for one in trajectories)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": 3}, "field 'label': must be the 0-based first wrong step of 3, or -1, not 3"),
        ({"label": -2}, "field 'label'"),
        ({"label": True}, "field 'label'"),
        ({"label": "1"}, "field 'label'"),
        ({"steps": []}, "field 'steps'"),
        ({"steps": ["a", 1]}, "field 'steps'"),
        ({"problem": " "}, "field 'problem'"),
        ({"id": None}, "field 'id': is missing"),
        ({"generator": 7}, "field 'generator': must be text, not 7"),
        ({"final_answer_correct": 1}, "field 'final_answer_correct': must be true or false, not 1"),
    ],
)
def test_a_broken_row_is_refused_and_can_be_passed_over(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    check_refused("processbench", tmp_path, ROW, ROW | changes, message)


@pytest.mark.parametrize("field", list(ROW))
def test_a_missing_field_is_refused(tmp_path: Path, field: str) -> None:
    row = {key: value for key, value in ROW.items() if key != field}
    with pytest.raises(DataError, match=f"row 1, field '{field}'"):
        read_processbench(save(tmp_path, [row]))


def test_reading_goes_on_behind_bad_rows_when_they_are_collected(tmp_path: Path) -> None:
    path = save(tmp_path, [ROW, {**ROW, "label": 9}, 7, ROW], "rows.jsonl")
    path.write_text(path.read_text() + "{broken\n\n" + json.dumps(ROW) + "\n")
    errors: list[DataError] = []
    _, trajectories = read_processbench(path, bad_row=errors.append)
    assert [error.row for error in errors] == [2, 3, 5]
    assert [trajectory.sample_index for trajectory in trajectories] == [0, 1, 2]


def test_a_list_with_a_bad_element_is_read_past_it_and_a_cut_list_is_refused(
    tmp_path: Path,
) -> None:
    path = tmp_path / "rows.json"
    errors: list[DataError] = []
    path.write_text(json.dumps([ROW, None, ROW], indent=1))
    assert len(read_processbench(path, bad_row=errors.append)[1]) == 2
    assert [error.row for error in errors] == [2]
    path.write_text(path.read_text()[:-9])
    with pytest.raises(DataError, match="rows.json: not JSON"):
        read_processbench(path)


@pytest.mark.parametrize("form", ["with a mark", "one object over many lines"])
def test_other_ways_to_write_json_are_read(form: str, tmp_path: Path) -> None:
    row = {
        "id": "gsm8k-1",
        "generator": "m",
        "problem": "1 + 1?",
        "steps": ["1 + 1 = 2"],
        "final_answer_correct": True,
        "label": -1,
    }
    path = tmp_path / "x.json"
    if form == "with a mark":
        path.write_bytes(b"\xef\xbb\xbf" + json.dumps([row, row | {"id": "gsm8k-2"}]).encode())
    else:
        path.write_text(json.dumps(row, indent=2))
    _, trajectories = read_processbench(path)
    assert len(trajectories) == (2 if form == "with a mark" else 1)
