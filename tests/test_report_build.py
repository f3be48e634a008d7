"""From an evaluation to the parts of a report."""

from __future__ import annotations

import io
import math

import pytest
from PIL import Image

from dreamprm.errors import DataError
from dreamprm.evaluation.evaluate import Evaluation, evaluate
from dreamprm.records import Question, StepScores, Trajectory
from dreamprm.report.build import accuracy_table, examples
from dreamprm.report.page import Example


def image(size: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), "red").save(buffer, "BMP")
    return buffer.getvalue()


# 12 questions, two candidates each, of which candidate 0 is right. DreamPRM wins q1, loses q2.
QUESTIONS = [
    Question(id=f"q{i}", domain="b", text=f"question {i}", answer="A", images=(image(8 + 99 * i),))
    for i in range(12)
]
TRAJECTORIES = [
    Trajectory(question_id=q.id, steps=("x", "y"), answer="AB"[k], outcome=k == 0, sample_index=k)
    for q in QUESTIONS
    for k in (0, 1)
]


def scores(wrong_on: str) -> list[StepScores]:
    return [
        StepScores(
            question_id=t.question_id,
            sample_index=t.sample_index,
            logits=(0.0, 2.0 if (t.sample_index == 1) == (t.question_id == wrong_on) else -2.0),
        )
        for t in TRAJECTORIES
    ]


def evaluation() -> Evaluation:
    by_method = {"dreamprm": scores("q2"), "prm_uniform": scores("q1")}
    return evaluate(QUESTIONS, TRAJECTORIES, by_method, n=2, ns=(1, 2))


def picked(limit: int) -> tuple[Example, ...]:
    return examples(evaluation(), QUESTIONS, TRAJECTORIES, scores("q2"), limit=limit)


def test_the_table_holds_all_methods_and_the_differences_to_the_main_one() -> None:
    table = accuracy_table(evaluation(), "t")
    assert set(table.average) == set(table.accuracy["b"])
    assert set(table.differences) == set(table.average) - {"dreamprm"}
    assert table.differences["prm_uniform"].mean == 0.0
    assert accuracy_table(evaluation(), "t", main_method="absent").differences == {}


def test_examples_show_wins_and_losses_before_agreement_and_no_question_twice() -> None:
    names = [e.question for e in picked(6)]
    assert names[:2] == ["question 1", "question 2"]
    assert len(names) == len(set(names)) == 6
    assert len(picked(100)) == 12


def test_an_example_tells_who_chose_what_and_with_which_scores() -> None:
    won = picked(3)[0]
    right, wrong = won.candidates
    assert right.outcome
    assert "dreamprm" in right.chosen_by
    assert wrong.chosen_by == ("prm_uniform",)
    assert right.score == 1.0  # the mean logit
    assert right.step_scores == pytest.approx((0.5, 1 / (1 + math.exp(-2.0))))


def test_large_images_are_reduced_and_small_ones_left_alone() -> None:
    sizes = set()
    for example in picked(100):
        with Image.open(io.BytesIO(example.images[0])) as shown:
            assert shown.format == "PNG"
            sizes.add(shown.size)
    assert (8, 8) in sizes
    assert max(sizes) == (640, 640)


def test_examples_need_scores_of_the_main_method() -> None:
    with pytest.raises(DataError, match="'absent' has no scores"):
        examples(evaluation(), QUESTIONS, TRAJECTORIES, scores("q2"), main_method="absent")
