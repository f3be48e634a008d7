"""What an estimator is given and what it returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class LowerBatch(Protocol):
    """A micro-batch: trajectories of one domain. A problem's own class has more."""

    @property
    def domain(self) -> int:
        """Index of the domain."""
        ...

    @property
    def items(self) -> Tensor:
        """Index of each trajectory among all training trajectories, (B,)."""
        ...


@dataclass(frozen=True)
class LowerOutput:
    """What a problem says of a micro-batch.

    Attributes:
        losses: L_i, the unweighted loss of each trajectory, (B,).
        features: what an instance net sees of each trajectory, (B, features), detached; None: the
            losses themselves.
    """

    losses: Tensor
    features: Tensor | None = None

    def seen(self) -> Tensor:
        """Features, (B, features), detached."""
        found = self.losses[:, None] if self.features is None else self.features
        return found.detach()


class Problem(Protocol):
    """All that the method needs to know of a model and its data."""

    @property
    def model(self) -> nn.Module:
        """Its parameters that require gradients are phi, the lower level's variables."""
        ...

    def lower_losses(self, batch: Any, labels: Tensor | None = None) -> LowerOutput:
        """L_i of each trajectory of a micro-batch; `labels`, where given, replace the batch's."""
        ...

    def meta_loss(self, batch: Any) -> Tensor:
        """The meta loss of one meta batch. Scalar."""
        ...


@dataclass(frozen=True)
class LowerStep:
    """One lower step: phi <- optimiser(phi, 1/D sum_b mean_i w_i grad L_i), D micro-batches b.

    Attributes:
        batches: the micro-batches.
        features: of each micro-batch's trajectories when the step was taken, (B, features).
        remaining: lower steps from this one to the window's end, this one included.
        scale: factor by which the gradient was clipped (1: not at all).
    """

    batches: tuple[Any, ...]
    features: tuple[Tensor, ...]
    remaining: int
    scale: float = 1.0

    @property
    def share(self) -> float:
        """Of a micro-batch in the step's gradient: clipping / D."""
        return self.scale / len(self.batches)


class Upper(Protocol):
    """The upper level's variables alpha, as estimators see them."""

    def leaf(self, batch: Any, features: Tensor) -> Tensor:
        """w_i of a micro-batch as a fresh variable to differentiate by, (B,)."""
        ...

    def weights(self, batch: Any, features: Tensor) -> Tensor:
        """w_i of a micro-batch as they are now, (B,), without gradient."""
        ...

    def labels(self, batch: Any) -> Tensor | None:
        """Corrected labels of a micro-batch, as a function of alpha; None: not corrected."""
        ...


@dataclass(frozen=True)
class Hypergradient:
    """Result of an estimator.

    Attributes:
        surrogate: a scalar whose gradient by the variables that `Upper` handed out in the window
            is the hypergradient; its value means nothing. None where nothing can be said yet (the
            optimiser has no state to precondition with).
        meta_loss: value of the meta loss.
    """

    surrogate: Tensor | None
    meta_loss: float


class Estimator(Protocol):
    """Watches a window of lower steps, then estimates the hypergradient."""

    def start_window(self, meta_batch: Any) -> None:
        """Called before the window's first lower step; `meta_batch` is that of `compute`."""
        ...

    def observe(
        self, index: int, batch: Any, features: Tensor, gradient: Sequence[Tensor | None]
    ) -> None:
        """Called after the backward pass of a step's `index`-th micro-batch, phi unchanged.

        `gradient`, one tensor per trainable parameter (None: unused), is grad mean_i L_i where
        `Upper` weighs whole domains, grad mean_i w_i L_i otherwise. The estimator may keep the
        tensors; the loop does not touch them again.
        """
        ...

    def after_step(self, step: LowerStep) -> None:
        """Called after the optimiser moved; `p.grad` still holds the step's clipped gradient."""
        ...

    def compute(self, meta_batch: Any) -> Hypergradient:
        """The hypergradient at the window's end."""
        ...


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """phi: the parameters that the lower level moves, in a fixed order."""
    return [p for p in model.parameters() if p.requires_grad]


def gradients(loss: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor | None]:
    """Gradient of a loss through `.grad`, as every wrapper (FSDP, checkpointing) expects.

    Leaves `.grad` empty. None for a parameter that the loss does not use.
    """
    for p in parameters:
        p.grad = None
    loss.backward()
    found = [p.grad for p in parameters]
    for p in parameters:
        p.grad = None
    return found


def local(tensor: Tensor) -> Tensor:
    """This process's shard of a sharded tensor (FSDP2); the tensor itself otherwise."""
    to_local = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()


def dot(a: Sequence[Tensor | None], b: Sequence[Tensor | None]) -> Tensor:
    """< a, b > over lists of tensors, in at least fp32; None counts as zero. Scalar."""
    products = [
        (local(x).float() if x.dtype.itemsize < 4 else local(x)).flatten()
        @ local(y).to(torch.promote_types(x.dtype, torch.float32)).flatten()
        for x, y in zip(a, b, strict=True)
        if x is not None and y is not None
    ]
    return torch.stack(products).sum() if products else torch.zeros(())
