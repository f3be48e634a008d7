"""Step logits of one trajectory -> one number that candidates are ranked by (higher is better).

A step score is sigmoid(z), which is exactly 0.0 or 1.0 in floating point once |z| is large. So the
functions work on logits in log-space, and each returns a *logit* too: `sigmoid(product(z))` is the
product of the step scores, and so on. Only `sum_logit` has no such reading; it is the sum in the
paper's text, while the paper's code takes the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dreamprm.errors import DataError, DreamPRMError, offer

Logits = NDArray[np.float64]  # (steps,)


def log_sigmoid(z: Logits) -> Logits:
    """log(sigmoid(z)) without overflow, elementwise."""
    return -np.logaddexp(0.0, -z)


def step_scores(logits: ArrayLike) -> list[float]:
    """Logits as probabilities in [0, 1]."""
    p: list[float] = np.exp(log_sigmoid(np.asarray(logits, dtype=np.float64))).tolist()
    return p


def _log_sum_exp(x: Logits) -> float:
    return float(np.logaddexp.reduce(x))


def mean_logit(z: Logits) -> float:
    """Mean of the logits (the paper's code; DESIGN.md section 2)."""
    return float(z.mean())


def sum_logit(z: Logits) -> float:
    """Sum of the logits (the paper's text, arXiv 2505.20241). Favours long trajectories."""
    return float(z.sum())


def minimum(z: Logits) -> float:
    """The weakest step."""
    return float(z.min())


def last(z: Logits) -> float:
    """The last step: an outcome reward model scores only there."""
    return float(z[-1])


def mean(z: Logits) -> float:
    """Mean of the step scores m, as log(m) - log(1 - m)."""
    return _log_sum_exp(log_sigmoid(z)) - _log_sum_exp(log_sigmoid(-z))


def product(z: Logits) -> float:
    """Product of the step scores: the chance that all steps are right, were they independent."""
    return _logit_of_log(float(log_sigmoid(z).sum()), _log_sum_exp(log_sigmoid(-z)))


def geometric_mean(z: Logits) -> float:
    """Geometric mean of the step scores: the product without its dislike of long trajectories."""
    log_complement = _log_sum_exp(log_sigmoid(-z)) - float(np.log(len(z)))
    return _logit_of_log(float(log_sigmoid(z).mean()), log_complement)


def _logit_of_log(log_p: float, log_complement: float) -> float:
    """log(p) -> logit(p).

    `log_complement` is log(1 - p) to first order, used where p is within 1e-300 of 1.
    """
    if log_p > -1e-300:
        return log_p - log_complement
    return log_p - float(np.log(-np.expm1(log_p)))


AGGREGATIONS: dict[str, Callable[[Logits], float]] = {
    "mean_logit": mean_logit,
    "sum_logit": sum_logit,
    "min": minimum,
    "product": product,
    "last": last,
    "geometric_mean": geometric_mean,
    "mean": mean,
}

DEFAULT_AGGREGATION = "mean_logit"


def get_aggregation(name: str) -> Callable[[Logits], float]:
    """The aggregation of that name; an error that names the nearest ones where there is none."""
    if name in AGGREGATIONS:
        return AGGREGATIONS[name]
    raise DreamPRMError(f"unknown aggregation '{name}': {offer(name, AGGREGATIONS)}")


def aggregate(logits: Sequence[float] | ArrayLike, name: str = DEFAULT_AGGREGATION) -> float:
    """One number for a trajectory; higher is better.

    Args:
        logits: (steps,) one logit per step.
        name: a key of `AGGREGATIONS`.

    Raises:
        DataError: no steps, or a logit that is not finite (it would win or lose every comparison).

    >>> aggregate([2.0, -1.0, 2.0])
    1.0
    >>> aggregate([2.0, -1.0, 2.0], "min")
    -1.0
    """
    function = get_aggregation(name)
    z = np.asarray(logits, dtype=np.float64)
    if z.ndim != 1 or z.size == 0:
        raise DataError(f"need one logit per step, got shape {z.shape}", field="logits")
    if not np.isfinite(z).all():
        raise DataError(
            f"logit of step {int(np.flatnonzero(~np.isfinite(z))[0]) + 1} is not finite; "
            "score this trajectory again",
            field="logits",
        )
    return function(z)
