"""Down-weighting by loss: what a reference model finds hard to fit is taken to be mislabelled."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq  # type: ignore[import-untyped]

from dreamprm.baselines.pool import Floats, Pool
from dreamprm.errors import DreamPRMError

RESOLUTION = 1e-6  # of the range of losses; what differs by less differs by rounding


def small_loss(pool: Pool, budget: float, seed: int) -> Floats:
    """Weights exp(-loss / temperature), soft: nothing is left out by a rule.

    The small-loss trick (Co-teaching, arXiv 1804.06872, keeps the share of a batch with the
    smallest losses) in the soft form of exponential reweighting. Adapted: a trajectory is the unit,
    its loss is the mean over its labelled steps, and one reference PRM stands for the two networks
    that teach each other while they train. The budget sets the temperature: the effective sample
    size (sum w)^2 / sum w^2 is budget * n, the count that a subset of this budget would keep.

    Args:
        pool: with the reference PRM's losses.
        budget: effective share of the trajectories.
        seed: unused; nothing is drawn.

    Raises:
        DreamPRMError: the pool has no losses, or so many share the smallest loss that no
            temperature reaches the budget.
    """
    if pool.losses is None:
        raise DreamPRMError(
            "selector 'loss' needs the losses of a reference PRM: give one that `dreamprm train` "
            "wrote (model_name_or_path), or Pool(losses=reference_losses(...))"
        )
    count = len(pool.losses)
    excess = pool.losses - pool.losses.min()
    relative = excess / (excess.max() or 1.0)  # (trajectories,), in [0, 1]
    relative[relative < RESOLUTION] = 0.0
    smallest = int((relative == 0).sum())
    target = max(1.0, budget * count)
    at_limit = math.isclose(target, smallest)  # 0.1 * 3 is not 0.3 in floating point
    if target < smallest and not at_limit:
        raise DreamPRMError(
            f"{smallest} of {count} trajectories share the smallest loss, and no temperature tells "
            f"them apart; budget must be at least {smallest / count:.3g}, or take another selector"
        )
    if at_limit:  # the limit of temperature 0
        return np.where(relative == 0, 1.0, 0.0)
    return _weights(relative, _inverse_temperature(relative, target))


def effective_size(weights: Floats) -> float:
    """(sum w)^2 / sum w^2: how many equal weights count as much as these."""
    return float(weights.sum() ** 2 / (weights**2).sum())


def _inverse_temperature(excess: Floats, target: float) -> float:
    """The b >= 0 at which exp(-b * excess) has an effective size of `target`.

    The size falls steadily from n at b = 0 to the number of zeros in `excess`: the derivative of
    its logarithm is twice the mean excess at 2b less that at b.
    """
    if target >= len(excess):
        return 0.0
    high = 1.0
    while effective_size(_weights(excess, high)) > target:
        high *= 2

    def miss(b: float) -> float:
        return effective_size(_weights(excess, b)) - target

    return float(brentq(miss, 0.0, high, xtol=1e-14 * high, rtol=1e-14))


def _weights(excess: Floats, b: float) -> Floats:
    weights: Floats = np.exp(-b * excess)
    return weights
