"""Estimators that tell the trajectories of a micro-batch apart.

    d L_meta / d w_i = - (1 / D) (1 / B) < u, grad L_i >,     u = P grad L_meta.

Three ways to < u, grad L_i > of every trajectory, none with a gradient per trajectory:

- `Jvp`: one forward-mode pass gives all L_i and their derivatives along u. The only one that also
  differentiates the product by the labels inside L_i.
- `Ghost`: give trajectory i the parameters phi + s_i u and differentiate by s_i at 0. The output
  of each module with parameters gets s_i times its derivative along u added, and one backward pass
  by all s_i is < u, grad L_i > for all i. For a linear layer this is the ghost product of the
  literature (output gradient dot (V a)).
- `FiniteDifference`, that of the DreamPRM paper: a central difference of L_i along u (DARTS, arXiv
  1806.09055, section 2.3). The two perturbed models must differ at the parameters' precision, so
  it breaks down on bf16 parameters.

At the window's start each micro-batch is evaluated when its turn comes and nothing is kept but u;
at its end, each at the phi of its step, and a copy of phi and of the Jacobian per step is kept.
A new way is a subclass of `PerTrajectory` with `products`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from dreamprm.bilevel.hypergradient import Estimator, Hypergradient, Levels, MicroBatch, Settings
from dreamprm.bilevel.jacobian import step_jacobian
from dreamprm.bilevel.parameters import copy_of, dot, gradients, move_to, trainable
from dreamprm.errors import DreamPRMError


class PerTrajectory(Estimator):
    """What the three share: when products are taken. A subclass implements `products`."""

    finest = 1
    takes_shards = False

    def __init__(
        self, levels: Levels, optimizer: torch.optim.Optimizer, settings: Settings
    ) -> None:
        super().__init__(levels, optimizer, settings)
        if settings.parallel.sharded and not self.takes_shards:
            raise DreamPRMError(
                f"estimator {type(self).__name__.lower()} needs whole parameters and cannot run on "
                "FSDP shards; use replicas (DDP), finite_difference, or inner_product for domains"
            )
        self.at = settings.at

    def start(self, meta_batch: Any) -> None:
        self._micros: list[MicroBatch] = []
        self._parts: list[tuple[Tensor, Tensor | None]] = []  # of each, before its share
        self._steps: list[tuple[Sequence[MicroBatch], list[Tensor | float], list[Tensor]]] = []
        self._u: list[Tensor] | None = None
        if self.at == "start":
            self._meta_loss, self._u = self.direction_at_start(meta_batch)
        else:
            self._phi = copy_of(self.parameters)  # before the next step

    def observe(self, micro: MicroBatch, gradient: list[Tensor | None]) -> None:
        if self._u is not None:
            self._parts.append(self._part(micro, self._u))

    @torch.no_grad()
    def after_step(self, micros: Sequence[MicroBatch], remaining: int) -> None:
        self._micros += micros
        if self.at == "end":
            s = self.settings
            jacobian = step_jacobian(
                self.optimizer, self.parameters, s.preconditioning, s.momentum, remaining
            )
            self._steps.append((micros, list(jacobian), self._phi))
            self._phi = copy_of(self.parameters)

    def finish(self, meta_batch: Any) -> tuple[float, Hypergradient | None]:
        if self.at == "end":
            self._meta_loss, v = self.meta_gradient(meta_batch)
            for micros, jacobian, phi in self._steps:
                u = [g * factor for g, factor in zip(v, jacobian, strict=True)]
                move_to(self.parameters, phi)
                self._parts += [self._part(micro, u) for micro in micros]
            move_to(self.parameters, self._phi)
            self._steps, self._phi = [], []
        if not self._parts:
            return self._meta_loss, None
        pairs = list(zip(self._micros, self._parts, strict=True))
        return self._meta_loss, Hypergradient(
            [(-m.share / len(m.w) * products).to(m.w) for m, (products, _) in pairs],
            [-m.share * slopes for m, (_, slopes) in pairs if slopes is not None],
        )

    def _part(self, micro: MicroBatch, u: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """< u, grad L_i >, (B,), and d mean_i w_i < u, grad L_i > / d label where it is learned."""
        if micro.labels is None:
            return self.products(micro.batch, u, None).detach(), None
        labels = micro.labels.detach().requires_grad_()
        products = self.products(micro.batch, u, labels)
        with torch.enable_grad():
            (slopes,) = torch.autograd.grad(
                (micro.w * products).mean(), labels, materialize_grads=True
            )
        return products.detach(), slopes

    @abstractmethod
    def products(self, batch: Any, u: list[Tensor], labels: Tensor | None) -> Tensor:
        """< u, grad L_i > of a micro-batch, (B,), differentiable by the labels."""


class Jvp(PerTrajectory):
    """By forward-mode differentiation."""

    finest = 2

    def products(self, batch: Any, u: list[Tensor], labels: Tensor | None) -> Tensor:
        model = self.levels.model
        caller = LossCall(self.levels)
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        with forward_ad.dual_level(), differentiable_attention():
            duals = {
                f"model.{name}": forward_ad.make_dual(p.detach(), part.to(p.dtype))
                for (name, p), part in zip(named, u, strict=True)
            }
            with torch.set_grad_enabled(labels is not None):
                losses = torch.func.functional_call(
                    caller, duals, (batch, labels), tie_weights=True
                )
            primal, tangent = forward_ad.unpack_dual(losses)
        # No tangent: nothing that L depends on is trained.
        return torch.zeros_like(primal) if tangent is None else tangent


class FiniteDifference(PerTrajectory):
    """By a central difference with step 0.01 / ||u||; always at the window's end, as the paper."""

    finest = 2
    takes_shards = True
    EPSILON = 0.01

    def __init__(
        self, levels: Levels, optimizer: torch.optim.Optimizer, settings: Settings
    ) -> None:
        super().__init__(levels, optimizer, settings)
        self.at = "end"

    def products(self, batch: Any, u: list[Tensor], labels: Tensor | None) -> Tensor:
        epsilon = self.EPSILON / max(float(self.settings.parallel.norm(u)), 1e-30)
        phi = copy_of(self.parameters)
        difference: Tensor = torch.zeros(())
        with frozen(self.levels.model), torch.set_grad_enabled(labels is not None):
            for sign in (1.0, -1.0):
                move_to(self.parameters, phi, u, sign * epsilon)
                losses, _ = self.levels.losses(batch, labels)
                difference = difference + losses * sign / (2 * epsilon)
        move_to(self.parameters, phi)
        return difference


class Ghost(PerTrajectory):
    """By ghost products. The first micro-batch of a run is checked against its gradient."""

    TOLERANCE = 0.02
    _checked = False

    def products(self, batch: Any, u: list[Tensor], labels: Tensor | None) -> Tensor:
        products = ghost_products(self.levels, batch, u)
        if not self._checked and products.any():
            self._check(batch, u, products)
            self._checked = True
        return products

    def _check(self, batch: Any, u: list[Tensor], products: Tensor) -> None:
        """The products' sum is that of the whole batch, unless a parameter escaped the hooks."""
        with torch.enable_grad():
            loss = self.levels.losses(batch)[0].sum()
            whole = dot(u, gradients(loss, self.parameters))
        difference = float((products.sum() - whole).abs())
        size = max(float(whole.abs()), float(products.abs().sum()), 1e-30)
        if difference > self.TOLERANCE * size:
            raise DreamPRMError(
                f"ghost: the products of the trajectories sum to {float(products.sum()):.4g}, "
                f"their common gradient gives {float(whole):.4g}: this model uses a parameter "
                "outside its module; use estimator jvp"
            )


def ghost_products(levels: Levels, batch: Any, u: Sequence[Tensor]) -> Tensor:
    """< u, grad L_i > of a micro-batch by one backward pass, (B,).

    Raises:
        DreamPRMError: a module's output cannot be divided among the trajectories.
    """
    model = levels.model
    directions = {id(p): part.to(p.dtype) for p, part in zip(trainable(model), u, strict=True)}
    names = {id(m): name for name, m in model.named_modules()}
    size, device = len(batch.items), batch.items.device
    s = torch.zeros(size, device=device, requires_grad=True)  # (B,)

    def owners(output: Tensor) -> Tensor | None:
        if levels.row_owners is not None:
            return levels.row_owners(batch, output)
        one_row_each = output.dim() > 0 and len(output) == size
        return torch.arange(size, device=device) if one_row_each else None

    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        own = {n: p for n, p in module.named_parameters(recurse=False) if id(p) in directions}
        if not isinstance(output, Tensor):
            raise DreamPRMError(
                f"ghost: module {names[id(module)]} has parameters of its own and returns "
                f"{type(output).__name__}, not one tensor; use estimator jvp"
            )
        rows = owners(output)
        if rows is None:
            raise DreamPRMError(
                f"ghost: cannot tell which trajectory the {len(output)} rows of "
                f"{names[id(module)]} belong to; use estimator jvp, or train the language model "
                "alone (LoRA)"
            )
        change = _change_along(module, own, directions, args, kwargs)
        scale = s[rows].view(-1, *[1] * (output.dim() - 1))
        return output + (scale * change).to(output.dtype)

    handles = [
        module.register_forward_hook(hook, with_kwargs=True)
        for module in model.modules()
        if any(id(p) in directions for p in module.parameters(recurse=False))
    ]
    try:
        with frozen(model), torch.enable_grad():
            losses, _ = levels.losses(batch)
            (products,) = torch.autograd.grad(losses.sum(), s)
    finally:
        for handle in handles:
            handle.remove()
    return products


def _change_along(
    module: nn.Module,
    own: Mapping[str, Tensor],
    directions: dict[int, Tensor],
    args: Any,
    kwargs: Any,
) -> Tensor:
    """The output's derivative along u of the module's own parameters, the input held fixed."""
    args = tuple(a.detach() if isinstance(a, Tensor) else a for a in args)
    if isinstance(module, nn.Linear):  # the usual case, without computing x W again
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


class LossCall(nn.Module):
    """Lets `functional_call` swap the model's parameters; `meta` is for the tests' oracle."""

    def __init__(self, levels: Levels) -> None:
        super().__init__()
        self.model = levels.model
        self._levels = levels

    def forward(self, batch: Any, labels: Tensor | None = None, meta: bool = False) -> Tensor:
        if meta:
            return self._levels.meta_loss(batch)
        return self._levels.losses(batch, labels)[0]


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Within the block no parameter requires a gradient."""
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
