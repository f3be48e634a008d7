"""The oracle of the estimators: differentiate through the lower steps themselves.

The window is replayed from its start as one differentiable function of the weights, optimiser
included, and autograd does the rest. Exact, and as costly in memory as the window is long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dreamprm.bilevel.hypergradient import Estimator, Hypergradient, MicroBatch
from dreamprm.bilevel.per_trajectory import LossCall, differentiable_attention

Parameters = dict[str, Tensor]
Moments = dict[str, tuple[Tensor, Tensor, float]]  # exp_avg, exp_avg_sq, steps taken


class Unrolled(Estimator):
    """Follows AdamW, and SGD without momentum."""

    finest = 2

    def start(self, meta_batch: Any) -> None:
        sgd = (
            isinstance(self.optimizer, torch.optim.SGD) and not self.optimizer.defaults["momentum"]
        )
        assert sgd or isinstance(self.optimizer, torch.optim.AdamW)
        self._steps: list[tuple[Sequence[MicroBatch], dict[str, dict[str, Any]]]] = []
        named = dict(self.levels.model.named_parameters())
        self._phi = {n: p.detach().clone() for n, p in named.items() if p.requires_grad}
        self._moments: Moments = {}
        for name in self._phi:
            state = self.optimizer.state.get(named[name])
            if state and "exp_avg" in state:
                average, square = state["exp_avg"].clone(), state["exp_avg_sq"].clone()
                self._moments[name] = (average, square, float(state["step"]))

    def observe(self, micro: MicroBatch, gradient: list[Tensor | None]) -> None:
        pass  # takes its own gradients

    def after_step(self, micros: Sequence[MicroBatch], remaining: int) -> None:
        names = {id(p): n for n, p in self.levels.model.named_parameters()}
        settings = {
            names[id(p)]: {k: v for k, v in group.items() if k != "params"}
            for group in self.optimizer.param_groups
            for p in group["params"]
        }
        self._steps.append((micros, settings))

    def finish(self, meta_batch: Any) -> tuple[float, Hypergradient | None]:
        phi, moments = {n: p.requires_grad_() for n, p in self._phi.items()}, self._moments
        weights: list[Tensor] = []
        labels: list[Tensor] = []
        with torch.enable_grad(), differentiable_attention():
            for micros, settings in self._steps:
                objective = torch.zeros(())
                for micro in micros:
                    w = micro.w.detach().clone().requires_grad_()
                    p = None if micro.labels is None else micro.labels.clone().requires_grad_()
                    weights.append(w)
                    labels += [] if p is None else [p]
                    losses = self._call(phi, micro.batch, p)
                    objective = objective + (w * losses).mean() * micro.share
                parts = torch.autograd.grad(
                    objective, list(phi.values()), create_graph=True, allow_unused=True
                )
                taken = {n: g for n, g in zip(phi, parts, strict=True) if g is not None}
                phi, moments = self._update(phi, taken, moments, settings)
            meta = self._call(phi, meta_batch, meta=True)
        slopes = torch.autograd.grad(
            meta, [*weights, *labels], allow_unused=True, materialize_grads=True
        )
        of_weights, of_labels = slopes[: len(weights)], slopes[len(weights) :]
        return float(meta.detach()), Hypergradient(list(of_weights), list(of_labels))

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
            LossCall(self.levels), named, (batch, labels, meta)
        )
        return result
