"""Step logits -> one number -> who wins among candidates, and who wins a tie."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamprm.errors import DataError, DreamPRMError
from dreamprm.records import Question, StepScores, Trajectory
from dreamprm.search.aggregation import AGGREGATIONS, aggregate
from dreamprm.search.choosing import (
    choose_stored,
    first_sample,
    highest_scored,
    most_voted,
)

moderate = st.lists(st.floats(-8, 8), min_size=1, max_size=8)
extreme = st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=8)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


REFERENCE: dict[str, Callable[[list[float]], float]] = {
    "min": min,
    "product": math.prod,
    "last": lambda p: p[-1],
    "geometric_mean": lambda p: math.prod(p) ** (1 / len(p)),
    "mean": lambda p: sum(p) / len(p),
}


@pytest.mark.parametrize("name", sorted(REFERENCE))
@given(z=moderate)
def test_the_sigmoid_of_the_aggregate_is_that_of_step_scores(name: str, z: list[float]) -> None:
    expected = REFERENCE[name]([sigmoid(x) for x in z])
    assert sigmoid(aggregate(z, name)) == pytest.approx(expected, rel=1e-9)


def test_mean_and_sum_of_logits_are_what_they_say_and_the_mean_is_the_default() -> None:
    assert aggregate([3.0, -1.0, 1.0]) == 1.0
    assert aggregate([3.0, -1.0, 1.0], "mean_logit") == 1.0
    assert aggregate([3.0, -1.0, 1.0], "sum_logit") == 3.0


@pytest.mark.parametrize("name", sorted(AGGREGATIONS))
@given(z=extreme)
def test_no_logit_is_too_large_for_a_finite_result(name: str, z: list[float]) -> None:
    assert math.isfinite(aggregate(z, name))


@pytest.mark.parametrize("name", sorted(AGGREGATIONS))
@pytest.mark.parametrize("level", [-2000.0, -50.0, 0.0, 50.0, 2000.0])
def test_a_better_last_step_wins_even_where_sigmoid_saturates(name: str, level: float) -> None:
    low, high = [level, level - 1.0], [level, level - 0.5]
    assert aggregate(low, name) < aggregate(high, name)


@pytest.mark.parametrize("name", sorted(AGGREGATIONS))
@given(z=moderate, step=st.integers(0, 7), gain=st.floats(0, 5))
def test_a_better_step_is_never_worse(name: str, z: list[float], step: int, gain: float) -> None:
    better = list(z)
    better[step % len(z)] += gain
    assert aggregate(better, name) >= aggregate(z, name) - 1e-9


def test_unknown_names_and_empty_or_not_finite_logits_are_refused() -> None:
    with pytest.raises(DreamPRMError, match="did you mean mean_logit"):
        aggregate([0.0], "mean_logits")
    for bad in ([], [float("nan")], [0.0, float("inf")], [[0.0]]):
        with pytest.raises(DataError):
            aggregate(bad)


def candidates(*answers: str | None, right: str = "A") -> list[Trajectory]:
    return [
        Trajectory(question_id="q", steps=("s",), answer=a, outcome=a == right, sample_index=i)
        for i, a in enumerate(answers)
    ]


def told(best: list[Trajectory]) -> list[tuple[str | None, int]]:
    return [(c.answer, c.sample_index) for c in best]


def test_best_of_n_takes_the_highest_scored() -> None:
    assert told(highest_scored(candidates("A", "B", "C"), [0.1, 0.9, 0.5])) == [("B", 1)]


def test_all_candidates_with_the_highest_score_are_told_by_sample_index() -> None:
    some = candidates("A", "B", "C")
    assert told(highest_scored(some, [1.0, 0.0, 1.0])) == [("A", 0), ("C", 2)]
    assert told(highest_scored(some[::-1], [1.0, 0.0, 1.0])) == [("A", 0), ("C", 2)]


def test_first_sample_goes_by_sample_index_not_by_position() -> None:
    assert first_sample(candidates("A", "B", "C")[::-1]).answer == "A"


def test_the_first_candidate_of_each_answer_with_most_votes_is_told() -> None:
    assert told(most_voted(candidates("A", "B", "B"))) == [("B", 1)]
    assert told(most_voted(candidates("C", "A", "B", "B", "C"))) == [("C", 0), ("B", 2)]
    assert told(most_voted(candidates("C", "A", "B", "B", "C")[::-1])) == [("C", 0), ("B", 2)]


def test_a_missing_answer_never_beats_a_real_one() -> None:
    assert told(most_voted(candidates(None, None, None, "B"))) == [("B", 3)]
    assert told(most_voted(candidates(None, "B"), [9.0, 0.0])) == [("B", 1)]
    assert told(most_voted(candidates(None, None))) == [(None, 0)]


def test_weights_can_overturn_the_majority() -> None:
    assert told(most_voted(candidates("B", "B", "A"), [0.2, 0.2, 0.9])) == [("A", 2)]


def test_equal_sums_of_weights_tie_in_spite_of_rounding() -> None:
    assert sum([0.1, 0.2, 0.3]) > sum([0.3, 0.2, 0.1])
    weights = [0.3, 0.2, 0.1, 0.1, 0.2, 0.3]
    assert len(most_voted(candidates("A", "A", "A", "B", "B", "B"), weights)) == 2


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="2 scores, 1 candidates"):
        highest_scored(candidates("A"), [0.0, 1.0])
    with pytest.raises(DataError, match="not finite"):
        highest_scored(candidates("A"), [float("nan")])
    with pytest.raises(DataError, match="not logits"):
        most_voted(candidates("A"), [-1.0])


def test_a_question_without_candidates_is_refused() -> None:
    for choose in (first_sample, most_voted):
        with pytest.raises(DataError, match="no candidates"):
            choose([])
    with pytest.raises(DataError, match="no candidates"):
        highest_scored([], [])


@given(st.permutations(range(6)), st.lists(st.sampled_from("ABC"), min_size=6, max_size=6))
def test_no_choice_depends_on_the_order_of_the_list(order: list[int], answers: list[str]) -> None:
    some = candidates(*answers)
    scores = [0.1, 0.3, 0.3, 0.2, 0.3, 0.1]
    shuffled, shuffled_scores = [some[i] for i in order], [scores[i] for i in order]
    assert highest_scored(shuffled, shuffled_scores) == highest_scored(some, scores)
    assert most_voted(shuffled) == most_voted(some)
    assert most_voted(shuffled, shuffled_scores) == most_voted(some, scores)


def test_stored_candidates_are_chosen_from_by_sample_index_and_by_their_own_scores() -> None:
    question = Question(id="q", domain="d", text="?", answer="A")
    some = candidates("A", "B", "C")
    scores = [StepScores(question_id="q", sample_index=i, logits=(i,)) for i in range(3)]

    def chosen(method: str, n: int | None = None) -> str | None:
        [choice] = choose_stored([question], some[::-1], scores, method=method, n=n)
        return choice.answer

    assert (chosen("best_of_n"), chosen("best_of_n", 2), chosen("first_sample")) == ("C", "B", "A")
    [vote] = choose_stored([question], some, method="self_consistency")
    assert (vote.answer, vote.tied) == ("A", 3)
    with pytest.raises(DataError, match="has 3 candidates, fewer than 4"):
        chosen("best_of_n", 4)
    with pytest.raises(DataError, match="candidate 2 has no scores"):
        choose_stored([question], some, scores[:2])
