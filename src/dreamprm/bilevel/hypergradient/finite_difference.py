"""The paper's estimator: a central difference of the lower losses along the meta gradient.

With v = P grad L_meta(phi_end) and epsilon = 0.01 / ||v|| (DARTS, arXiv 1806.09055, section 2.3),

    d L_meta / d w_k
        = - sum_u (1 / D_u) [L_k(phi_u + epsilon v) - L_k(phi_u - epsilon v)] / (2 epsilon).

It costs two more forward passes of every micro-batch and one copy of phi per step of the window
(the paper's code looks only at the last batch, at phi_end), and the two perturbed models must be
distinguishable at the parameters' precision: it breaks down on bf16 parameters.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dreamprm.bilevel.hypergradient.base import (
    Hypergradient,
    LowerStep,
    Problem,
    meta_gradient,
    trainable,
)
from dreamprm.bilevel.hypergradient.preconditioner import (
    Momentum,
    Preconditioning,
    step_jacobian,
)


class FiniteDifference:
    """See the module's text; the arguments are those of `InnerProduct`."""

    EPSILON = 0.01

    def __init__(
        self,
        problem: Problem,
        optimizer: torch.optim.Optimizer,
        preconditioning: Preconditioning = "adam",
        momentum: Momentum = "window",
    ) -> None:
        self.problem, self.optimizer = problem, optimizer
        self.preconditioning, self.momentum = preconditioning, momentum
        self.parameters = trainable(problem.model)
        self._steps: list[tuple[LowerStep, float, list[Tensor | float], list[Tensor]]] = []
        self._phi: list[Tensor] = []  # before the next step

    def start_window(self) -> None:
        self._steps.clear()
        self._phi = self._copy()

    def observe(self, index: int, gradient: list[Tensor | None]) -> None:
        pass  # works from losses

    @torch.no_grad()
    def after_step(self, step: LowerStep, scale: float) -> None:
        jacobian = step_jacobian(
            self.optimizer, self.parameters, self.preconditioning, step.remaining, self.momentum
        )
        self._steps.append((step, scale, jacobian, self._phi))
        self._phi = self._copy()

    def compute(self, w: Tensor, meta_batch: Any) -> Hypergradient:
        loss, gradient = meta_gradient(self.problem, meta_batch)
        value, seen = torch.zeros_like(w), torch.zeros_like(w, dtype=torch.bool)
        with torch.no_grad():
            for step, scale, jacobian, phi in self._steps:
                v = [g * p for g, p in zip(gradient, jacobian, strict=True)]
                norm = torch.stack([part.square().sum() for part in v]).sum().sqrt()
                epsilon = self.EPSILON / float(norm.clamp(min=1e-30))
                above = self._losses(step, phi, v, epsilon)
                below = self._losses(step, phi, v, -epsilon)
                for domain, high, low in zip(step.domains, above, below, strict=True):
                    value[domain] -= step.share * scale * (high - low) / (2 * epsilon)
                    seen[domain] = True
        return Hypergradient(value, seen, loss)

    def _copy(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.parameters]

    def _losses(
        self, step: LowerStep, phi: list[Tensor], v: list[Tensor], epsilon: float
    ) -> list[float]:
        """Losses of a step's micro-batches at phi + epsilon v; the model is restored exactly."""
        before = self._copy()
        for p, start, direction in zip(self.parameters, phi, v, strict=True):
            p.copy_(start + epsilon * direction)
        losses = [float(self.problem.lower_loss(batch)) for batch in step.batches]
        for p, old in zip(self.parameters, before, strict=True):
            p.copy_(old)
        return losses
