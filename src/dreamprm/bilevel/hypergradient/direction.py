"""u = P v: the direction in parameter space along which lower gradients are measured.

v is the meta gradient, P the optimiser's Jacobian. Every estimator but the oracle needs it: the
hypergradient of w_i is -(1 / D) < u, grad L_i >.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dreamprm.bilevel.hypergradient.base import Problem, gradients, local, trainable
from dreamprm.bilevel.hypergradient.preconditioner import (
    Momentum,
    Preconditioning,
    step_jacobian,
)
from dreamprm.bilevel.parallel import SINGLE, Parallel


@dataclass(frozen=True)
class Settings:
    """How an estimator takes the lower optimiser and its window into account.

    Attributes:
        preconditioning: `adam` for Adam and AdamW, `none` for SGD.
        momentum: of `adam`: `window` is what the oracle says, `whole` compares domains better.
        at: where v is taken: at the window's `end`, or at its `start`.
        solver_steps: of `neumann` and `conjugate_gradient`.
        solver_damping: of `conjugate_gradient`.
        parallel: the processes that share the work.
    """

    preconditioning: Preconditioning = "adam"
    momentum: Momentum = "window"
    at: str = "end"
    solver_steps: int = 5
    solver_damping: float = 0.01
    parallel: Parallel = SINGLE


def meta_gradient(
    problem: Problem, meta_batch: Any, parallel: Parallel = SINGLE
) -> tuple[float, list[Tensor]]:
    """Meta loss and v at the present phi, zeros for parameters that it does not use."""
    parameters = trainable(problem.model)
    # Each process holds the loss of all candidates with the gradient of its own; see `Parallel`.
    scale = float(parallel.world)
    backward = getattr(problem, "meta_backward", None)
    if backward is None:
        whole = problem.meta_loss(meta_batch)
        found, loss = gradients(whole * scale, parameters), float(whole.detach())
    else:  # a problem's own way, in less memory
        for p in parameters:
            p.grad = None
        loss = backward(meta_batch, scale)
        found = [p.grad for p in parameters]
        for p in parameters:
            p.grad = None
    v = [
        torch.zeros_like(local(p)) if g is None else local(g)
        for p, g in zip(parameters, found, strict=True)
    ]
    parallel.average_gradients(v)
    return loss, v


def copy_of(parameters: Sequence[torch.nn.Parameter]) -> list[Tensor]:
    """Phi as it is now (this process's shards)."""
    return [local(p.detach()).clone() for p in parameters]


@torch.no_grad()
def move_to(
    parameters: Sequence[torch.nn.Parameter],
    phi: Sequence[Tensor],
    direction: Sequence[Tensor] = (),
    by: float = 0.0,
) -> None:
    """Set the parameters to phi + by * direction; without a direction to phi, bit for bit."""
    for i, (p, origin) in enumerate(zip(parameters, phi, strict=True)):
        local(p.detach()).copy_(origin + by * direction[i] if direction else origin)


class Direction:
    """Takes v and P when the window calls for them.

    Args:
        problem: model and losses.
        optimizer: of the lower level.
        settings: see `Settings`.
    """

    def __init__(
        self, problem: Problem, optimizer: torch.optim.Optimizer, settings: Settings
    ) -> None:
        self.problem, self.optimizer, self.settings = problem, optimizer, settings
        self.parameters = trainable(problem.model)

    def jacobian(self, remaining: int = 1) -> Iterator[Tensor | float]:
        """P of the optimiser's last step, one entry per parameter, made as it is asked for."""
        s = self.settings
        return step_jacobian(
            self.optimizer, self.parameters, s.preconditioning, remaining, s.momentum
        )

    def at_start(self, meta_batch: Any) -> tuple[float, list[Tensor] | None]:
        """Meta loss and u before a window's first step; None before the optimiser has any state."""
        s = self.settings
        loss, v = meta_gradient(self.problem, meta_batch, s.parallel)
        if s.preconditioning == "adam" and not self.optimizer.state:
            return loss, None
        p = step_jacobian(self.optimizer, self.parameters, s.preconditioning, 1, "whole")
        return loss, [g.mul_(factor) for g, factor in zip(v, p, strict=True)]
