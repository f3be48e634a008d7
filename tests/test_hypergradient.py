"""The hypergradient estimators against the oracle that differentiates through the lower steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dreamprm.bilevel.hypergradient import ESTIMATORS, Hypergradient, Settings, Unrolled
from dreamprm.bilevel.hypergradient.base import trainable
from dreamprm.bilevel.hypergradient.preconditioner import step_jacobian
from dreamprm.bilevel.weights import (
    InstanceNet,
    InstanceTable,
    LabelCorrection,
    UpperLevel,
    Weighting,
)
from dreamprm.errors import DreamPRMError
from tests.small_problem import (
    DOMAINS,
    SIZE,
    make_batch,
    make_problem,
    run_window,
    uneven_weights,
)

ADAMW: dict[str, Any] = {"optimizer_name": "adamw", "warm_steps": 20}
EVERY = [name for name in ESTIMATORS if name != "unrolled"]
DIRECT = ["inner_product", "finite_difference", "jvp", "ghost"]  # no implicit differentiation


def cosine(a: Tensor, b: Tensor) -> float:
    """After removing the mean, which the weights cannot follow."""
    a, b = a.double().flatten(), b.double().flatten()
    return float(F.cosine_similarity(a - a.mean(), b - b.mean(), dim=0))


def relative_error(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def table(dtype: torch.dtype) -> Weighting:
    """One weight per point, away from 1."""
    weights = InstanceTable(DOMAINS * SIZE, 0.0, 3.0).to(dtype)
    with torch.no_grad():
        weights.alpha.uniform_(-0.8, 0.8, generator=torch.Generator().manual_seed(3))
    return weights


def labels() -> LabelCorrection:
    """Labels to correct; the batches of the window bring their own instead of these."""
    return _LabelsOfBatch(torch.zeros(DOMAINS * SIZE, 1, dtype=torch.float64))


class _LabelsOfBatch(LabelCorrection):
    def forward(self, batch: Any) -> Tensor:
        return batch.labels + self.delta[batch.items]


def test_inner_product_is_exact_for_one_sgd_step() -> None:
    exact, ours = run_window("unrolled"), run_window("inner_product")
    assert relative_error(ours.domains, exact.domains) < 1e-6
    assert ours.meta_loss == pytest.approx(exact.meta_loss, rel=1e-9)


def test_inner_product_is_exact_for_one_adamw_step() -> None:
    exact, ours = run_window("unrolled", **ADAMW), run_window("inner_product", **ADAMW)
    assert relative_error(ours.domains, exact.domains) < 1e-6


@pytest.mark.parametrize("optimizer_name", ["sgd", "adamw"])
@pytest.mark.parametrize("name", ["jvp", "ghost"])
def test_per_trajectory_estimators_follow_the_oracle_for_one_step(
    name: str, optimizer_name: str
) -> None:
    settings: dict[str, Any] = ADAMW | {"optimizer_name": optimizer_name, "weighting": table}
    exact, ours = run_window("unrolled", **settings), run_window(name, **settings)
    assert exact.instances.std() > 0
    assert cosine(ours.instances, exact.instances) > 0.99


@pytest.mark.parametrize("at", ["start", "end"])
@pytest.mark.parametrize("optimizer_name", ["sgd", "adamw"])
@pytest.mark.parametrize("name", DIRECT)
def test_estimators_follow_the_oracle_over_a_window_of_five(
    name: str, optimizer_name: str, at: str
) -> None:
    settings: dict[str, Any] = ADAMW | {"optimizer_name": optimizer_name, "window": 5}
    exact, ours = run_window("unrolled", **settings), run_window(name, at=at, **settings)
    # From the start AdamW's direction knows momentum whole, the oracle only within the window.
    bar = 0.9 if (at, optimizer_name) == ("start", "adamw") else 0.95
    assert cosine(ours.domains, exact.domains) > bar


def test_finite_difference_agrees_in_fp32() -> None:
    settings: dict[str, Any] = ADAMW | {"window": 5}
    exact = run_window("unrolled", **settings)
    theirs = run_window("finite_difference", dtype=torch.float32, **settings)
    assert cosine(theirs.domains, exact.domains) > 0.95


@pytest.mark.parametrize("name", ["jvp", "finite_difference", "neumann", "conjugate_gradient"])
def test_label_gradients_follow_the_oracle(name: str) -> None:
    settings: dict[str, Any] = {"weighting": table, "correction": labels, "window": 2}
    exact, ours = run_window("unrolled", **settings), run_window(name, **settings)
    assert exact.labels is not None and ours.labels is not None
    assert exact.labels.std() > 0
    # The implicit ones answer another question (where training converges to), so less is asked.
    bar = 0.95 if name in ("jvp", "finite_difference") else 0.7
    assert cosine(ours.labels, exact.labels) > bar


@pytest.mark.parametrize("name", ["jvp", "ghost", "finite_difference"])
def test_the_instance_net_gets_the_oracles_gradient(name: str) -> None:
    def net(dtype: torch.dtype) -> Weighting:
        torch.manual_seed(5)
        weights = InstanceNet(1).to(dtype)
        torch.nn.init.normal_(weights.net[2].weight)  # type: ignore[arg-type]
        return weights

    exact, ours = (run_window(n, weighting=net, **ADAMW) for n in ("unrolled", name))
    assert cosine(ours.instances, exact.instances) > 0.99


def test_neumann_without_further_terms_is_the_direct_product() -> None:
    direct = run_window("jvp", weighting=table)

    class Short(ESTIMATORS["neumann"]):  # type: ignore[misc]
        def _curvature(self) -> Any:
            return lambda v: [torch.zeros_like(part) for part in v]

    short = run_window("neumann", weighting=table, estimator=Short, solver_steps=1)
    # With H = 0 each term of the series repeats the first; phi is a step further on.
    assert relative_error(short.instances / 2, direct.instances) < 0.02


def test_conjugate_gradient_solves_the_system_it_claims_to_solve() -> None:
    """On a convex problem: H v = g within the damping."""
    matrix = torch.tensor([[4.0, 1.0], [1.0, 3.0]], dtype=torch.float64)

    class Convex(ESTIMATORS["conjugate_gradient"]):  # type: ignore[misc]
        def _curvature(self) -> Any:
            return lambda v: [matrix @ v[0]]

        def _precondition(self, vector: list[Tensor]) -> list[Tensor]:
            return [part.clone() for part in vector]

    problem = make_problem()
    optimizer = torch.optim.SGD(trainable(problem.model), lr=0.1)
    settings = Settings("none", solver_steps=2, solver_damping=0.5)
    solver = Convex(problem, optimizer, UpperLevel(uneven_weights()), settings)
    g = torch.tensor([1.0, -2.0], dtype=torch.float64)
    v = solver.solve([g])[0]
    torch.testing.assert_close((matrix + 0.5 * torch.eye(2, dtype=torch.float64)) @ v, g)


def test_the_oracle_agrees_with_a_difference_quotient_of_the_whole_window() -> None:
    """The oracle is checked against what it claims: retrain with w_k moved, take the slope."""
    start = uneven_weights().table().detach()

    def meta_after(w: Tensor) -> float:
        problem = make_problem()
        optimizer = torch.optim.AdamW(trainable(problem.model), lr=2e-3, weight_decay=0.01)
        generator = torch.Generator().manual_seed(1)
        for step in range(-20, 5):
            batches = [make_batch(k, SIZE, generator) for k in range(DOMAINS)]
            now = start if step < 0 else w
            losses = [problem.meta_loss(b) * now[k] for k, b in enumerate(batches)]
            optimizer.zero_grad()
            (torch.stack(losses).sum() / DOMAINS).backward()
            optimizer.step()
        return float(problem.meta_loss(make_batch(0, 64, generator)).detach())

    exact = run_window("unrolled", window=5, **ADAMW).domains
    for k in range(DOMAINS):
        move = torch.zeros(DOMAINS, dtype=torch.float64)
        move[k] = 1e-4
        slope = (meta_after(start + move) - meta_after(start - move)) / 2e-4
        assert float(exact[k]) == pytest.approx(slope, rel=1e-4)


class _WrongSign(ESTIMATORS["inner_product"]):  # type: ignore[misc]
    def compute(self, meta_batch: Any) -> Hypergradient:
        right = super().compute(meta_batch)
        assert right.surrogate is not None
        return Hypergradient(-right.surrogate, right.meta_loss)


class _SwappedDomains(ESTIMATORS["inner_product"]):  # type: ignore[misc]
    def compute(self, meta_batch: Any) -> Hypergradient:
        self._moved[0], self._moved[1] = self._moved[1], self._moved[0]
        found: Hypergradient = super().compute(meta_batch)
        return found


@pytest.mark.parametrize("broken", [_WrongSign, _SwappedDomains])
def test_a_planted_error_would_be_found(broken: Any) -> None:
    settings: dict[str, Any] = ADAMW | {"window": 5}
    exact = run_window("unrolled", **settings)
    wrong = run_window("inner_product", estimator=broken, **settings)
    assert cosine(wrong.domains, exact.domains) < 0.95
    assert relative_error(wrong.domains, exact.domains) > 1e-2


def test_the_oracle_refuses_an_optimiser_that_it_cannot_follow() -> None:
    problem = make_problem()
    optimizer = torch.optim.SGD(trainable(problem.model), lr=0.1, momentum=0.9)
    with pytest.raises(DreamPRMError, match="without momentum"):
        Unrolled(problem, optimizer, UpperLevel(uneven_weights()), Settings())


def test_ghost_refuses_a_model_that_uses_a_parameter_outside_its_module() -> None:
    class Escaping(ESTIMATORS["ghost"]):  # type: ignore[misc]
        def products(self, batch: Any, u: list[Tensor]) -> Tensor:
            layer = self.problem.model[0]
            inside = self.problem.model.forward
            self.problem.model.forward = lambda x: (
                inside(x) + F.linear(x, layer.weight).mean(dim=1, keepdim=True)
            )
            return super().products(batch, u)

    with pytest.raises(DreamPRMError, match="outside its module; use estimator jvp"):
        run_window("ghost", weighting=table, estimator=Escaping)


def test_a_parameter_that_nothing_used_yet_has_no_say() -> None:
    """Its second moment is 0; the first gradient there would count 1 / eps times the others."""
    p = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([p], lr=0.1)
    p.grad = torch.tensor([1.0, 0.0])
    optimizer.step()
    (factor,) = step_jacobian(optimizer, [p], "adam", 1, "whole")
    assert isinstance(factor, Tensor)
    assert factor.tolist() == pytest.approx([0.1, 0.0])


@pytest.mark.parametrize("name", ["neumann", "conjugate_gradient"])
def test_solving_for_a_direction_hands_out_no_variables(name: str) -> None:
    """Variables without a hypergradient would dilute the mean that is taken out of all."""
    found = run_window(name, weighting=table, window=2)
    assert len(found.instances) == 2 * DOMAINS


def test_conjugate_gradient_says_nothing_where_the_curvature_is_not_positive() -> None:
    class Saddle(ESTIMATORS["conjugate_gradient"]):  # type: ignore[misc]
        def _curvature(self) -> Any:
            return lambda v: [-part for part in v]

        def _precondition(self, vector: list[Tensor]) -> list[Tensor]:
            return [part.clone() for part in vector]

    problem = make_problem()
    optimizer = torch.optim.SGD(trainable(problem.model), lr=0.1)
    solver = Saddle(problem, optimizer, UpperLevel(uneven_weights()), Settings("none"))
    assert solver.solve([torch.tensor([1.0, -2.0])]) is None
