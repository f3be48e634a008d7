"""The hypergradient on the real thing: the tiny vision-language model and its PRM losses."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from dreamprm.bilevel import Estimator
from dreamprm.errors import DreamPRMError
from dreamprm.prm.layout import LayoutConfig
from dreamprm.prm.model import PRM, PRMConfig
from dreamprm.training.config import TrainConfig
from dreamprm.training.learned import make_weights
from dreamprm.training.problem import PRMProblem
from dreamprm.training.run import make_loop
from tests.prm_data import small_data
from tests.test_hypergradient import cosine, relative_error
from tests.tiny_models import random_prm
from tests.unrolled import Unrolled


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
ONE_ADAMW_STEP: dict[str, Any] = {"optimizer": "adamw", "window": 1, "warm_steps": 6}
FIVE_ADAMW_STEPS: dict[str, Any] = {"optimizer": "adamw", "window": 5, "warm_steps": 10}


def test_inner_product_is_exact_for_one_sgd_step_of_the_vision_language_model() -> None:
    exact = one_window(Unrolled, torch.float64, **ONE_SGD_STEP).domains
    ours = one_window("inner_product", torch.float64, **ONE_SGD_STEP).domains
    assert exact.norm() > 0
    assert relative_error(ours, exact) < 1e-6


@pytest.mark.parametrize("name", ["inner_product", "jvp", "ghost", "finite_difference"])
def test_estimators_follow_the_one_step_oracle_in_fp32(name: str) -> None:
    exact = one_window(Unrolled, torch.float64, **ONE_ADAMW_STEP).domains
    ours = one_window(name, torch.float32, **ONE_ADAMW_STEP).domains
    assert cosine(ours, exact) > 0.99


@pytest.mark.parametrize("name", ["inner_product", "jvp", "ghost"])
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


@pytest.mark.parametrize("head", ["value", "vocab"])
@pytest.mark.parametrize("layout", ["trajectory", "prefix"])
def test_ghost_agrees_with_jvp_for_every_head_and_layout(head: Any, layout: Any) -> None:
    """Rows of the vision tower, of prefixes and of judged steps all find their trajectory."""
    found = [
        one_window(
            name,
            torch.float64,
            model=random_prm(PRMConfig(head=head, layout=LayoutConfig(name=layout))),
            weighting="instance_table",
            **ONE_ADAMW_STEP | {"warm_steps": 2},
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
def test_estimators_follow_the_oracle_over_a_window_of_five_adamw_steps(estimator: str) -> None:
    exact = one_window(Unrolled, torch.float64, **FIVE_ADAMW_STEPS).domains
    theirs = one_window(estimator, torch.float32, **FIVE_ADAMW_STEPS).domains
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
