"""The upper level's variables: where they start, what moves them, where they may go."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dreamprm.bilevel import (
    Bilevel,
    DomainWeights,
    FixedWeights,
    InstanceNet,
    InstanceTable,
    LabelCorrection,
    Weights,
)
from dreamprm.bilevel.table_adam import TableAdam
from dreamprm.bilevel.weights import compared
from tests.small_problem import Batch, Classifier


def batch(domain: int, items: list[int]) -> Batch:
    rows = torch.tensor(items)
    return Batch(domain, rows, torch.zeros(len(items), 2), torch.zeros(len(items), 1))


def push(weights: Weights, *seen: tuple[Batch, list[float]]) -> None:
    """Set alpha's gradient from d meta loss / d w_i of each micro-batch of a window."""
    window = [(one, torch.zeros(len(one.items), 1)) for one, _ in seen]
    w = [weights(*one).detach() for one in window]
    weights.set_gradient(window, compared([torch.tensor(values) for _, values in seen], w))


def upper_optimizer(
    weights: Weights, labels: LabelCorrection | None = None, of_domains: Any = "dual_averaging"
) -> Any:
    problem = Classifier()
    levels = (problem.model, problem.lower_losses, problem.meta_loss, weights)
    return Bilevel(*levels, labels=labels, meta_optimizer=of_domains, meta_lr=0.1).upper_optimizer


def gradient(parameter: Tensor) -> list[Any]:
    assert parameter.grad is not None
    return list(parameter.grad.tolist())


def test_domain_weights_start_at_exactly_one_and_keep_their_mean() -> None:
    weights = DomainWeights(["a", "b", "c"])
    assert weights.table().tolist() == pytest.approx([1, 1, 1], abs=1e-6)
    with torch.no_grad():
        weights.alpha.copy_(torch.tensor([-3.0, 0.5, 20.0]))
    assert float(weights.table().detach().mean()) == pytest.approx(1.0, abs=1e-6)
    assert (weights.table() > 0).all()


def test_a_hypergradient_that_is_the_same_for_all_moves_nothing() -> None:
    weights = DomainWeights(["a", "b", "c"])
    push(weights, *((batch(k, [2 * k, 2 * k + 1]), [7.0, 7.0]) for k in range(3)))
    assert gradient(weights.alpha) == pytest.approx([0, 0, 0], abs=1e-6)
    table = InstanceTable(4)
    push(table, (batch(0, [0, 1]), [7.0, 7.0]), (batch(1, [2, 3]), [7.0, 7.0]))
    assert gradient(table.alpha) == pytest.approx([0] * 4, abs=1e-6)


def test_a_domain_that_the_window_did_not_see_is_not_pushed() -> None:
    weights = DomainWeights(["a", "b", "c"])
    push(weights, (batch(0, [0]), [2.0]), (batch(1, [1]), [4.0]))
    a, b, c = gradient(weights.alpha)
    assert c == pytest.approx(0.0, abs=1e-6)
    assert a < 0 < b


def test_a_domain_that_comes_twice_is_pushed_no_harder_for_it() -> None:
    """Two visits that are each average say that the domain is average."""
    weights = DomainWeights(["a", "b"])
    push(weights, (batch(0, [0]), [1.0]), (batch(0, [1]), [1.0]), (batch(1, [2]), [1.0]))
    assert gradient(weights.alpha) == pytest.approx([0.0, 0.0], abs=1e-6)


def test_instance_weights_stay_in_their_range_and_can_come_back() -> None:
    table = InstanceTable(3, -1.0, 3.0)
    with torch.no_grad():
        table.alpha.copy_(torch.tensor([9.0, -9.0, 0.5]))
    table.project()
    assert table.table().tolist() == pytest.approx([3.0, -1.0, 1.5])
    push(table, (batch(0, [0, 1, 2]), [1.0, -1.0, 0.0]))
    assert min(abs(g) for g in gradient(table.alpha)[:2]) > 0.1


def test_an_instance_net_starts_at_one_and_tells_trajectories_apart_after_a_step() -> None:
    torch.manual_seed(0)
    net = InstanceNet(2)
    features = torch.tensor([[0.1, 1.0], [2.0, -1.0]])
    one = batch(0, [0, 1])
    assert net(one, features).tolist() == [1.0, 1.0]
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    net.set_gradient([(one, features)], [torch.tensor([1.0, -1.0])])
    optimizer.step()
    low, high = net(one, features).tolist()
    assert low < high


def test_corrected_labels_stay_probabilities() -> None:
    labels = LabelCorrection(torch.tensor([[0.2, 1.0], [0.0, 0.5]]))
    with torch.no_grad():
        labels.delta.copy_(torch.tensor([[0.5, 0.5], [-0.5, -0.1]]))
    labels.project()
    torch.testing.assert_close(labels.table(), torch.tensor([[0.7, 1.0], [0.0, 0.4]]))


def test_labels_of_a_micro_batch_are_those_of_its_trajectories() -> None:
    labels = LabelCorrection(torch.tensor([[0.1], [0.2], [0.3]]))
    torch.testing.assert_close(labels(batch(0, [2, 0])), torch.tensor([[0.3], [0.1]]))
    labels.set_gradient([batch(0, [2, 0])], [torch.tensor([[1.0], [-2.0]])])
    assert gradient(labels.delta) == [[-2.0], [0.0], [1.0]]


def test_a_table_entry_moves_at_its_visits_as_adam_would() -> None:
    """Whatever happens to the others in between."""
    table, alone = InstanceTable(3), torch.nn.Parameter(torch.zeros(1))
    optimizer = upper_optimizer(table)
    assert isinstance(optimizer, TableAdam)
    adam = torch.optim.Adam([alone], lr=0.1)
    for g in (1.0, -0.5, 1.0):
        table.alpha.grad = torch.tensor([1.0, 1.0, 0.0])
        optimizer.step()
        before = table.alpha.detach().clone()
        table.alpha.grad = torch.tensor([0.0, 0.0, g])
        alone.grad = torch.tensor([g])
        optimizer.step()
        adam.step()
        assert table.alpha[:2].tolist() == before[:2].tolist(), "no momentum after the visit"
    assert float(table.alpha[2]) == pytest.approx(float(alone[0]), rel=0.15)  # another scale of g
    assert float(table.alpha[2]) < 0


def test_hypergradients_whose_squares_are_zero_still_move_a_table() -> None:
    table = InstanceTable(2)
    optimizer = upper_optimizer(table)
    table.alpha.grad = torch.tensor([1e-30, -1e-30])
    optimizer.step()
    assert table.alpha.tolist() == pytest.approx([-0.1, 0.1], rel=1e-4)


def test_few_shared_weights_are_moved_by_adamw_and_tables_by_their_own() -> None:
    labels = LabelCorrection(torch.zeros(4, 1))
    by_adamw = DomainWeights(["a", "b"])
    assert isinstance(upper_optimizer(by_adamw, labels, "adamw"), torch.optim.AdamW)
    assert isinstance(upper_optimizer(DomainWeights(["a", "b"]), labels), TableAdam)
    assert isinstance(upper_optimizer(InstanceTable(4), labels), TableAdam)
    assert isinstance(upper_optimizer(FixedWeights(torch.ones(4)), labels), TableAdam)
