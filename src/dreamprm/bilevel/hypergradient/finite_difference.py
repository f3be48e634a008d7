"""The paper's estimator: a central difference of the lower objective along the meta gradient.

With u = P grad L_meta(phi_end) and epsilon = 0.01 / ||u|| (DARTS, arXiv 1806.09055, section 2.3),

    d L_meta / d alpha
        = - sum_u d/d alpha [F_u(phi_u + epsilon u) - F_u(phi_u - epsilon u)] / (2 epsilon),

where F_u(phi) = 1/D sum_b mean_i w_i L_i(phi) is the lower objective of step u. It costs two more
forward passes of every micro-batch and one copy of phi per step of the window (the paper's code
looks only at the last batch, at phi_end), and the two perturbed models must be distinguishable at
the parameters' precision: it breaks down on bf16 parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dreamprm.bilevel.hypergradient.base import Hypergradient, LowerStep, Problem, Upper
from dreamprm.bilevel.hypergradient.direction import (
    Direction,
    Settings,
    copy_of,
    meta_gradient,
    move_to,
)


class FiniteDifference:
    """See the module's text; the arguments are those of `InnerProduct`."""

    EPSILON = 0.01

    def __init__(
        self, problem: Problem, optimizer: torch.optim.Optimizer, upper: Upper, settings: Settings
    ) -> None:
        self.problem, self.upper, self.settings = problem, upper, settings
        self.direction = Direction(problem, optimizer, settings)
        self.parameters = self.direction.parameters
        self._steps: list[tuple[LowerStep, list[Tensor | float], list[Tensor]]] = []
        self._phi: list[Tensor] = []  # before the next step

    def start_window(self, meta_batch: Any) -> None:
        self._steps.clear()
        self._phi = copy_of(self.parameters)

    def observe(
        self, index: int, batch: Any, features: Tensor, gradient: Sequence[Tensor | None]
    ) -> None:
        pass  # works from losses

    @torch.no_grad()
    def after_step(self, step: LowerStep) -> None:
        self._steps.append((step, list(self.direction.jacobian(step.remaining)), self._phi))
        self._phi = copy_of(self.parameters)

    def compute(self, meta_batch: Any) -> Hypergradient:
        parallel = self.settings.parallel
        loss, v = meta_gradient(self.problem, meta_batch, parallel)
        terms: list[Tensor] = []
        before = copy_of(self.parameters)
        for step, p, phi in self._steps:
            u = [g * factor for g, factor in zip(v, p, strict=True)]
            epsilon = self.EPSILON / max(float(parallel.norm(u)), 1e-30)
            leaves = [
                self.upper.leaf(b, x) for b, x in zip(step.batches, step.features, strict=True)
            ]
            for sign in (1.0, -1.0):
                move_to(self.parameters, phi, u, sign * epsilon)
                for batch, w in zip(step.batches, leaves, strict=True):
                    losses = self._losses(batch)
                    terms.append((w * losses).mean() * step.share * sign / (2 * epsilon))
        move_to(self.parameters, before)
        self._steps.clear()
        return Hypergradient(-torch.stack(terms).sum(), loss)

    def _losses(self, batch: Any) -> Tensor:
        """L_i with gradient to corrected labels only."""
        labels = self.upper.labels(batch)
        with torch.set_grad_enabled(labels is not None):
            for p in self.parameters:
                p.requires_grad_(False)
            try:
                return self.problem.lower_losses(batch, labels).losses
            finally:
                for p in self.parameters:
                    p.requires_grad_(True)
