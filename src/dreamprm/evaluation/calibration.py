"""Do scores mean what they say? Of candidates scored about 0.8, are about 80% right?

Ranking needs no calibration and best-of-N no meaning of a score; thresholds, early stops and
weighted votes do. Bins hold equally many candidates, so that none is empty. The Brier score is the
mean squared error of the score as a probability; its interval is clustered by question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dreamprm.errors import DataError
from dreamprm.evaluation.statistics import Estimate, cluster_means, estimate


@dataclass(frozen=True)
class Bin:
    """Candidates of similar score.

    Attributes:
        score: their mean.
        right: the share of them that is right.
    """

    n: int
    score: float
    right: float


@dataclass(frozen=True)
class Calibration:
    """How scores and outcomes agree.

    Attributes:
        ece: expected calibration error: mean distance of score and share right over bins, weighted
            by their sizes (arXiv 1706.04599).
        brier: mean over questions of the squared error.
    """

    bins: tuple[Bin, ...]
    ece: float
    brier: Estimate


def calibration(
    scores: Sequence[float], targets: Sequence[float], questions: Sequence[str], bins: int = 10
) -> Calibration:
    """Compare probabilities with what happened.

    Args:
        scores: (candidates,) in [0, 1].
        targets: (candidates,) outcomes, or Monte Carlo labels in [0, 1].
        questions: (candidates,) that they belong to.
        bins: at most; equal scores are never split.

    Raises:
        DataError: nothing to compare, or a score outside [0, 1].
    """
    p, y = np.asarray(scores, float), np.asarray(targets, float)
    if not len(p):
        raise DataError("there are no scores to compare with outcomes")
    if p.shape != y.shape or not ((p >= 0) & (p <= 1)).all():
        raise DataError("calibration needs one score in 0-1 per outcome")
    of_bins = tuple(
        Bin(len(part), float(p[part].mean()), float(y[part].mean())) for part in _parts(p, bins)
    )
    ece = sum(b.n * abs(b.score - b.right) for b in of_bins) / len(p)
    by_question = cluster_means(((p - y) ** 2).tolist(), questions)
    return Calibration(of_bins, ece, estimate(list(by_question.values())))


def _parts(p: NDArray[np.float64], bins: int) -> list[NDArray[np.intp]]:
    order = np.argsort(p, kind="stable")
    limits = np.unique(np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1]))
    edges = np.searchsorted(p[order], limits, side="right")
    return [part for part in np.split(order, np.unique(edges)) if len(part)]
