"""The upper level's optimisers: AdamW for a few shared variables, its kin for large tables.

A table has an entry per trajectory or per label, of which a window sees a few. AdamW would scale
each entry by its own few gradients, so that noise moves it as far as a signal does, and would go on
moving it long after its visit. Here all entries share one second moment, so that a hypergradient
counts by its size among the others, and an entry moves when it is visited.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from dreamprm.bilevel.weights import InstanceTable, UpperLevel


class TableAdam(torch.optim.Optimizer):
    """p <- p - lr (g / sqrt(vhat) + weight_decay p) where g is not 0; v: mean of g^2 over those.

    Args:
        parameters: tables; a gradient of exactly 0 means that an entry was not visited.
        lr: move of an entry whose hypergradient is as large as they are on average.
        beta: of the moving average v.
        weight_decay: decoupled, at each visit.
    """

    def __init__(
        self, parameters: list[nn.Parameter], lr: float, beta: float = 0.99, weight_decay: float = 0
    ) -> None:
        super().__init__(parameters, {"lr": lr, "beta": beta, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move the visited entries."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._move(p, group, self.state[p])

    def _move(self, p: nn.Parameter, group: dict[str, Any], state: dict[str, Any]) -> None:
        assert p.grad is not None
        visited = p.grad.ne(0)
        if not bool(visited.any()):
            return
        if not state:
            state["step"], state["exp_avg_sq"] = torch.zeros(()), torch.zeros_like(p.sum())
        state["step"] += 1
        square = (p.grad[visited] ** 2).mean()
        state["exp_avg_sq"].lerp_(square, 1 - group["beta"])
        vhat = state["exp_avg_sq"] / (1 - group["beta"] ** float(state["step"]))
        move = p.grad / vhat.sqrt().clamp(min=torch.finfo(p.dtype).tiny) + group["weight_decay"] * p
        p.sub_(torch.where(visited, group["lr"] * move, 0.0))


def make_upper_optimizer(
    upper: UpperLevel, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """`TableAdam` for what has an entry per trajectory or label, AdamW for anything else.

    An instance table beside corrected labels: both are tables. A network or domain weights beside
    corrected labels: AdamW moves all, as two optimisers would be one too many to explain.
    """
    parameters = list(upper.parameters()) or [nn.Parameter(torch.zeros(1))]  # fixed: none
    of_weights = list(upper.weighting.parameters())
    tables = isinstance(upper.weighting, InstanceTable) or not of_weights
    if tables and (of_weights or upper.correction is not None):
        return TableAdam(parameters, lr=lr, weight_decay=weight_decay)
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)
