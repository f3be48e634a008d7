"""What the upper level learns: weights of domains or of trajectories, and corrected labels.

All weights share one rule: only how they compare is learned. A hypergradient h that asks all
weights to grow alike says "learn faster", which is the lower optimiser's business, so sum(h w) /
sum(w) over the window is subtracted (`compared`) before it reaches alpha. As sum((h - mean) w) is
then 0, a normalised weight that the window did not see gets no gradient either.

A new weighting is a subclass of `Weights`: parameters alpha, and `forward` from a micro-batch to
w_i, (B,). The estimator's d meta loss / d w_i reaches alpha by autograd.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dreamprm.bilevel.parallel import SINGLE, Parallel


def compared(
    hypergradient: Sequence[Tensor], weights: Sequence[Tensor], parallel: Parallel = SINGLE
) -> list[Tensor]:
    """D meta loss / d w_i less what all weights have in common, of each micro-batch, (B,).

    Args:
        hypergradient, weights: of the window's micro-batches, (B,) each.
        parallel: the processes that share the work.
    """
    h, w = torch.cat(list(hypergradient)), torch.cat(list(weights))  # (all of the window,)
    sums = parallel.total(torch.stack([(h * w).sum(), w.sum()]))
    # sum(h w) / sum(w): the direction in which all weights grow alike. Weights below zero could
    # make it infinite; then the plain mean has to do.
    common = sums[0] / sums[1] if sums[1] > 1e-6 * len(w) else parallel.mean(h.mean())
    return [part - common for part in hypergradient]


class Weights(nn.Module, ABC):
    """w_i of each trajectory; its parameters are alpha.

    Attributes:
        by_domain: all trajectories of a micro-batch have the same weight, and `forward` does not
            read the features (it is also called with a dummy); allows `inner_product`.
        is_table: alpha has an entry for each trajectory; it is moved by `TableAdam`.
    """

    by_domain = False
    is_table = False

    @abstractmethod
    def forward(self, batch: Any, features: Tensor) -> Tensor:
        """Weights of a micro-batch with gradient to alpha, (B,)."""

    def set_gradient(
        self,
        window: Sequence[tuple[Any, Tensor]],
        h: Sequence[Tensor],
        parallel: Parallel = SINGLE,
    ) -> None:
        """Chain d meta loss / d w into the gradients of alpha.

        Args:
            window: its micro-batches with their features.
            h: `compared` d meta loss / d w_i of each micro-batch, (B,).
            parallel: the processes that share the work.
        """
        for p in self.parameters():
            p.grad = None
        with torch.enable_grad():
            outputs = [self(batch, features) for batch, features in window]
        torch.autograd.backward(outputs, list(h))
        parallel.average([p.grad for p in self.parameters() if p.grad is not None])

    @torch.no_grad()
    def project(self) -> None:
        """Bring alpha back into its range after an upper step."""


class DomainWeights(Weights):
    """w_k = K sigmoid(alpha_k) / sum_j sigmoid(alpha_j): positive, mean 1, all 1.0 at the start.

    Fixing the mean keeps the weights from acting as a learning rate, which the lower optimiser
    already has; only how the domains compare is left to learn. The sigmoid is bounded, so that
    domains which are surely good end equal, however sure it is.

    Args:
        domains: how many, or their names in the order of the weight vector.
    """

    by_domain = True

    def __init__(self, domains: int | Sequence[str]) -> None:
        super().__init__()
        if isinstance(domains, int):
            domains = [f"domain {k}" for k in range(domains)]
        self.domains = tuple(domains)
        self.alpha = nn.Parameter(torch.zeros(len(self.domains)))

    def table(self, alpha: Tensor | None = None) -> Tensor:
        """The weights w, (domains,); of other values than the present ones, where they are given.

        Each of the values given stands beside the present ones of all other domains.
        """
        total = self.alpha.sigmoid().sum()
        alpha = self.alpha if alpha is None else alpha.to(self.alpha)
        others = total - self.alpha.sigmoid()
        return len(self.domains) * alpha.sigmoid() / (others + alpha.sigmoid())

    def forward(self, batch: Any, features: Tensor) -> Tensor:
        return self.table()[batch.domain].expand(len(features))


class InstanceTable(Weights):
    """One weight per trajectory, 1.0 at the start, clipped (DreamPRM-1.5, arXiv 2509.05542).

    w_i = 1 + alpha_i. Alpha is clipped after the step instead of w in the forward pass, so that a
    weight at the end of its range can come back.

    Args:
        count: trajectories.
        low, high: range of w.
    """

    is_table = True

    def __init__(self, count: int, low: float = 0.0, high: float = 3.0) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.alpha = nn.Parameter(torch.zeros(count))

    def table(self) -> Tensor:
        """All weights, (trajectories,)."""
        return 1.0 + self.alpha

    def forward(self, batch: Any, features: Tensor) -> Tensor:
        return 1.0 + self.alpha[batch.items]

    @torch.no_grad()
    def project(self) -> None:
        self.alpha.clamp_(self.low - 1.0, self.high - 1.0)


class InstanceNet(Weights):
    """w_i = 2 sigmoid(net(x_i)): a small network that reads what the model says of a trajectory.

    DreamPRM-1.5 (arXiv 2509.05542), there without the factor, which makes weights start at 1.0
    (the last layer starts at zero). It has no table, so it weighs trajectories that it never saw.

    Args:
        features: width of x_i.
        hidden: width of the hidden layer (10 in DreamPRM-1.5's code).
    """

    def __init__(self, features: int, hidden: int = 10) -> None:
        super().__init__()
        last = nn.Linear(hidden, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(nn.Linear(features, hidden), nn.Tanh(), last)

    def forward(self, batch: Any, features: Tensor) -> Tensor:
        w: Tensor = 2.0 * self.net(features)[:, 0].sigmoid()
        return w


class FixedWeights(Weights):
    """Weights that are given: learned before, planted, or of a selection baseline.

    Args:
        table: weight of each trajectory, (trajectories,).
        by_domain: each domain's trajectories share one.
    """

    def __init__(self, table: Tensor, by_domain: bool = False) -> None:
        super().__init__()
        self.register_buffer("w", table)
        self.by_domain = by_domain

    def forward(self, batch: Any, features: Tensor) -> Tensor:
        return self.get_buffer("w")[batch.items]


class LabelCorrection(nn.Module):
    """Monte Carlo labels as upper-level variables (DreamPRM-Code, arXiv 2512.15000).

    p'_is = p_is + delta_is, kept in [0, 1]; delta starts at zero.

    Args:
        labels: p of all trajectories, (trajectories, steps).
    """

    is_table = True

    def __init__(self, labels: Tensor) -> None:
        super().__init__()
        self.register_buffer("given", labels)
        self.delta = nn.Parameter(torch.zeros_like(labels))

    def forward(self, batch: Any) -> Tensor:
        """Labels of a micro-batch with gradient to delta, (B, steps)."""
        return self.table()[batch.items][:, : batch.labels.shape[1]]

    def table(self) -> Tensor:
        """All corrected labels, (trajectories, steps)."""
        return self.get_buffer("given") + self.delta

    def set_gradient(
        self, window: Sequence[Any], hypergradient: Sequence[Tensor], parallel: Parallel = SINGLE
    ) -> None:
        """Chain the derivatives by each micro-batch's labels, (B, steps), into that of delta."""
        self.delta.grad = None
        with torch.enable_grad():
            outputs = [self(batch) for batch in window]
        torch.autograd.backward(outputs, list(hypergradient))
        if self.delta.grad is not None:
            parallel.average([self.delta.grad])

    @torch.no_grad()
    def project(self) -> None:
        given = self.get_buffer("given")
        self.delta.copy_((given + self.delta).clamp(0.0, 1.0) - given)
