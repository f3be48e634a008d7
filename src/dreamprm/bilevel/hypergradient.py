"""The hypergradient is an inner product.

The lower objective is linear in the weights. One lower step over D micro-batches (b = 1..D), each
with B trajectories (i = 1..B) of losses L_i, moves the parameters phi to

    phi' = phi - P (1 / D) sum_b (1 / B) sum_i w_i grad L_i(phi),

where P = -d phi' / d gradient is the optimiser's Jacobian (`jacobian.py`; for SGD the learning
rate). So the meta loss after the step changes with a weight as

    d L_meta / d w_i = - (1 / D) (1 / B) < u, grad L_i(phi) >,      u = P grad L_meta(phi').

In the code: the minus and 1 / B are in `finish`, 1 / D and the factor of clipping in
`MicroBatch.share`, the learning rate in P. Nothing is differentiated twice. Where a micro-batch
holds one domain and its trajectories share one weight, their mean gradient is there anyway after
the backward pass, and the product with u is all that has to be done (`InnerProduct`). Weights of
single trajectories need < u, grad L_i > of each (`per_trajectory.py`). For one step of SGD or
AdamW without clipping, with u taken at the end and momentum cut at the window, this is exact; over
several steps it leaves out how an earlier step changes the gradients of later ones, a term of
second order in the learning rate.

An estimator watches the lower steps of a window and then returns, for each micro-batch of the
window, d meta loss / d w of its trajectories (and d meta loss / d label, where labels are learned).
There are two times at which u can be taken. At the window's `end` it is the u of the equation, and
something of every micro-batch has to be kept until then. At the `start` u is known before the first
step, each product is taken as soon as a gradient is there, and only u is kept; it is then up to a
window old. Training takes it at the start, which costs less memory and learned no worse.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dreamprm.bilevel.jacobian import Momentum, Preconditioning, step_jacobian
from dreamprm.bilevel.parallel import SINGLE, Parallel
from dreamprm.bilevel.parameters import dot, gradients, local, taken_gradients, trainable


@dataclass(frozen=True)
class Levels:
    """A model with the losses of both levels: what the method knows of a user's task.

    Attributes:
        model: its parameters that require gradients are phi.
        lower_losses: (micro-batch, labels) -> L_i of each trajectory, (B,), unweighted; or a pair
            of these and the features, (B, features), that an `InstanceNet` reads (without them it
            reads the losses). `labels` is given where labels are learned, in place of the batch's.
        meta_loss: meta batch -> scalar.
        meta_backward: (meta batch, scale) -> float: adds the gradient of scale * meta loss to
            `.grad` and returns the loss, for those who can do it in less memory.
        row_owners: (micro-batch, output of a module) -> index of the trajectory of each row of the
            output, (rows,), or None where it cannot be told; for `Ghost`. By default row i is
            trajectory i.
    """

    model: nn.Module
    lower_losses: Callable[..., Tensor | tuple[Tensor, Tensor]]
    meta_loss: Callable[[Any], Tensor]
    meta_backward: Callable[[Any, float], float] | None = None
    row_owners: Callable[[Any, Tensor], Tensor | None] | None = None

    def losses(self, batch: Any, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """L_i of a micro-batch, (B,), and detached features, (B, features)."""
        output = self.lower_losses(batch) if labels is None else self.lower_losses(batch, labels)
        losses, features = output if isinstance(output, tuple) else (output, output[:, None])
        return losses, features.detach()


@dataclass
class MicroBatch:
    """What a window keeps of a micro-batch.

    Attributes:
        batch: trajectories of one domain.
        features: of the trajectories when the step was taken, (B, features).
        w: their weights, (B,).
        labels: their corrected labels; None: the batch's own.
        share: factor of the micro-batch's gradient in the step: 1 / D, times that of clipping.
    """

    batch: Any
    features: Tensor
    w: Tensor
    labels: Tensor | None
    share: float


@dataclass(frozen=True)
class Hypergradient:
    """Result of an estimator, one entry per micro-batch of the window in the order of training.

    Attributes:
        weights: d meta loss / d w of each micro-batch's trajectories, (B,).
        labels: d meta loss / d label, (B, steps); empty where labels are not learned.
    """

    weights: list[Tensor]
    labels: list[Tensor]


@dataclass(frozen=True)
class Settings:
    """How an estimator takes the optimiser and the window into account.

    Attributes:
        at: when u is taken, at the window's `start` or `end` (`FiniteDifference`: always the end).
        preconditioning: `adam` for Adam and AdamW, `none` for SGD.
        momentum: `whole` or `window`, see `jacobian.py`; at the start always whole.
        parallel: the processes that share the work.
    """

    at: Literal["start", "end"] = "start"
    preconditioning: Preconditioning = "adam"
    momentum: Momentum = "whole"
    parallel: Parallel = SINGLE


class Estimator(ABC):
    """Watches a window of lower steps, then returns the hypergradient.

    Attributes:
        finest: what it can tell apart: 0 domains, 1 trajectories, 2 labels of steps.
    """

    finest = 0

    def __init__(
        self, levels: Levels, optimizer: torch.optim.Optimizer, settings: Settings
    ) -> None:
        self.levels, self.optimizer, self.settings = levels, optimizer, settings
        self.parameters = trainable(levels.model)

    @abstractmethod
    def start(self, meta_batch: Any) -> None:
        """Called before the window's first lower step."""

    @abstractmethod
    def observe(self, micro: MicroBatch, gradient: list[Tensor | None]) -> None:
        """Called after the backward pass of a micro-batch, phi unchanged.

        `gradient` is that of mean_i L_i where `Weights.by_domain`, of mean_i w_i L_i otherwise. The
        estimator may keep and change its tensors.
        """

    @abstractmethod
    def after_step(self, micros: Sequence[MicroBatch], remaining: int) -> None:
        """Called after the optimiser's step; `p.grad` still holds the step's clipped gradient.

        Args:
            micros: the step's micro-batches, whose `share` is final now.
            remaining: lower steps from this one to the window's end, this one included.
        """

    @abstractmethod
    def finish(self, meta_batch: Any) -> tuple[float, Hypergradient | None]:
        """Meta loss and hypergradient, at the window's end.

        None for the hypergradient where the optimiser had no state to take a direction with.
        """

    def meta_gradient(self, meta_batch: Any) -> tuple[float, list[Tensor]]:
        """Meta loss and its gradient at the present phi, averaged over processes."""
        parallel = self.settings.parallel
        # A process's gradient covers its own candidates only; average * world is the sum.
        scale = float(parallel.world)
        if self.levels.meta_backward is None:
            whole = self.levels.meta_loss(meta_batch)
            parts, loss = gradients(whole * scale, self.parameters), float(whole.detach())
        else:
            taken_gradients(self.parameters)  # so that `.grad` is empty
            loss = self.levels.meta_backward(meta_batch, scale)
            parts = taken_gradients(self.parameters)
        v = [
            torch.zeros_like(local(p)) if g is None else local(g)
            for p, g in zip(self.parameters, parts, strict=True)
        ]
        parallel.average_gradients(v)
        return loss, v

    def direction_at_start(self, meta_batch: Any) -> tuple[float, list[Tensor] | None]:
        """Meta loss and u before the window; u is None before the optimiser has any state."""
        loss, v = self.meta_gradient(meta_batch)
        if self.settings.preconditioning == "adam" and not self.optimizer.state:
            return loss, None
        jacobian = step_jacobian(
            self.optimizer, self.parameters, self.settings.preconditioning, "whole"
        )
        return loss, [g.mul_(factor) for g, factor in zip(v, jacobian, strict=True)]


class InnerProduct(Estimator):
    """Weights of domains: < u, grad L_k > with the gradient that training has anyway."""

    def start(self, meta_batch: Any) -> None:
        self._micros: list[MicroBatch] = []
        self._products: list[Tensor] = []  # < u, grad L_k > of each micro-batch
        self._gradients: list[list[Tensor | None]] = []  # of the step under way
        self._moved: dict[int, list[Tensor | None]] = {}  # domain -> sum of share P grad L_k
        self._u: list[Tensor] | None = None
        if self.settings.at == "start":
            self._meta_loss, self._u = self.direction_at_start(meta_batch)

    def observe(self, micro: MicroBatch, gradient: list[Tensor | None]) -> None:
        if self.settings.at == "end":
            self._gradients.append(gradient)
        elif self._u is not None:
            self._products.append(self._scaled(dot(self._u, gradient)))

    @torch.no_grad()
    def after_step(self, micros: Sequence[MicroBatch], remaining: int) -> None:
        self._micros += micros
        if self.settings.at == "start":
            return
        for micro in micros:
            self._moved.setdefault(micro.batch.domain, [None] * len(self.parameters))
        s = self.settings
        jacobian = step_jacobian(
            self.optimizer, self.parameters, s.preconditioning, s.momentum, remaining
        )
        for i, factor in enumerate(jacobian):
            for micro, gradient in zip(micros, self._gradients, strict=True):
                g, moved = gradient[i], self._moved[micro.batch.domain]
                if g is None:
                    continue
                change = local(g).mul_(factor).mul_(micro.share)
                before = moved[i]
                moved[i] = change if before is None else before.add_(change)
                gradient[i] = None
        self._gradients = []

    def finish(self, meta_batch: Any) -> tuple[float, Hypergradient | None]:
        if self.settings.at == "start":
            if self._u is None:
                return self._meta_loss, None
            pairs = zip(self._micros, self._products, strict=True)
            return self._meta_loss, _evenly([(m, -product * m.share) for m, product in pairs])
        meta_loss, v = self.meta_gradient(meta_batch)
        of_domain = {k: -self._scaled(dot(v, moved)) for k, moved in self._moved.items()}
        visits = [m.batch.domain for m in self._micros]
        parts = [of_domain[k] / visits.count(k) for k in visits]  # its mean over the visits
        self._moved = {}
        return meta_loss, _evenly(list(zip(self._micros, parts, strict=True)))

    def _scaled(self, product: Tensor) -> Tensor:
        """A product of shards, scaled so that its mean over the processes is the whole product."""
        parallel = self.settings.parallel
        return product * parallel.world if parallel.sharded else product


def _evenly(of_micros: list[tuple[MicroBatch, Tensor]]) -> Hypergradient:
    """The derivative of a weight that B trajectories share, as 1 / B of it for each."""
    return Hypergradient([(h / len(m.w)).to(m.w).expand(len(m.w)) for m, h in of_micros], [])
