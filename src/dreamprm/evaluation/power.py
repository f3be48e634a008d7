"""How many questions would show this difference? And which difference would show with these?

Two methods on the same questions differ by d = mean(a - b). Its standard error is sd / sqrt(n), sd
the spread of the differences over questions, which comes from a pilot run; or, for right and wrong,
from how often the two disagree: var(a - b) = disagreement - d^2 (Connor, 1987). The normal
approximation of a two-sided test is used; below some 50 questions it flatters.
"""

from __future__ import annotations

from math import ceil, sqrt

from scipy.special import ndtri  # type: ignore[import-untyped]

from dreamprm.errors import DreamPRMError


def spread_of(disagreement: float, difference: float) -> float:
    """Standard deviation of right-or-wrong differences.

    Args:
        disagreement: share of questions that exactly one of the two has right.
        difference: expected a - b; cannot pass the disagreement.

    >>> round(spread_of(0.25, 0.05), 3)
    0.497
    """
    if not abs(difference) <= disagreement <= 1:
        raise DreamPRMError(
            f"disagreement {disagreement} must lie between the difference {abs(difference)} and 1"
        )
    return sqrt(disagreement - difference**2)


def questions_needed(
    difference: float, spread: float, *, power: float = 0.8, alpha: float = 0.05
) -> int:
    """Questions with which a difference shows (p < alpha) with probability `power`.

    Args:
        difference: that is to be shown, in [-1, 1], not 0.
        spread: standard deviation of a - b over questions.
        power: probability that the test finds it.
        alpha: level of the two-sided test.

    Raises:
        DreamPRMError: no difference, or shares outside (0, 1).

    >>> questions_needed(0.05, 0.5)
    785
    """
    if difference == 0:
        raise DreamPRMError("a difference of 0 shows with no number of questions; give another")
    return max(2, ceil((_quantiles(power, alpha) * spread / difference) ** 2))


def smallest_difference(
    questions: int, spread: float, *, power: float = 0.8, alpha: float = 0.05
) -> float:
    """The smallest difference that so many questions show with probability `power`.

    >>> round(smallest_difference(785, 0.5), 3)
    0.05
    """
    if questions < 1:
        raise DreamPRMError(f"questions is {questions}; it must be above 0")
    return _quantiles(power, alpha) * spread / sqrt(questions)


def _quantiles(power: float, alpha: float) -> float:
    for name, value in (("power", power), ("alpha", alpha)):
        if not 0 < value < 1:
            raise DreamPRMError(f"{name} is {value}; it must lie between 0 and 1")
    return float(ndtri(1 - alpha / 2) + ndtri(power))
