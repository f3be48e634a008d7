"""Accuracies with intervals, paired differences, and how they average over benchmarks and seeds.

Candidates of one question are not independent, so a question is one observation: it contributes
one mean. Values are held as `(seeds, questions)` per benchmark. A seed is a full repetition
(training included), so with several seeds the interval covers two sources of chance, which
questions were asked and how training went: the variance clustered two ways, V(questions) + V(seeds)
(Cameron, Gelbach and Miller, 2011). Their third term, - V(questions x seeds), is left out: it is
small, and with a handful of seeds intervals that subtract it cover too little (simulation, 3 seeds:
0.89 with it, 0.93 without).

Intervals of an accuracy are Wilson's with the effective sample size p(1-p) / V (Korn and Graubard,
1998), which stay inside [0, 1] and do not collapse when everything is right. Over benchmarks they
are combined by MOVER (Zou and Donner, 2008): distances to the limits add in squares. Quantiles are
Student's t with Satterthwaite's degrees of freedom.

Beside the formulas stands a bootstrap, an interval to check them with (differences), or where there
is no formula (F1). Questions are drawn with replacement within each benchmark, and training seeds
for all benchmarks at once, since one training run serves them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit  # type: ignore[import-untyped]

from dreamprm.errors import DataError

Values = NDArray[np.float64]  # (seeds, questions)
_AT_ONCE = 2**22  # numbers drawn at once


@dataclass(frozen=True)
class Estimate:
    """A mean over n questions, in [0, 1], with its 95% interval."""

    n: int
    mean: float
    lo: float
    hi: float

    @property
    def ci95(self) -> tuple[float, float]:
        return (self.lo, self.hi)

    def as_json(self) -> dict[str, Any]:
        return {"n": self.n, "mean": self.mean, "ci95": list(self.ci95)}


@dataclass(frozen=True)
class Difference(Estimate):
    """Mean of a - b over the same questions, its 95% interval, and the two-sided p of none."""

    p: float

    def as_json(self) -> dict[str, Any]:
        return super().as_json() | {"p": self.p}


Sources = list[tuple[float, int]]
"""Variance of a mean by source of chance, each with its degrees of freedom."""


def cluster_means(values: Sequence[float], clusters: Sequence[str]) -> dict[str, float]:
    """One mean per question, in order of first appearance.

    Args:
        values: (observations,) for example outcomes of candidates.
        clusters: (observations,) question ids.
    """
    groups: dict[str, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        groups.setdefault(cluster, []).append(float(value))
    return {cluster: float(np.mean(group)) for cluster, group in groups.items()}


def estimate(values: ArrayLike) -> Estimate:
    """Mean and 95% interval of one benchmark.

    Args:
        values: (questions,) or (seeds, questions), in [0, 1].

    >>> estimate([1, 1, 0, 1, 0, 1, 1, 1, 0, 1]).mean
    0.7
    """
    return estimate_average({"": values})


def estimate_average(benchmarks: Mapping[str, ArrayLike]) -> Estimate:
    """Unweighted mean over benchmarks of the benchmarks' means, with its 95% interval.

    Args:
        benchmarks: per benchmark (questions,) or (seeds, questions), in [0, 1]. Benchmarks may
            differ in questions but not in seeds: seed s is the same training run everywhere, so
            what it adds is shared by all benchmarks and does not average out over them.
    """
    values = _checked(benchmarks, lowest=0.0)
    below, above = [], []  # squared distances from the mean to the limits
    for v in values:
        lo, hi = wilson(float(v.mean()), v.shape[1], _variances(v))
        below.append((v.mean() - lo) ** 2)
        above.append((hi - v.mean()) ** 2)
    mean = float(np.mean([v.mean() for v in values]))
    k = len(values)
    shared, df = _shared_seed_variance(values)
    extra = (_quantile(df) ** 2) * shared
    return Estimate(
        n=sum(v.shape[1] for v in values),
        mean=mean,
        lo=max(0.0, mean - float(np.sqrt(sum(below) / k**2 + extra))),
        hi=min(1.0, mean + float(np.sqrt(sum(above) / k**2 + extra))),
    )


def paired_difference(a: Mapping[str, ArrayLike], b: Mapping[str, ArrayLike]) -> Difference:
    """Mean over benchmarks of a - b, question by question, with its 95% interval and p.

    The variance of each benchmark's differences is taken after adding two pseudo-questions, spread
    evenly over the differences +1, 0, 0 and -1 (Agresti and Min, 2005; scaled by the largest
    difference, where there is any), so that two methods which never disagree on 20 questions are
    not declared equal with certainty.

    Args:
        a: per benchmark (questions,) or (seeds, questions), in [0, 1].
        b: the same benchmarks, seeds and questions in the same order.
    """
    values = _differences(a, b)
    k = len(values)
    sources = [(part / k**2, df) for v in values for part, df in _variances(v, smooth=True)]
    sources.append(_shared_seed_variance(values))
    se = float(np.sqrt(sum(variance for variance, _ in sources)))
    df = _satterthwaite(sources)
    mean = float(np.mean([v.mean() for v in values]))
    half = _quantile(df) * se
    return Difference(
        n=sum(v.shape[1] for v in values),
        mean=mean,
        lo=max(-1.0, mean - half),
        hi=min(1.0, mean + half),
        p=min(1.0, 2 * float(stdtr(df, -abs(mean) / se))),
    )


def paired_bootstrap(
    a: Mapping[str, ArrayLike],
    b: Mapping[str, ArrayLike],
    *,
    draws: int = 10_000,
    seed: int = 0,
) -> Difference:
    """`paired_difference` by resampling: p is twice the share of draws on the other side of zero.

    The percentile interval is widened by sqrt(n / (n - 1)) around its mean, n the smaller of the
    numbers of questions of a benchmark and, if there are several, of seeds: resampling spreads that
    much too little (Hesterberg, 2015). p is at least 1 / draws.
    """
    differences = _differences(a, b)
    n_seeds = len(differences[0])
    rng = np.random.default_rng(seed)
    # How often each seed was drawn, the same for all benchmarks; (draws, seeds)
    picked = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=draws) / n_seeds
    means = np.zeros(draws)
    for d in differences:
        n = d.shape[1]
        for part in _parts(draws, n):
            chosen = rng.integers(n, size=(part.stop - part.start, n))  # (draws, questions)
            by_question = picked[part] @ d  # (draws, questions)
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
    for part in _parts(draws, n):
        times = rng.multinomial(n, np.full(n, 1 / n), size=part.stop - part.start)
        sums[part] = times @ table  # (draws, clusters) @ (clusters, columns)
    return sums


def _parts(draws: int, n: int) -> Iterator[slice]:
    """Draws of n that fit into memory at once."""
    step = max(1, _AT_ONCE // max(1, n))
    return (slice(start, min(start + step, draws)) for start in range(0, draws, step))


def spread(draws: NDArray[np.float64], value: float) -> tuple[float, float] | None:
    """95% percentile interval within 0-1, never without the value itself.

    None where all draws are equal: resampling cannot tell how sure a figure is that nothing in the
    sample contradicts.
    """
    low, high = np.quantile(draws, [0.025, 0.975])
    if np.isclose(draws.min(), draws.max()):
        return None
    return max(0.0, min(float(low), value)), min(1.0, max(float(high), value))


def _differences(a: Mapping[str, ArrayLike], b: Mapping[str, ArrayLike]) -> list[Values]:
    if list(a) != list(b):
        raise DataError(f"cannot pair benchmarks {list(a)} with {list(b)}")
    pairs = {}
    for name in a:
        left, right = np.asarray(a[name], float), np.asarray(b[name], float)
        if left.shape != right.shape:
            raise DataError(f"{name}: cannot pair values of shapes {left.shape} and {right.shape}")
        pairs[name] = left - right
    return _checked(pairs, lowest=-1.0)


def _checked(benchmarks: Mapping[str, ArrayLike], lowest: float) -> list[Values]:
    values = []
    for name, array in benchmarks.items():
        v = np.asarray(array, dtype=np.float64)
        v = v[None, :] if v.ndim == 1 else v  # (seeds, questions)
        if v.ndim != 2 or v.size == 0:
            raise DataError(f"benchmark '{name}': no values to average (shape {v.shape})")
        if not ((v >= lowest) & (v <= 1)).all():
            raise DataError(f"benchmark '{name}': a value lies outside {lowest:g} to 1")
        values.append(v)
    if not values:
        raise DataError("no benchmarks to average over")
    if len({v.shape[0] for v in values}) > 1:
        raise DataError("benchmarks differ in their number of seeds; evaluate all with all seeds")
    return values


def _variances(v: Values, smooth: bool = False) -> Sources:
    """Of v.mean(), v of (seeds, questions), by questions and by seeds, where there are several.

    Args:
        smooth: as in `paired_difference`.
    """
    n_seeds, n_questions = v.shape
    by_question = v.mean(axis=0)  # (questions,)
    questions = float(by_question.var(ddof=1)) / n_questions if n_questions > 1 else 0.0
    if smooth:
        m = n_questions + 2
        # As large as the differences that there are: means over samples or seeds are never +-1.
        scale = float(np.abs(by_question).max()) or 1.0
        second = (float((by_question**2).sum()) + scale**2) / m
        questions = (second - (float(by_question.sum()) / m) ** 2) / m
    sources = [(questions, max(1, n_questions - 1))]
    if n_seeds > 1:
        sources.append((float(v.mean(axis=1).var(ddof=1)) / n_seeds, n_seeds - 1))
    return sources


def _shared_seed_variance(values: list[Values]) -> tuple[float, int]:
    """What seeds add to the variance of the average over benchmarks beyond the benchmarks' own
    parts: the covariance between benchmarks that share a training run. At least 0.
    """
    n_seeds, k = values[0].shape[0], len(values)
    if n_seeds == 1 or k == 1:
        return 0.0, 1
    by_seed = np.stack([v.mean(axis=1) for v in values])  # (benchmarks, seeds)
    covariance = np.cov(by_seed)  # (benchmarks, benchmarks)
    off_diagonal = float(covariance.sum() - np.trace(covariance)) / k**2 / n_seeds
    return max(0.0, off_diagonal), n_seeds - 1


def wilson(p: float, count: int, sources: Sources) -> tuple[float, float]:
    """Wilson's interval for p, with the effective sample size that its variance implies.

    Args:
        count: of questions, the sample size where the variance is 0: nothing else is known then.
    """
    variance = sum(part for part, _ in sources)
    n = p * (1 - p) / variance if variance > 1e-15 else float(count)  # rounding is no variance
    t = _quantile(_satterthwaite(sources))
    centre = (p + t**2 / (2 * n)) / (1 + t**2 / n)
    half = t / (1 + t**2 / n) * float(np.sqrt(p * (1 - p) / n + t**2 / (4 * n**2)))
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def _satterthwaite(sources: Sources) -> float:
    """Degrees of freedom of a sum of independent variances."""
    total = sum(variance for variance, _ in sources)
    if total == 0:
        return float(max(df for _, df in sources))
    return float(1 / sum((variance / total) ** 2 / df for variance, df in sources))


def _quantile(df: float) -> float:
    """97.5% quantile of Student's t."""
    return float(stdtrit(df, 0.975))
