"""TRL's stepwise supervision becomes records and comes out again as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dreamprm.data import known
from dreamprm.records import Label, Question, Trajectory
from tests.format_rows import RIGHT, WRONG, Row, check_refused, reader, save

read_trl_stepwise = reader("trl_stepwise")
write_trl_stepwise = known.find("trl_stepwise").write

PLAIN: Row = {
    "prompt": "Which is larger?",
    "completions": ["so", " thus\n"],
    "labels": [True, False],
}
SOFT: Row = {
    "prompt": "How many?  \nOptions: (A) 7  (B) 8\n",
    "completions": ["read 3", "read 5"],
    "labels": [0.375, 1.0],
    "images": ["images/a.png"],
    "source": {"set": "x"},
}


def test_prompt_completions_and_labels_become_records(tmp_path: Path) -> None:
    questions, trajectories = read_trl_stepwise(save(tmp_path, [PLAIN, SOFT]), domain="maths")
    assert [(q.text, q.options, q.domain) for q in questions] == [
        ("Which is larger?", (), "maths"),
        ("How many?", ("7", "8"), "maths"),
    ]
    assert questions[1].images == (str(tmp_path / "images/a.png"),)
    assert trajectories[0].steps == ("so", " thus\n")
    assert trajectories[0].labels == (RIGHT, WRONG)
    assert trajectories[1].labels == (Label(0.375), Label(1.0))


def test_rows_of_one_prompt_are_candidates_of_one_question(tmp_path: Path) -> None:
    other = PLAIN | {"completions": ["hm"], "labels": [False]}
    [question], trajectories = read_trl_stepwise(save(tmp_path, [PLAIN, other]))
    assert [(t.question_id, t.sample_index) for t in trajectories] == [
        (question.id, 0),
        (question.id, 1),
    ]


def test_soft_labels_are_never_cut_to_whole_numbers(tmp_path: Path) -> None:
    labels = (Label.of(7, 8), Label(1.0), Label.of(0, 16))
    question = Question(id="q", domain="d", text="?", answer="8")
    trajectory = Trajectory(question_id="q", steps=("a", "b", "c"), labels=labels)
    write_trl_stepwise(tmp_path / "soft.json", [question], [trajectory])
    [row] = json.loads((tmp_path / "soft.json").read_text())
    assert json.dumps(row["labels"]) == "[0.875, 1.0, 0.0]"
    _, [back] = read_trl_stepwise(tmp_path / "soft.json")
    assert back.labels == (Label(0.875), Label(1.0), Label(0.0))


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"prompt": [{"role": "user", "content": "?"}]}, "prompt"),
        ({"prompt": " "}, "prompt"),
        ({"completions": []}, "completions"),
        ({"completions": "so"}, "completions"),
        ({"labels": [True]}, "labels"),
        ({"labels": [True, 1.5]}, "labels"),
        ({"labels": [True, None]}, "labels"),
        ({"images": 5}, "images"),
        ({"images": [{"bytes": "x", "path": "a.png"}]}, "images"),
    ],
)
def test_a_broken_row_is_refused_and_can_be_passed_over(
    tmp_path: Path, wrong: Row, field: str
) -> None:
    check_refused("trl_stepwise", tmp_path, PLAIN, PLAIN | wrong, f"field '{field}'")
