"""Implicit differentiation: what the lower level would converge to, not where a window went.

At a minimum of the lower objective F the hypergradient is

    d L_meta / d alpha = - d/d alpha < grad F, v >,     H v = grad L_meta,     H = Hessian of F.

`neumann` (Lorraine et al., arXiv 1911.02590) sums v = P sum_j (I - H P)^j grad L_meta, the first
term of which is what the unrolled estimators use; `conjugate_gradient` (Rajeswaran et al., arXiv
1909.04630) solves (H + damping) v = grad L_meta and stops where the curvature is not positive (if
that is at once, there is no upper step). H is
that of the window's last step at phi_end, one second-order pass per product; the final inner
products are those of `jvp`, over the whole window.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dreamprm.bilevel.hypergradient.base import Hypergradient, LowerStep, Problem, Upper, dot
from dreamprm.bilevel.hypergradient.direction import Settings, meta_gradient
from dreamprm.bilevel.hypergradient.per_trajectory import Jvp
from dreamprm.bilevel.hypergradient.products import differentiable_attention

Product = Callable[[list[Tensor]], list[Tensor]]
"""v -> H v."""


class Neumann(Jvp):
    """See the module's text; the arguments are those of `InnerProduct`."""

    def __init__(
        self, problem: Problem, optimizer: torch.optim.Optimizer, upper: Upper, settings: Settings
    ) -> None:
        super().__init__(problem, optimizer, upper, settings)
        self._window: list[LowerStep] = []
        self._jacobian: list[Tensor | float] = []

    def start_window(self, meta_batch: Any) -> None:
        self._window = []
        self._terms = []

    def observe(self, *_: Any) -> None:
        pass  # works at the window's end

    @torch.no_grad()
    def after_step(self, step: LowerStep) -> None:
        self._window.append(step)
        if step.remaining == 1:
            self._jacobian = list(self.direction.jacobian(len(self._window)))

    def compute(self, meta_batch: Any) -> Hypergradient:
        loss, gradient = meta_gradient(self.problem, meta_batch, self.settings.parallel)
        v = self.solve(gradient)
        if v is None:
            self._window = []
            return Hypergradient(None, loss)
        terms = [
            self._term(batch, features, v) * step.share
            for step in self._window
            for batch, features in zip(step.batches, step.features, strict=True)
        ]
        self._window = []
        return Hypergradient(-torch.stack(terms).sum(), loss)

    def solve(self, gradient: list[Tensor]) -> list[Tensor] | None:
        """v, one tensor per parameter; None where the curvature allows none."""
        h, p = self._curvature(), self._jacobian
        term = [g * factor for g, factor in zip(gradient, p, strict=True)]  # P (I - H P)^j g
        v = [t.clone() for t in term]
        for _ in range(self.settings.solver_steps):
            bent = h(term)
            term = [t - b * factor for t, b, factor in zip(term, bent, p, strict=True)]
            for total, t in zip(v, term, strict=True):
                total.add_(t)
        return v

    def _curvature(self) -> Product:
        """Products with the Hessian of the last step's objective, micro-batch by micro-batch."""
        step = self._window[-1]
        parameters = self.direction.parameters

        def product(v: list[Tensor]) -> list[Tensor]:
            total = [torch.zeros_like(p) for p in parameters]
            for batch, features in zip(step.batches, step.features, strict=True):
                w = self.upper.weights(batch, features)
                with torch.enable_grad(), differentiable_attention():
                    labels = self.upper.labels(batch)
                    corrected = None if labels is None else labels.detach()
                    losses = self.problem.lower_losses(batch, corrected).losses
                    loss = (w * losses).mean() * step.share
                    first = torch.autograd.grad(
                        loss, parameters, create_graph=True, allow_unused=True
                    )
                    found = torch.autograd.grad(dot(first, v), parameters, allow_unused=True)
                for held, part in zip(total, found, strict=True):
                    if part is not None:
                        held.add_(part)
            self.settings.parallel.average_gradients(total)
            return total

        return product


class ConjugateGradient(Neumann):
    """See the module's text."""

    def solve(self, gradient: list[Tensor]) -> list[Tensor] | None:
        h, damping = self._curvature(), self.settings.solver_damping
        v = [torch.zeros_like(g) for g in gradient]
        residual = [g.clone() for g in gradient]
        z = self._precondition(residual)
        direction, size = [part.clone() for part in z], dot(residual, z)
        for _ in range(self.settings.solver_steps):
            bent = [b.add_(d, alpha=damping) for b, d in zip(h(direction), direction, strict=True)]
            curvature = dot(direction, bent)
            if not curvature > 0:  # no minimum that way: keep what is solved (Steihaug)
                break
            length = float(size / curvature)
            for x, r, d, b in zip(v, residual, direction, bent, strict=True):
                x.add_(d, alpha=length)
                r.sub_(b, alpha=length)
            z = self._precondition(residual)
            size, before = dot(residual, z), size
            ratio = float(size / before)
            direction = [part + ratio * d for part, d in zip(z, direction, strict=True)]
        return v if any(bool(part.any()) for part in v) else None

    def _precondition(self, vector: list[Tensor]) -> list[Tensor]:
        return [part * factor for part, factor in zip(vector, self._jacobian, strict=True)]
