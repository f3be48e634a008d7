"""Choosing among candidates: who wins, and who wins a tie."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamprm.errors import DataError
from dreamprm.records import Question, StepScores, Trajectory
from dreamprm.search.choosing import (
    any_right,
    choose_stored,
    first_sample,
    heaviest_vote,
    highest_score,
    majority_vote,
)


def candidates(*answers: str | None, right: str = "A") -> list[Trajectory]:
    return [
        Trajectory(question_id="q", steps=("s",), answer=a, outcome=a == right, sample_index=i)
        for i, a in enumerate(answers)
    ]


def test_best_of_n_takes_the_highest_score() -> None:
    assert highest_score(candidates("A", "B", "C"), [0.1, 0.9, 0.5]).answer == "B"


def test_best_of_n_settles_ties_by_sample_index_whatever_the_order_of_the_list() -> None:
    some = candidates("A", "B", "C")
    assert highest_score(some, [1.0, 1.0, 0.0]).sample_index == 0
    assert highest_score(some[::-1], [0.0, 1.0, 1.0]).sample_index == 0


def test_first_sample_goes_by_sample_index_not_by_position() -> None:
    assert first_sample(candidates("A", "B", "C")[::-1]).answer == "A"


def test_the_majority_wins_and_a_tie_goes_to_the_answer_seen_first() -> None:
    assert majority_vote(candidates("A", "B", "B")).answer == "B"
    assert majority_vote(candidates("C", "B", "B", "C")).answer == "C"
    assert majority_vote(candidates("C", "B", "B", "C")[::-1]).answer == "C"


def test_the_vote_returns_the_first_candidate_with_the_winning_answer() -> None:
    assert majority_vote(candidates("A", "B", "B")).sample_index == 1


def test_a_missing_answer_never_beats_a_real_one() -> None:
    assert majority_vote(candidates(None, None, None, "B")).answer == "B"
    assert heaviest_vote(candidates(None, "B"), [9.0, 0.0]).answer == "B"
    assert majority_vote(candidates(None, None)).sample_index == 0


def test_weights_can_overturn_the_majority() -> None:
    assert heaviest_vote(candidates("B", "B", "A"), [0.2, 0.2, 0.9]).answer == "A"


def test_equal_sums_of_weights_tie_in_spite_of_rounding() -> None:
    assert sum([0.1, 0.2, 0.3]) > sum([0.3, 0.2, 0.1])
    weights = [0.3, 0.2, 0.1, 0.1, 0.2, 0.3]
    assert heaviest_vote(candidates("A", "A", "A", "B", "B", "B"), weights).answer == "A"


def test_any_right_is_true_for_one_right_candidate_and_needs_all_outcomes() -> None:
    assert any_right(candidates("B", "A"))
    assert not any_right(candidates("B", "C"))
    unverified = [c.model_copy(update={"outcome": None}) for c in candidates("B", "A")]
    with pytest.raises(DataError, match="outcome"):
        any_right(unverified)


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="2 scores, 1 candidates"):
        highest_score(candidates("A"), [0.0, 1.0])
    with pytest.raises(DataError, match="not finite"):
        highest_score(candidates("A"), [float("nan")])
    with pytest.raises(DataError, match="not logits"):
        heaviest_vote(candidates("A"), [-1.0])


def test_a_question_without_candidates_is_refused() -> None:
    for choose in (first_sample, majority_vote, any_right):
        with pytest.raises(DataError, match="no candidates"):
            choose([])
    with pytest.raises(DataError, match="no candidates"):
        highest_score([], [])


@given(st.permutations(range(6)), st.lists(st.sampled_from("ABC"), min_size=6, max_size=6))
def test_no_choice_depends_on_the_order_of_the_list(order: list[int], answers: list[str]) -> None:
    some = candidates(*answers)
    scores = [0.1, 0.3, 0.3, 0.2, 0.3, 0.1]
    shuffled, shuffled_scores = [some[i] for i in order], [scores[i] for i in order]
    assert highest_score(shuffled, shuffled_scores) == highest_score(some, scores)
    assert majority_vote(shuffled) == majority_vote(some)
    assert heaviest_vote(shuffled, shuffled_scores) == heaviest_vote(some, scores)


def test_stored_candidates_are_chosen_from_by_sample_index_and_by_their_own_scores() -> None:
    question = Question(id="q", domain="d", text="?", answer="A")
    some = candidates("A", "B", "C")
    scores = [StepScores(question_id="q", sample_index=i, logits=(i,)) for i in range(3)]

    def chosen(method: str, n: int | None = None) -> str | None:
        [choice] = choose_stored([question], some[::-1], scores, method=method, n=n)
        return choice.answer

    assert (chosen("best_of_n"), chosen("best_of_n", 2), chosen("first_sample")) == ("C", "B", "A")
    with pytest.raises(DataError, match="has 3 candidates, fewer than 4"):
        chosen("best_of_n", 4)
    with pytest.raises(DataError, match="candidate 2 has no scores"):
        choose_stored([question], some, scores[:2])
