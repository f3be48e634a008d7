"""Batches of the two levels: which data each step sees, and how they are made ahead of it.

What a step sees is a pure function of the seed and the step. There is no state to save: a resumed
run asks for step t and gets what the unbroken run got.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dreamprm.errors import DreamPRMError
from dreamprm.prm.layout import Batch

BATCHES_IN_STRETCH = 8  # within which trajectories are sorted by length


@dataclass(frozen=True)
class LowerBatch:
    """Trajectories of one domain.

    Attributes:
        domain: its index.
        items: index of each trajectory in `TrainData.items`, (B,).
        tokens: of the trajectories.
        labels: p of each step, (B, steps).
        labelled: True where there is a label and a step that was not cut off, (B, steps).
        images: number of images of each trajectory's question.
        block: its number among the domain's blocks; -1: none of them.
    """

    domain: int
    items: Tensor
    tokens: Batch
    labels: Tensor
    labelled: Tensor
    images: tuple[int, ...]
    block: int = -1

    def to(self, device: torch.device) -> LowerBatch:
        names = ("items", "tokens", "labels", "labelled")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


@dataclass(frozen=True)
class MetaBatch:
    """Candidates in chunks, one forward pass each.

    Attributes:
        chunks: tokens of the candidates.
        outcomes: 0.0 or 1.0 of each candidate, (candidates,).
        question: index of each candidate's question, (candidates,).
        part: of the meta set that the questions are.
    """

    chunks: tuple[Batch, ...]
    outcomes: Tensor
    question: Tensor
    part: int = 0

    def outcomes_of_chunks(self) -> tuple[Tensor, ...]:
        """Outcomes, divided as the chunks are."""
        sizes = [len(chunk.mask) for chunk in self.chunks]
        return tuple(torch.split(self.outcomes, sizes))

    def to(self, device: torch.device) -> MetaBatch:
        chunks = tuple(chunk.to(device) for chunk in self.chunks)
        outcomes, question = self.outcomes.to(device), self.question.to(device)
        return replace(self, chunks=chunks, outcomes=outcomes, question=question)


def ahead(
    make: Callable[[int], list[LowerBatch]], first: int, end: int, workers: int
) -> Iterator[list[LowerBatch]]:
    """Batches of consecutive steps, made ahead by worker processes; in place without any.

    Args:
        make: step -> batches, a pure function.
    """
    if not workers:
        yield from map(make, range(first, end))
        return
    loader = DataLoader(
        _Steps(make, first, end),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=2,
        generator=torch.Generator(),  # the global one belongs to the run
    )
    for batches in loader:
        if isinstance(batches, DreamPRMError):
            raise batches
        yield batches


class _Steps(Dataset[Any]):
    def __init__(self, make: Any, first: int, end: int) -> None:
        self.make, self.first, self.end = make, first, end

    def __len__(self) -> int:
        return self.end - self.first

    def __getitem__(self, index: int) -> Any:
        try:
            return self.make(self.first + index)
        except DreamPRMError as error:  # raised here, its line would become a traceback's text
            return error


def domains_at(step: int, count: int, per_step: int, seed: int) -> list[tuple[int, int]]:
    """Domains of a lower step, each with the number of times that it was visited before.

    The domains come in rounds, each a fresh permutation of all of them, so that every domain is
    visited equally often and `count / per_step` steps see each domain once.

    Returns:
        `per_step` pairs (domain index, visit).
    """
    places = range(step * per_step, (step + 1) * per_step)
    rounds = {place // count for place in places}
    order = {r: _permutation(count, f"{seed}/round/{r}") for r in rounds}
    return [(order[place // count][place % count], place // count) for place in places]


def part_at(visit: int, parts: int, key: str) -> int:
    """The part that the `visit`-th batch is: each once in an epoch, in fresh order."""
    epoch, place = divmod(visit, parts)
    return _permutation(parts, f"{key}/epoch/{epoch}")[place]


def items_of_part(part: int, parts: int, size: int, key: str) -> list[int]:
    """The items of one of the parts that a set is cut into at random, once and for all."""
    return list(_permutation(size, key)[part::parts])


def blocks_of(
    questions: Sequence[str], lengths: Sequence[int], count: int, key: str, by_length: bool
) -> list[list[int]]:
    """A set of trajectories in blocks of `count`, at random, once and for all.

    Trajectories of one question stand together, up to a quarter of a block: they share what is
    peculiar to it. The last block is filled up with the first items, so that all are as large.

    Args:
        questions, lengths: of the trajectories.
        by_length: items of similar length together (within random stretches of them).
    """
    of_question: dict[str, list[int]] = {}
    for i, question in enumerate(questions):
        of_question.setdefault(question, []).append(i)
    together = max(1, count // 4)
    bunches = [
        items[start : start + together]
        for items in of_question.values()
        for start in range(0, len(items), together)
    ]
    order = [i for b in _permutation(len(bunches), key) for i in bunches[b]]
    if by_length:
        stretch = BATCHES_IN_STRETCH * count
        order = [
            i
            for start in range(0, len(order), stretch)
            for i in sorted(order[start : start + stretch], key=lambda i: lengths[i])
        ]
    starts = range(0, len(order), count)
    return [[order[i % len(order)] for i in range(start, start + count)] for start in starts]


def contrasting(outcomes: Sequence[bool], count: int, key: str) -> list[int]:
    """Up to `count` candidates of one question, with both outcomes among them where there are both.

    Returns:
        Indices into `outcomes`, random but for one right and one wrong candidate (if count allows).
    """
    order = _permutation(len(outcomes), key)
    if count < 2:
        return list(order[:count])
    first_right = next((i for i in order if outcomes[i]), None)
    first_wrong = next((i for i in order if not outcomes[i]), None)
    needed = [i for i in (first_right, first_wrong) if i is not None]
    rest = [i for i in order if i not in needed]
    return (needed + rest)[:count]


@lru_cache(maxsize=256)  # a domain's epoch is asked for at every visit
def _permutation(size: int, key: str) -> tuple[int, ...]:
    order = list(range(size))
    random.Random(key).shuffle(order)
    return tuple(order)
