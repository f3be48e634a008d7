"""Several processes that train one model.

Each takes its share of every micro-batch and of every meta batch. Parameters are either replicated
(every process has all of them; the gradient of a step is averaged once, before the optimiser) or
sharded by FSDP2 (which averages the gradient of every backward pass and leaves each process its
shard). Hypergradients need little more than sums of scalars: they are linear in the gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist

BUCKET = 2**25  # elements in one all-reduce: 128 MiB of fp32


@dataclass(frozen=True)
class Parallel:
    """The processes of a run.

    Attributes:
        rank: of this process.
        world: number of processes.
        sharded: parameters are sharded (FSDP2), not replicated.
    """

    rank: int = 0
    world: int = 1
    sharded: bool = False

    def average_gradients(self, tensors: Sequence[Tensor]) -> None:
        """Average gradients of phi, in place; FSDP2 has averaged those of shards already."""
        if not self.sharded:
            self.average(tensors)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Average tensors that every process has whole, such as alpha's gradient, in place."""
        if self.world == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([t.flatten() for t in bucket])
            dist.all_reduce(flat)
            flat /= self.world
            start = 0
            for t in bucket:
                t.copy_(flat[start : start + t.numel()].view_as(t))
                start += t.numel()

    def total(self, value: Tensor) -> Tensor:
        """Sum of a tensor over the processes."""
        if self.world == 1:
            return value
        value = value.detach().clone()
        dist.all_reduce(value)
        return value

    def mean(self, value: Tensor) -> Tensor:
        """Mean of a tensor over the processes."""
        return self.total(value) / self.world

    def gather(self, own: Tensor) -> Tensor:
        """All processes' tensors, one after another; only one's own part has a gradient.

        Sizes may differ between processes in the first dimension.
        """
        if self.world == 1:
            return own
        sizes = [torch.zeros(1, dtype=torch.long, device=own.device) for _ in range(self.world)]
        dist.all_gather(sizes, torch.tensor([len(own)], device=own.device))
        longest = int(torch.stack(sizes).max())
        padded = own.new_zeros((longest, *own.shape[1:]))
        padded[: len(own)] = own.detach()
        parts = [torch.empty_like(padded) for _ in range(self.world)]
        dist.all_gather(parts, padded)
        whole = [part[: int(size)] for part, size in zip(parts, sizes, strict=True)]
        whole[self.rank] = own
        return torch.cat(whole)

    def norm(self, tensors: Sequence[Tensor]) -> Tensor:
        """Euclidean norm of a gradient whose replicas are equal, or whose shards are these."""
        squares = torch.stack([(t.detach() ** 2).sum() for t in tensors]).sum()
        return (self.total(squares) if self.sharded else squares).sqrt()

    def mine(self, count: int) -> range:
        """Indices of this process's share of `count` things."""
        return range(self.rank, count, self.world)


SINGLE = Parallel()


def _buckets(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    buckets: list[list[Tensor]] = []
    held = BUCKET
    for t in tensors:
        if held + t.numel() > BUCKET or buckets[-1][0].dtype != t.dtype:
            buckets.append([])
            held = 0
        buckets[-1].append(t)
        held += t.numel()
    return buckets
