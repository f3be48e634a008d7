"""The upper level's loss: aggregated scores of whole solutions against their outcomes.

The paper's squared error answers to calibration before ranking: labels without any information pull
the mean score toward the meta set's base rate, and the squared error rewards them for it. The other
losses here look only at what best-of-N uses. `affine_*` fits the scale and shift of the aggregated
score to the outcomes and takes the gradient past them (profiling a nuisance out); `pairwise` and
`listwise` compare candidates of one question, where a shift cancels by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from dreamprm.training.config import MetaLossName

MetaLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(aggregated logits (trajectories,), outcomes (trajectories,), question index (trajectories,))."""


def aggregate(logits: Tensor, mask: Tensor, how: Literal["mean", "sum"]) -> Tensor:
    """A of each trajectory from its step logits, (trajectories, steps) -> (trajectories,).

    The paper's text has the sum, its code the mean; both as at inference.
    """
    total = torch.where(mask, logits, 0.0).sum(dim=1)
    return total / mask.sum(dim=1).clamp(min=1) if how == "mean" else total


def steps_loss(logits: Tensor, mask: Tensor, outcome: Tensor, how: MetaLossName) -> Tensor:
    """Every step of a solution against its outcome, nothing aggregated, (trajectories,).

    The paper's ablation without the aggregation loss (its upper level then looks as the lower one).
    """
    target = outcome.to(logits.dtype)[:, None].expand_as(logits)
    if how == "mse_steps":
        losses = (logits.sigmoid() - target) ** 2
    else:
        losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return aggregate(losses, mask, "mean")


def mse(aggregated: Tensor, outcome: Tensor, question: Tensor) -> Tensor:
    """The paper's: mean (sigmoid(A) - outcome)^2."""
    return ((aggregated.sigmoid() - outcome) ** 2).mean()


def pairwise(aggregated: Tensor, outcome: Tensor, question: Tensor) -> Tensor:
    """-log sigmoid(A_right - A_wrong) over right-wrong pairs of a question, mean over questions.

    0 (with zero gradient) where no question of the batch has both kinds.
    """
    right = outcome > 0.5
    pairs = (question[:, None] == question[None]) & right[:, None] & ~right[None]  # (T, T)
    margin = aggregated[:, None] - aggregated[None]  # (T, T)
    per_row = (torch.where(pairs, F.softplus(-margin), 0.0)).sum(dim=1)  # (T,)
    losses = [
        per_row[mine].sum() / pairs[mine].sum()
        for mine in (question == q for q in question.unique())
        if pairs[mine].any()
    ]
    return torch.stack(losses).mean() if losses else aggregated.sum() * 0.0


def listwise(aggregated: Tensor, outcome: Tensor, question: Tensor) -> Tensor:
    """-log of the softmax mass on a question's right candidates, mean over questions.

    The softmax over candidates is a smooth best-of-N: with growing logits the mass becomes the
    indicator that the chosen candidate is right. Questions with one kind of outcome teach nothing.
    """
    right = outcome > 0.5
    losses = []
    for q in question.unique():
        mine = question == q
        good = mine & right
        if good.any() and not right[mine].all():
            losses.append(aggregated[mine].logsumexp(0) - aggregated[good].logsumexp(0))
    return torch.stack(losses).mean() if losses else aggregated.sum() * 0.0


class AffineNuisance:
    """BCE or MSE of sigmoid(a A + b), where a and b are fitted to the outcomes and held fixed.

    Two things keep it from collapsing. The slope a is bounded below: best-of-N takes the highest
    score, so a fit with a negative slope would reward a model for ranking upside down and, once
    there, hold it there. And the slope has a memory of earlier meta batches, because that of a few
    dozen outcomes is mostly noise. The shift b has none: it is fitted to each batch given the
    slope, or else a shift of all scores would be rewarded again.

    Args:
        loss: `bce` or `mse`.
        memory: share of the previous slope that is kept at each meta batch, in [0, 1).
    """

    MIN_SLOPE = 0.1

    def __init__(self, loss: Literal["bce", "mse"], memory: float = 0.8) -> None:
        self.loss, self.memory = loss, memory
        self.slope: float | None = None

    def __call__(self, aggregated: Tensor, outcome: Tensor, question: Tensor) -> Tensor:
        scores = aggregated.detach()
        a = max(fit_affine(scores, outcome)[0], self.MIN_SLOPE)
        if self.slope is not None:
            a = self.memory * self.slope + (1 - self.memory) * a
        self.slope = a
        _, b = fit_affine(scores, outcome, slope=a)
        if self.loss == "bce":
            return F.binary_cross_entropy_with_logits(a * aggregated + b, outcome)
        return (((a * aggregated + b).sigmoid() - outcome) ** 2).mean()


def fit_affine(
    scores: Tensor,
    outcome: Tensor,
    *,
    slope: float | None = None,
    ridge: float = 1e-2,
    steps: int = 25,
) -> tuple[float, float]:
    """Logistic regression of outcomes on one score: a, b of sigmoid(a * score + b), by Newton.

    Args:
        scores, outcome: (trajectories,), detached.
        slope: a, where it is given and only b is fitted.
        ridge: pulls a toward 1 (and, a hundred times weaker, b toward 0); keeps the fit finite
            where the batch is separable.
    """
    x = torch.stack([scores.double(), torch.ones_like(scores, dtype=torch.double)], dim=1)  # (T, 2)
    y, prior = outcome.double(), x.new_tensor([1.0 if slope is None else slope, 0.0])
    free = x.new_tensor([0.0 if slope is not None else 1.0, 1.0])
    x_free = x * free  # a fixed slope has no gradient
    theta, pull = prior.clone(), ridge * x.new_tensor([1.0, 0.01])
    for _ in range(steps):
        p = (x @ theta).sigmoid()
        gradient = x_free.T @ (p - y) / len(y) + pull * (theta - prior)
        hessian = (x_free * (p * (1 - p))[:, None]).T @ x_free / len(y) + pull.diag()
        move = torch.linalg.solve(hessian, gradient)
        theta = theta - move * min(1.0, 2.0 / float(move.norm().clamp(min=1e-12)))
    return float(theta[0]), float(theta[1])


def make_meta_loss(name: MetaLossName) -> MetaLoss:
    """The meta loss of that name; the affine ones carry a memory and are made anew per run."""
    if name == "affine_bce":
        return AffineNuisance("bce")
    if name == "affine_mse":
        return AffineNuisance("mse")
    plain: dict[str, MetaLoss] = {"pairwise": pairwise, "listwise": listwise}
    return plain.get(name, mse)
