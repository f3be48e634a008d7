"""The two levels, in turn.

    repeat:
        for each lower step of a window:                       # phi, the model
            for each of its one-domain micro-batches:
                g_k = grad L_k                                 # unweighted: the estimator wants it
            phi <- AdamW(phi, 1/D sum_k w_k g_k)
        h = d meta loss / d w                                  # the hypergradient
        alpha <- AdamW(alpha, h dw/dalpha)                     # alpha, the weights

Give it any `Problem`: a model whose losses are scalars of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dreamprm.bilevel.config import BilevelConfig
from dreamprm.bilevel.hypergradient import ESTIMATORS, Estimator, Hypergradient, LowerStep, Problem
from dreamprm.bilevel.hypergradient.base import trainable
from dreamprm.bilevel.sampler import domains_at
from dreamprm.bilevel.weights import DomainWeights
from dreamprm.errors import DreamPRMError

LowerBatches = Callable[[int, int], Any]
"""(domain index, visit) -> micro-batch of that domain."""
MetaBatches = Callable[[int], Any]
"""Upper step -> meta batch."""


@dataclass(frozen=True)
class WindowLog:
    """What happened in one window.

    Attributes:
        step: lower steps taken so far.
        lower_loss: mean unweighted loss of the window's micro-batches.
        meta_loss: at the window's end; None where no upper step was taken.
        weights: of each domain after the window.
    """

    step: int
    lower_loss: float
    meta_loss: float | None
    weights: dict[str, float]


class BilevelLoop:
    """State of both levels.

    Args:
        problem: model and losses.
        weights: the upper level's variables; with `config.learn_weights` False they stay as given.
        lower_batches, meta_batches: data, as functions of the step.
        config: settings.
        fixed_weights: (domains,), in place of `weights()` where they are not learned.
        learning_rates: of parameters that do not have `config.learning_rate`, by identity (`id`).
    """

    def __init__(
        self,
        problem: Problem,
        weights: DomainWeights,
        lower_batches: LowerBatches,
        meta_batches: MetaBatches,
        config: BilevelConfig,
        fixed_weights: Tensor | None = None,
        learning_rates: Mapping[int, float] | None = None,
    ) -> None:
        self.problem, self.weights, self.config = problem, weights, config
        self.lower_batches, self.meta_batches = lower_batches, meta_batches
        self.fixed_weights = fixed_weights
        self.parameters = trainable(problem.model)
        groups: dict[float, list[nn.Parameter]] = {}
        for p in self.parameters:
            rate = (learning_rates or {}).get(id(p), config.learning_rate)
            groups.setdefault(rate, []).append(p)
        self.lower_optimizer = torch.optim.AdamW(
            [{"params": group, "lr": rate, "base_lr": rate} for rate, group in groups.items()],
            weight_decay=config.weight_decay,
        )
        self.upper_optimizer = torch.optim.AdamW(
            weights.parameters(),
            lr=config.meta_learning_rate,
            weight_decay=config.meta_weight_decay,
        )
        self.estimator: Estimator = ESTIMATORS[config.estimator](
            problem, self.lower_optimizer, config.preconditioning, config.momentum
        )
        self.step = 0
        self.upper_step = 0

    def windows(self) -> Iterator[WindowLog]:
        """Train to `config.max_steps`, one window at a time."""
        while self.step < self.config.max_steps:
            yield self.window()

    def window(self) -> WindowLog:
        """One window of lower steps and, where weights are learned, one upper step."""
        length = min(self.config.unroll_steps, self.config.max_steps - self.step)
        learning = self.config.learn_weights and self.step >= self.config.meta_warmup_steps
        if learning:
            self.estimator.start_window()
        losses: list[float] = []
        for remaining in range(length, 0, -1):
            losses += self._lower_step(remaining, learning)
        meta_loss = self._upper_step() if learning else None
        shown = dict(zip(self.weights.domains, self.current_weights().tolist(), strict=True))
        return WindowLog(self.step, sum(losses) / len(losses), meta_loss, shown)

    def current_weights(self) -> Tensor:
        """w, (domains,), detached."""
        if self.fixed_weights is not None:
            return self.fixed_weights
        w: Tensor = self.weights()
        return w.detach()

    def _lower_step(self, remaining: int, learning: bool) -> list[float]:
        config, w = self.config, self.current_weights()
        visits = domains_at(self.step, len(w), config.domains_per_step, config.seed)
        total: list[Tensor | None] = [None] * len(self.parameters)
        batches, losses = [], []
        for index, (domain, visit) in enumerate(visits):
            batch = self.lower_batches(domain, visit)
            loss = self.problem.lower_loss(batch)
            losses.append(self._finite(float(loss.detach()), self.weights.domains[domain]))
            gradient = self._gradient(loss)
            share = float(w[domain]) / len(visits)
            for i, g in enumerate(gradient):
                if g is not None:
                    held = total[i]
                    total[i] = g * share if held is None else held.add_(g, alpha=share)
            if learning:
                self.estimator.observe(index, gradient)
            batches.append(batch)
        for p, g in zip(self.parameters, total, strict=True):
            p.grad = g
        scale = self._clip([self.weights.domains[domain] for domain, _ in visits])
        self._set_learning_rate()
        self.lower_optimizer.step()
        if learning:
            domains = tuple(domain for domain, _ in visits)
            self.estimator.after_step(LowerStep(domains, tuple(batches), remaining), scale)
        self.lower_optimizer.zero_grad()
        self.step += 1
        return losses

    def _upper_step(self) -> float:
        w = self.current_weights()
        found = self.estimator.compute(w, self.meta_batches(self.upper_step))
        self._finite(found.meta_loss, "the meta set")
        self._finite(float(found.value.abs().max()), "the meta set", "hypergradient")
        self.weights.set_gradient(without_push_on_unseen(found, w))
        self.upper_optimizer.step()
        self.upper_step += 1
        return found.meta_loss

    def _gradient(self, loss: Tensor) -> list[Tensor | None]:
        """Grad L_k through `.grad`, as every wrapper (DDP, scalers, checkpointing) expects."""
        for p in self.parameters:
            p.grad = None
        loss.backward()
        return [p.grad for p in self.parameters]

    def _clip(self, domains: list[str]) -> float:
        """Clip the lower gradient; returns the factor by which it was scaled."""
        limit = self.config.max_grad_norm if self.config.max_grad_norm > 0 else math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, limit))
        self._finite(norm, " and ".join(domains), "norm of the gradient")
        return min(1.0, limit / (norm + 1e-6))

    def _set_learning_rate(self) -> None:
        for group in self.lower_optimizer.param_groups:
            group["lr"] = group["base_lr"] * lr_factor(self.config, self.step)

    def _finite(self, value: float, where: str, what: str = "loss") -> float:
        if not math.isfinite(value):
            raise DreamPRMError(
                f"{what} is {value} at step {self.step + 1} on {where}: training has diverged; "
                "lower learning_rate, and resume from the last checkpoint, which is intact"
            )
        return value


def lr_factor(config: BilevelConfig, step: int) -> float:
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


def without_push_on_unseen(found: Hypergradient, w: Tensor) -> Tensor:
    """Give unseen domains the weighted mean of the seen ones.

    The weights have a fixed mean, so only differences of the hypergradient from its weighted mean
    move them. A 0 for "not seen in this window" would be read as a difference; the mean is none.
    """
    if found.seen.all():
        return found.value
    mean = (found.value * w)[found.seen].sum() / w[found.seen].sum()
    return torch.where(found.seen, found.value, mean)
