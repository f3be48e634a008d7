"""The upper level's weights of training data: of domains, of trajectories, by a small network.

All share one rule: only how the weights compare is learned. A hypergradient that is the same for
all says "learn faster", which is the lower optimiser's business, so the weighted mean of the
window is taken out of it before it reaches alpha. A weight that the window did not see gets no push
that way either.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dreamprm.bilevel.parallel import SINGLE, Parallel


class Weighting(nn.Module, ABC):
    """w_i of each trajectory; its parameters are alpha.

    Attributes:
        by_domain: all trajectories of a micro-batch have the same weight.
    """

    by_domain = False

    def __init__(self) -> None:
        super().__init__()
        self._leaves: list[tuple[Tensor, Tensor]] = []

    @abstractmethod
    def forward(self, batch: Any, features: Tensor) -> Tensor:
        """Weights of a micro-batch with gradient to alpha, (B,)."""

    def start_window(self) -> None:
        self._leaves = []

    def leaf(self, batch: Any, features: Tensor) -> Tensor:
        """The same as a fresh variable for the estimator to differentiate by, (B,)."""
        with torch.enable_grad():
            w: Tensor = self(batch, features)
        variable = w.detach().requires_grad_()
        self._leaves.append((variable, w))
        return variable

    def leaves(self) -> list[Tensor]:
        """What was handed out in this window."""
        return [variable for variable, _ in self._leaves]

    def set_gradient(self, hypergradient: Sequence[Tensor], parallel: Parallel = SINGLE) -> None:
        """Chain d meta loss / d leaf, one tensor per leaf, into the gradients of alpha."""
        for p in self.parameters():
            p.grad = None
        if not self._leaves:
            return
        h = torch.cat(list(hypergradient))  # (trajectories of the window,)
        w = torch.cat(self.leaves()).detach()
        sums = parallel.total(torch.stack([(h * w).sum(), w.sum()]))
        # sum(h w) / sum(w): the direction in which all weights grow alike. Weights below zero could
        # make it infinite; then the plain mean has to do.
        common = sums[0] / sums[1] if sums[1] > 1e-6 * len(w) else parallel.mean(h.mean())
        outputs = [output for _, output in self._leaves]
        torch.autograd.backward(outputs, [g - common for g in hypergradient])
        found = [p.grad for p in self.parameters() if p.grad is not None]
        parallel.average(found)

    @torch.no_grad()
    def project(self) -> None:
        """Bring alpha back into its range after an upper step."""


class DomainWeights(Weighting):
    """w_k = K softplus(alpha_k) / sum_j softplus(alpha_j): positive, mean 1, all 1.0 at the start.

    Fixing the mean keeps the weights from acting as a learning rate, which the lower optimiser
    already has; only how the domains compare is left to learn.

    Args:
        domains: names, in the order of the weight vector.
    """

    by_domain = True

    def __init__(self, domains: Sequence[str]) -> None:
        super().__init__()
        self.domains = tuple(domains)
        self.alpha = nn.Parameter(torch.zeros(len(self.domains)))

    def table(self) -> Tensor:
        """The weights w, (domains,)."""
        positive = F.softplus(self.alpha)  # (domains,)
        w: Tensor = len(self.domains) * positive / positive.sum()
        return w

    def forward(self, batch: Any, features: Tensor) -> Tensor:
        return self.table()[batch.domain].expand(len(features))


class InstanceTable(Weighting):
    """One weight per trajectory, 1.0 at the start, clipped (DreamPRM-1.5, arXiv 2509.05542).

    w_i = 1 + alpha_i. Alpha is clipped after the step instead of w in the forward pass, so that a
    weight at the end of its range can come back.

    Args:
        count: trajectories.
        low, high: range of w.
    """

    def __init__(self, count: int, low: float, high: float) -> None:
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


class InstanceNet(Weighting):
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
        found: Tensor = 2.0 * self.net(features)[:, 0].sigmoid()
        return found


class FixedWeights(Weighting):
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
        found: Tensor = self.get_buffer("w")[batch.items]
        return found


class LabelCorrection(nn.Module):
    """Monte Carlo labels as upper-level variables (DreamPRM-Code, arXiv 2512.15000).

    p'_is = p_is + delta_is, kept in [0, 1]; delta starts at zero.

    Args:
        labels: p of all trajectories, (trajectories, steps).
    """

    def __init__(self, labels: Tensor) -> None:
        super().__init__()
        self.register_buffer("given", labels)
        self.delta = nn.Parameter(torch.zeros_like(labels))

    def forward(self, batch: Any) -> Tensor:
        """Labels of a micro-batch with gradient to delta, (B, steps)."""
        found: Tensor = (self.get_buffer("given") + self.delta)[batch.items]
        return found[:, : batch.labels.shape[1]]

    def table(self) -> Tensor:
        """All corrected labels, (trajectories, steps)."""
        return self.get_buffer("given") + self.delta

    @torch.no_grad()
    def project(self) -> None:
        given = self.get_buffer("given")
        self.delta.copy_((given + self.delta).clamp(0.0, 1.0) - given)


class UpperLevel(nn.Module):
    """All upper-level variables of a run.

    Args:
        weighting: of the trajectories.
        correction: of the labels, if they are learned.
        parallel: the processes that share the work.
    """

    def __init__(
        self,
        weighting: Weighting,
        correction: LabelCorrection | None = None,
        parallel: Parallel = SINGLE,
    ) -> None:
        super().__init__()
        self.weighting, self.correction, self.parallel = weighting, correction, parallel

    @property
    def estimator(self) -> str:
        """The cheapest estimator that tells these variables apart."""
        if self.correction is not None:
            return "jvp"
        return "inner_product" if self.weighting.by_domain else "ghost"

    def start_window(self) -> None:
        self.weighting.start_window()

    def leaf(self, batch: Any, features: Tensor) -> Tensor:
        return self.weighting.leaf(batch, features)

    def labels(self, batch: Any) -> Tensor | None:
        return None if self.correction is None else self.correction(batch)

    @torch.no_grad()
    def weights(self, batch: Any, features: Tensor) -> Tensor:
        """w_i of a micro-batch as they are now, (B,), without gradient."""
        w: Tensor = self.weighting(batch, features)
        return w

    @torch.no_grad()
    def corrected(self, batch: Any) -> Tensor | None:
        """Labels of a micro-batch as they are now; None: the batch's own."""
        return self.labels(batch)

    def hypergradient(self, surrogate: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """D meta loss / d w of each micro-batch of the window, and d meta loss / d delta."""
        leaves = self.weighting.leaves()
        delta = [] if self.correction is None else [self.correction.delta]
        found = torch.autograd.grad(
            surrogate, [*leaves, *delta], allow_unused=True, materialize_grads=True
        )
        return list(found[: len(leaves)]), found[-1] if delta else None

    def set_gradient(self, surrogate: Tensor) -> None:
        """Turn an estimator's result into gradients of alpha and delta."""
        of_weights, of_labels = self.hypergradient(surrogate)
        if any(p.requires_grad for p in self.weighting.parameters()):
            self.weighting.set_gradient(of_weights, self.parallel)
        if self.correction is not None and of_labels is not None:
            self.parallel.average([of_labels])
            self.correction.delta.grad = of_labels

    def project(self) -> None:
        self.weighting.project()
        if self.correction is not None:
            self.correction.project()
