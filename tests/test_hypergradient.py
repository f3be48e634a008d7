"""The hypergradient estimators against the oracle that differentiates through the lower steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dreamprm.bilevel import (
    ESTIMATORS,
    Bilevel,
    Hypergradient,
    InstanceNet,
    InstanceTable,
    LabelCorrection,
    Weights,
)
from dreamprm.bilevel.hypergradient import InnerProduct
from dreamprm.bilevel.jacobian import step_jacobian
from dreamprm.errors import DreamPRMError
from tests.small_problem import (
    DOMAINS,
    SIZE,
    Batch,
    Classifier,
    make_batch,
    run_window,
    uneven_weights,
)
from tests.unrolled import Unrolled

ADAMW: dict[str, Any] = {"optimizer_name": "adamw", "warm_steps": 20}


def cosine(a: Tensor, b: Tensor) -> float:
    """After removing the mean, which the weights cannot follow."""
    a, b = a.double().flatten(), b.double().flatten()
    return float(F.cosine_similarity(a - a.mean(), b - b.mean(), dim=0))


def relative_error(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def table(dtype: torch.dtype) -> Weights:
    """One weight per point, away from 1."""
    weights = InstanceTable(DOMAINS * SIZE).to(dtype)
    with torch.no_grad():
        weights.alpha.uniform_(-0.8, 0.8, generator=torch.Generator().manual_seed(3))
    return weights


def labels_of_batches() -> LabelCorrection:
    """Labels to correct; the batches of the window bring their own instead of a table's."""

    class OfBatch(LabelCorrection):
        def forward(self, batch: Any) -> Tensor:
            return batch.labels + self.delta[batch.items]

    return OfBatch(torch.zeros(DOMAINS * SIZE, 1, dtype=torch.float64))


@pytest.mark.parametrize("settings", [{}, ADAMW], ids=["sgd", "adamw"])
def test_inner_product_is_exact_for_one_step(settings: dict[str, Any]) -> None:
    exact, ours = run_window(Unrolled, **settings), run_window("inner_product", **settings)
    assert relative_error(ours.domains, exact.domains) < 1e-6
    assert ours.meta_loss == pytest.approx(exact.meta_loss, rel=1e-9)


@pytest.mark.parametrize("optimizer_name", ["sgd", "adamw"])
@pytest.mark.parametrize("name", ["jvp", "ghost", "finite_difference"])
def test_per_trajectory_estimators_follow_the_oracle(name: str, optimizer_name: str) -> None:
    settings: dict[str, Any] = ADAMW | {"optimizer_name": optimizer_name, "weights": table}
    exact, ours = run_window(Unrolled, **settings), run_window(name, **settings)
    assert exact.instances.std() > 0
    assert cosine(ours.instances, exact.instances) > 0.99
    assert relative_error(ours.instances, exact.instances) < 0.05


@pytest.mark.parametrize("at", ["start", "end"])
@pytest.mark.parametrize("optimizer_name", ["sgd", "adamw"])
@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_estimators_follow_the_oracle_over_5_steps(name: str, optimizer_name: str, at: str) -> None:
    settings: dict[str, Any] = ADAMW | {"optimizer_name": optimizer_name, "window": 5}
    exact, ours = run_window(Unrolled, **settings), run_window(name, at=at, **settings)
    # From the start AdamW's direction knows momentum whole, the oracle only within the window.
    bar = 0.9 if (at, optimizer_name) == ("start", "adamw") else 0.95
    assert cosine(ours.domains, exact.domains) > bar


@pytest.mark.parametrize("name", ["jvp", "finite_difference"])
def test_label_gradients_follow_the_oracle(name: str) -> None:
    settings: dict[str, Any] = {"weights": table, "labels": labels_of_batches, "window": 2}
    exact, ours = run_window(Unrolled, **settings), run_window(name, **settings)
    assert exact.labels is not None and ours.labels is not None
    assert exact.labels.std() > 0
    assert relative_error(ours.labels, exact.labels) < 0.3
    assert cosine(ours.labels, exact.labels) > 0.95


@pytest.mark.parametrize("name", ["jvp", "ghost", "finite_difference"])
def test_the_instance_net_gets_the_oracles_gradient(name: str) -> None:
    def net(dtype: torch.dtype) -> Weights:
        torch.manual_seed(5)
        weights = InstanceNet(1).to(dtype)
        torch.nn.init.normal_(weights.net[2].weight)  # type: ignore[arg-type]
        return weights

    exact, ours = (run_window(e, weights=net, **ADAMW) for e in (Unrolled, name))
    assert cosine(ours.instances, exact.instances) > 0.99


def test_the_oracle_agrees_with_a_difference_quotient_of_the_whole_window() -> None:
    """The oracle is checked against what it claims: retrain with w_k moved, take the slope."""
    start = uneven_weights().table().detach()

    def meta_after(w: Tensor) -> float:
        problem = Classifier()
        optimizer = torch.optim.AdamW(problem.model.parameters(), lr=2e-3, weight_decay=0.01)
        generator = torch.Generator().manual_seed(1)
        for step in range(-20, 5):
            batches = [make_batch(k, SIZE, generator) for k in range(DOMAINS)]
            now = start if step < 0 else w
            losses = [problem.meta_loss(b) * now[k] for k, b in enumerate(batches)]
            optimizer.zero_grad()
            (torch.stack(losses).sum() / DOMAINS).backward()
            optimizer.step()
        return float(problem.meta_loss(make_batch(0, 64, generator)).detach())

    exact = run_window(Unrolled, window=5, **ADAMW).domains
    for k in range(DOMAINS):
        move = torch.zeros(DOMAINS, dtype=torch.float64)
        move[k] = 1e-4
        slope = (meta_after(start + move) - meta_after(start - move)) / 2e-4
        assert float(exact[k]) == pytest.approx(slope, rel=1e-4)


class _WrongSign(InnerProduct):
    def finish(self, meta_batch: Any) -> tuple[float, Hypergradient | None]:
        loss, right = super().finish(meta_batch)
        assert right is not None
        return loss, Hypergradient([-h for h in right.weights], [])


class _SwappedDomains(InnerProduct):
    def finish(self, meta_batch: Any) -> tuple[float, Hypergradient | None]:
        self._moved[0], self._moved[1] = self._moved[1], self._moved[0]
        return super().finish(meta_batch)


@pytest.mark.parametrize("broken", [_WrongSign, _SwappedDomains])
def test_a_planted_error_would_be_found(broken: type[InnerProduct]) -> None:
    settings: dict[str, Any] = ADAMW | {"window": 5}
    exact, wrong = run_window(Unrolled, **settings), run_window(broken, **settings)
    assert cosine(wrong.domains, exact.domains) < 0.95
    assert relative_error(wrong.domains, exact.domains) > 1e-2


def test_ghost_refuses_a_model_that_uses_a_parameter_outside_its_module() -> None:
    class Escaping(Classifier):
        def lower_losses(self, batch: Batch, labels: Tensor | None = None) -> Tensor:
            layer: Any = self.model[0]
            return super().lower_losses(batch) + F.linear(batch.x, layer.weight).mean(dim=1)

    with pytest.raises(DreamPRMError, match="outside its module; use estimator jvp"):
        run_window("ghost", weights=table, problem=Escaping())


def test_an_estimator_that_sees_too_little_for_the_weights_is_refused() -> None:
    problem = Classifier()
    with pytest.raises(DreamPRMError, match="cannot tell trajectories apart; use ghost"):
        levels = (problem.model, problem.lower_losses, problem.meta_loss, table(torch.float64))
        Bilevel(*levels, estimator="inner_product")


def test_sgd_with_the_jacobian_of_adam_is_refused_and_not_silently_without_effect() -> None:
    problem = Classifier()
    sgd = torch.optim.SGD(problem.model.parameters(), lr=0.1)
    levels = (problem.model, problem.lower_losses, problem.meta_loss, uneven_weights())
    with pytest.raises(DreamPRMError, match="not SGD; use preconditioning 'none'"):
        Bilevel(*levels, optimizer=sgd)
    with pytest.raises(DreamPRMError, match="no estimator 'jpv'; there are inner_product"):
        Bilevel(*levels, estimator="jpv")


def test_a_parameter_that_nothing_used_yet_has_no_say() -> None:
    """Its second moment is 0; the first gradient there would count 1 / eps times the others."""
    p = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([p], lr=0.1)
    p.grad = torch.tensor([1.0, 0.0])
    optimizer.step()
    (factor,) = step_jacobian(optimizer, [p], "adam", "whole")
    assert isinstance(factor, Tensor)
    assert factor.tolist() == pytest.approx([0.1, 0.0])


def test_a_model_of_ones_own_learns_which_domains_to_trust() -> None:
    """The README's way in: a model, two losses, weights; nothing else of the library."""
    problem, generator = Classifier(torch.float32), torch.Generator().manual_seed(0)
    weights = uneven_weights(torch.float32)
    with torch.no_grad():
        weights.alpha.zero_()
    levels = (problem.model, problem.lower_losses, problem.meta_loss, weights)
    loop = Bilevel(*levels, lr=1e-2, meta_lr=0.05, window=3)
    for _ in range(90):
        batches = [make_batch(k, 8, generator, torch.float32) for k in range(DOMAINS)]
        loop.step(batches, make_batch(0, 32, generator, torch.float32))
    clean, *_, mostly_wrong = weights.table().tolist()
    assert clean > 1.1
    assert mostly_wrong < 0.7
