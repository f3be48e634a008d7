"""Balanced-Information Score: rank trajectories by their Monte Carlo labels alone.

It needs no model and costs nothing, so it is the first thing that learned weights must beat.
"""

from __future__ import annotations

import math

import numpy as np

from dreamprm.baselines.pool import Floats, Pool, kept, kept_count, known_labels
from dreamprm.records import Trajectory, domain_of

ALPHA = 0.05  # of the paper at a budget of 25%; 0.2 at 10%


def bis(
    pool: Pool, budget: float, seed: int, *, alpha: float = ALPHA, within_domain: bool = True
) -> Floats:
    """Keep the trajectories with the highest score of each domain (arXiv 2602.04145).

    From the paper: the score, and, as the authors' released script does, the same share of every
    source. Adapted: the shares of the domains add up to the budget exactly (largest remainders);
    ties, frequent with few completions per step, are settled by `seed` rather than by file order.

    Args:
        pool: the trajectories.
        budget: share that is kept.
        seed: of the order among equal scores.
        alpha: see `balanced_information`.
        within_domain: rank within each domain; if false, rank all domains together.
    """
    count = len(pool.pairs)
    scores = [balanced_information(t, alpha) for _, t in pool.pairs]
    ties = np.random.default_rng(seed).permutation(count)
    members: dict[str, list[int]] = {}
    for i, pair in enumerate(pool.pairs):
        members.setdefault(domain_of(*pair) if within_domain else "", []).append(i)
    quotas = _quotas({name: len(mine) for name, mine in members.items()}, budget)
    chosen: list[int] = []
    for name, mine in members.items():
        ranked = sorted(mine, key=lambda i: (-scores[i], ties[i]))
        chosen += ranked[: quotas[name]]
    return kept(chosen, count)


def balanced_information(trajectory: Trajectory, alpha: float = ALPHA) -> float:
    """[p (1 - p) + alpha] * R of one trajectory's labelled steps.

    p is the share of positive steps, those with at least one right completion; p (1 - p) is their
    mixture, highest where half are positive. R is their reliability, the mean label of the positive
    steps; 1 where there is none, since a step that never led to a right answer is surely negative.

    Args:
        trajectory: with at least one label.
        alpha: lets trajectories of one kind of step be ranked by R; larger for smaller budgets.
    """
    values = [label.value for label in known_labels(trajectory)]
    positive = [value for value in values if value > 0]
    p = len(positive) / len(values)
    reliability = sum(positive) / len(positive) if positive else 1.0
    return (p * (1 - p) + alpha) * reliability


def _quotas(sizes: dict[str, int], budget: float) -> dict[str, int]:
    """Whole numbers next to budget * size that add up to the budget of all."""
    total = kept_count(sum(sizes.values()), budget)
    exact = {name: budget * size for name, size in sizes.items()}
    quotas = {name: math.floor(share) for name, share in exact.items()}
    by_remainder = sorted(sizes, key=lambda name: (quotas[name] - exact[name], name))
    for name in by_remainder[: total - sum(quotas.values())]:
        quotas[name] += 1
    return quotas
