"""Scoring of trajectories with a trained PRM: streams in, streams out, prompts read once.

Candidates of one question are scored together behind one prefill of its prompt and images (see
`shared_prefix`), several questions of similar length in one batch. A question with one candidate,
and any model that cannot share a prompt, takes the plain pass; the scores are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol

import torch

from dreamprm.errors import DreamPRMError
from dreamprm.records import Question, StepScores, Trajectory

Pair = tuple[Question, Trajectory]
Steps = Sequence[str]
Logits = tuple[float, ...]  # of the steps of one trajectory
Plain = Callable[[Sequence[tuple[Question, Steps]]], list[Logits]]
Shared = Callable[[Sequence[tuple[Question, Sequence[Steps]]]], list[Logits]]
_Item = tuple[int, Question, Steps]  # place in the window, question, steps


class StepModel(Protocol):
    """A reward model of our own (`PRM`) or of others (`conventions.TextPRM`)."""

    def passes(self) -> tuple[Plain, Shared | None]:
        """Put the model into eval mode and make its forward passes, for text and steps to logits.

        The first takes any trajectories. The second takes questions with their candidates and reads
        each question once; None where the model cannot.
        """
        ...


class StepScorer:
    """Scores trajectories in batches of similar length.

    Args:
        model: put into eval mode; its device is used.
        batch_size: trajectories in one forward pass.
        share_prefix: read the prompt once for all candidates of a question.
    """

    def __init__(self, model: StepModel, batch_size: int = 16, share_prefix: bool = True) -> None:
        self.batch_size = batch_size
        self.at_once = getattr(model, "at_once", False)  # see `StepJudge`
        self.window = 8 * batch_size  # trajectories that are held, and sorted by length, at once
        self._plain, shared = model.passes()
        self._shared = shared if share_prefix else None

    def score(
        self,
        pairs: Iterable[Pair],
        progress: Callable[[int], None] = lambda done: None,
    ) -> Iterator[StepScores]:
        """Score every step.

        Args:
            pairs: may be a generator of any length: a window of it is held. Candidates of one
                question share their prompt where they stand near each other.
            progress: told how many trajectories are done since the last call.

        Yields:
            One record per trajectory, in an order of its own within a window.

        Raises:
            DreamPRMError: a logit is not a finite number.
        """
        left = iter(pairs)
        while held := list(islice(left, self.window)):
            for place, logits in self.logits([(question, t.steps) for question, t in held]):
                yield StepScores.of(held[place][1], logits)
                progress(1)

    def score_steps(self, question: Question, candidates: Sequence[Steps]) -> list[Logits]:
        """Step logits of several reasonings of at least one step about one question.

        Fewer than steps where these are beyond the backbone's context.
        """
        logits = dict(self.logits([(question, steps) for steps in candidates]))
        return [logits[i] for i in range(len(candidates))]

    def logits(self, pairs: Sequence[tuple[Question, Steps]]) -> Iterator[tuple[int, Logits]]:
        """Each place in the list and its step logits, batch by batch.

        Raises:
            DreamPRMError: a logit is not a finite number.
        """
        items = [(i, question, steps) for i, (question, steps) in enumerate(pairs)]
        for done in self._batches(items):
            for place, logits in done:
                if not all(map(math.isfinite, logits)):
                    raise DreamPRMError(
                        f"question '{pairs[place][0].id}': the model gives logits that are not "
                        "finite; its config files are damaged, or it needs float32"
                    )
                yield place, logits

    def _batches(self, items: Sequence[_Item]) -> Iterator[list[tuple[int, Logits]]]:
        """Places and logits, batch by batch."""
        for with_images in (True, False):  # not every processor takes both in one batch
            by_question: dict[str, list[_Item]] = {}
            for item in items:
                if bool(item[1].images) == with_images:
                    by_question.setdefault(item[1].id, []).append(item)
            alone: list[list[_Item]] = []
            together: list[list[_Item]] = []
            for group in by_question.values():
                for start in range(0, len(group), self.batch_size):
                    part = group[start : start + self.batch_size]
                    if self._shared is not None and len(part) > 1:
                        together.append(part)
                    else:
                        alone += [[one] for one in part]
            for batch in self._packed(alone):
                logits = self._plain([(question, steps) for [(_, question, steps)] in batch])
                yield [(group[0][0], row) for group, row in zip(batch, logits, strict=True)]
            for batch in self._packed(together):
                assert self._shared is not None
                logits = self._shared([(g[0][1], [steps for _, _, steps in g]) for g in batch])
                places = [place for group in batch for place, _, _ in group]
                yield list(zip(places, logits, strict=True))

    def _packed(self, groups: list[list[_Item]]) -> Iterator[list[list[_Item]]]:
        """Groups of similar length, as many as fit a batch."""
        batch: list[list[_Item]] = []
        for group in sorted(groups, key=_length):
            if batch and sum(map(len, batch)) + len(group) > self.batch_size:
                yield batch
                batch = []
            batch.append(group)
        if batch:
            yield batch


def score_question(
    model: StepModel, question: Question | str, candidates: Sequence[Steps], batch_size: int
) -> list[list[float]]:
    """Step scores (probabilities) of several reasonings about one question; see `PRM.score`."""
    if isinstance(question, str):
        question = Question(id="question", domain="any", text=question, answer="?")
    logits = StepScorer(model, batch_size).score_steps(question, candidates)
    return [torch.tensor(row, dtype=torch.float64).sigmoid().tolist() for row in logits]


def _length(group: list[_Item]) -> int:
    """Characters of the longest of a group; images of one data set are about alike."""
    return len(group[0][1].text) + max(sum(map(len, steps)) for _, _, steps in group)
