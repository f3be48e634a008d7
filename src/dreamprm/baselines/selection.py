"""Data selection by name: checks, one order for all, and weights with mean 1.

SELECTORS["bis"](pool, 0.5, 0)          # as it is
select_weights("bis", pool, 0.5, 0)     # checked, and ready for training
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dreamprm.baselines.bis import bis
from dreamprm.baselines.car import car
from dreamprm.baselines.pool import Floats, Pool, Selector, known_labels
from dreamprm.baselines.random_subset import random_subset
from dreamprm.baselines.s1 import s1
from dreamprm.baselines.small_loss import small_loss
from dreamprm.errors import DataError, DreamPRMError, offer

SELECTORS: dict[str, Selector] = {
    "random": random_subset,
    "s1": s1,
    "car": car,
    "bis": bis,
    "loss": small_loss,
}


def select_weights(name: str, pool: Pool, budget: float, seed: int = 0) -> Floats:
    """One weight per trajectory, by a selector of `SELECTORS`.

    The order of the pool does not matter: selectors see it sorted by question id and sample index,
    so that a shuffled file gives the same weights, those of random selection included.

    Args:
        name: of the selector.
        pool: labelled trajectories, and what the selector needs to know about them.
        budget: share of the trajectories that is kept, in (0, 1].
        seed: of what is drawn.

    Returns:
        Weights in the order of the pool, (trajectories,): 0 or more, with mean 1.

    Raises:
        DataError: no trajectory, one without a label, or one that comes twice.
        DreamPRMError: an unknown name, a budget or seed out of range, inputs that the selector
            needs and the pool lacks, or figures that are not finite or not one per trajectory.
    """
    selector = find_selector(name)
    check_budget(budget, seed)
    order = _order(pool)
    _check_figures(pool)
    found = selector(_sorted(pool, order), budget, seed)  # (trajectories,), in sorted order
    if not np.isfinite(found).all() or (found < 0).any() or not found.sum() > 0:
        raise DreamPRMError(
            f"selector '{name}' gave weights that are negative, not finite or all 0; check the "
            "figures it was given"
        )
    weights = np.empty(len(order))
    weights[order] = found * (len(found) / found.sum())
    return weights


def find_selector(name: str) -> Selector:
    """The selector of a name.

    Raises:
        DreamPRMError: there is none; names the nearest.
    """
    if name not in SELECTORS:
        raise DreamPRMError(f"unknown selector '{name}'; {offer(name, SELECTORS)}")
    return SELECTORS[name]


def check_budget(budget: float, seed: int) -> None:
    """Refuse what no selector can do.

    Raises:
        DreamPRMError: naming the option.
    """
    if not 0 < budget <= 1:
        raise DreamPRMError(f"budget is {budget}; it must be above 0 and at most 1 (all of it)")
    if seed < 0:
        raise DreamPRMError(f"seed is {seed}; it must be 0 or more")


def _order(pool: Pool) -> NDArray[np.int64]:
    """Indices of the pool, sorted by question id and sample index."""
    if not pool.pairs:
        raise DataError("there is no trajectory to select from")
    keys = [(t.question_id, t.sample_index) for _, t in pool.pairs]
    seen: set[tuple[str, int]] = set()
    for key, (_, t) in zip(keys, pool.pairs, strict=True):
        if key in seen:
            raise DataError(
                f"trajectory {key[1]} of question '{key[0]}' comes twice; give each a sample_index "
                "of its own, or remove one"
            )
        seen.add(key)
        if not known_labels(t):
            raise DataError(
                f"trajectory {key[1]} of question '{key[0]}' has no step label; run "
                "`dreamprm label` first, or leave it out"
            )
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)


def _check_figures(pool: Pool) -> None:
    count = len(pool.pairs)
    for name, rank in (("features", 2), ("quality", 1), ("losses", 1)):
        figures = getattr(pool, name)
        if figures is None:
            continue
        if figures.ndim != rank or len(figures) != count:
            raise DreamPRMError(
                f"{name} has the shape {figures.shape} for {count} trajectories; give one "
                f"{'row' if rank == 2 else 'number'} per trajectory"
            )
        if not np.isfinite(figures).all():
            raise DreamPRMError(f"{name} has a value that is not finite; check the model behind it")


def _sorted(pool: Pool, order: NDArray[np.int64]) -> Pool:
    def take(figures: Floats | None) -> Floats | None:
        return None if figures is None else figures[order]

    return replace(
        pool,
        pairs=tuple(pool.pairs[i] for i in order),
        features=take(pool.features),
        quality=take(pool.quality),
        losses=take(pool.losses),
    )
