"""< u, grad L_i > of every trajectory of a micro-batch, in two ways.

Both are exact and need no gradient per trajectory:

- `jvp_losses`: one forward-mode pass. The derivative of all L_i along u comes with their values.
- `ghost_products`: let trajectory i go its own way s_i along u. Each module with parameters gets
  its output's derivative along u added, times s_i; one backward pass by the s_i alone, at s = 0,
  is < u, grad L_i > for all i. For a linear layer this is the ghost product of the literature
  (output gradient dot (V a)).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from dreamprm.bilevel.hypergradient.base import Problem, trainable
from dreamprm.errors import DreamPRMError


def jvp_losses(
    problem: Problem, batch: Any, u: Sequence[Tensor], labels: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """L_i and < u, grad L_i > of a micro-batch.

    Args:
        problem: model and losses.
        batch: the micro-batch.
        u: one tensor per trainable parameter.
        labels: corrected labels; the result is differentiable by them.

    Returns:
        Losses and products, (B,) each.
    """
    caller = LossCall(problem)
    with forward_ad.dual_level(), differentiable_attention():
        duals = {
            f"model.{name}": forward_ad.make_dual(p.detach(), direction.to(p.dtype))
            for (name, p), direction in zip(_named(problem.model), u, strict=True)
        }
        with torch.set_grad_enabled(labels is not None):
            losses = torch.func.functional_call(caller, duals, (batch, labels), tie_weights=True)
        primal, tangent = forward_ad.unpack_dual(losses)
        if tangent is None:  # nothing that L depends on is trained
            tangent = torch.zeros_like(primal)
    return primal.detach(), tangent


def ghost_products(
    problem: Problem,
    batch: Any,
    u: Sequence[Tensor],
    owners: Callable[[Tensor], Tensor | None] | None = None,
) -> Tensor:
    """< u, grad L_i > of a micro-batch, (B,).

    Args:
        problem: model and losses.
        batch: the micro-batch.
        u: one tensor per trainable parameter.
        owners: trajectory of each row (first dimension) of a module's output, (rows,); by default
            an output has one row per trajectory.

    Raises:
        DreamPRMError: a module's output cannot be divided among the trajectories.
    """
    size = len(batch.items)
    directions = {id(p): d.to(p.dtype) for p, d in zip(trainable(problem.model), u, strict=True)}
    steps = torch.zeros(size, device=batch.items.device, requires_grad=True)  # s
    names = {id(m): name for name, m in problem.model.named_modules()}

    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        own = {n: p for n, p in module.named_parameters(recurse=False) if id(p) in directions}
        if not isinstance(output, Tensor):
            raise DreamPRMError(
                f"ghost: module {names[id(module)]} has parameters of its own and returns "
                f"{type(output).__name__}, not one tensor; use estimator jvp"
            )
        rows = _owners(output, size, owners)
        if rows is None:
            raise DreamPRMError(
                f"ghost: cannot tell which trajectory the {len(output)} rows of "
                f"{names[id(module)]} belong to; use estimator jvp, or train the language model "
                "alone (LoRA)"
            )
        change = _change_along(module, own, directions, args, kwargs)
        scale = steps[rows].view(-1, *[1] * (output.dim() - 1))
        return output + (scale * change).to(output.dtype)

    handles = [
        module.register_forward_hook(hook, with_kwargs=True)
        for module in problem.model.modules()
        if any(id(p) in directions for p in module.parameters(recurse=False))
    ]
    try:
        with frozen(problem.model), torch.enable_grad():
            losses = problem.lower_losses(batch).losses
            (found,) = torch.autograd.grad(losses.sum(), steps)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _change_along(
    module: nn.Module,
    own: Mapping[str, Tensor],
    directions: dict[int, Tensor],
    args: Any,
    kwargs: Any,
) -> Tensor:
    """The output's derivative along u of the module's own parameters, the input held fixed."""
    args = tuple(a.detach() if isinstance(a, Tensor) else a for a in args)
    if isinstance(module, nn.Linear):  # what most parameters are in, without a second x W
        weight = directions.get(id(module.weight))
        bias = None if module.bias is None else directions.get(id(module.bias))
        if weight is None:
            weight = torch.zeros_like(module.weight)
        return nn.functional.linear(args[0], weight, bias).detach()
    hooks, module._forward_hooks = module._forward_hooks, type(module._forward_hooks)()
    try:
        with torch.no_grad(), forward_ad.dual_level():
            duals = {n: forward_ad.make_dual(p.detach(), directions[id(p)]) for n, p in own.items()}
            output = torch.func.functional_call(module, duals, args, kwargs)
            tangent = forward_ad.unpack_dual(output).tangent
            return torch.zeros_like(output) if tangent is None else tangent
    finally:
        module._forward_hooks = hooks


def _owners(
    output: Tensor, size: int, owners: Callable[[Tensor], Tensor | None] | None
) -> Tensor | None:
    if owners is not None:
        return owners(output)
    if output.dim() > 0 and len(output) == size:
        return torch.arange(size, device=output.device)
    return None


class LossCall(nn.Module):
    """Lets `functional_call` swap the model's parameters while the problem's losses run."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.model = problem.model
        self._problem = [problem]  # in a list: not a submodule

    def forward(self, batch: Any, labels: Tensor | None = None, meta: bool = False) -> Tensor:
        if meta:
            return self._problem[0].meta_loss(batch)
        return self._problem[0].lower_losses(batch, labels).losses


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No parameter takes part in the graph."""
    parameters = trainable(model)
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)


def differentiable_attention() -> Any:
    """The attention kernel that has forward-mode and second derivatives; the fused ones do not."""
    return sdpa_kernel(SDPBackend.MATH)


def _named(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(n, p) for n, p in model.named_parameters() if p.requires_grad]
