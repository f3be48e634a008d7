"""A classifier with noisy domains: small enough for exact checks of the bi-level loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dreamprm.bilevel import Bilevel, DomainWeights, Estimator, Weights

DOMAINS, SIZE = 4, 32


@dataclass(frozen=True)
class Batch:
    """Points of one domain; `items` numbers them over all domains."""

    domain: int
    items: Tensor
    x: Tensor
    labels: Tensor  # (B, 1)


class Classifier:
    """Each domain has its own label noise, the meta set has none."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1)).to(dtype)

    def lower_losses(self, batch: Batch, labels: Tensor | None = None) -> Tensor:
        y = batch.labels if labels is None else labels
        logits = self.model(batch.x)  # (B, 1)
        return F.binary_cross_entropy_with_logits(logits, y, reduction="none")[:, 0]

    def meta_loss(self, batch: Batch) -> Tensor:
        return self.lower_losses(batch).mean()


def make_batch(
    domain: int, size: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
) -> Batch:
    x = torch.randn(size, 6, generator=generator, dtype=dtype)
    clean = (x[:, :1] + x[:, 1:2] > 0).to(dtype)
    flip = torch.rand(size, 1, generator=generator, dtype=dtype) < 0.25 * domain
    labels = torch.where(flip, 1 - clean, clean)
    return Batch(domain, torch.arange(size) + domain * size, x, labels)


def uneven_weights(dtype: torch.dtype = torch.float64) -> DomainWeights:
    """Domain weights somewhere away from 1."""
    weights = DomainWeights(DOMAINS).to(dtype)
    with torch.no_grad():
        weights.alpha.copy_(torch.tensor([0.6, -0.8, 1.2, -0.4]))
    return weights


@dataclass(frozen=True)
class OfWindow:
    """d meta loss / d w of each micro-batch's trajectories, / d labels, and the meta loss."""

    instances: Tensor  # (steps * domains, B)
    labels: Tensor | None  # (steps * domains, B, 1)
    meta_loss: float

    @property
    def domains(self) -> Tensor:
        """D meta loss / d w_k, (domains,)."""
        return self.instances.view(-1, DOMAINS, self.instances.shape[1]).sum(dim=(0, 2))


def run_window(
    estimator: str | type[Estimator],
    *,
    dtype: torch.dtype = torch.float64,
    optimizer_name: str = "sgd",
    window: int = 1,
    warm_steps: int = 0,
    at: Any = "end",
    weights: Callable[[torch.dtype], Weights] = uneven_weights,
    labels: Callable[[], Any] | None = None,
    problem: Classifier | None = None,
) -> OfWindow:
    """Train `warm_steps` plainly, then watch one window with the estimator."""
    problem = problem or Classifier(dtype)
    parameters = problem.model.parameters()
    if optimizer_name == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(parameters, lr=0.1)
    else:
        optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.01)
    loop = Bilevel(
        problem.model,
        problem.lower_losses,
        problem.meta_loss,
        weights(dtype),
        labels=labels() if labels else None,
        optimizer=optimizer,
        window=window,
        meta_warmup=warm_steps,
        max_steps=warm_steps + window,
        estimator=estimator,
        meta_gradient_at=at,
        preconditioning="none" if optimizer_name == "sgd" else "adam",
        momentum="window" if at == "end" else "whole",
    )
    generator = torch.Generator().manual_seed(1)
    steps = [
        [make_batch(k, SIZE, generator, dtype) for k in range(DOMAINS)]
        for _ in range(warm_steps + window)
    ]
    meta = make_batch(0, 64, generator, dtype)
    for batches in steps:  # warm_steps must hold whole windows
        result = loop.step(batches, meta)
    assert result.hypergradient is not None and result.meta_loss is not None
    of_labels = result.hypergradient.labels
    return OfWindow(
        torch.stack(result.hypergradient.weights),
        torch.stack(of_labels) if of_labels else None,
        result.meta_loss,
    )
