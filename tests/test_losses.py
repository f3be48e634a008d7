"""The losses of both levels, against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from dreamprm.training.losses import (
    META_LOSSES,
    Affine,
    Listwise,
    Margin,
    MetaLoss,
    OfSteps,
    Pairwise,
    SquaredError,
    aggregate,
    fit_affine,
    trajectory_losses,
)


def test_lower_losses_are_means_over_labelled_steps() -> None:
    logits = torch.tensor([[0.0, 0.0, 9.0], [2.0, 5.0, 5.0]])
    labels = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.0, 0.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    s = 1 / (1 + math.exp(-2.0))
    squared = trajectory_losses(logits, labels, mask, "mse")
    assert squared.tolist() == pytest.approx([0.25, (s - 0.5) ** 2], rel=1e-5)
    soft = trajectory_losses(logits, labels, mask, "bce")
    assert soft.tolist() == pytest.approx(
        [math.log(2), -0.5 * math.log(s) - 0.5 * math.log(1 - s)], rel=1e-5
    )
    hard = trajectory_losses(logits, labels, mask, "hard")
    assert float(hard[1]) == pytest.approx(-math.log(s), rel=1e-5)


def test_aggregation_ignores_padded_steps() -> None:
    logits = torch.tensor([[1.0, 3.0, 99.0]])
    mask = torch.tensor([[True, True, False]])
    assert aggregate(logits, mask, "mean").tolist() == [2.0]
    assert aggregate(logits, mask, "sum").tolist() == [4.0]


def test_the_meta_losses_have_the_values_worked_out_by_hand() -> None:
    a = torch.tensor([1.0, -1.0, 0.0, 2.0])
    y = torch.tensor([1.0, 0.0, 0.0, 1.0])
    q = torch.tensor([0, 0, 1, 1])

    def sigmoid(z: float) -> float:
        return 1 / (1 + math.exp(-z))

    squares = [(sigmoid(1) - 1) ** 2, sigmoid(-1) ** 2, 0.25, (sigmoid(2) - 1) ** 2]
    assert float(SquaredError()(a, y, q)) == pytest.approx(sum(squares) / 4, rel=1e-5)
    steps = torch.tensor([[1.0, 0.0], [-1.0, 9.0], [0.0, 0.0], [2.0, 2.0]])
    mask = torch.tensor([[True, True], [True, False], [True, True], [True, True]])
    each = OfSteps("mse").score(steps, mask, y)
    assert each.tolist() == pytest.approx(
        [(squares[0] + 0.25) / 2, squares[1], 0.25, squares[3]], rel=1e-5
    )
    both = -math.log(sigmoid(2.0))  # each question has one pair, with a margin of 2
    assert float(Pairwise()(a, y, q)) == pytest.approx(both, rel=1e-5)
    assert float(Listwise()(a, y, q)) == pytest.approx(both, rel=1e-5)


@pytest.mark.parametrize("loss", [Pairwise(), Listwise()])
def test_ranking_losses_ignore_shifts_and_questions_of_one_kind(loss: MetaLoss) -> None:
    a = torch.tensor([1.0, -1.0, 0.5, 2.0])
    y = torch.tensor([1.0, 0.0, 1.0, 1.0])
    q = torch.tensor([0, 0, 1, 1])
    shifted = a + torch.tensor([5.0, 5.0, -3.0, 8.0])
    assert float(loss(a, y, q)) == pytest.approx(float(loss(shifted, y, q)), rel=1e-5)
    alone = torch.tensor([1.0, 2.0], requires_grad=True)
    nothing = loss(alone, torch.tensor([1.0, 1.0]), torch.tensor([0, 0]))
    nothing.backward()
    assert float(nothing.detach()) == 0.0
    assert alone.grad is not None
    assert alone.grad.abs().max() == 0.0


def test_the_affine_fit_finds_the_slope_and_shift_that_made_the_outcomes() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(20_000, generator=generator)
    p = (2.0 * scores - 0.7).sigmoid()
    outcome = (torch.rand(20_000, generator=generator) < p).float()
    a, b = fit_affine(scores, outcome, ridge=1e-6)
    assert (a, b) == (pytest.approx(2.0, abs=0.1), pytest.approx(-0.7, abs=0.1))


def test_the_affine_loss_does_not_reward_a_mean_at_the_base_rate() -> None:
    """The paper's loss pays for scores that all say 'one in four'; the affine one cannot."""
    y = torch.tensor([1.0, 0.0, 0.0, 0.0] * 8)
    q = torch.zeros(32)
    for loss, rewarded in ((SquaredError(), True), (Affine("bce"), False)):
        a = torch.zeros(32, requires_grad=True)
        loss(a, y, q).backward()
        assert a.grad is not None
        pull = float(a.grad.sum())  # of a shift of all scores
        assert (abs(pull) > 0.01) == rewarded


def test_the_affine_slope_never_rewards_ranking_upside_down() -> None:
    y = torch.tensor([1.0, 0.0] * 16)
    a = torch.tensor([-2.0, 2.0] * 16, requires_grad=True)
    Affine("bce")(a, y, torch.zeros(32)).backward()
    assert a.grad is not None
    assert (a.grad[y > 0.5] < 0).all(), "scores of right solutions must be pushed up"


@pytest.mark.parametrize("name", list(META_LOSSES))
def test_a_meta_loss_that_calls_itself_separable_is_the_mean_of_its_parts(name: str) -> None:
    """What `PRMProblem` relies on when it differentiates a meta batch in parts."""
    loss = META_LOSSES[name]("mean")
    scores, outcome = torch.randn(6).abs(), torch.tensor([1.0, 0.0] * 3)
    if loss.separable:
        whole = loss(scores, outcome, torch.arange(6))
        torch.testing.assert_close(whole, loss.of_each(scores, outcome).mean())
    else:
        with pytest.raises(TypeError, match="not a mean over candidates"):
            loss.of_each(scores, outcome)


def test_margin_is_the_mean_gap_within_questions_and_skips_those_without_one() -> None:
    scores = torch.tensor([3.0, 1.0, 0.0, 5.0, 5.0, -2.0])
    outcome = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0])
    question = torch.tensor([0, 0, 0, 1, 1, 2])
    assert float(Margin()(scores, outcome, question)) == pytest.approx(0.5 - 3.0)
    assert float(Margin()(scores[3:], outcome[3:], question[3:])) == 0.0
