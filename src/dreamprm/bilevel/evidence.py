"""How sure is a weight?

The upper level learns from noisy derivatives. Each window says of each domain what a larger weight
would do for the meta set, but it says so from a few meta questions and a few trajectories, and the
questions come again: what is peculiar to them does not average out over windows. So the meta set is
cut into parts, and each window reads one of them, in turn. A domain's effect is the mean over the
parts, and how much the parts disagree is its standard error (that of a mean of independent
clusters, Liang and Zeger 1986): it holds the chance in windows and that in meta questions.

Their ratio z decides: |z| beyond the quantile of Student's t is evidence, below it a domain cannot
be told apart from the average one. In null runs (`docs/results/intervals.md`) z does what t says.
"""

from __future__ import annotations

import torch
from scipy import stats  # type: ignore[import-untyped]
from torch import Tensor

LEAST_PARTS = 3  # that saw a domain, before anything is said of it
SHRUNK_BELOW = 0.9  # evidence below this (two-sided) quantile of t moves no weight


class Evidence:
    """Effects of the domains by part of the meta set.

    Attributes:
        sums: of the effects of windows, (parts, domains).
        visits: windows that saw a domain, (parts, domains).
    """

    def __init__(self, domains: int) -> None:
        self.sums, self.visits = torch.zeros(0, domains), torch.zeros(0, domains)

    def add(self, part: int, effects: Tensor) -> None:
        """Take in a window.

        It counts with the square root of its size: by size a few early windows would decide, and
        as votes of equal size those that have nothing to say would drown the rest.

        Args:
            part: of the meta set that the window read.
            effects: what a larger weight does for the meta set, (domains,); NaN for those that the
                window did not see.
        """
        missing = part + 1 - len(self.sums)
        if missing > 0:
            empty = torch.zeros(missing, self.sums.shape[1])
            self.sums, self.visits = torch.cat([self.sums, empty]), torch.cat([self.visits, empty])
        values = effects.nan_to_num().cpu().to(self.sums)
        seen = ~effects.isnan().cpu()
        size = (values.square().sum() / seen.sum().clamp(min=1)).sqrt()
        self.sums[part] += values / size.sqrt().clamp(min=1e-12)
        self.visits[part] += seen

    def z(self) -> tuple[Tensor, Tensor]:
        """Mean effect in standard errors, and its degrees of freedom, (domains,) each.

        z is 0 for a domain that fewer than `LEAST_PARTS` parts have seen.
        """
        seen = self.visits > 0
        of_part = (self.sums / self.visits.clamp(min=1)).double()
        parts = seen.sum(dim=0)
        mean = of_part.sum(dim=0) / parts.clamp(min=1)
        squares = torch.where(seen, (of_part - mean) ** 2, 0.0).sum(dim=0)
        error = (squares / (parts - 1).clamp(min=1) / parts.clamp(min=1)).sqrt()
        z = torch.where((parts >= LEAST_PARTS) & (error > 0), mean / error, 0.0)
        return z, (parts - 1).clamp(min=1)

    def shrunk(self) -> Tensor:
        """z, with what may well be chance taken out: z - c^2 / z beyond the quantile c, else 0.

        The non-negative garrote (Breiman 1995) at the quantile of t: small values become 0, large
        ones are hardly touched.
        """
        z, freedom = self.z()
        c = _quantile(SHRUNK_BELOW, freedom)
        return torch.where(z.abs() > c, z - c**2 / torch.where(z == 0, 1.0, z), 0.0)

    def interval(self, moved: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """95% interval of what has been moved along the evidence, (domains,) each.

        Args:
            moved: how far each domain has been moved, (domains,), by an optimiser of its own: in
                units of z that is what a regression through the origin says, and what it leaves
                unexplained is noise too. None: z itself.
        """
        z, freedom = self.z()
        q = _quantile(0.95, freedom)
        if moved is None:
            return z - q, z + q
        moved = moved.double().cpu()
        scale = (moved * z).sum() / (z**2).sum().clamp(min=1e-12)
        rest = ((moved - scale * z) ** 2).mean()
        half = q * (scale**2 + rest).sqrt()
        return moved - half, moved + half


def _quantile(level: float, freedom: Tensor) -> Tensor:
    return torch.from_numpy(stats.t.ppf((1 + level) / 2, freedom.numpy()))
