"""The paper's procedure, as `benchmarks.training` runs it beside ours.

One prefix of one trajectory per pass and lower step, each prefix of a meta trajectory a pass of its
own, and a central difference at the window's end (arXiv 2505.20241; preset `paper`). As in the
paper's code the difference is taken on the window's last batch alone, which is cheaper than our own
`finite_difference` over the whole window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dreamprm.bilevel import MicroBatch
from dreamprm.bilevel.parameters import copy_of
from dreamprm.bilevel.per_trajectory import FiniteDifference
from dreamprm.training.batches import MetaBatch
from dreamprm.training.losses import aggregate
from dreamprm.training.problem import PRMProblem


class PrefixPasses(PRMProblem):
    """The paper's meta loss: every prefix of the one meta trajectory is a forward pass."""

    meta_backward = None  # type: ignore[assignment]  # one graph of all passes, as in the paper's code

    def meta_loss(self, batch: MetaBatch) -> Tensor:
        logits = torch.cat([self._logits(chunk)[:, -1] for chunk in batch.chunks])[None]  # (1, S)
        score = aggregate(logits, torch.ones_like(logits, dtype=torch.bool), "mean")
        return self.of_candidates(score, batch.outcomes, batch.question)


class LastBatchDifference(FiniteDifference):
    """The paper's code: differences of the window's last batch at phi_end, no copy before."""

    def start(self, meta_batch: Any) -> None:
        super().start(meta_batch)
        self._phi = []

    @torch.no_grad()
    def after_step(self, micros: Sequence[MicroBatch], remaining: int) -> None:
        if remaining == 1:
            self._phi = copy_of(self.parameters)
            super().after_step(micros, remaining)
        else:  # earlier batches have no say
            self._micros += micros
            self._parts += [(torch.zeros_like(micro.w), None) for micro in micros]
