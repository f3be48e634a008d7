"""Estimators that tell the trajectories of a micro-batch apart: `jvp` and `ghost`.

    d L_meta / d w_i = - (1 / D) (1 / B) < u, grad L_i >,     u = P grad L_meta.

`jvp` also has the derivative by the labels, which are inside L_i. With `at: start`, u is taken at
the window's start and each micro-batch is evaluated when its turn comes: nothing is kept but u.
With `at: end` the window's micro-batches are evaluated once u is known, each at the phi of its
step, of which a copy per step is kept. Either leaves out terms of second order in the learning
rate, as `inner_product` does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dreamprm.bilevel.hypergradient.base import (
    Hypergradient,
    LowerStep,
    Problem,
    Upper,
    dot,
    gradients,
)
from dreamprm.bilevel.hypergradient.direction import (
    Direction,
    Settings,
    copy_of,
    meta_gradient,
    move_to,
)
from dreamprm.bilevel.hypergradient.products import ghost_products, jvp_losses
from dreamprm.errors import DreamPRMError


class PerTrajectory(ABC):
    """What `Jvp` and `Ghost` share; the arguments are those of `InnerProduct`."""

    def __init__(
        self, problem: Problem, optimizer: torch.optim.Optimizer, upper: Upper, settings: Settings
    ) -> None:
        if settings.parallel.sharded:
            raise DreamPRMError(
                f"estimator {type(self).__name__.lower()} needs whole parameters and cannot run on "
                "FSDP shards; use DDP, or estimator inner_product or finite_difference"
            )
        self.problem, self.upper, self.settings = problem, upper, settings
        self.direction = Direction(problem, optimizer, settings)
        self._start: tuple[float, list[Tensor] | None] = (0.0, None)
        self._steps: list[tuple[LowerStep, list[Tensor | float], list[Tensor]]] = []
        self._phi: list[Tensor] = []  # before the next step
        self._pending: list[Tensor] = []  # of the step under way, each before its share
        self._terms: list[Tensor] = []

    def start_window(self, meta_batch: Any) -> None:
        self._steps, self._pending, self._terms = [], [], []
        if self.settings.at == "start":
            self._start = self.direction.at_start(meta_batch)
        else:
            self._phi = copy_of(self.direction.parameters)

    def observe(
        self, index: int, batch: Any, features: Tensor, gradient: Sequence[Tensor | None]
    ) -> None:
        if self.settings.at == "start" and self._start[1] is not None:
            self._pending.append(self._term(batch, features, self._start[1]))

    def after_step(self, step: LowerStep) -> None:
        if self.settings.at == "end":
            with torch.no_grad():
                jacobian = list(self.direction.jacobian(step.remaining))
                self._steps.append((step, jacobian, self._phi))
            self._phi = copy_of(self.direction.parameters)
        self._terms += [term * step.share for term in self._pending]
        self._pending = []

    def compute(self, meta_batch: Any) -> Hypergradient:
        loss = self._start[0]
        if self.settings.at == "end":
            loss, v = meta_gradient(self.problem, meta_batch, self.settings.parallel)
            for step, p, phi in self._steps:
                u = [g * factor for g, factor in zip(v, p, strict=True)]
                move_to(self.direction.parameters, phi)
                for batch, features in zip(step.batches, step.features, strict=True):
                    self._terms.append(self._term(batch, features, u) * step.share)
            move_to(self.direction.parameters, self._phi)
            self._steps, self._phi = [], []
        if not self._terms:
            return Hypergradient(None, loss)
        return Hypergradient(-torch.stack(self._terms).sum(), loss)

    def _term(self, batch: Any, features: Tensor, u: list[Tensor]) -> Tensor:
        """mean_i w_i < u, grad L_i > of a micro-batch, as a function of alpha."""
        w = self.upper.leaf(batch, features)
        products = self.products(batch, u)
        with torch.enable_grad():
            return (w * products).mean()

    @abstractmethod
    def products(self, batch: Any, u: list[Tensor]) -> Tensor:
        """< u, grad L_i >, (B,)."""


class Jvp(PerTrajectory):
    """By forward-mode differentiation."""

    def products(self, batch: Any, u: list[Tensor]) -> Tensor:
        with torch.enable_grad():
            labels = self.upper.labels(batch)
        return jvp_losses(self.problem, batch, u, labels)[1]


class Ghost(PerTrajectory):
    """By ghost products. The first micro-batch of a run is checked against its gradient."""

    TOLERANCE = 0.02
    _checked = False

    def products(self, batch: Any, u: list[Tensor]) -> Tensor:
        owners = getattr(self.problem, "owners", None)
        found = ghost_products(
            self.problem, batch, u, None if owners is None else lambda out: owners(batch, out)
        )
        if not self._checked:
            self._check(batch, u, found)
            self._checked = True
        return found

    def _check(self, batch: Any, u: list[Tensor], found: Tensor) -> None:
        """The products' sum is that of the whole batch, unless a parameter escaped the hooks."""
        with torch.enable_grad():
            loss = self.problem.lower_losses(batch).losses.sum()
            whole = dot(u, gradients(loss, self.direction.parameters))
        difference = float((found.sum() - whole).abs())
        size = max(float(whole.abs()), float(found.abs().sum()), 1e-30)
        if difference > self.TOLERANCE * size:
            raise DreamPRMError(
                f"ghost: the products of the trajectories sum to {float(found.sum()):.4g}, their "
                f"common gradient gives {float(whole):.4g}: this model uses a parameter outside "
                "its module; use estimator jvp"
            )
