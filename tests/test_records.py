"""Records refuse what cannot be right, and say which field."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamprm.errors import DataError
from dreamprm.records import (
    LONGEST_STEP,
    MOST_STEPS,
    Label,
    Question,
    StepScores,
    Trajectory,
    domain_of,
    logits_of,
)
from dreamprm.search.aggregation import aggregate

QUESTION = {"id": "q1", "domain": "charts", "text": "How many?", "answer": "3"}


def test_a_question_needs_only_id_domain_text_and_answer() -> None:
    question = Question.parse(QUESTION)
    assert (question.images, question.options, question.subject) == ((), (), None)


@pytest.mark.parametrize("field", ["id", "domain", "text", "answer"])
def test_an_empty_field_of_a_question_is_named(field: str) -> None:
    with pytest.raises(DataError, match=f"{field} is empty"):
        Question.parse(QUESTION | {field: "  "})


def test_a_missing_field_is_named() -> None:
    with pytest.raises(DataError) as caught:
        Question.parse({"id": "q1", "domain": "charts", "text": "How many?"})
    assert caught.value.field == "answer"


def test_a_misspelt_field_is_refused_not_ignored() -> None:
    with pytest.raises(DataError) as caught:
        Question.parse(QUESTION | {"option": ["1", "2"]})
    assert caught.value.field == "option"


def test_a_trajectory_without_steps_is_refused() -> None:
    with pytest.raises(DataError, match="without steps cannot be scored"):
        Trajectory.parse({"question_id": "q1", "steps": []})


def test_there_must_be_as_many_labels_as_steps() -> None:
    with pytest.raises(DataError, match="1 labels for 2 steps"):
        Trajectory.parse({"question_id": "q1", "steps": ["a", "b"], "labels": [[1, 2]]})


@pytest.mark.parametrize(
    "label", [[3, 2], [-1, 2], [0, 0], {"correct": 2, "total": 1}, 1.5, -0.1, float("nan")]
)
def test_a_label_outside_zero_to_one_is_refused(label: object) -> None:
    with pytest.raises(DataError, match="label of step 2 is .* outside 0-1"):
        Trajectory.parse({"question_id": "q1", "steps": ["a", "b"], "labels": [None, label]})


@pytest.mark.parametrize("label", [True, "0.5", [1], [0.5, 1], {"score": 1}])
def test_a_label_of_another_kind_is_refused(label: object) -> None:
    with pytest.raises(DataError, match="label of step 1 is ") as caught:
        Trajectory.parse({"question_id": "q1", "steps": ["a"], "labels": [label]})
    assert caught.value.field == "labels"


def test_labels_keep_their_counts_and_values_without_counts_stay_as_they_are() -> None:
    written = [[4, 8], {"correct": 4, "total": 8}, 0.333333, {"value": 0.333333}, None]
    row = {"question_id": "q1", "steps": ["a", "b", "c", "d", "e"], "labels": written}
    labels = Trajectory.parse(row).labels
    assert labels == (Label.of(4, 8), Label.of(4, 8), Label(0.333333), Label(0.333333), None)
    assert Label.of(4, 8).value == Label(0.5).value
    assert len({Label.of(4, 8), Label.of(1, 2), Label(0.5)}) == 3


def test_the_domain_of_a_trajectory_is_its_own_or_its_questions() -> None:
    question = Question.parse(QUESTION)
    trajectory = Trajectory(question_id="q1", steps=("a",))
    assert domain_of(question, trajectory) == "charts"
    assert domain_of(question, trajectory.model_copy(update={"domain": "judge"})) == "judge"
    with pytest.raises(DataError, match="domain is empty"):
        Trajectory.parse({"question_id": "q1", "steps": ["a"], "domain": " "})


@pytest.mark.parametrize("logit", [float("nan"), float("inf")])
def test_a_logit_that_is_not_finite_is_refused(logit: float) -> None:
    with pytest.raises(DataError, match="finite"):
        StepScores.parse({"question_id": "q1", "sample_index": 0, "logits": [logit]})


def test_records_cannot_be_changed() -> None:
    question = Question.parse(QUESTION)
    with pytest.raises(ValueError, match="frozen"):
        question.answer = "4"


def test_an_empty_step_is_no_step() -> None:
    with pytest.raises(DataError, match="step 2 is empty"):
        Trajectory.parse({"question_id": "q", "steps": ["Step 1: look", "  "]})


# ---- step scores of other programs


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_logits_of_step_scores_are_finite_and_keep_their_order_and_ties(p: list[float]) -> None:
    z = logits_of(p)
    assert all(map(math.isfinite, z))
    for (p1, z1), (p2, z2) in itertools.combinations(sorted(zip(p, z, strict=True)), 2):
        assert z1 <= z2
        assert z1 == z2 or p1 != p2
        assert z1 != z2 or p2 - p1 < 1e-300


def test_a_step_scored_one_leaves_a_product_as_it_is() -> None:
    """Then candidates whose steps are otherwise scored alike tie, as in float arithmetic."""
    products = {aggregate(logits_of([0.75, *[1.0] * more]), "product") for more in range(5)}
    assert len(products) == 1


def test_a_row_may_give_step_scores_in_place_of_logits() -> None:
    row = {"question_id": "q", "sample_index": 0}
    parsed = StepScores.parse(row | {"step_scores": [0.5, 0.75]})
    assert parsed.logits == pytest.approx((0.0, math.log(3)))
    for bad in ([-0.1], [1.5], [float("nan")]):
        with pytest.raises(DataError, match="outside 0-1; are these logits"):
            StepScores.parse(row | {"step_scores": bad})
    with pytest.raises(DataError, match="list of numbers"):
        StepScores.parse(row | {"step_scores": 0.5})
    with pytest.raises(DataError, match="both given"):
        StepScores.parse(row | {"step_scores": [0.5], "logits": [0.0]})


def test_a_trajectory_has_limits() -> None:
    row = {"question_id": "q", "steps": ["s"] * MOST_STEPS}
    assert len(Trajectory.parse(row).steps) == MOST_STEPS
    with pytest.raises(DataError, match="10,001 steps, and 10,000 are the limit"):
        Trajectory.parse(row | {"steps": [*row["steps"], "s"]})
    with pytest.raises(DataError, match="step 1 has 1,000,001 characters, and 1,000,000 are"):
        Trajectory.parse(row | {"steps": ["s" * (LONGEST_STEP + 1)]})
