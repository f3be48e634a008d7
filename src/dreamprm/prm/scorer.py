"""Scoring of trajectories with a trained PRM."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from dreamprm.prm.model import ProcessRewardModel
from dreamprm.records import Question, StepScores, Trajectory


class StepScorer:
    """Scores trajectories in batches of similar length.

    Args:
        model: put into eval mode; its device is used.
        batch_size: trajectories in one forward pass.
    """

    def __init__(self, model: ProcessRewardModel, batch_size: int = 16) -> None:
        self.model, self.batch_size = model.eval(), batch_size
        self.encode = model.encoder()

    @torch.inference_mode()
    def score(
        self,
        pairs: Sequence[tuple[Question, Trajectory]],
        progress: Callable[[int], None] = lambda done: None,
    ) -> Iterator[StepScores]:
        """Score every step.

        Yields:
            One record per trajectory, in an order of its own: long ones are batched together.
        """
        for with_images in (True, False):
            mine = [pair for pair in pairs if bool(pair[0].images) == with_images]
            mine.sort(key=lambda pair: len(pair[0].text) + sum(map(len, pair[1].steps)))
            for start in range(0, len(mine), self.batch_size):
                part = mine[start : start + self.batch_size]
                batch = self.encode([(question, t.steps) for question, t in part])
                logits = self.model(batch.to(self.model.device))  # (trajectories, steps)
                for (_, t), row, known in zip(part, logits, batch.mask, strict=True):
                    yield StepScores(
                        question_id=t.question_id,
                        sample_index=t.sample_index,
                        logits=tuple(row[known.to(row.device)].tolist()),
                    )
                progress(len(part))
