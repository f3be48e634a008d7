"""The upper level's variables: one weight per domain."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DomainWeights(nn.Module):
    """w_k = K softplus(alpha_k) / sum_j softplus(alpha_j): positive, mean 1, all 1.0 at the start.

    Fixing the mean keeps the weights from acting as a learning rate, which the lower optimiser
    already has; only how the domains compare is left to learn.

    Args:
        domains: names, in the order of the weight vector.
    """

    def __init__(self, domains: Sequence[str]) -> None:
        super().__init__()
        self.domains = tuple(domains)
        self.alpha = nn.Parameter(torch.zeros(len(self.domains)))

    def forward(self) -> Tensor:
        """The weights w, (domains,)."""
        positive = F.softplus(self.alpha)  # (domains,)
        w: Tensor = len(self.domains) * positive / positive.sum()
        return w

    def set_gradient(self, hypergradient: Tensor) -> None:
        """Chain d meta loss / d w, (domains,), into the gradient of alpha."""
        (self.alpha.grad,) = torch.autograd.grad(self(), self.alpha, hypergradient)

    def as_dict(self) -> dict[str, float]:
        return dict(zip(self.domains, self().tolist(), strict=True))
