"""The two levels, in turn: phi, the model's parameters, and alpha, what the weights are made of.

    repeat:
        for each lower step of a window:                       # phi, the model
            for each of its one-domain micro-batches b:
                g_b = grad mean_i w_i L_i
            phi <- AdamW(phi, 1/D sum_b g_b)
        h = d meta loss / d w, less its weighted mean          # the hypergradient
        of domains:      alpha <- shrunk sum of -h over the windows, in standard errors
        of trajectories: alpha <- Adam(alpha, h chained through w(alpha))

with D micro-batches in a step, and in each the weights w_i and losses L_i of its trajectories. That
of domains is dual averaging (Nesterov 2009, Xiao 2010); the paper has AdamW (`meta_optimizer`).

Any model will do:

    weights = DomainWeights(5)
    loop = Bilevel(model, lower_losses, meta_loss, weights, lr=1e-3, meta_lr=1e-2, window=3)
    for step in range(600):
        loop.step(batches(step), meta_batch)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dreamprm.bilevel.evidence import Evidence
from dreamprm.bilevel.hypergradient import (
    Estimator,
    Hypergradient,
    InnerProduct,
    Levels,
    MicroBatch,
    Settings,
)
from dreamprm.bilevel.jacobian import Momentum, Preconditioning
from dreamprm.bilevel.parallel import SINGLE, Parallel
from dreamprm.bilevel.parameters import add_scaled, gradients, local, trainable
from dreamprm.bilevel.per_trajectory import FiniteDifference, Ghost, Jvp
from dreamprm.bilevel.table_adam import TableAdam
from dreamprm.bilevel.weights import DomainWeights, LabelCorrection, Weights, compared
from dreamprm.errors import DreamPRMError

ESTIMATORS: dict[str, type[Estimator]] = {
    "inner_product": InnerProduct,
    "finite_difference": FiniteDifference,
    "jvp": Jvp,
    "ghost": Ghost,
}
MetaOptimizer = Literal["dual_averaging", "adamw"]
CHEAPEST = ("inner_product", "ghost", "jvp")  # for domains, for trajectories, for labels
EXPLODED = 1e6  # a loss of this size counts as diverged


@dataclass(frozen=True)
class Step:
    """What happened in a lower step, and in the upper step where a window ended with it.

    Attributes:
        losses: L_i of each micro-batch, (B,) each, unweighted.
        meta_loss: on the window's meta batch, when u was taken (at its start or end); None within
            a window, or where nothing is learned.
        hypergradient: of the window; None as well where the optimiser had no state to take a
            direction with (the first window).
        window: the window's micro-batches, in the hypergradient's order.
        part: of the meta set that the window read.
        effects: of a larger weight on the meta set, of each domain that the window saw.
    """

    losses: list[Tensor]
    meta_loss: float | None = None
    hypergradient: Hypergradient | None = None
    window: tuple[MicroBatch, ...] = ()
    part: int | None = None
    effects: Mapping[int, float] = field(default_factory=dict)


class Bilevel:
    """State of both levels, and the step that moves it.

    Args:
        model: its trainable parameters are phi.
        lower_losses: micro-batch -> L_i of each trajectory, (B,), unweighted. For an `InstanceNet`:
            a pair of these and features, (B, features). Where labels are learned it is called with
            the corrected labels, (B, steps), as a second argument.
        meta_loss: meta batch -> scalar.
        weights: what the upper level learns; `FixedWeights` for plain training.
        labels: label corrections, where labels are learned too.
        lr: of AdamW on phi.
        optimizer: of phi, in place of AdamW with `lr`: AdamW, or SGD with preconditioning `none`.
        schedule: step -> factor of the lower learning rate.
        max_grad_norm: the lower gradient is clipped to this norm; 0 does not clip.
        meta_optimizer: of domain weights; all else that is learned has Adam.
        meta_lr: of the upper level; None takes 1.0 for dual averaging and 0.1 for Adam.
        meta_weight_decay: of Adam.
        window: lower steps between two upper steps.
        meta_warmup: lower steps before the first window that is learned from.
        max_steps: end of the run, which may cut the last window short.
        estimator: of the hypergradient: a name, or a subclass of `Estimator`; `auto` takes
            `inner_product` for domains, `ghost` for trajectories and `jvp` for labels.
        meta_gradient_at: `start` of the window, or its `end`; see `hypergradient.py`.
        preconditioning, momentum: how the optimiser's step is differentiated; see `jacobian.py`.
        meta_backward, row_owners: see `Levels`.
        domains: names, in the order of `domain` of the micro-batches.
        parallel: the processes that share the work.

    A micro-batch is any object with a `domain`, the index of the domain of all its trajectories.
    Where data come again, intervals are right if they come in the same batches: with `block`, a
    micro-batch's number in its domain, and `part`, a meta batch's number in the meta set.
    All but `DomainWeights` with `inner_product` also need `items`, (B,), the index of each
    trajectory on the model's device, and label correction its `labels`, (B, steps). Estimators
    other than `inner_product` run the model again: dropout must be off. `weights` and `labels`
    are on the model's device.
    """

    def __init__(
        self,
        model: nn.Module,
        lower_losses: Callable[..., Tensor | tuple[Tensor, Tensor]],
        meta_loss: Callable[[Any], Tensor],
        weights: Weights,
        *,
        labels: LabelCorrection | None = None,
        lr: float = 1e-3,
        optimizer: torch.optim.Optimizer | None = None,
        schedule: Callable[[int], float] = lambda step: 1.0,
        max_grad_norm: float = 0.0,
        meta_optimizer: MetaOptimizer = "dual_averaging",
        meta_lr: float | None = None,
        meta_weight_decay: float = 0.0,
        window: int = 3,
        meta_warmup: int = 0,
        max_steps: int | None = None,
        estimator: str | type[Estimator] = "auto",
        meta_gradient_at: Literal["start", "end"] = "start",
        preconditioning: Preconditioning = "adam",
        momentum: Momentum = "whole",
        meta_backward: Callable[[Any, float], float] | None = None,
        row_owners: Callable[[Any, Tensor], Tensor | None] | None = None,
        domains: Sequence[str] = (),
        parallel: Parallel = SINGLE,
    ) -> None:
        self.model, self.weights, self.labels = model, weights, labels
        self.levels = Levels(model, lower_losses, meta_loss, meta_backward, row_owners)
        self.parameters = trainable(model)
        self.lower_optimizer = optimizer or torch.optim.AdamW(
            self.parameters, lr=lr, weight_decay=0.0
        )
        for group in self.lower_optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.schedule, self.max_grad_norm = schedule, max_grad_norm
        self.window_length, self.meta_warmup, self.max_steps = window, meta_warmup, max_steps
        self.domains = tuple(domains) or tuple(getattr(weights, "domains", ()))
        self.parallel = parallel
        self.dual_averaging = meta_optimizer == "dual_averaging" and isinstance(
            weights, DomainWeights
        )
        variables = [module for module in (weights, labels) if module and [*module.parameters()]]
        self.learns = bool(variables)
        self.evidence = Evidence(len(self.domains))  # of weights
        self.evidence_of_labels = Evidence(len(self.domains))
        stepped = [m for m in variables if not (self.dual_averaging and m is weights)]
        # A network or domain weights beside corrected labels: AdamW moves all of them.
        tables_only = stepped and all(module.is_table for module in stepped)
        kind = TableAdam if tables_only else torch.optim.AdamW
        self.meta_lr = meta_lr if meta_lr is not None else 1.0 if self.dual_averaging else 0.1
        self.upper_optimizer: torch.optim.Optimizer = kind(
            [p for module in stepped for p in module.parameters()]
            or [nn.Parameter(torch.zeros(1))],
            lr=0.1 if meta_lr is None else meta_lr,
            weight_decay=meta_weight_decay,
        )
        needed = 2 if labels is not None else 0 if weights.by_domain or not self.learns else 1
        if isinstance(estimator, str):
            name = CHEAPEST[needed] if estimator == "auto" or not self.learns else estimator
            if name not in ESTIMATORS:
                raise DreamPRMError(f"no estimator '{name}'; there are {', '.join(ESTIMATORS)}")
            estimator = ESTIMATORS[name]
        has_betas = all("betas" in group for group in self.lower_optimizer.param_groups)
        if self.learns and preconditioning == "adam" and not has_betas:
            raise DreamPRMError(
                f"preconditioning 'adam' needs an Adam optimiser, not "
                f"{type(self.lower_optimizer).__name__}; use preconditioning 'none'"
            )
        if self.learns and estimator.finest < needed:
            raise DreamPRMError(
                f"estimator {estimator.__name__} cannot tell "
                f"{('domains', 'trajectories', 'labels of steps')[needed]} apart; use "
                f"{CHEAPEST[needed]}"
            )
        settings = Settings(meta_gradient_at, preconditioning, momentum, parallel)
        self.estimator = estimator(self.levels, self.lower_optimizer, settings)
        self.steps = 0
        self.upper_steps = 0
        self._window: list[MicroBatch] = []
        self._remaining = 0  # lower steps until the window ends; 0 between windows
        self._learning = False  # is the window under way learned from?

    @property
    def needs_meta_batch(self) -> bool:
        """Does the next step begin a window that is learned from?"""
        return self._remaining == 0 and self.learns and self.steps >= self.meta_warmup

    @property
    def between_windows(self) -> bool:
        """Has a window just ended? A checkpoint may be taken then."""
        return self._remaining == 0

    def step(self, batches: Sequence[Any], meta_batch: Any = None) -> Step:
        """One lower step, and the upper step where a window ends.

        Args:
            batches: the step's micro-batches, each of one domain.
            meta_batch: read at the first step of a window (`needs_meta_batch`), for the whole of
                it; within a window it may be left out.
        """
        if self._remaining == 0:
            self._start_window(meta_batch)
        result = Step(self._lower_step(batches))
        self._remaining -= 1
        if self._learning and not self._remaining:
            result = self._upper_step(result.losses)
        self.steps += 1
        return result

    @torch.no_grad()
    def intervals(self, means: Sequence[float]) -> tuple[list[float], list[float]]:
        """95% intervals of the domains' (mean) weights: low and high of each."""
        if not isinstance(self.weights, DomainWeights):
            low, high = self.evidence.interval(means, [w - 1.0 for w in means])
            return (1.0 + low).tolist(), (1.0 + high).tolist()
        moved = None if self.dual_averaging else self.weights.alpha.tolist()
        rate = self.meta_lr if self.dual_averaging else 1.0
        ends = [torch.from_numpy(rate * x) for x in self.evidence.interval(means, moved)]
        return self.weights.table(ends[0]).tolist(), self.weights.table(ends[1]).tolist()

    def _start_window(self, meta_batch: Any) -> None:
        left = self.window_length if self.max_steps is None else self.max_steps - self.steps
        self._learning = self.needs_meta_batch
        self._remaining = max(1, min(self.window_length, left))
        if self._learning:
            self._meta_batch, self._window = meta_batch, []
            self._set_learning_rate()  # a direction that is taken now is scaled with it
            self.estimator.start(meta_batch)
            self.lower_optimizer.zero_grad()

    def _lower_step(self, batches: Sequence[Any]) -> list[Tensor]:
        """Move phi along 1/D sum_b grad mean_i w_i L_i; returns the L_i, (B,) each."""
        by_domain = self.weights.by_domain
        shares = [1.0 / len(batches)] * len(batches)
        factors = shares  # of each micro-batch's gradient in the sum
        if by_domain:  # one `tolist` for all, because each waits for the GPU
            with torch.no_grad():
                dummy = torch.zeros(1, 1)  # such weights do not read features
                w_k = torch.stack([self.weights(batch, dummy)[0] for batch in batches])
            factors = [share * w for share, w in zip(shares, w_k.tolist(), strict=True)]
        total: list[Tensor | None] = [None] * len(self.parameters)
        micros, losses = [], []
        for batch, share, factor in zip(batches, shares, factors, strict=True):
            with torch.no_grad():
                labels = None if self.labels is None else self.labels(batch)
            of_each, features = self.levels.losses(batch, labels)  # (B,), (B, features)
            with torch.no_grad():
                w = self.weights(batch, features).to(of_each.dtype)  # (B,)
            # For domain weights w is left out here: the estimator needs the unweighted gradient.
            objective = of_each.mean() if by_domain else (w * of_each).mean()
            losses.append(of_each.detach())
            gradient = gradients(objective, self.parameters)
            add_scaled(total, gradient, factor)
            micros.append(MicroBatch(batch, features, w, labels, share))
            if self._learning:
                self.estimator.observe(micros[-1], gradient)
            del gradient, of_each, objective  # freed before the next one
        names = [self._name(batch) for batch in batches]
        means = torch.stack([x.mean() for x in losses]).tolist()
        for value, name in zip(means, names, strict=True):
            self._check_finite(value, name)
        clipped_by = self._apply(total, names)
        for micro in micros:
            micro.share *= clipped_by
        if self._learning:
            self.estimator.after_step(micros, self._remaining)
            self._window += micros
        self.lower_optimizer.zero_grad()
        return losses

    def _apply(self, total: list[Tensor | None], domains: list[str]) -> float:
        """Move phi by the step's gradient; returns the factor by which it was clipped."""
        if self.parallel.world > 1:  # a parameter may be unused here and used elsewhere
            device = self.parameters[0].device
            here = torch.tensor([float(g is not None) for g in total], device=device)
            used_by = self.parallel.total(here).tolist()
            total = [
                torch.zeros_like(p) if g is None and count else g
                for p, g, count in zip(self.parameters, total, used_by, strict=True)
            ]
        used = [local(g) for g in total if g is not None]
        self.parallel.average_gradients(used)
        norm = float(self.parallel.norm(used))
        self._check_finite(norm, " and ".join(dict.fromkeys(domains)), "norm of the gradient")
        limit = self.max_grad_norm if self.max_grad_norm > 0 else math.inf
        clipped_by = min(1.0, limit / (norm + 1e-6))
        if clipped_by < 1:
            torch._foreach_mul_(used, clipped_by)
        for p, g in zip(self.parameters, total, strict=True):
            p.grad = g
        self._set_learning_rate()
        self.lower_optimizer.step()
        return clipped_by

    def _set_learning_rate(self) -> None:
        for group in self.lower_optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self.schedule(self.steps)

    def _upper_step(self, losses: list[Tensor]) -> Step:
        """Move alpha along the hypergradient, chained through the weights."""
        meta_loss, hypergradient = self.estimator.finish(self._meta_batch)
        self._check_finite(meta_loss, "the meta set")
        part = getattr(self._meta_batch, "part", self.upper_steps)
        window, self._window, self._meta_batch = tuple(self._window), [], None
        effects = {} if hypergradient is None else self._learn(window, hypergradient, part)
        self.upper_steps += 1
        return Step(losses, meta_loss, hypergradient, window, part, effects)

    def _learn(
        self, window: Sequence[MicroBatch], hypergradient: Hypergradient, part: int
    ) -> dict[int, float]:
        """Take in what the window says and move what is learned; returns effects of weights."""
        batches = [micro.batch for micro in window]
        weights, labels = self.weights, self.labels
        effects: dict[int, float] = {}
        self.upper_optimizer.zero_grad()
        if any(True for _ in weights.parameters()):
            h = compared(hypergradient.weights, [micro.w for micro in window], self.parallel)
            effects = self._note(self.evidence, part, batches, h)
            if isinstance(weights, DomainWeights) and self.dual_averaging:
                alpha = self.meta_lr * self.evidence.shrunk(weights.table().tolist())
                with torch.no_grad():
                    weights.alpha.copy_(torch.tensor(alpha.tolist()))
            else:
                seen = [(micro.batch, micro.features) for micro in window]
                weights.set_gradient(seen, h, self.parallel)
        if labels is not None:
            self._note(self.evidence_of_labels, part, batches, hypergradient.labels)
            labels.set_gradient(batches, hypergradient.labels, self.parallel)
        for group in self.upper_optimizer.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    largest = float(p.grad.abs().max())
                    self._check_finite(largest, "the meta set", "hypergradient")
        self.upper_optimizer.step()
        weights.project()
        if labels is not None:
            labels.project()
        return effects

    def _note(
        self, evidence: Evidence, part: int, batches: Sequence[Any], h: Sequence[Tensor]
    ) -> dict[int, float]:
        """Add a window's -h, of each micro-batch, to the evidence; returns effects by domain."""
        effects = (-self.parallel.mean(torch.stack([one.sum() for one in h]))).tolist()
        self._check_finite(max(map(abs, effects)), "the meta set", "hypergradient")
        if not self.domains:
            return {}
        domains = [batch.domain for batch in batches]
        blocks = [getattr(batch, "block", -1) for batch in batches]
        return evidence.add(part, domains, blocks, effects)

    def _name(self, batch: Any) -> str:
        return self.domains[batch.domain] if self.domains else f"domain {batch.domain}"

    def _check_finite(self, value: float, where: str, what: str = "loss") -> None:
        if not abs(value) < EXPLODED and (what == "loss" or not math.isfinite(value)):
            raise DreamPRMError(
                f"{what} is {value:.3g} at step {self.steps + 1} on {where}: training has diverged;"
                " start anew (in another output_dir) with a lower learning rate, of the head too, "
                "or with max_grad_norm; earlier checkpoints are intact"
            )
