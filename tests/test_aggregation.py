"""Step logits -> one number, by hand-made cases and properties; real scores: test_step_level."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamprm.errors import DataError, DreamPRMError
from dreamprm.search.aggregation import AGGREGATIONS, aggregate

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
