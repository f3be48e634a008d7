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

import torch
from scipy.special import stdtrit  # type: ignore[import-untyped]
from torch import Tensor

LEAST_PARTS = 3  # that saw a domain, before anything is said of it
SHRUNK_BELOW = 0.9  # evidence below this (two-sided) quantile of t moves no weight
POOLED = 4.0  # blocks' worth of what all domains say, in each domain's variance among blocks


class Sums:
    """Sums of values by cluster and domain: total and count, (clusters, domains)."""

    def __init__(self, domains: int) -> None:
        self.total, self.count = torch.zeros(2, 0, domains, dtype=torch.double)

    def add(self, cluster: int, domain: int, value: float) -> None:
        missing = cluster + 1 - len(self.total)
        if missing > 0:
            empty = self.total.new_zeros(missing, self.total.shape[1])
            self.total, self.count = (torch.cat([x, empty]) for x in (self.total, self.count))
        self.total[cluster, domain] += value
        self.count[cluster, domain] += 1

    def spread(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean over clusters, variance among them, and how many saw the domain, (domains,) each."""
        seen = self.count > 0
        means = self.total / self.count.clamp(min=1)
        clusters = seen.sum(dim=0)
        mean = means.sum(dim=0) / clusters.clamp(min=1)
        squares = torch.where(seen, (means - mean) ** 2, 0.0).sum(dim=0)
        return mean, squares / (clusters - 1).clamp(min=1), clusters


class Evidence:
    """Effects of the domains.

    Attributes:
        parts: effects of windows by part of the meta set.
        blocks: effects of micro-batches by block of their domain.
        squares: sum of the squares of the latter, (domains,).
    """

    def __init__(self, domains: int) -> None:
        self.parts, self.blocks = Sums(domains), Sums(domains)
        self.squares = torch.zeros(domains, dtype=torch.double)

    def add(
        self, part: int, domains: Sequence[int], blocks: Sequence[int], effects: Tensor
    ) -> Tensor:
        """Take in a window.

        It counts with the square root of its size: by size a few early windows would decide, and
        as votes of equal size those that have nothing to say would drown the rest.

        Args:
            part: of the meta set that the window read.
            domains: of each micro-batch.
            blocks: of its domain that each micro-batch is; all -1: their chance is left out.
            effects: of a larger weight of each micro-batch on the meta set, (micro-batches,).

        Returns:
            The effects of domains, (domains,); NaN for those that the window did not see.
        """
        effects = effects.double().cpu()
        index = torch.tensor(domains)
        visits = torch.bincount(index, minlength=len(self.squares))
        sums = torch.zeros_like(self.squares).index_add(0, index, effects)
        of_domain = sums / visits  # 0 / 0 is NaN
        size = of_domain[visits > 0].square().mean().sqrt().sqrt().clamp(min=1e-12)
        for k in visits.nonzero()[:, 0].tolist():
            self.parts.add(part, k, float(of_domain[k] / size))
        for k, block, effect in zip(domains, blocks, (effects / size).tolist(), strict=True):
            if block >= 0:
                self.blocks.add(block, k, effect)
                self.squares[k] += effect**2
        return of_domain

    def z(self, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean effect in standard errors, and its degrees of freedom, (domains,) each.

        z is 0 for a domain that fewer than `LEAST_PARTS` parts have seen.

        Args:
            weights: of the domains, (domains,), where effects are told from their weighted mean,
                whose chance is part of them.
        """
        mean, among, parts = self.parts.spread()
        variance = among / parts.clamp(min=1)
        freedom = (parts - 1).clamp(min=1).double()
        beside = torch.eye(len(mean), dtype=torch.double)  # (domain, of whose trajectories)
        if weights is not None:
            weights = weights.detach().double().cpu()
            beside = (beside - weights / weights.sum()) ** 2
        of_blocks, freedom_of_blocks = self._of_blocks()
        added = beside @ of_blocks
        unsure = variance**2 / freedom + beside**2 @ (of_blocks**2 / freedom_of_blocks)
        total = variance + added
        known = (parts >= LEAST_PARTS) & (total > 0)
        z = torch.where(known, mean / total.sqrt(), 0.0)
        return z, torch.where(known, total**2 / unsure, 1.0)  # Satterthwaite

    def _of_blocks(self) -> tuple[Tensor, Tensor]:
        """Variance of each domain's mean by the choice of its trajectories, and its freedom."""
        _, among, blocks = self.blocks.spread()
        count = self.blocks.count.sum(dim=0).clamp(min=1)
        mean = self.blocks.total.sum(dim=0) / count
        within = (self.squares / count - mean**2).clamp(min=0) * blocks / count  # of windows alone
        freedom = (blocks - 1).clamp(min=0).double()
        excess = among - within
        pooled = (freedom * excess).sum() / freedom.sum().clamp(min=1)
        of_each = (freedom * excess + POOLED * pooled) / (freedom + POOLED)
        return of_each.clamp(min=0) / blocks.clamp(min=1), freedom + POOLED

    def shrunk(self, weights: Tensor | None = None) -> Tensor:
        """z, with what may well be chance taken out: z - c^2 / z beyond the quantile c, else 0.

        The non-negative garrote (Breiman 1995) at the quantile of t: small values become 0, large
        ones are hardly touched.
        """
        z, freedom = self.z(weights)
        c = _quantile(SHRUNK_BELOW, freedom)
        return torch.where(z.abs() > c, z - c**2 / torch.where(z == 0, 1.0, z), 0.0)

    def interval(
        self, weights: Tensor | None = None, moved: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """95% interval of what has been moved along the evidence, (domains,) each.

        Args:
            weights: see `z`.
            moved: how far each domain has been moved, (domains,), by an optimiser of its own: in
                units of z that is what a regression through the origin says, and what it leaves
                unexplained is noise too. None: z itself.
        """
        z, freedom = self.z(weights)
        q = _quantile(0.95, freedom)
        if moved is None:
            return z - q, z + q
        moved = moved.double().cpu()
        scale = (moved * z).sum() / (z**2).sum().clamp(min=1e-12)
        rest = ((moved - scale * z) ** 2).mean()
        half = q * (scale**2 + rest).sqrt()
        return moved - half, moved + half


def _quantile(level: float, freedom: Tensor) -> Tensor:
    return torch.from_numpy(stdtrit(freedom.numpy(), (1 + level) / 2))
