"""P: how far a change of the gradient moves the parameters, for the optimiser in use.

P = -d phi' / d g is positive. For SGD it is the learning rate eta. For AdamW it is diagonal (SAMA,
arXiv 2310.05674): with phi' = phi - eta mhat / (sqrt(vhat) + eps),

    P = eta [ (1 - b1) / c1 / (sqrt(vhat) + eps)
              - mhat (1 - b2) g / (c2 sqrt(vhat) (sqrt(vhat) + eps)^2) ],

with c1 = 1 - b1^t and c2 = 1 - b2^t. A gradient g also moves later steps, because the moments keep
a part of it. Over the r steps that are left of the window the first term's (1 - b1) / c1 becomes a
sum of b1^i (1 - b1) / (1 - b1^(t + i)), i < r, and the second's likewise, taking the second moment
to be steady within a window. Momentum goes on past the window's end, and there are two ways to
count that:

- `window` cuts it off there, which is exact for what the window does. A domain that came up in the
  last step of a window then counts 1 - b1 = 0.1 and one that came up two steps earlier 0.27, by
  chance.
- `whole` counts everything that a gradient will ever move, so that each counts 1. Training uses
  this one. It leaves the second term out: later it is about a hundredth of the first, but in the
  first three steps of a fresh optimiser it is larger than the first and changes the sign.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from dreamprm.bilevel.parameters import local

Preconditioning = Literal["none", "adam"]
Momentum = Literal["window", "whole"]


def step_jacobian(
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    preconditioning: Preconditioning,
    momentum: Momentum = "window",
    remaining: int = 1,
) -> Iterator[Tensor | float]:
    """Diagonal of -d phi_end / d g for the optimiser's last step, one entry per parameter.

    Args:
        optimizer: just after its step, with the gradient of that step in `p.grad` (for `whole` its
            state is enough).
        parameters: phi, in order.
        preconditioning: `none`: the learning rate alone (exact for SGD); `adam`: AdamW.
        momentum: how much of a gradient's life in the first moment counts; see above.
        remaining: steps until the end of the window, the last step included (`window` only).

    Yields:
        Per parameter a tensor of its shape, or a plain factor; one at a time, so that a caller that
        needs each once does not hold a vector as large as the model.
    """
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    for p in parameters:
        group = groups[id(p)]
        lr = float(group["lr"])
        if preconditioning == "none":
            yield lr
            continue
        state = optimizer.state.get(p)
        if not state:  # never had a gradient: the optimiser does not move it
            yield 0.0
            continue
        b1, b2 = group["betas"]
        t = float(state["step"])
        c1, c2 = 1 - b1**t, 1 - b2**t
        root = (local(state["exp_avg_sq"]) / c2).sqrt()  # sqrt(vhat)
        below = root + group["eps"]
        first = 1.0
        if momentum == "window":
            first = sum((1 - b1) * b1**i / (1 - b1 ** (t + i)) for i in range(remaining))
        # Where vhat is 0 the gradient has always been 0, as for tokens that nothing used yet. There
        # 1 / eps would let the first gradient drown all others.
        diagonal = torch.where(root > 0, first / below, 0.0)
        if p.grad is not None and momentum == "window":
            second = sum((1 - b2) * b2**i / (1 - b2 ** (t + i)) for i in range(remaining))
            mhat = local(state["exp_avg"]) / c1
            steep = mhat * local(p.grad) * second / (root.clamp(min=1e-30) * below**2)
            diagonal = diagonal - torch.where(root > 0, steep, 0.0)
        yield lr * diagonal
