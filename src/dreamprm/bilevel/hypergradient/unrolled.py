"""The oracle: differentiate through the lower steps themselves.

The window is replayed from its start as one differentiable function of w, optimiser included, and
autograd does the rest. Exact, and as costly in memory as the window is long: tests and
`benchmarks/` hold the other estimators to it. Attention kernels without a second derivative must be
avoided (load the backbone with `attn_implementation="eager"`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dreamprm.bilevel.hypergradient.base import Hypergradient, LowerStep, Problem
from dreamprm.bilevel.hypergradient.preconditioner import Momentum, Preconditioning
from dreamprm.errors import DreamPRMError

Parameters = dict[str, Tensor]
Moments = dict[str, tuple[Tensor, Tensor, float]]  # exp_avg, exp_avg_sq, steps taken


class Unrolled:
    """See the module's text; `preconditioning` and `momentum` have no say."""

    def __init__(
        self,
        problem: Problem,
        optimizer: torch.optim.Optimizer,
        preconditioning: Preconditioning = "adam",
        momentum: Momentum = "window",
    ) -> None:
        plain_sgd = isinstance(optimizer, torch.optim.SGD) and not optimizer.defaults["momentum"]
        if not (plain_sgd or isinstance(optimizer, torch.optim.AdamW)):
            raise DreamPRMError("the unrolled oracle follows AdamW and SGD without momentum only")
        self.problem, self.optimizer = problem, optimizer
        self._steps: list[tuple[LowerStep, float]] = []
        self._groups: list[dict[str, dict[str, Any]]] = []
        self._start: tuple[Parameters, Moments] = ({}, {})

    def start_window(self) -> None:
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

    def observe(self, index: int, gradient: list[Tensor | None]) -> None:
        pass  # takes its own

    def after_step(self, step: LowerStep, scale: float) -> None:
        names = {id(p): n for n, p in self.problem.model.named_parameters()}
        settings = {
            names[id(p)]: {k: v for k, v in group.items() if k != "params"}
            for group in self.optimizer.param_groups
            for p in group["params"]
            if id(p) in names
        }
        self._steps.append((step, scale))
        self._groups.append(settings)

    def compute(self, w: Tensor, meta_batch: Any) -> Hypergradient:
        w = w.detach().clone().requires_grad_()
        phi, moments = {n: p.requires_grad_() for n, p in self._start[0].items()}, self._start[1]
        seen = torch.zeros_like(w, dtype=torch.bool)
        for (step, scale), settings in zip(self._steps, self._groups, strict=True):
            objective = torch.zeros((), dtype=w.dtype)
            for domain, batch in zip(step.domains, step.batches, strict=True):
                loss = self._call(self.problem.lower_loss, phi, batch)
                objective = objective + step.share * w[domain] * loss
                seen[domain] = True
            found = torch.autograd.grad(
                objective, list(phi.values()), create_graph=True, allow_unused=True
            )
            gradients = {n: g * scale for n, g in zip(phi, found, strict=True) if g is not None}
            phi, moments = self._update(phi, gradients, moments, settings)
        meta = self._call(self.problem.meta_loss, phi, meta_batch)
        (value,) = torch.autograd.grad(meta, w)
        return Hypergradient(value, seen, float(meta.detach()))

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

    def _call(self, loss: Callable[[Any], Tensor], phi: Parameters, batch: Any) -> Tensor:
        """loss(batch), computed with phi in place of the model's own parameters."""
        wrapper = _Call(self.problem.model, loss)
        named = {f"model.{name}": p for name, p in phi.items()}
        result: Tensor = torch.func.functional_call(wrapper, named, (batch,))
        return result


class _Call(nn.Module):
    """Lets `functional_call` swap the model's parameters while one of the problem's losses runs."""

    def __init__(self, model: nn.Module, loss: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, batch: Any) -> Tensor:
        return self._loss(batch)
