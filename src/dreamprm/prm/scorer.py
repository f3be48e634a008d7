"""Scoring of trajectories with a trained PRM: streams in, streams out, prompts read once.

Candidates of one question are scored together behind one prefill of its prompt and images (see
`shared_prefix`), several questions of similar length in one batch. A question with one candidate,
and any backbone without a key-value cache, takes the plain pass; the scores are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import torch

from dreamprm.prm.model import PRM
from dreamprm.prm.shared_prefix import can_share, share, shared_logits
from dreamprm.records import Question, StepScores, Trajectory

Pair = tuple[Question, Trajectory]
_Item = tuple[int, Question, Sequence[str]]  # place in the window, question, steps
_BATCHES_IN_WINDOW = 8


class StepScorer:
    """Scores trajectories in batches of similar length.

    Args:
        model: put into eval mode; its device is used.
        batch_size: trajectories in one forward pass.
        share_prefix: read the prompt once for all candidates of a question.
    """

    def __init__(self, model: PRM, batch_size: int = 16, share_prefix: bool = True) -> None:
        self.model, self.batch_size = model.eval(), batch_size
        self.share_prefix = share_prefix and can_share(model)
        self.encode = model.encoder()
        self.encode.warn_cut = False  # the records tell

    @property
    def window(self) -> int:
        """Trajectories that are held, and sorted by length, at once."""
        return _BATCHES_IN_WINDOW * self.batch_size

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
        """
        left = iter(pairs)
        while held := list(islice(left, self.window)):
            items = [(i, question, t.steps) for i, (question, t) in enumerate(held)]
            for done in self._batches(items):
                for place, logits in done:
                    yield StepScores.of(held[place][1], logits)
                progress(len(done))

    def score_steps(
        self, question: Question, candidates: Sequence[Sequence[str]]
    ) -> list[tuple[float, ...]]:
        """Step logits of several reasonings, whole or not, about one question.

        Args:
            candidates: at least one step each.

        Returns:
            One logit per step of each; fewer where steps are beyond the backbone's context.
        """
        found: dict[int, tuple[float, ...]] = {}
        for done in self._batches([(i, question, steps) for i, steps in enumerate(candidates)]):
            found.update(done)
        return [found[i] for i in range(len(candidates))]

    def _batches(self, items: Sequence[_Item]) -> Iterator[list[tuple[int, tuple[float, ...]]]]:
        """Places and logits, batch by batch."""
        for with_images in (True, False):  # not every processor takes both in one batch
            alone: list[list[_Item]] = []
            together: list[list[_Item]] = []
            for group in _by_question(i for i in items if bool(i[1].images) == with_images):
                for start in range(0, len(group), self.batch_size):
                    part = group[start : start + self.batch_size]
                    if self.share_prefix and len(part) > 1:
                        together.append(part)
                    else:
                        alone += [[one] for one in part]
            for batch in self._packed(alone):
                yield self._plain([one for [one] in batch])
            for batch in self._packed(together):
                yield self._shared(batch)

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

    @torch.inference_mode()
    def _plain(self, batch: list[_Item]) -> list[tuple[int, tuple[float, ...]]]:
        encoded = self.encode([(question, steps) for _, question, steps in batch])
        logits = self.model(encoded.to(self.model.device))  # (trajectories, steps)
        return _rows([place for place, _, _ in batch], logits, encoded.mask)

    @torch.inference_mode()
    def _shared(self, batch: list[list[_Item]]) -> list[tuple[int, tuple[float, ...]]]:
        encoded = share(self.encode, [(g[0][1], [steps for _, _, steps in g]) for g in batch])
        logits = shared_logits(self.model, encoded.to(self.model.device))  # (trajectories, steps)
        return _rows([place for g in batch for place, _, _ in g], logits, encoded.mask)


def _by_question(items: Iterable[_Item]) -> list[list[_Item]]:
    groups: dict[str, list[_Item]] = {}
    for item in items:
        groups.setdefault(item[1].id, []).append(item)
    return list(groups.values())


def _length(group: list[_Item]) -> int:
    """Characters of the longest of a group; images of one data set are about alike."""
    return len(group[0][1].text) + max(sum(map(len, steps)) for _, _, steps in group)


def _rows(
    places: Sequence[int], logits: torch.Tensor, mask: torch.Tensor
) -> list[tuple[int, tuple[float, ...]]]:
    found = logits.float().cpu()
    return [(p, tuple(row[m].tolist())) for p, row, m in zip(places, found, mask, strict=True)]
