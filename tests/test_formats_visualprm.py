"""Conversations with + and - verdicts become trajectories with labels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dreamprm.data import DataWarning, known, read_pair
from dreamprm.errors import DataError
from dreamprm.records import Label, Question, Trajectory
from tests.format_rows import Row, check_refused, reader, save

read_visualprm = reader("visualprm")
write_visualprm = known.find("visualprm").write

QUESTION = "### Question:\nQuestion: How many?\n\nOptions: (A) 7 (B) 8"


def row(*turns: str, **other: Any) -> dict[str, Any]:
    """A row whose turns say who speaks by what they say: + and - are verdicts."""
    conversations = [
        {"from": "gpt" if turn in ("+", "-", "?") else "human", "value": turn} for turn in turns
    ]
    system = {"from": "system", "value": "Judge each step."}
    return {"id": "q1", "image": "a.png", "conversations": [system, *conversations]} | other


def read(tmp_path: Path, *rows: dict[str, Any]) -> Any:
    return read_visualprm(save(tmp_path, rows))


def test_each_verdict_labels_the_step_before_it(tmp_path: Path) -> None:
    [question], [trajectory] = read(
        tmp_path, row(QUESTION, "read 3", "+", "read 4", "-", response="so\nAnswer: A")
    )
    assert (question.text, question.options) == ("How many?", ("7", "8"))
    assert question.images == (str(tmp_path / "a.png"),)
    assert trajectory.steps == ("read 3", "read 4")
    assert trajectory.labels == (Label(1.0), Label(0.0))
    assert (trajectory.answer, trajectory.outcome) == ("A", None)


def test_question_and_first_step_may_share_a_turn(tmp_path: Path) -> None:
    first = "### Question:\nHow many?\n\n### Solution Process:\nread 3"
    [question], [trajectory] = read(tmp_path, row(first, "+", "so 8", "-"))
    assert question.text == "How many?"
    assert trajectory.steps == ("read 3", "so 8")


def test_a_turn_that_only_states_the_answer_is_no_step(tmp_path: Path) -> None:
    _, [trajectory] = read(tmp_path, row(QUESTION, "so 8", "+", "Answer: B", "-"))
    assert trajectory.steps == ("so 8",)
    assert trajectory.labels == (Label(1.0),)
    assert trajectory.answer == "B"


def test_a_bare_answer_is_its_own_only_step(tmp_path: Path) -> None:
    _, [trajectory] = read(tmp_path, row(QUESTION, "B", "+"))
    assert (trajectory.steps, trajectory.answer) == (("B",), "B")


def test_a_right_response_tells_the_gold_answer(tmp_path: Path) -> None:
    rows = [
        row(QUESTION, "A", "-", response="A", true_false=False),
        row(QUESTION, "B", "+", response="B", true_false=True),
    ]
    [question], trajectories = read(tmp_path, *rows)
    assert question.answer == "B"
    assert [(t.outcome, t.sample_index) for t in trajectories] == [(False, 0), (True, 1)]


def test_labels_that_are_all_plus_despite_wrong_answers_are_left_out(tmp_path: Path) -> None:
    with pytest.warns(DataWarning, match="all 1 responses with a wrong answer"):
        _, [trajectory] = read(tmp_path, row(QUESTION, "A", "+", true_false=False))
    assert trajectory.labels is None


@pytest.mark.parametrize(
    "turns",
    [
        (QUESTION, "read 3", "?"),
        (QUESTION, "+"),
        (QUESTION, "read 3", "+", "read 4"),
        (QUESTION, "read 3", "+", "-"),
        (),
    ],
)
def test_a_broken_conversation_is_named(tmp_path: Path, turns: tuple[str, ...]) -> None:
    good = row(QUESTION, "read 3", "+")
    with pytest.raises(DataError, match=r"rows\.json, row 2, field 'conversations'"):
        read(tmp_path, good, row(*turns))


def test_the_released_meta_set_of_dreamprm_1_5_is_read_whole(real_data: Path) -> None:
    with pytest.warns(DataWarning, match="all 822 responses with a wrong answer"):
        questions, trajectories = read_pair(real_data / "dreamprm_1_5" / "meta_MMMU_Pro.json")
    assert len(questions) == 414
    assert Counter(trajectory.outcome for trajectory in trajectories) == {True: 834, False: 822}
    assert {question.subject for question in questions} >= {"Art", "Clinical_Medicine"}
    assert all(len(question.options) >= 2 for question in questions)


SHARED = "### Question:\nHow many?\n\n### Solution Process:\nread 3"


def test_an_id_of_minus_one_is_no_id(tmp_path: Path) -> None:
    """The published files carry it in every row."""
    other = row(SHARED.replace("many", "few"), "+", id=-1)
    questions, _ = read(tmp_path, row(SHARED, "+", id=-1), other)
    assert len({question.id for question in questions}) == 2


def test_records_from_elsewhere_come_back(tmp_path: Path) -> None:
    question = Question(id="7", domain="d", text="How many?", options=("7", "8"), answer="B")
    labels = (Label(1.0), Label(0.0))
    trajectory = Trajectory(
        question_id="7", steps=("read 3", "so 7"), answer="A", outcome=False, labels=labels
    )
    write_visualprm(tmp_path / "new.json", [question], [trajectory])
    [asked], [back] = read_visualprm(tmp_path / "new.json")
    assert asked == question
    assert back.model_copy(update={"extra": {}}) == trajectory


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"true_false": "yes"}, "true_false"),
        ({"response": ["B"]}, "response"),
        ({"image": 3}, "image"),
        ({"conversations": "x"}, "conversations"),
        (
            {"conversations": row(QUESTION.replace("(A) 7", "(A) 6"), "x", "+")["conversations"]},
            "id",
        ),
    ],
)
def test_a_broken_row_is_refused_and_can_be_passed_over(
    tmp_path: Path, wrong: Row, field: str
) -> None:
    good = row(QUESTION, "read 3", "+")
    check_refused("visualprm", tmp_path, good, good | wrong, f"field '{field}'")
