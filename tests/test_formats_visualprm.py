"""Conversations with + and - verdicts become trajectories with labels."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from dreamprm.errors import DataError
from dreamprm.formats import DataWarning, read_pair
from dreamprm.formats.visualprm import read_visualprm
from dreamprm.records import StepLabel

QUESTION = "### Question:\nQuestion: How many?\n\nOptions: (A) 7 (B) 8"


def row(*turns: str, **other: Any) -> dict[str, Any]:
    """A row whose turns say who speaks by what they say: + and - are verdicts."""
    conversations = [
        {"from": "gpt" if turn in ("+", "-", "?") else "human", "value": turn} for turn in turns
    ]
    system = {"from": "system", "value": "Judge each step."}
    return {"id": "q1", "image": "a.png", "conversations": [system, *conversations]} | other


def read(tmp_path: Path, *rows: dict[str, Any]) -> Any:
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    return read_visualprm(tmp_path / "rows.json")


def test_each_verdict_labels_the_step_before_it(tmp_path: Path) -> None:
    [question], [trajectory] = read(
        tmp_path, row(QUESTION, "read 3", "+", "read 4", "-", response="so\nAnswer: A")
    )
    assert (question.text, question.options) == ("How many?", ("7", "8"))
    assert question.images == (str(tmp_path / "a.png"),)
    assert trajectory.steps == ("read 3", "read 4")
    assert trajectory.labels == (StepLabel(1, 1), StepLabel(0, 1))
    assert (trajectory.answer, trajectory.outcome) == ("A", None)


def test_question_and_first_step_may_share_a_turn(tmp_path: Path) -> None:
    first = "### Question:\nHow many?\n\n### Solution Process:\nread 3"
    [question], [trajectory] = read(tmp_path, row(first, "+", "so 8", "-"))
    assert question.text == "How many?"
    assert trajectory.steps == ("read 3", "so 8")


def test_a_turn_that_only_states_the_answer_is_no_step(tmp_path: Path) -> None:
    _, [trajectory] = read(tmp_path, row(QUESTION, "so 8", "+", "Answer: B", "-"))
    assert trajectory.steps == ("so 8",)
    assert trajectory.labels == (StepLabel(1, 1),)
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

    by_question = defaultdict(list)
    for trajectory in trajectories:
        by_question[trajectory.question_id].append(trajectory.outcome)
    right = [sum(any(o[:n]) for o in by_question.values()) / 414 for n in (1, 2, 3, 4)]
    assert [round(100 * share, 2) for share in right] == [52.17, 60.87, 65.22, 67.87]
