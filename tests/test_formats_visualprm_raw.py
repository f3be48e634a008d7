"""Rows with `steps_with_score` become records with counts and come out again as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dreamprm.records import Label
from tests.format_rows import Row, check_refused, reader, save

read_visualprm_raw = reader("visualprm_raw")


def step(text: str, correct: int, total: int, **other: Any) -> Row:
    score = correct / total if total else 0.0
    counts = {"num_mc_correct": correct, "num_mc_total": total}
    return {"step": text, "score": score} | counts | other


ROW: Row = {
    "image": "VisualPRM400K/Geometry3K/1.png",
    "question": "<image>\nThink step by step about this:\n\nHow many?\nOptions: (A) 7 (B) 8\n\nGo.",
    "question_orig": "<image>\nHow many?\nOptions: (A) 7 (B) 8",
    "answer": "B",
    "response": "I see 3. \n\nAnd 5.\n\nFinal answer: B",
    "steps_with_score": [
        step("I see 3. ", 7, 16),
        step("And 5.", 0, 16),
        step("Final answer: B", 0, 0),
    ],
    "num_mc_sequences": 16,
}
BARE: Row = {
    "id": "7",
    "image": ["a.png", "./b.png"],
    "question": "Why?",
    "steps_with_score": [{"step": "so", "score": 0.3333}, {"step": "thus", "score": 1}],
}
ROWS: list[Row] = [
    ROW,
    ROW | {"response": "I see 3.  And 5.\nFinal answer: B\n", "id": -1},
    ROW | {"response": "quite another text", "steps_with_score": ROW["steps_with_score"][:2]},
    BARE,
    BARE | {"answer": 8, "steps_with_score": [step("so", 1, 3, score=0.333, by="me")]},
]


def test_a_row_becomes_a_question_and_a_trajectory_with_counts(tmp_path: Path) -> None:
    [question, bare], trajectories = read_visualprm_raw(save(tmp_path, ROWS))
    assert (question.text, question.options, question.answer) == ("How many?", ("7", "8"), "B")
    assert question.images == (str(tmp_path / "VisualPRM400K/Geometry3K/1.png"),)
    assert trajectories[0].steps == ("I see 3. ", "And 5.")
    assert trajectories[0].labels == (Label.of(7, 16), Label.of(0, 16))
    assert trajectories[0].answer == "B"
    assert (bare.id, bare.answer) == ("7", "8")
    assert trajectories[3].labels == (Label(0.3333), Label(1.0))
    assert trajectories[4].labels == (Label.of(1, 3),)


def test_a_step_that_nobody_sampled_from_has_no_label(tmp_path: Path) -> None:
    row = ROW | {"steps_with_score": [step("a", 0, 16), step("b", 0, 0)]}
    _, [trajectory] = read_visualprm_raw(save(tmp_path, [row]))
    assert trajectory.labels == (Label.of(0, 16), None)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"question_orig": " "}, "question_orig"),
        ({"question": None, "question_orig": None}, "question"),
        ({"steps_with_score": []}, "steps_with_score"),
        ({"steps_with_score": ["so"]}, "steps_with_score.1"),
        ({"steps_with_score": [{"step": "so"}]}, "steps_with_score.1.score"),
        ({"steps_with_score": [step("so", 1, 4, score=1.5)]}, "steps_with_score.1.score"),
        ({"steps_with_score": [step("so", 1, 4, score=0.5)]}, "steps_with_score.1.score"),
        ({"steps_with_score": [step("so", 5, 4, score=None)]}, "steps_with_score.1.num_mc_correct"),
        (
            {"steps_with_score": [step("so", 1, 4, num_mc_total=None)]},
            "steps_with_score.1.num_mc_correct",
        ),
        ({"response": 8}, "response"),
        ({"image": {}}, "image"),
        ({"answer": "A"}, "answer"),
    ],
)
def test_a_broken_row_is_refused_and_can_be_passed_over(
    tmp_path: Path, wrong: Row, field: str
) -> None:
    check_refused("visualprm_raw", tmp_path, ROW, ROW | wrong, f"field '{field}'")
