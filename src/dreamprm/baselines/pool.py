"""What data selection sees, and what it gives back: one weight per labelled trajectory.

All selectors have one signature, so that they can be compared at the same budget, with each other
and with learned weights. They live in files of their own; `selection.py` checks and calls them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dreamprm.records import Label, Question, Trajectory

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pool:
    """Labelled training trajectories of all domains, and what a model says about each.

    Attributes:
        pairs: question and trajectory; every trajectory has a step label.
        features: embeddings, (trajectories, width), for clustering (`car`).
        quality: higher is better, (trajectories,), for ranking (`car`).
        losses: of a reference PRM, (trajectories,) (`loss`).
    """

    pairs: tuple[tuple[Question, Trajectory], ...]
    features: Floats | None = None
    quality: Floats | None = None
    losses: Floats | None = None


Selector = Callable[[Pool, float, int], Floats]
"""(pool, budget: share of the trajectories in (0, 1], seed) -> weights >= 0, (trajectories,).

A selector of subsets gives 1 to what it keeps and 0 to the rest.
"""


def kept_count(trajectories: int, budget: float) -> int:
    """How many trajectories a budget keeps: the nearest whole number, at least 1."""
    return max(1, round(budget * trajectories))


def kept(chosen: NDArray[np.int64] | list[int], trajectories: int) -> Floats:
    """Weights of a subset: 1 at the indices that are kept, else 0."""
    weights = np.zeros(trajectories)
    weights[chosen] = 1.0
    return weights


def known_labels(trajectory: Trajectory) -> list[Label]:
    """The labels of the steps that have one, in order."""
    return [label for label in trajectory.labels or () if label is not None]
