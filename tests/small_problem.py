"""A classifier with noisy domains as a bi-level problem: small enough for exact checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dreamprm.bilevel.hypergradient import ESTIMATORS, Hypergradient, LowerStep, Settings
from dreamprm.bilevel.hypergradient.base import LowerOutput, gradients, trainable
from dreamprm.bilevel.weights import DomainWeights, UpperLevel, Weighting

DOMAINS, SIZE = 4, 32


@dataclass(frozen=True)
class Batch:
    """Points of one domain; `items` numbers them over all domains."""

    domain: int
    items: Tensor
    x: Tensor
    labels: Tensor  # (B, 1)


@dataclass
class Classifier:
    """Each domain has its own label noise, the meta set has none."""

    model: nn.Module

    def lower_losses(self, batch: Batch, labels: Tensor | None = None) -> LowerOutput:
        y = batch.labels if labels is None else labels
        logits = self.model(batch.x)  # (B, 1)
        return LowerOutput(F.binary_cross_entropy_with_logits(logits, y, reduction="none")[:, 0])

    def meta_loss(self, batch: Batch) -> Tensor:
        return self.lower_losses(batch).losses.mean()


def make_problem(dtype: torch.dtype = torch.float64, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1)).to(dtype))


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
    weights = DomainWeights([f"d{k}" for k in range(DOMAINS)]).to(dtype)
    with torch.no_grad():
        weights.alpha.copy_(torch.tensor([0.6, -0.8, 1.2, -0.4]))
    return weights


@dataclass(frozen=True)
class Found:
    """d meta loss / d w of each micro-batch's trajectories, / d label, and the meta loss."""

    instances: Tensor  # (steps * domains, B)
    labels: Tensor | None
    meta_loss: float

    @property
    def domains(self) -> Tensor:
        """D meta loss / d w_k, (domains,)."""
        return self.instances.view(-1, DOMAINS, self.instances.shape[1]).sum(dim=(0, 2))


def run_window(
    name: str,
    *,
    dtype: torch.dtype = torch.float64,
    optimizer_name: str = "sgd",
    window: int = 1,
    warm_steps: int = 0,
    at: str = "end",
    lr: float | None = None,
    weighting: Callable[[torch.dtype], Weighting] = uneven_weights,
    correction: Callable[[], Any] | None = None,
    estimator: Any = None,
    solver_steps: int = 5,
) -> Found:
    """Train `warm_steps` plainly, then watch one window with the estimator of that name."""
    problem = make_problem(dtype)
    parameters = trainable(problem.model)
    if optimizer_name == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(parameters, lr=lr or 0.1)
    else:
        optimizer = torch.optim.AdamW(parameters, lr=lr or 2e-3, weight_decay=0.01)
    upper = UpperLevel(weighting(dtype), correction() if correction else None)
    settings = Settings(
        preconditioning="none" if optimizer_name == "sgd" else "adam",
        at=at,
        solver_steps=solver_steps,
    )
    watcher = (estimator or ESTIMATORS[name])(problem, optimizer, upper, settings)
    generator = torch.Generator().manual_seed(1)
    steps = [
        [make_batch(k, SIZE, generator, dtype) for k in range(DOMAINS)]
        for _ in range(warm_steps + window)
    ]
    meta = make_batch(0, 64, generator, dtype)
    for number, batches in enumerate(steps):
        watching = number >= warm_steps
        if number == warm_steps:
            upper.start_window()
            watcher.start_window(meta)
        features = one_step(problem, upper, optimizer, batches, watcher if watching else None)
        if watching:
            left = len(steps) - number
            watcher.after_step(LowerStep(tuple(batches), tuple(features), left))
        optimizer.zero_grad()
    found: Hypergradient = watcher.compute(meta)
    assert found.surrogate is not None
    of_weights, of_labels = upper.hypergradient(found.surrogate)
    return Found(torch.stack(of_weights), of_labels, found.meta_loss)


def one_step(
    problem: Classifier,
    upper: UpperLevel,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    watcher: Any,
) -> list[Tensor]:
    """A lower step written anew, so that the loop's own is not its judge."""
    parameters = trainable(problem.model)
    total = [torch.zeros_like(p) for p in parameters]
    features = []
    for k, batch in enumerate(batches):
        output = problem.lower_losses(batch, upper.corrected(batch))
        w = upper.weights(batch, output.seen())
        by_domain = upper.weighting.by_domain
        loss = output.losses.mean() if by_domain else (w * output.losses).mean()
        gradient = gradients(loss, parameters)
        for part, g in zip(total, gradient, strict=True):
            assert g is not None
            part.add_(g, alpha=(float(w[0]) if by_domain else 1.0) / len(batches))
        if watcher is not None:
            watcher.observe(k, batch, output.seen(), gradient)
        features.append(output.seen())
    for p, g in zip(parameters, total, strict=True):
        p.grad = g
    optimizer.step()
    return features
