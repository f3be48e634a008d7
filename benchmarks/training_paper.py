"""The paper's procedure, as `benchmarks.training` runs it beside ours.

One prefix of one trajectory per pass and lower step, each prefix of a meta trajectory a pass of its
own, and a central difference at the window's end (arXiv 2505.20241; preset `paper`). As in the
paper's code the difference is taken on the window's last batch alone, which is cheaper than our own
`finite_difference` over the whole window.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dreamprm.bilevel.hypergradient import FiniteDifference, LowerStep
from dreamprm.bilevel.hypergradient.direction import copy_of
from dreamprm.bilevel.meta_loss import aggregate
from dreamprm.training.batches import MetaBatch
from dreamprm.training.problem import PRMProblem


class PrefixPasses(PRMProblem):
    """The paper's meta loss: every prefix of the one meta trajectory is a forward pass."""

    meta_backward = None  # type: ignore[assignment]  # one graph of all passes, as in the paper's code

    def meta_loss(self, batch: MetaBatch) -> Tensor:
        logits = torch.cat([self._logits(chunk)[:, -1] for chunk in batch.chunks])[None]  # (1, S)
        score = aggregate(logits, torch.ones_like(logits, dtype=torch.bool), "mean")
        return self.profile(score, batch.outcomes, batch.question)


class LastBatchDifference(FiniteDifference):
    """The paper's code: differences of the window's last batch at phi_end, no copy before."""

    def start_window(self, meta_batch: Any) -> None:
        self._steps.clear()

    @torch.no_grad()
    def after_step(self, step: LowerStep) -> None:
        if step.remaining == 1:
            jacobian = list(self.direction.jacobian(1))
            self._steps.append((step, jacobian, copy_of(self.parameters)))
