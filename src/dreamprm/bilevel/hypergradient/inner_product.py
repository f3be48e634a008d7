"""The default estimator: the hypergradient is an inner product, so compute it as one.

The lower objective is linear in w. After the lower steps of a window, each with D one-domain
micro-batches,

    d L_meta / d w_k = - < grad L_meta(phi_end), sum_u (1 / D_u) P_u grad L_k(phi_u) >,

where P_u is the optimiser's (diagonal) Jacobian, learning rate included. The gradients grad L_k are
there anyway after each micro-batch's backward pass, so all it costs is one stored vector per domain
and one meta gradient per window. For one SGD step this is exact; over a longer window it leaves out
how an earlier step changes the gradients of later ones (a term of second order in the learning
rate).

With `at: start` the meta gradient is that of the window's first phi. Then each grad L_k can be
multiplied as soon as it is there and only one vector is kept, at the price of a direction that is
up to a window old.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dreamprm.bilevel.hypergradient.base import Hypergradient, LowerStep, Problem, Upper, dot, local
from dreamprm.bilevel.hypergradient.direction import Direction, Settings, meta_gradient


class InnerProduct:
    """See the module's text.

    Args:
        problem: model and losses.
        optimizer: of the lower level.
        upper: weighs whole domains.
        settings: see `Settings`.
    """

    def __init__(
        self, problem: Problem, optimizer: torch.optim.Optimizer, upper: Upper, settings: Settings
    ) -> None:
        self.problem, self.upper, self.settings = problem, upper, settings
        self.direction = Direction(problem, optimizer, settings)
        self._start: tuple[float, list[Tensor] | None] = (0.0, None)
        self._pending: list[list[Tensor | None]] = []
        self._products: list[Tensor] = []
        self._moved: dict[int, list[Tensor | None]] = {}  # domain -> sum_u share P_u grad L_k
        self._leaf_of: dict[int, list[Tensor]] = {}  # domain -> its weights as variables, (B,)
        self._terms: list[Tensor] = []  # w_k share < u, grad L_k >

    def start_window(self, meta_batch: Any) -> None:
        self._pending, self._products, self._terms = [], [], []
        self._moved, self._leaf_of = {}, {}
        if self.settings.at == "start":
            self._start = self.direction.at_start(meta_batch)

    def observe(
        self, index: int, batch: Any, features: Tensor, gradient: Sequence[Tensor | None]
    ) -> None:
        if self.settings.at == "end":
            self._pending.append(list(gradient))
        elif self._start[1] is not None:
            self._products.append(dot(self._start[1], gradient))

    @torch.no_grad()
    def after_step(self, step: LowerStep) -> None:
        if self.settings.at == "start":
            for batch, features, product in zip(
                step.batches, step.features, self._products, strict=self._start[1] is not None
            ):
                w = self.upper.leaf(batch, features)
                with torch.enable_grad():
                    self._terms.append(w.mean() * self._whole(product) * step.share)
            self._products = []
            return
        for batch, features in zip(step.batches, step.features, strict=True):
            self._moved.setdefault(batch.domain, [None] * len(self.direction.parameters))
            self._leaf_of.setdefault(batch.domain, []).append(self.upper.leaf(batch, features))
        for i, factor in enumerate(self.direction.jacobian(step.remaining)):
            for batch, gradient in zip(step.batches, self._pending, strict=True):
                g, moved = gradient[i], self._moved[batch.domain]
                if g is None:
                    continue
                change = local(g).mul_(factor).mul_(step.share)
                held = moved[i]
                moved[i] = change if held is None else held.add_(change)
                gradient[i] = None
        self._pending = []

    def compute(self, meta_batch: Any) -> Hypergradient:
        if self.settings.at == "start":
            loss, _ = self._start
            if not self._terms:
                return Hypergradient(None, loss)
            return Hypergradient(-torch.stack(self._terms).sum(), loss)
        loss, v = meta_gradient(self.problem, meta_batch, self.settings.parallel)
        for domain, moved in self._moved.items():
            leaves = self._leaf_of[domain]
            # A domain that came up twice has one product; each visit carries its part.
            w = torch.stack([leaf.mean() for leaf in leaves]).mean()
            self._terms.append(w * self._whole(dot(v, moved)))
        self._moved = {}
        return Hypergradient(-torch.stack(self._terms).sum(), loss)

    def _whole(self, product: Tensor) -> Tensor:
        """A product of shards, so scaled that its mean over the processes is the whole product."""
        parallel = self.settings.parallel
        return product * parallel.world if parallel.sharded else product
