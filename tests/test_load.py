"""`dreamprm.data.load`: files that belong together, checked against each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dreamprm.data import known, load, write_questions, write_trajectories
from dreamprm.errors import DataError
from dreamprm.records import Label, Question, Trajectory

QUESTION = Question(id="q", domain="charts", text="How many?", options=("7", "8"), answer="B")
STEPS = ("Step 1: read 3", "Step 2: it is 8")
FIRST = Trajectory(question_id="q", steps=STEPS, labels=(Label.of(3, 4), Label(0.333333)))
OTHER = FIRST.model_copy(update={"sample_index": 1, "domain": "judge"})


def ours(folder: Path, *trajectories: Trajectory) -> tuple[Path, Path]:
    write_questions(folder / "q.jsonl", [QUESTION])
    write_trajectories(folder / "t.parquet", trajectories)
    return folder / "q.jsonl", folder / "t.parquet"


def test_questions_and_trajectories_are_joined_in_any_order(tmp_path: Path) -> None:
    questions, trajectories = ours(tmp_path, FIRST, OTHER)
    data = load(trajectories, questions)
    assert data.pairs == [(QUESTION, FIRST), (QUESTION, OTHER)]
    assert data.source == str(trajectories)
    assert load(questions).trajectories == []


def test_a_file_of_another_format_holds_both(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    row = {"prompt": "How many?", "completions": ["a", "b"], "labels": [0.333333, True]}
    path.write_text(json.dumps(row) + "\n")
    ((question, trajectory),) = load(path).pairs
    assert (question.text, question.domain) == ("How many?", "trl_stepwise")
    assert trajectory.labels == (Label(0.333333), Label(1.0))
    assert load(path, format="trl_stepwise").questions == [question]


def test_a_trajectory_of_an_unknown_question_names_file_and_row(tmp_path: Path) -> None:
    questions, trajectories = ours(tmp_path, FIRST, FIRST.model_copy(update={"question_id": "z"}))
    with pytest.raises(DataError, match=r"t\.parquet, row 2, field 'question_id': question 'z'"):
        load(questions, trajectories)


def test_a_missing_image_and_two_questions_of_one_id_are_refused(tmp_path: Path) -> None:
    lost = QUESTION.model_copy(update={"images": ("lost.png",)})
    write_questions(tmp_path / "lost.jsonl", [lost])
    with pytest.raises(DataError, match=r"lost\.jsonl, row 1, field 'images'"):
        load(tmp_path / "lost.jsonl")
    write_questions(tmp_path / "a.jsonl", [QUESTION])
    write_questions(tmp_path / "b.jsonl", [QUESTION.model_copy(update={"text": "Why?"})])
    with pytest.raises(DataError, match=r"b\.jsonl, field 'id': question id 'q' stands for"):
        load(tmp_path / "a.jsonl", tmp_path / "b.jsonl")


def test_labels_and_domains_go_through_the_papers_training_file(tmp_path: Path) -> None:
    """Counts stay counts, a bare value stays itself, and a domain of its own stays its own."""
    write = known.find("dreamprm_train").write
    write(tmp_path / "train.json", [QUESTION], [FIRST, OTHER])
    back = load(tmp_path / "train.json").trajectories
    assert [(t.steps, t.labels, t.domain) for t in back] == [
        (STEPS, FIRST.labels, None),
        (STEPS, FIRST.labels, "judge"),
    ]
