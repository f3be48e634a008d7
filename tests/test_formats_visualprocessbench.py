"""VisualProcessBench becomes records and comes out again as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamprm.records import UNKNOWN_ANSWER, Label
from tests.format_rows import Row, check_refused, reader, save

read_visualprocessbench = reader("visualprocessbench")

STEPS = ["Let us see.\n", "So it is 8.", "Final answer: 8"]
ROW: Row = {
    "image": ["images/MathVision/1.png"],
    "question": "How many?\nOptions: (A) 7\n(B) 8 ",
    "answer": "8",
    "response": {"steps": STEPS, "process_correctness": [0, 1, -1]},
    "policy_model": "GPT-4o",
    "data_source": "MathVision",
}
JUDGED = "response.process_correctness"
ROWS: list[Row] = [
    ROW,
    ROW | {"policy_model": "QvQ-72B", "response": ROW["response"] | {"note": "?"}},
    ROW | {"question": "  Plain?", "image": "a.png", "answer": 8, "extra": {"a": [1]}},
    {k: ROW[k] for k in ("image", "question", "response")} | {"image": ["b/../c.png", "d.png"]},
]


def test_a_row_becomes_a_question_and_a_judged_trajectory(tmp_path: Path) -> None:
    questions, trajectories = read_visualprocessbench(save(tmp_path, ROWS))
    question, trajectory = questions[0], trajectories[0]
    assert (question.text, question.options, question.answer) == ("How many?", ("7", "8"), "8")
    assert question.images == (str(tmp_path / "images/MathVision/1.png"),)
    assert question.domain == "MathVision"
    assert trajectory.steps == tuple(STEPS)  # the step that states the answer is judged, too
    assert trajectory.labels == (None, Label(1.0), Label(0.0))
    assert (trajectory.policy, trajectory.answer, trajectory.outcome) == ("GPT-4o", "8", None)
    assert [(t.question_id, t.sample_index) for t in trajectories[:2]] == [
        (question.id, 0),
        (question.id, 1),
    ]
    assert (questions[2].answer, questions[2].domain) == (UNKNOWN_ANSWER, "visualprocessbench")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"question": None}, "question"),
        ({"response": "so"}, "response"),
        ({"response": {"steps": ["a"]}}, JUDGED),
        ({"response": {"steps": ["a"], "process_correctness": [2]}}, JUDGED),
        ({"response": {"steps": ["a"], "process_correctness": [True]}}, JUDGED),
        ({"response": {"steps": ["a"], "process_correctness": []}}, JUDGED),
        ({"response": {"steps": [], "process_correctness": []}}, "response.steps"),
        ({"image": [3]}, "image"),
        ({"answer": "9"}, "answer"),
        ({"answer": ["8"]}, "answer"),
    ],
)
def test_a_broken_row_is_refused_and_can_be_passed_over(
    tmp_path: Path, wrong: Row, field: str
) -> None:
    check_refused("visualprocessbench", tmp_path, ROW, ROW | wrong, f"field '{field}'")
