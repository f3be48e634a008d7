"""Vectors in parameter space: lists with one tensor (or None) per trainable parameter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """phi: the parameters that the lower level moves, in a fixed order."""
    return [p for p in model.parameters() if p.requires_grad]


def gradients(loss: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor | None]:
    """Gradient of a loss by way of `.grad`, as FSDP expects; None where it uses no parameter."""
    for p in parameters:
        p.grad = None
    loss.backward()
    return taken_gradients(parameters)


def taken_gradients(parameters: Sequence[nn.Parameter]) -> list[Tensor | None]:
    """What lies in `.grad`, which is empty afterwards."""
    taken = [p.grad for p in parameters]
    for p in parameters:
        p.grad = None
    return taken


def local(tensor: Tensor) -> Tensor:
    """This process's shard of a sharded tensor (FSDP2); the tensor itself otherwise."""
    to_local = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()


def dot(a: Sequence[Tensor | None], b: Sequence[Tensor | None]) -> Tensor:
    """< a, b > in at least fp32; None counts as zero. Scalar."""
    products = [
        (local(x).float() if x.dtype.itemsize < 4 else local(x)).flatten()
        @ local(y).to(torch.promote_types(x.dtype, torch.float32)).flatten()
        for x, y in zip(a, b, strict=True)
        if x is not None and y is not None
    ]
    return torch.stack(products).sum() if products else torch.zeros(())


def add_scaled(total: list[Tensor | None], vector: Sequence[Tensor | None], scale: float) -> None:
    """Add scale * vector to the total, in place."""
    held: list[Tensor] = []
    more: list[Tensor] = []
    for i, part in enumerate(vector):
        before = total[i]
        if part is None:
            continue
        if before is None:
            total[i] = part * scale
        else:
            held.append(before)
            more.append(part)
    if held:
        torch._foreach_add_(held, more, alpha=scale)


def copy_of(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """The parameters as they are now (this process's shards)."""
    return [local(p.detach()).clone() for p in parameters]


@torch.no_grad()
def move_to(
    parameters: Sequence[nn.Parameter],
    phi: Sequence[Tensor],
    direction: Sequence[Tensor] = (),
    by: float = 0.0,
) -> None:
    """Set the parameters to phi + by * direction; without a direction to phi, bit for bit."""
    for i, (p, origin) in enumerate(zip(parameters, phi, strict=True)):
        local(p.detach()).copy_(origin + by * direction[i] if direction else origin)
