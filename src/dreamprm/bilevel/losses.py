"""The lower level's loss: step logits against Monte Carlo labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dreamprm.training.config import LowerLoss


def trajectory_losses(
    logits: Tensor, labels: Tensor, mask: Tensor, kind: LowerLoss = "mse", threshold: float = 0.0
) -> Tensor:
    """Mean loss over the labelled steps of each trajectory.

    Args:
        logits: raw step scores, (trajectories, steps).
        labels: Monte Carlo label p of each step, in [0, 1], (trajectories, steps).
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
