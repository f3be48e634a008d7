"""The hypergradient estimators against the oracle that differentiates through the lower steps.

First on a small classifier, then on the tiny vision-language model and its PRM losses.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dreamprm.bilevel import (
    ESTIMATORS,
    Bilevel,
    Estimator,
    Hypergradient,
    InstanceNet,
    InstanceTable,
    LabelCorrection,
    Weights,
)
from dreamprm.bilevel.hypergradient import InnerProduct
from dreamprm.bilevel.jacobian import step_jacobian
from dreamprm.errors import DreamPRMError
from dreamprm.prm.folder import LayoutConfig, PRMConfig
from dreamprm.prm.model import PRM
from dreamprm.training.config import TrainConfig
from dreamprm.training.learned import make_weights
from dreamprm.training.problem import PRMProblem
from dreamprm.training.run import make_loop
from tests.prm_data import small_data
from tests.small_problem import (
    DOMAINS,
    SIZE,
    Batch,
    Classifier,
    make_batch,
    run_window,
    uneven_weights,
)
from tests.tiny_models import random_prm
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


# ---- the vision-language model


@dataclass(frozen=True)
class OfWindow:
    """d meta loss / d w of each micro-batch's trajectories, (micro-batches, B); of each domain,
    (domains,); and d meta loss / d labels where these are learned.
    """

    instances: Tensor
    domains: Tensor
    labels: Tensor | None


@functools.cache  # several tests ask the oracle about the same window
def one_window(
    estimator: str | type[Estimator],
    dtype: torch.dtype,
    optimizer: str,
    window: int,
    warm_steps: int,
    model: PRM | None = None,
    **changes: Any,
) -> OfWindow:
    """Train `warm_steps` plainly, then return what the estimator says of one window."""
    model = (model or random_prm()).to(dtype).train()
    settings: dict[str, Any] = {
        "max_steps": warm_steps + window,
        "gradient_accumulation_steps": 3,
        "per_device_train_batch_size": 2,
        "unroll_steps": window,
        "meta_warmup_steps": warm_steps,
        "learning_rate": 1e-3 if optimizer == "sgd" else 1e-4,
        "head_learning_rate": 0.0,
        "meta_batch_questions": 4,
        "meta_batch_candidates": 2,
        "meta_loss": "affine_bce",
        "max_grad_norm": 0.0,
        "preconditioning": "none" if optimizer == "sgd" else "adam",
        "momentum": "window",
        "meta_gradient_at": "end",
    }
    if isinstance(estimator, str):
        settings["estimator"] = estimator
    config = TrainConfig(**settings | changes)
    problem = PRMProblem(model, small_data(), config)
    weights, labels = make_weights(config, problem.data)
    for module in (weights, labels):
        if module is not None:
            module.to(dtype)
    other = None if isinstance(estimator, str) else estimator
    loop = make_loop(problem, weights, labels, other)
    if optimizer == "sgd":
        sgd = torch.optim.SGD(loop.parameters, lr=config.learning_rate)
        sgd.param_groups[0]["initial_lr"] = config.learning_rate
        loop.lower_optimizer = loop.estimator.optimizer = sgd
    for step in range(config.max_steps):
        result = loop.step(problem.lower_batches(step), problem.meta_batch(0))
    assert result.hypergradient is not None
    domains = torch.zeros(len(problem.data.domains), dtype=dtype)
    for of_batch, micro in zip(result.hypergradient.weights, result.window, strict=True):
        domains[micro.batch.domain] += of_batch.sum()
    of_labels = result.hypergradient.labels
    return OfWindow(
        torch.stack(result.hypergradient.weights),
        domains,
        torch.cat([part.flatten() for part in of_labels]) if of_labels else None,
    )


ONE_SGD_STEP: dict[str, Any] = {"optimizer": "sgd", "window": 1, "warm_steps": 2}
ONE_ADAMW_STEP: dict[str, Any] = {"optimizer": "adamw", "window": 1, "warm_steps": 2}
THREE_ADAMW_STEPS: dict[str, Any] = {"optimizer": "adamw", "window": 3, "warm_steps": 3}


def test_inner_product_is_exact_for_one_sgd_step_of_the_vision_language_model() -> None:
    exact = one_window(Unrolled, torch.float64, **ONE_SGD_STEP).domains
    ours = one_window("inner_product", torch.float64, **ONE_SGD_STEP).domains
    assert exact.norm() > 0
    assert relative_error(ours, exact) < 1e-5


@pytest.mark.parametrize("name", ["inner_product", "ghost"])
def test_estimators_follow_the_one_step_oracle_with_bf16_compute(name: str) -> None:
    exact = one_window(Unrolled, torch.float64, **ONE_ADAMW_STEP).domains
    ours = one_window(name, torch.float32, bf16=True, **ONE_ADAMW_STEP).domains
    assert cosine(ours, exact) > 0.95


@pytest.mark.parametrize("name", ["jvp", "ghost"])
def test_every_trajectory_has_the_hypergradient_of_the_oracle(name: str) -> None:
    table: dict[str, Any] = {"weighting": "instance_table"} | ONE_ADAMW_STEP
    exact = one_window(Unrolled, torch.float64, **table).instances
    ours = one_window(name, torch.float32, **table).instances
    assert exact.std() > 0
    assert cosine(ours, exact) > 0.99


@pytest.mark.parametrize(("head", "layout"), [("vocab", "trajectory"), ("value", "prefix")])
def test_ghost_agrees_with_jvp_for_every_head_and_layout(head: Any, layout: Any) -> None:
    """Rows of the vision tower, of prefixes and of judged steps all find their trajectory."""
    found = [
        one_window(
            name,
            torch.float64,
            model=random_prm(PRMConfig(head=head, layout=LayoutConfig(name=layout))),
            weighting="instance_table",
            meta_batch_questions=2,
            **ONE_ADAMW_STEP | {"warm_steps": 1},
        ).instances
        for name in ("ghost", "jvp")
    ]
    assert found[1].std() > 0
    assert relative_error(found[0], found[1]) < 1e-6


def test_ghost_refuses_a_token_head_on_a_trained_vocabulary() -> None:
    """That head reads two rows of the output layer, past the layer itself."""
    model = random_prm(PRMConfig(head="token"))
    with pytest.raises(DreamPRMError, match="use estimator jvp"):
        one_window("ghost", torch.float32, model=model, **ONE_ADAMW_STEP)


def test_every_label_has_the_hypergradient_of_the_oracle() -> None:
    settings: dict[str, Any] = {"weighting": "none", "label_correction": True} | ONE_ADAMW_STEP
    exact = one_window(Unrolled, torch.float64, **settings).labels
    ours = one_window("jvp", torch.float32, **settings).labels
    assert exact is not None and ours is not None
    assert exact.std() > 0
    assert cosine(ours, exact) > 0.99


@pytest.mark.parametrize("estimator", ["inner_product", "finite_difference", "jvp", "ghost"])
def test_estimators_follow_the_oracle_over_a_window_of_adamw_steps(estimator: str) -> None:
    exact = one_window(Unrolled, torch.float64, **THREE_ADAMW_STEPS).domains
    theirs = one_window(estimator, torch.float32, **THREE_ADAMW_STEPS).domains
    assert cosine(theirs, exact) > 0.95


@pytest.mark.parametrize("meta_loss", ["affine_bce", "listwise", "mse", "mse_steps"])
def test_the_meta_gradient_in_chunks_is_that_of_the_whole_batch(meta_loss: Any) -> None:
    model = random_prm().double().train()
    found = []
    for size in (0, 3):
        config = TrainConfig(
            meta_batch_questions=4,
            meta_batch_candidates=2,
            meta_loss=meta_loss,
            per_device_meta_batch_size=size,
        )
        problem = PRMProblem(model, small_data(), config)
        batch = problem.meta_batch(0)
        assert len(batch.chunks) == (3 if size else 1)
        loss, gradient = make_loop(
            problem, *make_weights(config, problem.data)
        ).estimator.meta_gradient(batch)
        found.append((loss, torch.cat([g.flatten() for g in gradient])))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-9)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-6, atol=1e-12)
    assert found[0][1].norm() > 0
