"""What an estimator is given and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Problem(Protocol):
    """All that the method needs to know of a model and its data."""

    @property
    def model(self) -> nn.Module:
        """Its parameters that require gradients are phi, the lower level's variables."""
        ...

    def lower_loss(self, batch: Any) -> Tensor:
        """L_k: the unweighted loss of one micro-batch, which holds one domain only. Scalar."""
        ...

    def meta_loss(self, batch: Any) -> Tensor:
        """The meta loss of one meta batch. Scalar."""
        ...


@dataclass(frozen=True)
class LowerStep:
    """One lower step: phi <- optimiser(phi, sum_k (w_k / D) grad L_k) over D micro-batches.

    Attributes:
        domains: index of each micro-batch's domain; a domain may occur more than once.
        batches: the micro-batches.
        remaining: lower steps from this one to the window's end, this one included.
    """

    domains: tuple[int, ...]
    batches: tuple[Any, ...]
    remaining: int

    @property
    def share(self) -> float:
        """1 / D."""
        return 1.0 / len(self.domains)


@dataclass(frozen=True)
class Hypergradient:
    """Result of an estimator.

    Attributes:
        value: d meta loss / d w, (domains,); 0 for a domain that the window did not see.
        seen: True for the domains that the window saw, (domains,).
        meta_loss: value of the meta loss at the window's end.
    """

    value: Tensor
    seen: Tensor
    meta_loss: float


class Estimator(Protocol):
    """Watches a window of lower steps, then estimates the hypergradient."""

    def start_window(self) -> None:
        """Called before the window's first lower step."""
        ...

    def observe(self, index: int, gradient: list[Tensor | None]) -> None:
        """Called after the backward pass of a step's `index`-th micro-batch.

        `gradient` is grad L_k, unweighted, one tensor per trainable parameter (None: unused). The
        estimator may keep the tensors; the loop does not touch them again.
        """
        ...

    def after_step(self, step: LowerStep, scale: float) -> None:
        """Called after the optimiser moved; `scale`: factor of gradient clipping (1: none)."""
        ...

    def compute(self, w: Tensor, meta_batch: Any) -> Hypergradient:
        """The hypergradient at the window's end, for the weights w (domains,) of the window."""
        ...


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """phi: the parameters that the lower level moves, in a fixed order."""
    return [p for p in model.parameters() if p.requires_grad]


def meta_gradient(problem: Problem, meta_batch: Any) -> tuple[float, list[Tensor]]:
    """Meta loss and its gradient at the present phi, zeros for parameters that it does not use."""
    parameters = trainable(problem.model)
    loss = problem.meta_loss(meta_batch)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    gradient = [
        torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)
    ]
    return float(loss.detach()), gradient
