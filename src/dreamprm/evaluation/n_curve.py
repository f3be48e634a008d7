"""Accuracy as a function of the number of candidates N, from M >= N candidates per question.

Taking the first N candidates would throw away M - N of them. Instead each function gives the
expectation over *all* subsets of N of the M candidates, without enumerating them: best-of-N and
any-right in closed form; voting by enumeration where there are few subsets, otherwise as the mean
over a fixed number of seeded random subsets. At N = M this is the plain result.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from math import comb

import numpy as np

from dreamprm.errors import DataError
from dreamprm.records import Trajectory
from dreamprm.search.choosing import majority_vote


def best_of_n_expectation(scores: Sequence[float], outcomes: Sequence[bool], n: int) -> float:
    """Chance that the highest-scoring of n random candidates is right.

    Candidate of rank r (1 = lowest score) is the best of C(r-1, n-1) of the C(M, n) subsets. Among
    equal scores the earlier candidate ranks higher, as in `choosing.highest_score`.

    Args:
        scores: (M,) in order of sample_index.
        outcomes: (M,).

    >>> best_of_n_expectation([0.1, 0.9], [True, False], n=1)
    0.5
    >>> best_of_n_expectation([0.1, 0.9], [True, False], n=2)
    0.0
    """
    m = _check(len(outcomes), n)
    ranked = sorted(range(m), key=lambda i: (scores[i], -i))
    wins = sum(comb(r, n - 1) for r, i in enumerate(ranked) if outcomes[i])  # r counts from 0
    return wins / comb(m, n)


def any_right_expectation(outcomes: Sequence[bool], n: int) -> float:
    """Chance that at least one of n random candidates is right (pass@n, arXiv 2107.03374)."""
    m = _check(len(outcomes), n)
    wrong = sum(not outcome for outcome in outcomes)
    return 1 - comb(wrong, n) / comb(m, n)


def vote_expectation(
    candidates: Sequence[Trajectory],
    n: int,
    rng: np.random.Generator,
    *,
    subsets: int = 64,
) -> float:
    """Chance that the majority vote of n random candidates is right.

    Args:
        candidates: M candidates of one question, all with an outcome.
        rng: draws the subsets where there are more than `subsets`; not touched otherwise.
        subsets: enumerate all subsets up to this many, else draw this many.
    """
    m = _check(len(candidates), n)
    chosen: Iterable[Sequence[int]]
    if comb(m, n) <= subsets:
        chosen = itertools.combinations(range(m), n)
    else:
        chosen = [rng.choice(m, size=n, replace=False).tolist() for _ in range(subsets)]
    right = [bool(majority_vote([candidates[i] for i in s]).outcome) for s in chosen]
    return sum(right) / len(right)


def _check(m: int, n: int) -> int:
    if not 1 <= n <= m:
        raise DataError(f"cannot choose {n} of {m} candidates")
    return m
