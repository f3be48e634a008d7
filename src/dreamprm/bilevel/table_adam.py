"""The upper level's optimisers: AdamW for a few shared variables, its kin for large tables.

A table has an entry per trajectory or per label, of which a window sees a few. AdamW corrects the
bias of its moments by the number of all steps, which makes the first visit of an entry count up to
thirty times, and goes on moving an entry long after its visit. Here each entry has its own count of
visits and moves at its visits only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class TableAdam(torch.optim.Optimizer):
    """Adam (arXiv 1412.6980) whose steps are an entry's visits, with decoupled weight decay.

    Gradients are first divided by the moving mean of their size, because the squares of small
    hypergradients are 0 in fp32.

    A gradient of exactly 0 means that an entry was not visited; the second of the betas is that of
    the mean size too; the weight decay is decoupled, at each visit.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move the visited entries."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and bool(p.grad.any()):
                    self._move(p, p.grad, group, self.state[p])

    def _move(
        self, p: nn.Parameter, gradient: Tensor, group: dict[str, Any], state: dict[str, Any]
    ) -> None:
        if not state:
            state["step"], state["size"] = torch.zeros(()), torch.zeros_like(p.sum())
            for name in ("visits", "exp_avg", "exp_avg_sq"):
                state[name] = torch.zeros_like(p)
        b1, b2 = group["betas"]
        visited = gradient.ne(0)
        state["step"] += 1
        state["size"].lerp_(gradient[visited].abs().mean(), 1 - b2)
        g = gradient[visited] * (1 - b2 ** float(state["step"])) / state["size"]
        n = state["visits"][visited] + 1
        m = b1 * state["exp_avg"][visited] + (1 - b1) * g
        v = b2 * state["exp_avg_sq"][visited] + (1 - b2) * g * g
        state["visits"][visited], state["exp_avg"][visited], state["exp_avg_sq"][visited] = n, m, v
        move = (m / (1 - b1**n)) / ((v / (1 - b2**n)).sqrt() + 1e-8)
        p[visited] -= group["lr"] * (move + group["weight_decay"] * p[visited])
