"""Batches of the two levels, and how they come to be made ahead of their step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dreamprm.errors import DreamPRMError
from dreamprm.prm.layout import Batch


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
    """

    domain: int
    items: Tensor
    tokens: Batch
    labels: Tensor
    labelled: Tensor
    images: tuple[int, ...]

    def to(self, device: torch.device) -> LowerBatch:
        return replace(
            self,
            items=self.items.to(device),
            tokens=self.tokens.to(device),
            labels=self.labels.to(device),
            labelled=self.labelled.to(device),
        )


@dataclass(frozen=True)
class MetaBatch:
    """Candidates in chunks, one forward pass each.

    Attributes:
        chunks: tokens of the candidates.
        outcomes: 0.0 or 1.0 of each candidate, (candidates,).
        question: index of each candidate's question, (candidates,).
    """

    chunks: tuple[Batch, ...]
    outcomes: Tensor
    question: Tensor

    def outcomes_of_chunks(self) -> tuple[Tensor, ...]:
        """Outcomes, divided as the chunks are."""
        sizes = [len(chunk.mask) for chunk in self.chunks]
        return tuple(torch.split(self.outcomes, sizes))

    def to(self, device: torch.device) -> MetaBatch:
        return MetaBatch(
            tuple(chunk.to(device) for chunk in self.chunks),
            self.outcomes.to(device),
            self.question.to(device),
        )


def owners_of_rows(batch: LowerBatch, output: Tensor, vocabulary: int) -> Tensor | None:
    """Trajectory of each row (first dimension) of what a module returns, (rows,).

    Rows are sequences (three dimensions, as many tokens as the batch), judged steps (what the heads
    return), or image patches of processors that say how many each image has.

    Args:
        batch: that the model computes.
        output: of one of its modules.
        vocabulary: size of the backbone's.

    Returns:
        None where it cannot be told.
    """
    tokens = batch.tokens
    device = output.device
    sequence_owner = torch.zeros(len(tokens.inputs["input_ids"]), dtype=torch.long)
    rows = torch.arange(len(tokens.mask)).view(-1, 1).expand_as(tokens.mask)
    sequence_owner[tokens.rows[tokens.mask].cpu()] = rows[tokens.mask.cpu()]
    if output.dim() == 3 and output.shape[:2] == tokens.inputs["input_ids"].shape:
        return sequence_owner.to(device)
    if output.dim() == 2 and output.shape[1] in (1, vocabulary):
        return rows[tokens.mask.cpu()].to(device)
    grid = tokens.inputs.get("image_grid_thw")
    if grid is not None:
        patches = grid.prod(dim=1).cpu()  # (images,)
        images = torch.tensor(batch.images)[sequence_owner]
        merged, rest = divmod(int(patches.sum()), max(1, len(output)))
        if merged and not rest and not (patches % merged).any():
            of_image = sequence_owner.repeat_interleave(images)
            return of_image.repeat_interleave(patches // merged).to(device)
    return None


class Ahead:
    """Batches of consecutive steps, made ahead by worker processes.

    Args:
        make: step -> batch, a pure function.
        first, end: steps that will be asked for, in order.
        workers: processes; 0 makes each batch when it is asked for.
    """

    def __init__(self, make: Any, first: int, end: int, workers: int) -> None:
        self._make, self._next = make, first
        self._batches: Iterator[Any] | None = None
        if workers:
            loader = DataLoader(
                _Steps(make, first, end),
                batch_size=None,
                num_workers=workers,
                prefetch_factor=2,
                generator=torch.Generator(),  # the global one belongs to the run
            )
            self._batches = iter(loader)

    def __call__(self, step: int) -> Any:
        if self._batches is None:
            return self._make(step)
        if step != self._next:
            raise ValueError(f"step {step} asked for, {self._next} is next")
        self._next += 1
        batch = next(self._batches)
        if isinstance(batch, DreamPRMError):
            raise batch
        return batch


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


def on_device(batches: Sequence[LowerBatch], device: torch.device) -> tuple[LowerBatch, ...]:
    """Move the micro-batches of a step."""
    return tuple(batch.to(device) for batch in batches)
