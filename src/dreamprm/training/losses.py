"""The losses of both levels, on step logits.

Lower level: each step's logit against its label. Upper level: the logits of a whole solution are
aggregated as at inference, and the aggregated logit is compared with the solution's outcome.

The DreamPRM paper's squared error rewards calibration more than ranking: labels without information
pull the mean score toward the meta set's base rate, and that lowers the error. The other meta
losses look only at what best-of-N uses. `affine_*` fits scale and shift of the aggregated logit to
the outcomes and holds them fixed in the gradient (profiling a nuisance out); `pairwise`,
`listwise` and `margin` compare candidates of one question, where a shift cancels by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

LowerLoss = Literal["mse", "bce", "hard"]
Aggregation = Literal["mean", "sum"]


def trajectory_losses(
    logits: Tensor, labels: Tensor, mask: Tensor, kind: LowerLoss = "mse", threshold: float = 0.0
) -> Tensor:
    """The lower level's loss: mean over the labelled steps of each trajectory.

    Args:
        logits: raw step scores, (trajectories, steps).
        labels: p of each step, in [0, 1], (trajectories, steps).
        mask: True where a step is labelled, (trajectories, steps).
        kind: `mse` on the probability (the paper, eq. of the lower level); `bce` with the soft
            label; `hard`, BCE with the label p > threshold.
        threshold: of `hard`.

    Returns:
        One loss per trajectory, (trajectories,); 0 for one without a labelled step.
    """
    if kind == "mse":
        losses = (logits.sigmoid() - labels) ** 2
    elif kind == "bce":
        losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    else:
        hard = (labels > threshold).to(logits.dtype)
        losses = F.binary_cross_entropy_with_logits(logits, hard, reduction="none")
    losses = torch.where(mask, losses, 0.0)  # (trajectories, steps)
    return losses.sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def aggregate(logits: Tensor, mask: Tensor, how: Aggregation) -> Tensor:
    """A of each trajectory from its step logits, (trajectories, steps) -> (trajectories,).

    The paper's text has the sum, its code the mean.
    """
    total = torch.where(mask, logits, 0.0).sum(dim=1)
    return total / mask.sum(dim=1).clamp(min=1) if how == "mean" else total


class MetaLoss:
    """A loss of scored candidates: `score` each, then call with the scores of all.

    Attributes:
        separable: the mean of a loss of each candidate by itself (`of_each`), so that a batch may
            be differentiated in parts.
        compares_candidates: of one question; a question whose candidates are all right or all wrong
            teaches nothing.
    """

    separable = False
    compares_candidates = False

    def __init__(self, aggregation: Aggregation = "mean") -> None:
        self.aggregation = aggregation

    def score(self, logits: Tensor, mask: Tensor, outcome: Tensor) -> Tensor:
        """What the loss looks at: the aggregated logit of each candidate.

        Args:
            logits: (candidates, steps).
            mask: True where there is a step, (candidates, steps).
            outcome: 1.0 where the final answer is right, (candidates,).

        Returns:
            (candidates,).
        """
        return aggregate(logits, mask, self.aggregation)

    def of_each(self, scores: Tensor, outcome: Tensor) -> Tensor:
        """Loss of each candidate, (candidates,), where the loss is separable."""
        raise TypeError(f"{type(self).__name__} is not a mean over candidates")

    def __call__(self, scores: Tensor, outcome: Tensor, question: Tensor) -> Tensor:
        """The loss, a scalar; all arguments are (candidates,), `question` an index."""
        return self.of_each(scores, outcome).mean()


class SquaredError(MetaLoss):
    """The paper's: mean (sigmoid(A) - outcome)^2."""

    separable = True

    def of_each(self, scores: Tensor, outcome: Tensor) -> Tensor:
        return (scores.sigmoid() - outcome) ** 2


class OfSteps(MetaLoss):
    """Every step of a solution against its outcome: nothing is aggregated but the losses.

    The paper's ablation without the aggregation loss (its upper level then looks as the lower one).
    """

    separable = True

    def __init__(self, loss: Literal["mse", "bce"]) -> None:
        super().__init__()
        self.loss: LowerLoss = loss

    def score(self, logits: Tensor, mask: Tensor, outcome: Tensor) -> Tensor:
        target = outcome.to(logits.dtype)[:, None].expand_as(logits)
        return trajectory_losses(logits, target, mask, self.loss)

    def of_each(self, scores: Tensor, outcome: Tensor) -> Tensor:
        return scores


class Pairwise(MetaLoss):
    """-log sigmoid(A_right - A_wrong) over right-wrong pairs of a question, mean over questions.

    0 (with zero gradient) where no question of the batch has both kinds.
    """

    compares_candidates = True

    def __call__(self, scores: Tensor, outcome: Tensor, question: Tensor) -> Tensor:
        right = outcome > 0.5
        pairs = (question[:, None] == question[None]) & right[:, None] & ~right[None]  # (T, T)
        margin = scores[:, None] - scores[None]  # (T, T)
        per_row = torch.where(pairs, F.softplus(-margin), 0.0).sum(dim=1)  # (T,)
        losses = [
            per_row[mine].sum() / pairs[mine].sum()
            for mine in (question == q for q in question.unique())
            if pairs[mine].any()
        ]
        return torch.stack(losses).mean() if losses else scores.sum() * 0.0


class Listwise(MetaLoss):
    """-log of the softmax mass on a question's right candidates: a smooth best-of-N."""

    compares_candidates = True

    def __call__(self, scores: Tensor, outcome: Tensor, question: Tensor) -> Tensor:
        right = outcome > 0.5
        losses = []
        for q in question.unique():
            mine = question == q
            good = mine & right
            if good.any() and not right[mine].all():
                losses.append(scores[mine].logsumexp(0) - scores[good].logsumexp(0))
        return torch.stack(losses).mean() if losses else scores.sum() * 0.0


class Margin(MetaLoss):
    """Mean A of a question's wrong candidates less that of its right ones, mean over questions.

    It has no scale at which a pair counts as well ranked, so that every pair goes on speaking: of
    all meta losses it is surest of what a domain is worth (docs/LOG.md, 2026-11-30).
    """

    compares_candidates = True

    def __call__(self, scores: Tensor, outcome: Tensor, question: Tensor) -> Tensor:
        right = outcome > 0.5
        margins = [
            scores[mine & ~right].mean() - scores[mine & right].mean()
            for mine in (question == q for q in question.unique())
            if right[mine].any() and not right[mine].all()
        ]
        return torch.stack(margins).mean() if margins else scores.sum() * 0.0


class Affine(MetaLoss):
    """BCE or MSE of sigmoid(a A + b), where a and b are fitted to the outcomes and held fixed.

    Both are fitted to each batch, which makes the gradient blind to a shift and to a scale of all
    scores; with a slope from elsewhere a batch that the model ranks badly asks for smaller scores,
    and that is noise (docs/LOG.md, 2026-11-30). The slope is bounded below: best-of-N takes the
    highest score, so a fit with a negative slope would reward a model for ranking upside down and,
    once there, hold it there.
    """

    MIN_SLOPE = 0.1

    def __init__(self, loss: Literal["bce", "mse"], aggregation: Aggregation = "mean") -> None:
        super().__init__(aggregation)
        self.loss = loss

    def __call__(self, scores: Tensor, outcome: Tensor, question: Tensor) -> Tensor:
        fixed = scores.detach()
        a, b = fit_affine(fixed, outcome)
        if a < self.MIN_SLOPE:
            a, b = fit_affine(fixed, outcome, slope=self.MIN_SLOPE)
        if self.loss == "bce":
            return F.binary_cross_entropy_with_logits(a * scores + b, outcome)
        return (((a * scores + b).sigmoid() - outcome) ** 2).mean()


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
        scores, outcome: (candidates,), detached.
        slope: a, where it is given and only b is fitted.
        ridge: pulls a toward 1 (and b, a hundred times weaker, toward 0); keeps the fit finite.
        steps: Newton steps.
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
        theta = theta - move * min(1.0, 2.0 / max(float(move.norm()), 1e-12))
    return float(theta[0]), float(theta[1])


META_LOSSES: dict[str, Callable[[Aggregation], MetaLoss]] = {
    "mse": SquaredError,
    "affine_bce": lambda how: Affine("bce", how),
    "affine_mse": lambda how: Affine("mse", how),
    "pairwise": Pairwise,
    "listwise": Listwise,
    "margin": Margin,
    "mse_steps": lambda how: OfSteps("mse"),
    "bce_steps": lambda how: OfSteps("bce"),
}
"""Makers by name."""
