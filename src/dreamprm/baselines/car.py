"""Clustering and Ranking (CaR): the best by a quality score, and the best of every cluster."""

from __future__ import annotations

import math
import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2  # type: ignore[import-untyped]

from dreamprm.baselines.pool import Floats, Pool, kept, kept_count
from dreamprm.errors import DreamPRMError

VARIANCE = 0.95  # share of the variance that the principal components keep
ITERATIONS = 100


def car(pool: Pool, budget: float, seed: int) -> Floats:
    """Keep the best trajectory of every cluster, and fill up with the best of all.

    From the paper (arXiv 2402.18191): principal components with 95% of the variance, k-means with
    k = sqrt(n / 2), the union of the n1 best by quality and the n2 = 1 best of each cluster.
    Adapted: n1 is what fills the budget exactly, and where there are more clusters than the budget
    has room for, the best of their best are kept. The paper's quality is a model trained on what
    experts prefer, its embedding a sentence encoder's; ours are `features.quality` and
    `features.embed`, from the PRM's own backbone.

    Raises:
        DreamPRMError: the pool has no features or no quality.
    """
    if pool.features is None or pool.quality is None:
        raise DreamPRMError(
            "selector 'car' needs features and quality of the trajectories: give a model "
            "(model_name_or_path), or Pool(features=embed(...), quality=quality(...))"
        )
    count = len(pool.pairs)
    ranked = np.argsort(-pool.quality, kind="stable")  # (trajectories,)
    clusters = cluster(principal_components(pool.features), seed)[ranked]
    _, first = np.unique(clusters, return_index=True)  # in `ranked`, the first is the best
    best = ranked[np.sort(first)]
    others = ranked[~np.isin(ranked, best)]
    return kept(np.concatenate([best, others])[: kept_count(count, budget)], count)


def principal_components(features: Floats, variance: float = VARIANCE) -> Floats:
    """The fewest principal components that explain a share of the variance.

    Args:
        features: (trajectories, width).
        variance: the share, in (0, 1).

    Returns:
        (trajectories, components), at least one component.
    """
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    values, vectors = np.linalg.eigh(centred.T @ centred)  # ascending
    explained = np.cumsum(values[::-1].clip(min=0))
    components = int(np.searchsorted(explained, variance * explained[-1])) + 1
    reduced: Floats = centred @ vectors[:, ::-1][:, :components]
    return reduced


def cluster(points: Floats, seed: int) -> NDArray[np.int64]:
    """The cluster of each point by k-means with k = sqrt(n / 2), (trajectories,)."""
    distinct = len(np.unique(points, axis=0))
    k = max(1, min(math.isqrt(len(points) // 2), distinct))
    with warnings.catch_warnings():
        # An empty cluster has no best trajectory; that is all that follows from it.
        warnings.filterwarnings("ignore", message="One of the clusters is empty")
        rng = np.random.default_rng(seed)
        _, labels = kmeans2(points, k, iter=ITERATIONS, minit="++", seed=rng)
    found: NDArray[np.int64] = labels.astype(np.int64)
    return found
