"""How sure is a weight?

The upper level learns from noisy derivatives. Each window says of each domain what a larger weight
would do for the meta set, but it says so from a few meta questions and a few trajectories, and both
come again: what is peculiar to them does not average out over windows. So both are cut into parts
that stay the same: a window reads one part of the meta set, a micro-batch one block of its domain,
in turn. A domain's effect is the mean over the parts. How much the parts disagree is its variance
by the chance in windows and meta questions (that of a mean of clusters, Liang and Zeger 1986); how
much the blocks disagree beyond what windows explain is added to it, for the chance in trajectories
(two-way clusters, Cameron, Gelbach and Miller 2011).

Effect over standard error is z: beyond the quantile of Student's t it is evidence, below it a
domain cannot be told apart from the average one (`docs/results/intervals.md` has null runs).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import nctdtrinc, stdtrit  # type: ignore[import-untyped]

Array = NDArray[np.float64]
LEAST_PARTS = 3  # that saw a domain, before anything is said of it
SHRUNK_BELOW = 0.9  # evidence below this (two-sided) quantile of t moves no weight
POOLED = 4.0  # blocks' worth of what all domains say, in each domain's variance among blocks


class Sums:
    """Sums of values by cluster and domain: total and count, (clusters, domains)."""

    def __init__(self, domains: int) -> None:
        self.total, self.count = np.zeros((2, 0, domains))

    def add(self, cluster: int, domain: int, value: float) -> None:
        missing = max(0, cluster + 1 - len(self.total))
        self.total, self.count = (
            np.pad(x, ((0, missing), (0, 0))) if missing else x for x in (self.total, self.count)
        )
        self.total[cluster, domain] += value
        self.count[cluster, domain] += 1

    def spread(self) -> tuple[Array, Array, Array]:
        """Mean over clusters, variance among them, and how many saw the domain, (domains,) each."""
        seen = self.count > 0
        means = self.total / np.maximum(self.count, 1)
        clusters = seen.sum(axis=0).astype(float)
        mean = means.sum(axis=0) / np.maximum(clusters, 1)
        squares = np.where(seen, (means - mean) ** 2, 0.0).sum(axis=0)
        return mean, squares / np.maximum(clusters - 1, 1), clusters


class Evidence:
    """Effects of the domains.

    Attributes:
        parts: effects of windows by part of the meta set.
        blocks: effects of micro-batches by block of their domain.
        squares: sum of the squares of the latter, (domains,).
    """

    def __init__(self, domains: int) -> None:
        self.parts, self.blocks = Sums(domains), Sums(domains)
        self.squares = np.zeros(domains)

    def add(
        self, part: int, domains: Sequence[int], blocks: Sequence[int], effects: Sequence[float]
    ) -> dict[int, float]:
        """Take in a window.

        It counts with the square root of its size: by size a few early windows would decide, and
        as votes of equal size those that have nothing to say would drown the rest.

        Args:
            part: of the meta set that the window read.
            domains: of each micro-batch.
            blocks: of its domain that each micro-batch is; -1: the chance in it is left out.
            effects: of a larger weight of each micro-batch on the meta set.

        Returns:
            The effect of each domain that the window saw.
        """
        of_domain: dict[int, list[float]] = {}
        for k, effect in zip(domains, effects, strict=True):
            of_domain.setdefault(k, []).append(effect)
        means = {k: float(np.mean(values)) for k, values in of_domain.items()}
        size = max(float(np.sqrt(np.sqrt(np.mean(np.square([*means.values()]))))), 1e-12)
        for k, mean in means.items():
            self.parts.add(part, k, mean / size)
        for k, block, effect in zip(domains, blocks, effects, strict=True):
            if block >= 0:
                self.blocks.add(block, k, effect / size)
                self.squares[k] += (effect / size) ** 2
        return means

    def z(self, weights: ArrayLike | None = None) -> tuple[Array, Array]:
        """Mean effect in standard errors, and its degrees of freedom, (domains,) each.

        z is 0 for a domain that fewer than `LEAST_PARTS` parts have seen.

        Args:
            weights: of the domains, (domains,), where effects are told from their weighted mean,
                whose chance is part of them.
        """
        mean, among, parts = self.parts.spread()
        variance, freedom = among / np.maximum(parts, 1), np.maximum(parts - 1, 1)
        beside = np.eye(len(mean))  # (domain, of whose trajectories)
        if weights is not None:
            beside = (beside - np.asarray(weights) / max(np.sum(weights), 1e-12)) ** 2
        of_blocks, freedom_of_blocks = self._of_blocks()
        total = variance + beside @ of_blocks
        unsure = variance**2 / freedom + beside**2 @ (of_blocks**2 / freedom_of_blocks)
        known = (parts >= LEAST_PARTS) & (total > 0)
        total, unsure = np.where(known, total, 1.0), np.where(known, unsure, 1.0)
        return np.where(known, mean / np.sqrt(total), 0.0), total**2 / unsure  # Satterthwaite

    def _of_blocks(self) -> tuple[Array, Array]:
        """Variance of each domain's mean by the choice of its trajectories, and its freedom."""
        _, among, blocks = self.blocks.spread()
        count = np.maximum(self.blocks.count.sum(axis=0), 1)
        mean = self.blocks.total.sum(axis=0) / count
        within = np.maximum(self.squares / count - mean**2, 0) * blocks / count  # of windows alone
        freedom, excess = np.maximum(blocks - 1, 0), among - within
        pooled = (freedom * excess).sum() / max(freedom.sum(), 1)
        of_each = (freedom * excess + POOLED * pooled) / (freedom + POOLED)
        return np.maximum(of_each, 0) / np.maximum(blocks, 1), freedom + POOLED

    def shrunk(self, weights: ArrayLike | None = None) -> Array:
        """z, with what may well be chance taken out: z - c^2 / z beyond the quantile c, else 0.

        The non-negative garrote (Breiman 1995) at the quantile of t: small values become 0, large
        ones are hardly touched.
        """
        z, freedom = self.z(weights)
        c = stdtrit(freedom, (1 + SHRUNK_BELOW) / 2)
        return np.where(np.abs(z) > c, z - c**2 / np.where(z == 0, 1.0, z), 0.0)

    def interval(
        self, weights: ArrayLike | None = None, moved: ArrayLike | None = None
    ) -> tuple[Array, Array]:
        """95% interval of what has been moved along the evidence, (domains,) each.

        Args:
            weights: see `z`.
            moved: how far each domain has been moved, (domains,), by an optimiser of its own: in
                units of z that is what a regression through the origin says, and what it leaves
                unexplained is noise too. None: z itself.
        """
        z, freedom = self.z(weights)
        # What z is to be expected? Far from 0 the doubt about the standard error counts most, so
        # the ends are those of the non-central t. At 0 they are z less and plus t's quantile.
        near, far = (nctdtrinc(freedom, p, np.abs(z)) for p in (0.975, 0.025))
        low, high = np.where(z < 0, -far, near), np.where(z < 0, -near, far)
        if moved is None:
            return low, high
        moved = np.asarray(moved)
        scale = (moved * z).sum() / max((z**2).sum(), 1e-12)
        rest = stdtrit(freedom, 0.975) ** 2 * ((moved - scale * z) ** 2).mean()
        below, above = (np.sqrt((scale * (z - end)) ** 2 + rest) for end in (low, high))
        return moved - below, moved + above
