"""The hypergradient on the real thing: the tiny vision-language model and its PRM losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dreamprm.bilevel.config import BilevelConfig
from dreamprm.bilevel.data import PRMProblem
from dreamprm.bilevel.hypergradient import ESTIMATORS, Hypergradient
from dreamprm.bilevel.loop import BilevelLoop
from dreamprm.bilevel.weights import DomainWeights
from dreamprm.prm.model import ProcessRewardModel
from tests.prm_data import small_data
from tests.test_hypergradient import cosine, relative_error
from tests.tiny_models import processor, random_prm


def one_window(
    estimator: str, dtype: torch.dtype, optimizer: str, window: int, warm_steps: int
) -> Hypergradient:
    """Train `warm_steps` plainly, then return what the estimator says of one window."""
    model = random_prm().to(dtype).train()
    model.backbone.set_attn_implementation("eager")  # sdpa has no second derivative
    config = BilevelConfig(
        max_steps=warm_steps + window,
        domains_per_step=3,
        per_domain_batch_size=2,
        unroll_steps=window,
        learning_rate=1e-3 if optimizer == "sgd" else 1e-4,
        meta_questions=4,
        meta_candidates=2,
        meta_loss="affine_bce",
        max_grad_norm=0.0,
        preconditioning="none" if optimizer == "sgd" else "adam",
    )
    problem = PRMProblem(model, small_data(), config)
    weights = DomainWeights(problem.data.domains).to(dtype)
    loop = BilevelLoop(problem, weights, problem.lower_batch, problem.meta_batch, config)
    if optimizer == "sgd":
        rate = config.learning_rate
        groups = [{"params": loop.parameters, "lr": rate, "base_lr": rate}]
        loop.lower_optimizer = torch.optim.SGD(groups)
    for _ in range(warm_steps):
        loop._lower_step(1, learning=False)
    watcher = ESTIMATORS[estimator](problem, loop.lower_optimizer, config.preconditioning)
    loop.estimator = watcher
    watcher.start_window()
    for remaining in range(window, 0, -1):
        loop._lower_step(remaining, learning=True)
    return watcher.compute(loop.current_weights(), problem.meta_batch(0))


def test_inner_product_is_exact_for_one_sgd_step_of_the_vision_language_model() -> None:
    settings: dict[str, Any] = {
        "dtype": torch.float64,
        "optimizer": "sgd",
        "window": 1,
        "warm_steps": 2,
    }
    exact, ours = one_window("unrolled", **settings), one_window("inner_product", **settings)
    assert exact.value.norm() > 0
    assert relative_error(ours.value, exact.value) < 1e-6


@pytest.mark.parametrize("estimator", ["inner_product", "finite_difference"])
def test_estimators_follow_the_oracle_over_a_window_of_five_adamw_steps(estimator: str) -> None:
    settings: dict[str, Any] = {"optimizer": "adamw", "window": 5, "warm_steps": 15}
    exact = one_window("unrolled", torch.float64, **settings)
    dtype = torch.float32 if estimator == "finite_difference" else torch.float64
    theirs = one_window(estimator, dtype, **settings)
    assert cosine(theirs.value, exact.value) > 0.95


def test_the_problem_can_be_cast_to_double() -> None:
    """What the tests above rely on: no fp32 constant hides in the PRM."""
    model = ProcessRewardModel(random_prm().backbone.double(), processor()).double()
    assert {p.dtype for p in model.parameters()} == {torch.float64}
