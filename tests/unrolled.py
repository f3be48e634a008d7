"""The oracle: differentiate through the lower steps themselves.

The window is replayed from its start as one differentiable function of w, optimiser included, and
autograd does the rest. Exact, and as costly in memory as the window is long: tests and
`benchmarks/` hold the other estimators to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dreamprm.bilevel.hypergradient.base import Hypergradient, LowerStep, Problem, Upper
from dreamprm.bilevel.hypergradient.direction import Settings
from dreamprm.bilevel.hypergradient.products import LossCall, differentiable_attention
from dreamprm.errors import DreamPRMError

Parameters = dict[str, Tensor]
Moments = dict[str, tuple[Tensor, Tensor, float]]  # exp_avg, exp_avg_sq, steps taken


class Unrolled:
    """See the module's text; of the settings only `parallel` has a say, and must be one process."""

    def __init__(
        self, problem: Problem, optimizer: torch.optim.Optimizer, upper: Upper, settings: Settings
    ) -> None:
        plain_sgd = isinstance(optimizer, torch.optim.SGD) and not optimizer.defaults["momentum"]
        if not (plain_sgd or isinstance(optimizer, torch.optim.AdamW)):
            raise DreamPRMError("the unrolled oracle follows AdamW and SGD without momentum only")
        if settings.parallel.world > 1:
            raise DreamPRMError("the unrolled oracle runs on one process; use another estimator")
        self.problem, self.optimizer, self.upper = problem, optimizer, upper
        self._steps: list[LowerStep] = []
        self._groups: list[dict[str, dict[str, Any]]] = []
        self._start: tuple[Parameters, Moments] = ({}, {})

    def start_window(self, meta_batch: Any) -> None:
        self._steps.clear()
        self._groups.clear()
        named = dict(self.problem.model.named_parameters())
        start = {n: p.detach().clone() for n, p in named.items() if p.requires_grad}
        moments: Moments = {}
        for name in start:
            state = self.optimizer.state.get(named[name])
            if state and "exp_avg" in state:
                average, square = state["exp_avg"].clone(), state["exp_avg_sq"].clone()
                moments[name] = (average, square, float(state["step"]))
        self._start = (start, moments)

    def observe(
        self, index: int, batch: Any, features: Tensor, gradient: Sequence[Tensor | None]
    ) -> None:
        pass  # takes its own

    def after_step(self, step: LowerStep) -> None:
        names = {id(p): n for n, p in self.problem.model.named_parameters()}
        settings = {
            names[id(p)]: {k: v for k, v in group.items() if k != "params"}
            for group in self.optimizer.param_groups
            for p in group["params"]
            if id(p) in names
        }
        self._steps.append(step)
        self._groups.append(settings)

    def compute(self, meta_batch: Any) -> Hypergradient:
        phi, moments = {n: p.requires_grad_() for n, p in self._start[0].items()}, self._start[1]
        with torch.enable_grad(), differentiable_attention():
            for step, settings in zip(self._steps, self._groups, strict=True):
                objective = torch.zeros(())
                for batch, features in zip(step.batches, step.features, strict=True):
                    w, labels = self.upper.leaf(batch, features), self.upper.labels(batch)
                    objective = objective + (w * self._call(phi, batch, labels)).mean() * step.share
                found = torch.autograd.grad(
                    objective, list(phi.values()), create_graph=True, allow_unused=True
                )
                gradients = {n: g for n, g in zip(phi, found, strict=True) if g is not None}
                phi, moments = self._update(phi, gradients, moments, settings)
            meta = self._call(phi, meta_batch, meta=True)
        self._steps.clear()
        return Hypergradient(meta, float(meta.detach()))

    def _update(
        self,
        phi: Parameters,
        gradients: Parameters,
        moments: Moments,
        settings: dict[str, dict[str, Any]],
    ) -> tuple[Parameters, Moments]:
        """One step of the optimiser's rule (Loshchilov and Hutter, arXiv 1711.05101)."""
        new, kept = dict(phi), dict(moments)
        for name, g in gradients.items():
            s, p = settings[name], phi[name]
            if isinstance(self.optimizer, torch.optim.SGD):
                new[name] = p - s["lr"] * (g + s["weight_decay"] * p)
                continue
            b1, b2 = s["betas"]
            m, v, t = moments.get(name, (torch.zeros_like(p), torch.zeros_like(p), 0.0))
            m, v, t = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g, t + 1
            kept[name] = (m, v, t)
            # The square root has an infinite slope at 0, where AdamW does not move the parameter.
            root = (v / (1 - b2**t)).clamp(min=torch.finfo(v.dtype).tiny).sqrt()
            step = (m / (1 - b1**t)) / (root + s["eps"])
            new[name] = p * (1 - s["lr"] * s["weight_decay"]) - s["lr"] * step
        return new, kept

    def _call(
        self, phi: Parameters, batch: Any, labels: Tensor | None = None, meta: bool = False
    ) -> Tensor:
        """Losses of a batch, computed with phi in place of the model's own parameters."""
        named = {f"model.{name}": p for name, p in phi.items()}
        result: Tensor = torch.func.functional_call(
            LossCall(self.problem), named, (batch, labels, meta)
        )
        return result
