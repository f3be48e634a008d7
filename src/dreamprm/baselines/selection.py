"""Data selection: rules that weigh labelled trajectories, what learned weights must beat.

All selectors have one signature, so that they can be compared at the same budget, with each other
and with learned weights. `SELECTORS["bis"](pool, 0.5, 0)` is the rule as it is;
`select_weights("bis", pool, 0.5, 0)` checks its input and gives weights ready for training.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2  # type: ignore[import-untyped]
from scipy.optimize import brentq  # type: ignore[import-untyped]

from dreamprm.errors import DataError, DreamPRMError, offer
from dreamprm.records import Label, Question, Trajectory, domain_of

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


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

    def by_domain(self, members: Iterable[int]) -> dict[str, list[int]]:
        """Indices of trajectories, grouped by their domain."""
        groups: dict[str, list[int]] = {}
        for i in members:
            groups.setdefault(domain_of(*self.pairs[i]), []).append(i)
        return groups


Selector = Callable[[Pool, float, int], Floats]
"""(pool, budget: share of the trajectories in (0, 1], seed) -> weights >= 0, (trajectories,).

A selector of subsets gives 1 to what it keeps and 0 to the rest.
"""


def select_weights(name: str, pool: Pool, budget: float, seed: int = 0) -> Floats:
    """One weight per trajectory, by a selector of `SELECTORS`.

    The order of the pool does not matter: selectors see it sorted by question id and sample index,
    so that a shuffled file gives the same weights, those of random selection included.

    Returns:
        Weights in the order of the pool, (trajectories,): 0 or more, with mean 1.

    Raises:
        DataError: no trajectory, one without a label, or one that comes twice.
        DreamPRMError: an unknown name, a budget or seed out of range, inputs that the selector
            needs and the pool lacks, or figures that are not finite or not one per trajectory.
    """
    if name not in SELECTORS:
        raise DreamPRMError(f"unknown selector '{name}'; {offer(name, SELECTORS)}")
    check_budget(budget, seed)
    order = _order(pool)
    _check_figures(pool)
    figures = (pool.features, pool.quality, pool.losses)
    in_order = Pool(
        tuple(pool.pairs[i] for i in order), *(None if f is None else f[order] for f in figures)
    )
    chosen = SELECTORS[name](in_order, budget, seed)  # (trajectories,), sorted order
    weights = np.empty(len(order))
    weights[order] = chosen * (len(chosen) / chosen.sum())
    return weights


def check_budget(budget: float, seed: int) -> None:
    """Refuse what no selector can do."""
    if not 0 < budget <= 1:
        raise DreamPRMError(f"budget is {budget}; it must be above 0 and at most 1 (all of it)")
    if seed < 0:
        raise DreamPRMError(f"seed is {seed}; it must be 0 or more")


def _order(pool: Pool) -> Indices:
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
        if not _known_labels(t):
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


def kept_count(trajectories: int, budget: float) -> int:
    """How many trajectories a budget keeps: the nearest whole number, at least 1."""
    return max(1, round(budget * trajectories))


def _kept(chosen: Indices | list[int], trajectories: int) -> Floats:
    """Weights of a subset: 1 at the indices that are kept, else 0."""
    weights = np.zeros(trajectories)
    weights[chosen] = 1.0
    return weights


def _known_labels(trajectory: Trajectory) -> list[Label]:
    return [label for label in trajectory.labels or () if label is not None]


# --- Random ---


def random_subset(pool: Pool, budget: float, seed: int) -> Floats:
    """Keep a random share of the trajectories, all with the same chance.

    Random subsets are hard to beat (arXiv 2602.04145 finds that training of a PRM saturates on them
    early), so every comparison needs them.
    """
    count = len(pool.pairs)
    chosen = np.random.default_rng(seed).choice(count, kept_count(count, budget), replace=False)
    return _kept(chosen, count)


# --- BIS: Balanced-Information Score, of the labels alone ---

ALPHA = 0.05  # of the paper at a budget of 25%; 0.2 at 10%


def bis(pool: Pool, budget: float, seed: int) -> Floats:
    """Keep the trajectories with the highest score of each domain (arXiv 2602.04145).

    From the paper: the score, and, as the authors' released script does, the same share of every
    source. Adapted: the shares of the domains add up to the budget exactly (largest remainders);
    ties, frequent with few completions per step, are settled by `seed` rather than by file order.
    """
    count = len(pool.pairs)
    scores = [balanced_information(t) for _, t in pool.pairs]
    ties = np.random.default_rng(seed).permutation(count)
    members = pool.by_domain(range(count))
    quotas = _quotas({name: len(mine) for name, mine in members.items()}, budget)
    chosen: list[int] = []
    for name, mine in members.items():
        ranked = sorted(mine, key=lambda i: (-scores[i], ties[i]))
        chosen += ranked[: quotas[name]]
    return _kept(chosen, count)


def balanced_information(trajectory: Trajectory) -> float:
    """[p (1 - p) + ALPHA] * R of one trajectory's labelled steps.

    p is the share of positive steps, those with at least one right completion; p (1 - p) is their
    mixture, highest where half are positive. R is their reliability, the mean label of the positive
    steps; 1 where there is none, since a step that never led to a right answer is surely negative.
    ALPHA lets trajectories with one kind of step be ranked by R.
    """
    values = [label.value for label in _known_labels(trajectory)]
    positive = [value for value in values if value > 0]
    p = len(positive) / len(values)
    reliability = sum(positive) / len(positive) if positive else 1.0
    return (p * (1 - p) + ALPHA) * reliability


def _quotas(sizes: dict[str, int], budget: float) -> dict[str, int]:
    """Whole numbers next to budget * size that add up to the budget of all."""
    total = kept_count(sum(sizes.values()), budget)
    exact = {name: budget * size for name, size in sizes.items()}
    quotas = {name: math.floor(share) for name, share in exact.items()}
    by_remainder = sorted(sizes, key=lambda name: (quotas[name] - exact[name], name))
    for name in by_remainder[: total - sum(quotas.values())]:
        quotas[name] += 1
    return quotas


# --- CaR: Clustering and Ranking ---

VARIANCE = 0.95  # share of the variance that the principal components keep


def car(pool: Pool, budget: float, seed: int) -> Floats:
    """Keep the best trajectory of every cluster, and fill up with the best of all.

    From the paper (arXiv 2402.18191): principal components with 95% of the variance, k-means with
    k = sqrt(n / 2), the union of the n1 best by quality and the n2 = 1 best of each cluster.
    Adapted: n1 is what fills the budget exactly, and where there are more clusters than the budget
    has room for, the best of their best are kept. The paper's quality is a model trained on what
    experts prefer, its embedding a sentence encoder's; ours are both from the PRM's own backbone
    (`features.embeddings_and_quality`).

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
    return _kept(np.concatenate([best, others])[: kept_count(count, budget)], count)


def principal_components(features: Floats) -> Floats:
    """The fewest components that explain the share VARIANCE, (trajectories, components)."""
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    values, vectors = np.linalg.eigh(centred.T @ centred)  # ascending
    explained = np.cumsum(values[::-1].clip(min=0))
    components = int(np.searchsorted(explained, VARIANCE * explained[-1])) + 1
    reduced: Floats = centred @ vectors[:, ::-1][:, :components]
    return reduced


def cluster(points: Floats, seed: int) -> Indices:
    """The cluster of each point by k-means with k = sqrt(n / 2), (trajectories,)."""
    distinct = len(np.unique(points, axis=0))
    k = max(1, min(math.isqrt(len(points) // 2), distinct))
    with warnings.catch_warnings():
        # An empty cluster has no best trajectory; that is all that follows from it.
        warnings.filterwarnings("ignore", message="One of the clusters is empty")
        rng = np.random.default_rng(seed)
        clusters: Indices = kmeans2(points, k, iter=100, minit="++", seed=rng)[1].astype(np.int64)
    return clusters


# --- s1: quality, difficulty and diversity, as s1 chose its thousand questions ---

TOO_EASY = 0.9
_REFERS_TO_IMAGE = re.compile(
    r"\b(the|this|following|given|attached)\s+(image|figure|diagram|picture|photo|chart|graph)\b",
    re.IGNORECASE,
)


def s1(pool: Pool, budget: float, seed: int) -> Floats:
    """Filter, then draw a domain at random and a long reasoning of it, until the budget is spent.

    From the paper (arXiv 2501.19393, section 2.2 and algorithm 1 of its appendix):
    - quality: broken samples go, among them those that refer to an image which is not there;
    - difficulty: questions that a model solves go; longer reasonings count as harder;
    - diversity: a domain is drawn uniformly, then one sample of it with probability proportional to
      2^-rank, rank 1 being the longest that is left; a domain that is used up drops out.

    Adapted to trajectories with Monte Carlo labels:
    - "a model solves it" (two models graded by a third) is `solve_rates`, the policy's own;
    - length is counted in characters, ties go to the question that is solved less often;
    - domains are those of the data, not classes that a model assigned;
    - the paper takes some samples of sources it trusts first; there are none here;
    - where the filters leave less than the budget, the drawing goes on among the questions that are
      too easy, then among the broken samples, so that all selectors keep equally many.

    As in the paper nobody asks whether the solution is right, so wrong gold answers look difficult.
    """
    rng = np.random.default_rng(seed)
    rates = solve_rates(pool)
    count = len(pool.pairs)
    left_to_keep = kept_count(count, budget)
    tiers: list[list[int]] = [[], [], []]  # fit, too easy, broken
    for i, (question, t) in enumerate(pool.pairs):
        broken = not is_sound(question, t)
        tiers[2 if broken else int(rates[question.id] >= TOO_EASY)].append(i)
    chosen: list[int] = []
    for tier in tiers:
        # The longest and then the least solved at the front of each domain.
        tier.sort(key=lambda i: (-_length(pool.pairs[i][1]), rates[pool.pairs[i][0].id]))
        domains = pool.by_domain(tier)
        while domains and len(chosen) < left_to_keep:
            names = sorted(domains)
            name = names[rng.integers(len(names))]
            chosen.append(domains[name].pop(_power_law(len(domains[name]), rng)))
            if not domains[name]:
                del domains[name]
    return _kept(chosen, count)


def is_sound(question: Question, trajectory: Trajectory) -> bool:
    """Is there nothing wrong with the texts: no image missing, no empty phrase, no repetition?"""
    if not question.images and _REFERS_TO_IMAGE.search(question.text):
        return False
    steps = [" ".join(step.split()) for step in trajectory.steps]
    return len(set(steps)) == len(steps) and all(any(c.isalnum() for c in s) for s in steps)


def solve_rates(pool: Pool) -> dict[str, float]:
    """How often the policy solves each question, by question id.

    Counted are the completions of the first labelled step, the nearest that labels come to the
    question itself, and the outcomes of its trajectories, over all trajectories of the question.
    """
    right: dict[str, float] = {}
    tried: dict[str, int] = {}
    for _, t in pool.pairs:
        first = _known_labels(t)[0]
        known = t.outcome is not None
        total = first.total or 1  # a label without counts stands for one completion
        solved = first.value * total + int(bool(t.outcome))
        right[t.question_id] = right.get(t.question_id, 0.0) + solved
        tried[t.question_id] = tried.get(t.question_id, 0) + total + int(known)
    return {name: right[name] / tried[name] for name in tried}


def _length(trajectory: Trajectory) -> int:
    return sum(map(len, trajectory.steps))


def _power_law(count: int, rng: np.random.Generator) -> int:
    """An index below `count` with probability proportional to 2^-(index + 1)."""
    odds = np.exp2(-np.arange(1.0, min(count, 64) + 1))  # beyond 64 nothing is ever drawn
    return int(rng.choice(len(odds), p=odds / odds.sum()))


# --- Small loss ---

RESOLUTION = 1e-6  # of the range of losses; what differs by less differs by rounding


def small_loss(pool: Pool, budget: float, seed: int) -> Floats:
    """Weights exp(-loss / temperature), soft: nothing is left out by a rule.

    The small-loss trick (Co-teaching, arXiv 1804.06872, keeps the share of a batch with the
    smallest losses) in the soft form of exponential reweighting. Adapted: a trajectory is the unit,
    its loss is the mean over its labelled steps, and one reference PRM stands for the two networks
    that teach each other while they train. The budget sets the temperature: the effective sample
    size (sum w)^2 / sum w^2 is budget * n, the count that a subset of this budget would keep.

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
    weights: Floats = np.exp(-_inverse_temperature(relative, target) * relative)
    return weights


def effective_size(weights: Floats) -> float:
    """(sum w)^2 / sum w^2: how many equal weights count as much as these."""
    return float(weights.sum() ** 2 / (weights**2).sum())


def _inverse_temperature(excess: Floats, target: float) -> float:
    """The b >= 0 at which exp(-b * excess) has an effective size of `target`.

    The size falls steadily from n at b = 0 to the number of zeros in `excess`: the derivative of
    its logarithm is twice the mean excess at 2b less that at b.
    """

    def miss(b: float) -> float:
        return effective_size(np.exp(-b * excess)) - target

    if target >= len(excess):
        return 0.0
    high = 1.0
    while miss(high) > 0:
        high *= 2
    return float(brentq(miss, 0.0, high, xtol=1e-14 * high, rtol=1e-14))


SELECTORS: dict[str, Selector] = {
    "random": random_subset,
    "s1": s1,
    "car": car,
    "bis": bis,
    "loss": small_loss,
}
