"""Exact McNemar test: do two methods differ on the same questions?

Only questions on which they disagree tell anything. If neither is better, each disagreement falls
to either with probability one half, which is a sign test; it is exact at any number of questions
(McNemar, 1947). For right and wrong of one run each; for means over candidates or seeds use
`statistics.paired_difference` or `bootstrap.paired_bootstrap`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest  # type: ignore[import-untyped]

from dreamprm.errors import DataError


class McNemar(NamedTuple):
    """Questions that only a, only b has right, and the two-sided p of no difference."""

    only_a: int
    only_b: int
    p: float


def mcnemar(a: ArrayLike, b: ArrayLike) -> McNemar:
    """Test two methods on the same questions.

    Args:
        a: (questions,) 1 where method a is right, else 0.
        b: (questions,) the same questions in the same order.

    Raises:
        DataError: not the same questions, or values that are not 0 or 1.

    >>> mcnemar([1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0]).p
    0.0625
    """
    x, y = np.asarray(a, float), np.asarray(b, float)
    if x.shape != y.shape or x.ndim != 1:
        raise DataError(f"cannot pair values of shapes {x.shape} and {y.shape}")
    if not (np.isin(x, (0, 1)).all() and np.isin(y, (0, 1)).all()):
        raise DataError("McNemar's test is of right and wrong; these are fractions: use intervals")
    only_a, only_b = int((x > y).sum()), int((y > x).sum())
    p = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return McNemar(only_a, only_b, p)
