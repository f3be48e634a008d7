"""Intervals cover what they should, differences are paired, curves are exact expectations."""

from __future__ import annotations

import itertools
from math import comb

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dreamprm.errors import DataError
from dreamprm.evaluation.calibration import calibration
from dreamprm.evaluation.evaluate import (
    any_right_expectation,
    best_of_n_expectation,
    vote_expectation,
)
from dreamprm.evaluation.statistics import (
    cluster_means,
    estimate,
    estimate_average,
    paired_difference,
)
from dreamprm.records import Trajectory
from dreamprm.search.choosing import highest_scored, most_voted
from experiments.coverage import Setting, coverage


@pytest.mark.parametrize(
    "setting",
    [Setting(100, 0.5, 0.5), Setting(100, 0.5, 0.5, samples=8), Setting(60, 0.6, benchmarks=5)],
)
def test_intervals_cover_questions_of_unequal_difficulty(setting: Setting) -> None:
    found = coverage(setting, repeats=400)
    assert 0.92 <= found["accuracy"] <= 0.98
    assert 0.92 <= found["difference"] <= 0.98


def test_the_simulation_sees_intervals_that_are_too_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreamprm.evaluation.statistics._quantile", lambda df: 1.0)
    assert coverage(Setting(100, 0.5, 0.5), repeats=400)["accuracy"] < 0.8


def candidates(answers: str, right: str = "A") -> list[Trajectory]:
    return [
        Trajectory(question_id="q", steps=("s",), answer=a, outcome=a == right, sample_index=i)
        for i, a in enumerate(answers)
    ]


def share(best: list[Trajectory]) -> float:
    """Of right ones."""
    return sum(bool(c.outcome) for c in best) / len(best)


def test_the_interval_of_a_plain_accuracy_is_wilsons() -> None:
    got = estimate([1.0] * 70 + [0.0] * 30)
    assert got.n == 100
    assert got.mean == pytest.approx(0.7)
    # Wilson (1927) for 70 of 100 is 0.604 to 0.781; the t quantile widens it a little.
    assert got.lo == pytest.approx(0.604, abs=0.005)
    assert got.hi == pytest.approx(0.781, abs=0.005)


def test_all_right_is_not_certainty() -> None:
    got = estimate([1.0] * 20)
    assert got.hi == 1.0
    assert 0.75 < got.lo < 0.9


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
@example([0.0, 1e-113])  # whose variance has no square
def test_an_interval_contains_its_mean_and_stays_in_the_unit_interval(v: list[float]) -> None:
    got = estimate(v)
    assert 0 <= got.lo <= got.mean + 1e-12
    assert got.mean - 1e-12 <= got.hi <= 1
    assert got.ci95 == (got.lo, got.hi)


def test_eight_copies_of_each_answer_are_worth_one_question_each() -> None:
    outcomes = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    ids = [f"q{i}" for i in range(6) for _ in range(8)]
    means = cluster_means([o for o in outcomes for _ in range(8)], ids)
    assert list(means) == [f"q{i}" for i in range(6)]
    assert estimate(list(means.values())) == estimate(outcomes)


def test_values_that_are_no_accuracies_are_refused() -> None:
    with pytest.raises(DataError, match="outside 0 to 1"):
        estimate([0.5, 1.2])
    with pytest.raises(DataError, match="outside"):
        estimate([float("nan")])
    with pytest.raises(DataError, match="no values"):
        estimate([])


def test_benchmarks_count_the_same_whatever_their_size() -> None:
    got = estimate_average({"big": [1.0] * 50 + [0.0] * 50, "small": [1.0] * 9 + [0.0]})
    assert got.mean == pytest.approx(0.7)
    assert got.n == 110


def test_more_benchmarks_narrow_the_interval_by_the_root_of_their_number() -> None:
    v = [1.0] * 60 + [0.0] * 40
    one, four = estimate(v), estimate_average(dict.fromkeys("abcd", v))
    assert (four.hi - four.lo) == pytest.approx((one.hi - one.lo) / 2, rel=0.02)


def test_seeds_that_disagree_widen_the_interval_and_repeats_do_not_narrow_it() -> None:
    v = np.array([1.0] * 60 + [0.0] * 40)
    one = estimate(v)
    same = estimate(np.stack([v, v, v]))
    assert (same.hi - same.lo) == pytest.approx(one.hi - one.lo, rel=0.02)
    better, worse = v.copy(), v.copy()
    better[60:80] = 1.0
    worse[40:60] = 0.0
    apart = estimate(np.stack([better, v, worse]))
    assert (apart.hi - apart.lo) > 1.5 * (one.hi - one.lo)


def test_what_a_seed_adds_does_not_average_out_over_benchmarks() -> None:
    rng = np.random.default_rng(0)
    shift = np.array([[0.2], [0.0], [-0.2]])
    shared = {k: (rng.random((3, 400)) < 0.5 + shift).astype(float) for k in "abcd"}
    flipped = {k: v if k in "ab" else v[::-1] for k, v in shared.items()}
    wide, narrow = estimate_average(shared), estimate_average(flipped)
    assert wide.hi - wide.lo > 1.5 * (narrow.hi - narrow.lo)


def test_benchmarks_with_different_numbers_of_seeds_are_refused() -> None:
    with pytest.raises(DataError, match="seeds"):
        estimate_average({"a": np.ones((2, 3)), "b": np.ones((3, 3))})


@pytest.mark.parametrize("benchmarks", [1, 4])
@pytest.mark.parametrize("p", [0.5, 0.93])
def test_95_percent_intervals_cover_the_truth_that_often(p: float, benchmarks: int) -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(600):
        v = {str(b): (rng.random(40) < p).astype(float) for b in range(benchmarks)}
        got = estimate_average(v)
        covered += got.lo <= p <= got.hi
    assert 0.925 <= covered / 600 <= 0.985


def test_intervals_over_seeds_cover_the_truth_too() -> None:
    rng = np.random.default_rng(2)
    covered = naive = 0
    for _ in range(400):
        question = rng.normal(0, 0.15, 60)[None, :]
        seed = rng.normal(0, 0.08, 5)[:, None]
        v = (rng.random((5, 60)) < np.clip(0.6 + question + seed, 0, 1)).astype(float)
        got = estimate(v)
        covered += got.lo <= 0.6 <= got.hi
        pooled = estimate(v.mean(axis=0))
        naive += pooled.lo <= 0.6 <= pooled.hi
    assert 0.92 <= covered / 400 <= 0.99
    assert naive / 400 < 0.85  # what forgetting the seeds would give


def test_pairing_uses_that_both_methods_met_the_same_questions() -> None:
    a = np.array([1.0] * 70 + [0.0] * 30)
    b = np.array([1.0] * 60 + [0.0] * 40)
    got = paired_difference({"x": a}, {"x": b})
    assert got.mean == pytest.approx(0.1)
    assert 0.03 < got.lo < 0.05
    assert 0.15 < got.hi < 0.17
    assert got.p < 0.01
    assert paired_difference({"x": b}, {"x": a}).p == pytest.approx(got.p)
    shuffled = np.random.default_rng(0).permutation(b)
    assert paired_difference({"x": a}, {"x": shuffled}).p > got.p


def test_methods_that_never_disagree_differ_by_zero_but_not_with_certainty() -> None:
    v = {"x": np.array([1.0, 0.0] * 10)}
    got = paired_difference(v, v)
    assert (got.mean, got.p) == (0.0, 1.0)
    assert got.lo < 0 < got.hi


def test_one_question_proves_nothing() -> None:
    assert paired_difference({"x": [1.0]}, {"x": [0.0]}).p > 0.05


def test_differences_of_other_benchmarks_or_questions_are_refused() -> None:
    with pytest.raises(DataError, match="pair"):
        paired_difference({"x": [1.0]}, {"y": [1.0]})
    with pytest.raises(DataError, match="shapes"):
        paired_difference({"x": [1.0, 0.0]}, {"x": [1.0]})


def test_p_below_five_percent_is_as_rare_as_it_says_when_nothing_differs() -> None:
    rng = np.random.default_rng(3)
    small = 0
    for _ in range(600):
        v = [{k: (rng.random(40) < 0.6).astype(float) for k in "ab"} for _ in range(2)]
        small += paired_difference(*v).p < 0.05
    assert 0.02 <= small / 600 <= 0.075


# ---- curves over N

outcome_lists = st.lists(st.booleans(), min_size=1, max_size=7)


@given(outcome_lists, st.data())
def test_best_of_n_is_the_mean_over_all_subsets(outcomes: list[bool], data: st.DataObject) -> None:
    m = len(outcomes)
    n = data.draw(st.integers(1, m))
    scores = data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=m, max_size=m))
    some = candidates("".join("A" if o else "B" for o in outcomes))
    best = [
        highest_scored([some[i] for i in s], [scores[i] for i in s])
        for s in itertools.combinations(range(m), n)
    ]
    assert best_of_n_expectation(scores, outcomes, n) == pytest.approx(np.mean([*map(share, best)]))


@given(outcome_lists, st.data())
def test_any_right_is_the_mean_over_all_subsets(outcomes: list[bool], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(outcomes)))
    hits = [any(s) for s in itertools.combinations(outcomes, n)]
    assert any_right_expectation(outcomes, n) == pytest.approx(sum(hits) / len(hits))


def test_the_vote_is_exact_where_subsets_are_few_and_near_where_they_are_sampled() -> None:
    some = candidates("ABABBCAACB")
    exact = vote_expectation(some, 5, np.random.default_rng(0), subsets=comb(10, 5))
    best = [most_voted([some[i] for i in s]) for s in itertools.combinations(range(10), 5)]
    assert exact == pytest.approx(np.mean([*map(share, best)]))
    sampled = vote_expectation(some, 5, np.random.default_rng(0), subsets=200)
    assert sampled == pytest.approx(exact, abs=0.1)
    assert sampled == vote_expectation(some, 5, np.random.default_rng(0), subsets=200)


def test_sampled_subsets_hold_no_candidate_twice() -> None:
    some = candidates("A" * 9 + "B" * 2)  # any 6 of them have at least 4 A
    assert vote_expectation(some, 6, np.random.default_rng(0), subsets=200) == 1.0


def test_more_candidates_than_there_are_cannot_be_chosen() -> None:
    with pytest.raises(DataError, match="3 of 2"):
        any_right_expectation([True, False], 3)
    with pytest.raises(DataError, match="0 of 2"):
        best_of_n_expectation([0.0, 1.0], [True, False], 0)


def test_the_calibration_error_counts_distances_in_both_directions() -> None:
    """Too modest by 0.4 below, too sure by 0.4 above: the error is 0.4, they do not cancel."""
    scores, outcomes = [0.1] * 10 + [0.9] * 10, [0.0, 1.0] * 10
    both = calibration(scores, outcomes, [str(i) for i in range(20)], bins=2)
    assert [(b.n, b.right) for b in both.bins] == [(10, 0.5), (10, 0.5)]
    assert both.ece == pytest.approx(0.4)
