"""Random selection: what any other selection must beat at the same budget."""

from __future__ import annotations

import numpy as np

from dreamprm.baselines.pool import Floats, Pool, kept, kept_count


def random_subset(pool: Pool, budget: float, seed: int) -> Floats:
    """Keep a random share of the trajectories, all with the same chance.

    No paper: random subsets are hard to beat (arXiv 2602.04145 finds that training of a PRM
    saturates on them early), so every comparison needs them.
    """
    count = len(pool.pairs)
    chosen = np.random.default_rng(seed).choice(count, kept_count(count, budget), replace=False)
    return kept(chosen, count)
