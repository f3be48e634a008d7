"""The default estimator: the hypergradient is an inner product, so compute it as one.

The lower objective is linear in w. After the lower steps of a window, each with D one-domain
micro-batches,

    d L_meta / d w_k = - < grad L_meta(phi_end), sum_u (1 / D_u) P_u grad L_k(phi_u) >,

where P_u is the optimiser's (diagonal) Jacobian, learning rate included. The gradients grad L_k are
there anyway after each micro-batch's backward pass, so all it costs is one stored vector per domain
and one meta gradient per window. For one SGD step this is exact; over a longer window it leaves out
how an earlier step changes the gradients of later ones (a term of second order in the learning
rate).
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


class InnerProduct:
    """See the module's text.

    Args:
        problem: model and losses.
        optimizer: of the lower level.
        preconditioning: `adam` for Adam and AdamW, `none` for SGD.
        momentum: of `adam`: `window` is what the oracle says, `whole` compares domains better.
    """

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
        self._pending: dict[int, list[Tensor | None]] = {}
        self._moved: dict[int, list[Tensor | None]] = {}  # domain -> sum_u P_u g_k / D_u

    def start_window(self) -> None:
        self._pending.clear()
        self._moved.clear()

    def observe(self, index: int, gradient: list[Tensor | None]) -> None:
        self._pending[index] = gradient

    @torch.no_grad()
    def after_step(self, step: LowerStep, scale: float) -> None:
        jacobian = step_jacobian(
            self.optimizer, self.parameters, self.preconditioning, step.remaining, self.momentum
        )
        for index, domain in enumerate(step.domains):
            moved = self._moved.setdefault(domain, [None] * len(self.parameters))
            for i, (gradient, p) in enumerate(zip(self._pending[index], jacobian, strict=True)):
                if gradient is None:
                    continue
                change = gradient.mul_(p).mul_(step.share * scale)
                held = moved[i]
                moved[i] = change if held is None else held.add_(change)
        self._pending.clear()

    def compute(self, w: Tensor, meta_batch: Any) -> Hypergradient:
        loss, v = meta_gradient(self.problem, meta_batch)
        value, seen = torch.zeros_like(w), torch.zeros_like(w, dtype=torch.bool)
        for domain, moved in self._moved.items():
            products = [(a * b).sum() for a, b in zip(v, moved, strict=True) if b is not None]
            value[domain] = -torch.stack(products).sum() if products else 0.0
            seen[domain] = True
        return Hypergradient(value, seen, loss)
