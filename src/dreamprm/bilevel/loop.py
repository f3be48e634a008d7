"""The two levels, in turn.

    repeat:
        for each lower step of a window:                       # phi, the model
            for each of its one-domain micro-batches b:
                g_b = grad mean_i w_i L_i
            phi <- AdamW(phi, 1/D sum_b g_b)
        h = d meta loss / d alpha                              # the hypergradient
        alpha <- AdamW(alpha, h)                               # alpha: weights, labels

Give it any `Problem`: a model that returns a loss per trajectory and a loss of a meta batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dreamprm.bilevel.hypergradient import ESTIMATORS, Estimator, LowerStep, Problem, Settings
from dreamprm.bilevel.hypergradient.base import gradients, local, trainable
from dreamprm.bilevel.parallel import SINGLE, Parallel
from dreamprm.bilevel.table_adam import make_upper_optimizer
from dreamprm.bilevel.weights import UpperLevel
from dreamprm.errors import DreamPRMError
from dreamprm.training.config import TrainConfig

LowerBatches = Callable[[int], Sequence[Any]]
"""Lower step -> its micro-batches, each of one domain (`hypergradient.base.LowerBatch`)."""
MetaBatches = Callable[[int], Any]
"""Upper step -> meta batch."""
EXPLODED = 1e6  # a loss of this size comes from logits that nothing will bring back


@dataclass(frozen=True)
class WindowLog:
    """What happened in one window.

    Attributes:
        step: lower steps taken so far.
        lower_loss: mean unweighted loss of the window's micro-batches.
        meta_loss: at the window's end; None where no upper step was taken.
        trajectories: seen by the lower level in this window, all processes together.
    """

    step: int
    lower_loss: float
    meta_loss: float | None
    trajectories: int


class BilevelLoop:
    """State of both levels.

    Args:
        problem: model and losses.
        upper: the upper level's variables; with `config.learn_weights` False they stay as given.
        lower_batches, meta_batches: data, as functions of the step.
        config: settings.
        domains: names, for messages; by default their indices.
        learning_rates: of parameters that do not have `config.learning_rate`, by identity (`id`).
        parallel: the processes that share the work.
    """

    def __init__(
        self,
        problem: Problem,
        upper: UpperLevel,
        lower_batches: LowerBatches,
        meta_batches: MetaBatches,
        config: TrainConfig,
        domains: Sequence[str] = (),
        learning_rates: Mapping[int, float] | None = None,
        parallel: Parallel = SINGLE,
    ) -> None:
        self.problem, self.upper, self.config, self.parallel = problem, upper, config, parallel
        self.lower_batches, self.meta_batches = lower_batches, meta_batches
        self.domains = tuple(domains)
        self.parameters = trainable(problem.model)
        groups: dict[float, list[nn.Parameter]] = {}
        for p in self.parameters:
            rate = (learning_rates or {}).get(id(p), config.learning_rate)
            groups.setdefault(rate, []).append(p)
        self.lower_optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            [{"params": group, "lr": rate, "base_lr": rate} for rate, group in groups.items()],
            weight_decay=config.weight_decay,
        )
        self.upper_optimizer = make_upper_optimizer(
            upper, config.meta_learning_rate, config.meta_weight_decay
        )
        name = upper.estimator if config.estimator == "auto" else config.estimator
        self.estimator: Estimator = self.make_estimator(name)
        self.step = 0
        self.upper_step = 0

    def make_estimator(self, name: str) -> Estimator:
        """An estimator of this run's hypergradient."""
        c = self.config
        settings = Settings(
            c.preconditioning,
            c.momentum,
            c.meta_gradient_at,
            c.solver_steps,
            c.solver_damping,
            self.parallel,
        )
        return ESTIMATORS[name](self.problem, self.lower_optimizer, self.upper, settings)

    def windows(self) -> Iterator[WindowLog]:
        """Train to `config.max_steps`, one window at a time."""
        while self.step < self.config.max_steps:
            yield self.window()

    def window(self) -> WindowLog:
        """One window of lower steps and, where weights are learned, one upper step."""
        length = min(self.config.unroll_steps, self.config.max_steps - self.step)
        learning = self.config.learn_weights and self.step >= self.config.meta_warmup_steps
        meta_batch = None
        if learning:
            meta_batch = self.meta_batches(self.upper_step)
            self.start_window(meta_batch)
        losses: list[Tensor] = []
        for remaining in range(length, 0, -1):
            losses += self.lower_step(remaining, learning)
        meta_loss = self._upper_step(meta_batch) if learning else None
        together = self.parallel.mean(torch.stack([part.mean() for part in losses]).mean())
        seen = sum(len(part) for part in losses) * self.parallel.world
        return WindowLog(self.step, float(together), meta_loss, seen)

    def start_window(self, meta_batch: Any) -> None:
        """Tell upper level and estimator that a window begins."""
        self._set_learning_rate()  # what a direction that is taken now is scaled with
        self.upper.start_window()
        self.estimator.start_window(meta_batch)
        self.lower_optimizer.zero_grad()

    def lower_step(self, remaining: int, learning: bool) -> list[Tensor]:
        """One step of phi; returns the losses L_i of each micro-batch, (B,) each."""
        batches = tuple(self.lower_batches(self.step))
        by_domain = self.upper.weighting.by_domain
        shares = [1.0 / len(batches)] * len(batches)
        if by_domain:  # all at once: each asks the device to finish what it does
            w_k = torch.stack([self.upper.weights(b, b.items[:, None])[0] for b in batches])
            shares = [share * w for share, w in zip(shares, w_k.tolist(), strict=True)]
        total: list[Tensor | None] = [None] * len(self.parameters)
        features, losses = [], []
        for index, batch in enumerate(batches):
            output = self.problem.lower_losses(batch, self.upper.corrected(batch))
            seen = output.seen()
            losses.append(output.losses.detach())
            if by_domain:  # unweighted: the estimator wants grad L_k itself
                gradient = gradients(output.losses.mean(), self.parameters)
            else:
                w = self.upper.weights(batch, seen).to(output.losses.dtype)  # (B,)
                gradient = gradients((w * output.losses).mean(), self.parameters)
            _add(total, gradient, shares[index])
            if learning:
                self.estimator.observe(index, batch, seen, gradient)
            del gradient, output  # not beside those of the next micro-batch
            features.append(seen)
        names = [self._name(batch) for batch in batches]
        for value, name in zip(
            torch.stack([x.mean() for x in losses]).tolist(), names, strict=True
        ):
            self._finite(value, name)
        scale = self._apply(total, names)
        if learning:
            self.estimator.after_step(LowerStep(batches, tuple(features), remaining, scale))
        self.lower_optimizer.zero_grad()
        self.step += 1
        return losses

    def _apply(self, total: list[Tensor | None], domains: list[str]) -> float:
        """Move phi by the step's gradient; returns the factor by which it was clipped."""
        if self.parallel.world > 1:  # a parameter may be unused here and used elsewhere
            here = torch.tensor([float(g is not None) for g in total], device=self._device)
            used_by = self.parallel.total(here).tolist()
            total = [
                torch.zeros_like(p) if g is None and count else g
                for p, g, count in zip(self.parameters, total, used_by, strict=True)
            ]
        used = [local(g) for g in total if g is not None]
        self.parallel.average_gradients(used)
        norm = float(self.parallel.norm(used))
        self._finite(norm, " and ".join(dict.fromkeys(domains)), "norm of the gradient")
        limit = self.config.max_grad_norm if self.config.max_grad_norm > 0 else math.inf
        scale = min(1.0, limit / (norm + 1e-6))
        if scale < 1:
            torch._foreach_mul_(used, scale)
        for p, g in zip(self.parameters, total, strict=True):
            p.grad = g
        self._set_learning_rate()
        self.lower_optimizer.step()
        return scale

    def _set_learning_rate(self) -> None:
        for group in self.lower_optimizer.param_groups:
            group["lr"] = group["base_lr"] * lr_factor(self.config, self.step)

    def _upper_step(self, meta_batch: Any) -> float:
        found = self.estimator.compute(meta_batch)
        self._finite(found.meta_loss, "the meta set")
        if found.surrogate is not None:
            self.upper_optimizer.zero_grad()
            self.upper.set_gradient(found.surrogate)
            for p in self.upper.parameters():
                if p.grad is not None:
                    largest = float(p.grad.abs().max())
                    self._finite(largest, "the meta set", "hypergradient")
            self.upper_optimizer.step()
            self.upper.project()
        self.upper_step += 1
        return found.meta_loss

    @property
    def _device(self) -> torch.device:
        return self.parameters[0].device

    def _name(self, batch: Any) -> str:
        return self.domains[batch.domain] if self.domains else f"domain {batch.domain}"

    def _finite(self, value: float, where: str, what: str = "loss") -> None:
        if not abs(value) < EXPLODED and (what == "loss" or not math.isfinite(value)):
            raise DreamPRMError(
                f"{what} is {value:.3g} at step {self.step + 1} on {where}: training has diverged; "
                "start anew in another output_dir with a lower learning_rate or "
                "head_learning_rate, or with max_grad_norm; earlier checkpoints are intact"
            )


def _add(total: list[Tensor | None], gradient: Sequence[Tensor | None], share: float) -> None:
    """Total += share * gradient, in place."""
    held: list[Tensor] = []
    more: list[Tensor] = []
    for i, g in enumerate(gradient):
        if g is not None:
            before = total[i]
            if before is None:
                total[i] = g * share
            else:
                held.append(before)
                more.append(g)
    if held:
        torch._foreach_add_(held, more, alpha=share)


def lr_factor(config: TrainConfig, step: int) -> float:
    """Factor of the lower learning rate at a step counted from 0."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.max_steps - config.warmup_steps)
    factors = {
        "constant": 1.0,
        "linear": 1.0 - done,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * done)),
        "step": float(config.lr_gamma ** (step // config.lr_step_size)),
    }
    return factors[config.lr_scheduler_type]
