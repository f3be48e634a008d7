"""Paired bootstrap over questions and seeds: an interval without a formula, to check one with.

Questions are drawn with replacement within each benchmark, and training seeds for all benchmarks
at once, since one training run serves them all. The percentile interval is widened by
sqrt(n / (n - 1)) around its mean, n the smaller of the numbers of questions of a benchmark and, if
there are several, of seeds: resampling spreads that much too little (Hesterberg, 2015).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dreamprm.errors import DataError
from dreamprm.evaluation.statistics import Difference, Values

_AT_ONCE = 2**22  # numbers drawn at once


def paired_bootstrap(
    a: Mapping[str, ArrayLike],
    b: Mapping[str, ArrayLike],
    *,
    draws: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Mean over benchmarks of a - b, as `statistics.paired_difference`, by resampling.

    Args:
        a: per benchmark (questions,) or (seeds, questions).
        b: the same benchmarks, seeds and questions in the same order.
        draws: resamples.
        seed: of the resamples.

    Returns:
        The mean difference, its 95% interval, and as p twice the share of resamples on the other
        side of zero (at least 1 / draws).
    """
    if list(a) != list(b):
        raise DataError(f"cannot pair benchmarks {list(a)} with {list(b)}")
    differences = []
    for name in a:
        x = np.atleast_2d(np.asarray(a[name], float)) - np.atleast_2d(np.asarray(b[name], float))
        differences.append(x)  # (seeds, questions)
    seeds = {d.shape[0] for d in differences}
    if len(seeds) != 1:
        raise DataError(f"benchmarks have different numbers of seeds: {sorted(seeds)}")
    [n_seeds] = seeds
    rng = np.random.default_rng(seed)
    # How often each seed was drawn, the same for all benchmarks; (draws, seeds)
    picked = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=draws) / n_seeds
    means = np.zeros(draws)
    for d in differences:
        n = d.shape[1]
        step = max(1, _AT_ONCE // n)
        for start in range(0, draws, step):
            part = slice(start, min(start + step, draws))
            chosen = rng.integers(n, size=(part.stop - start, n))  # (draws of the part, questions)
            by_question = picked[part] @ d  # (draws of the part, questions)
            means[part] += np.take_along_axis(by_question, chosen, axis=1).mean(axis=1)
    means /= len(differences)
    mean = float(np.mean([d.mean() for d in differences]))
    smallest = min(d.shape[1] for d in differences)
    if n_seeds > 1:
        smallest = min(smallest, n_seeds)
    wider = float(np.sqrt(smallest / (smallest - 1))) if smallest > 1 else 1.0
    low, high = (mean + wider * (q - mean) for q in np.quantile(means, [0.025, 0.975]))
    other_side = min(float((means <= 0).mean()), float((means >= 0).mean()))
    return Difference(
        n=sum(d.shape[1] for d in differences),
        mean=mean,
        lo=max(-1.0, float(low)),
        hi=min(1.0, float(high)),
        p=min(1.0, max(1 / draws, 2 * other_side)),
    )


def resampled_sums(table: NDArray[np.float64], draws: int = 2000, seed: int = 0) -> Values:
    """Column sums of as many rows, drawn with replacement.

    Args:
        table: (clusters, columns).

    Returns:
        (draws, columns)
    """
    n = len(table)
    rng = np.random.default_rng(seed)
    sums = np.empty((draws, table.shape[1]))
    step = max(1, _AT_ONCE // max(1, n))
    for start in range(0, draws, step):
        part = slice(start, min(start + step, draws))
        times = rng.multinomial(n, np.full(n, 1 / n), size=part.stop - start)  # (draws, clusters)
        sums[part] = times @ table
    return sums


def spread(draws: NDArray[np.float64], value: float) -> tuple[float, float] | None:
    """95% percentile interval within 0-1, never without the value itself.

    None where all draws are equal: resampling cannot tell how sure a figure is that nothing in the
    sample contradicts.
    """
    low, high = np.quantile(draws, [0.025, 0.975])
    if np.isclose(draws.min(), draws.max()):
        return None
    return max(0.0, min(float(low), value)), min(1.0, max(float(high), value))
