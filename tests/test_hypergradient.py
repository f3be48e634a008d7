"""The hypergradient estimators against the oracle that differentiates through the lower steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dreamprm.bilevel.hypergradient import ESTIMATORS, Hypergradient, LowerStep, Unrolled
from dreamprm.bilevel.hypergradient.base import trainable

DOMAINS = 4


@dataclass
class Classifier:
    """A small problem: each domain has its own label noise, the meta set has none."""

    model: nn.Module

    def lower_loss(self, batch: Any) -> Tensor:
        x, y = batch
        return F.binary_cross_entropy_with_logits(self.model(x)[:, 0], y)

    def meta_loss(self, batch: Any) -> Tensor:
        return self.lower_loss(batch)


def make_problem(dtype: torch.dtype, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1)).to(dtype))


def make_batch(domain: int, size: int, generator: torch.Generator, dtype: torch.dtype) -> Any:
    x = torch.randn(size, 6, generator=generator, dtype=dtype)
    clean = (x[:, 0] + x[:, 1] > 0).to(dtype)
    flip = torch.rand(size, generator=generator, dtype=dtype) < 0.25 * domain
    return x, torch.where(flip, 1 - clean, clean)


def run_window(
    name: str,
    *,
    dtype: torch.dtype = torch.float64,
    optimizer_name: str = "sgd",
    window: int = 1,
    warm_steps: int = 0,
    estimator: Any = None,
) -> Hypergradient:
    """Train `warm_steps` plainly, then watch one window with the estimator of that name."""
    problem = make_problem(dtype)
    parameters = trainable(problem.model)
    if optimizer_name == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(parameters, lr=0.1)
    else:
        optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.01)
    preconditioning = "none" if optimizer_name == "sgd" else "adam"
    watcher = (estimator or ESTIMATORS[name])(problem, optimizer, preconditioning)
    generator = torch.Generator().manual_seed(1)
    w = torch.tensor([1.2, 0.6, 1.5, 0.7], dtype=dtype)
    for step in range(-warm_steps, window):
        if step == 0:
            watcher.start_window()
        batches = tuple(make_batch(k, 32, generator, dtype) for k in range(DOMAINS))
        total = [torch.zeros_like(p) for p in parameters]
        for k, batch in enumerate(batches):
            gradient = list(torch.autograd.grad(problem.lower_loss(batch), parameters))
            for part, g in zip(total, gradient, strict=True):
                part.add_(g, alpha=float(w[k]) / DOMAINS)
            if step >= 0:
                watcher.observe(k, gradient)
        for p, g in zip(parameters, total, strict=True):
            p.grad = g
        optimizer.step()
        if step >= 0:
            watcher.after_step(LowerStep(tuple(range(DOMAINS)), batches, window - step), 1.0)
    return watcher.compute(w, make_batch(0, 64, generator, dtype))


def cosine(a: Tensor, b: Tensor) -> float:
    """Over weights, after removing the mean (which the normalised weights cannot follow)."""
    return float(
        F.cosine_similarity(a.double() - a.double().mean(), b.double() - b.double().mean(), dim=0)
    )


def relative_error(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_inner_product_is_exact_for_one_sgd_step() -> None:
    exact, ours = run_window("unrolled"), run_window("inner_product")
    assert relative_error(ours.value, exact.value) < 1e-6
    assert ours.meta_loss == pytest.approx(exact.meta_loss, rel=1e-9)


def test_inner_product_is_exact_for_one_adamw_step() -> None:
    settings: dict[str, Any] = {"optimizer_name": "adamw", "warm_steps": 20}
    exact, ours = run_window("unrolled", **settings), run_window("inner_product", **settings)
    assert relative_error(ours.value, exact.value) < 1e-6


@pytest.mark.parametrize("optimizer_name", ["sgd", "adamw"])
def test_inner_product_follows_the_oracle_over_a_window_of_five(optimizer_name: str) -> None:
    settings: dict[str, Any] = {"optimizer_name": optimizer_name, "warm_steps": 20, "window": 5}
    exact, ours = run_window("unrolled", **settings), run_window("inner_product", **settings)
    assert cosine(ours.value, exact.value) > 0.95


@pytest.mark.parametrize("optimizer_name", ["sgd", "adamw"])
def test_finite_difference_agrees_in_fp32(optimizer_name: str) -> None:
    settings: dict[str, Any] = {"optimizer_name": optimizer_name, "warm_steps": 20, "window": 5}
    exact = run_window("unrolled", **settings)
    theirs = run_window("finite_difference", dtype=torch.float32, **settings)
    assert cosine(theirs.value, exact.value) > 0.95


def test_the_oracle_agrees_with_a_difference_quotient_of_the_whole_window() -> None:
    """The oracle is checked against what it claims: retrain with w_k moved, take the slope."""

    def meta_after(w: Tensor) -> float:
        problem = make_problem(torch.float64)
        parameters = trainable(problem.model)
        optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.01)
        generator = torch.Generator().manual_seed(1)
        start = torch.tensor([1.2, 0.6, 1.5, 0.7], dtype=torch.float64)
        for step in range(-20, 5):
            batches = [make_batch(k, 32, generator, torch.float64) for k in range(DOMAINS)]
            now = start if step < 0 else w
            losses = [problem.lower_loss(b) * now[k] for k, b in enumerate(batches)]
            optimizer.zero_grad()
            (torch.stack(losses).sum() / DOMAINS).backward()
            optimizer.step()
        return float(problem.meta_loss(make_batch(0, 64, generator, torch.float64)).detach())

    exact = run_window("unrolled", optimizer_name="adamw", warm_steps=20, window=5)
    w = torch.tensor([1.2, 0.6, 1.5, 0.7], dtype=torch.float64)
    for k in range(DOMAINS):
        move = torch.zeros(DOMAINS, dtype=torch.float64)
        move[k] = 1e-4
        slope = (meta_after(w + move) - meta_after(w - move)) / 2e-4
        assert float(exact.value[k]) == pytest.approx(slope, rel=1e-4)


class _WrongSign(ESTIMATORS["inner_product"]):  # type: ignore[misc]
    def compute(self, w: Tensor, meta_batch: Any) -> Hypergradient:
        right = super().compute(w, meta_batch)
        return Hypergradient(-right.value, right.seen, right.meta_loss)


class _SwappedDomains(ESTIMATORS["inner_product"]):  # type: ignore[misc]
    def compute(self, w: Tensor, meta_batch: Any) -> Hypergradient:
        right = super().compute(w, meta_batch)
        return Hypergradient(right.value[[1, 0, 2, 3]], right.seen, right.meta_loss)


@pytest.mark.parametrize("broken", [_WrongSign, _SwappedDomains])
def test_a_planted_error_would_be_found(broken: Any) -> None:
    settings: dict[str, Any] = {"optimizer_name": "adamw", "warm_steps": 20, "window": 5}
    exact = run_window("unrolled", **settings)
    wrong = run_window("inner_product", estimator=broken, **settings)
    assert cosine(wrong.value, exact.value) < 0.95
    assert relative_error(wrong.value, exact.value) > 1e-2


def test_the_oracle_refuses_an_optimiser_that_it_cannot_follow() -> None:
    problem = make_problem(torch.float64)
    optimizer = torch.optim.SGD(trainable(problem.model), lr=0.1, momentum=0.9)
    with pytest.raises(Exception, match="without momentum"):
        Unrolled(problem, optimizer)
