"""What a training run will need, before it is started: memory, computation and time.

Memory is the largest of three moments: the backward pass of a micro-batch, the optimiser's step,
and the backward pass of the meta batch. Besides activations it is counted in vectors:
fp32 tensors of the size of all trained parameters, which gradients, AdamW's moments and what an
estimator stores are. Estimates leave out the allocator's fragments and kernels' work space; allow
a tenth more.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import torch

from dreamprm.prm.model import PRMConfig
from dreamprm.training.config import TrainConfig
from dreamprm.training.estimate.activations import Pass, recomputed_bytes, saved_bytes
from dreamprm.training.estimate.costs import step_flops, vectors
from dreamprm.training.estimate.lengths import Lengths
from dreamprm.training.estimate.shapes import Shapes

EFFICIENCY = 0.4  # of a large matrix product's speed, reached in training by models of a few B


@dataclass(frozen=True)
class Plan:
    """What a run needs. Bytes and FLOPs are of one device.

    Attributes:
        total, trainable, frozen: parameters of the whole model.
        weights: bytes of parameters, and what sharding gathers for the layer at hand.
        gradients: bytes of gradients of a lower step.
        moments: bytes of AdamW's state.
        hypergradient: bytes that the estimator stores, at most.
        activations: bytes of a lower micro-batch, with the settings as given.
        activations_plain, activations_checkpointed: without and with gradient checkpointing.
        meta_activations: bytes of a meta batch, or of one of its chunks.
        logits: bytes of the vocabulary logits at the judged positions (head `vocab`).
        peak: bytes at the worst moment.
        peak_at: that moment: `lower`, `step` or `meta`.
        flops: per lower step, with its share of the meta pass and the estimator.
        overhead: of the upper level, as a share of plain training's FLOPs.
        tokens: per lower step, on all devices, padding included.
        steps: lower steps.
        seconds: per lower step; None where no speed was given.
        seconds_total: in all.
        rough: the estimator's own graph is guessed, not counted.
    """

    total: int
    trainable: int
    frozen: int
    weights: float
    gradients: float
    moments: float
    hypergradient: float
    activations: float
    activations_plain: float
    activations_checkpointed: float
    meta_activations: float
    logits: float
    peak: float
    peak_at: str
    flops: float
    overhead: float
    tokens: float
    steps: int
    seconds: float | None
    seconds_total: float | None
    rough: bool


def plan_training(
    shapes: Shapes,
    prm: PRMConfig,
    config: TrainConfig,
    lower: Lengths,
    meta: Lengths | None = None,
    *,
    domains: int,
    world: int = 1,
    sharded: bool = False,
    frozen_bf16: bool = False,
    flops_per_second: float | None = None,
    efficiency: float = EFFICIENCY,
) -> Plan:
    """Estimate a run.

    Args:
        shapes: of the model, from `read_shapes`.
        prm: head and layout.
        config: of the run.
        lower: training trajectories, from `measure_lengths`.
        meta: meta candidates; None: as long as the training trajectories.
        domains: their number.
        world: devices.
        sharded: parameters are sharded over them (FSDP2), not replicated (DDP).
        frozen_bf16: what adapters are on is loaded in bfloat16.
        flops_per_second: of a large matrix product, from `measure_flops` or a data sheet.
        efficiency: share of it that training reaches.
    """
    learning = config.learn_weights
    meta = meta or lower
    shards = world if sharded else 1
    frozen = shapes.total - shapes.trainable
    vector = 4 * shapes.trainable / shards
    weights = vector + frozen * (2 if frozen_bf16 and shapes.lora else 4) / shards
    if sharded:  # the layer at hand and the next one, and the embedding
        weights += 4 * (2 * shapes.text.parameters + shapes.embedding)
    settings = {
        "bf16": config.bf16,
        "frozen_bf16": frozen_bf16 and shapes.lora is not None,
        "checkpointing": config.gradient_checkpointing,
    }

    largest = replace(
        lower.batch(config.per_device_train_batch_size, largest=True),
        **settings,
    )
    judged = config.per_device_train_batch_size * max(lower.steps)
    logits = _logits(shapes, prm, judged, frozen_bf16)
    plain, checkpointed = (
        _alive(shapes, replace(largest, checkpointing=c)) + logits for c in (False, True)
    )
    activations = checkpointed if config.gradient_checkpointing else plain

    candidates = math.ceil(config.meta_batch_questions / world) * config.meta_batch_candidates
    chunk = min(config.per_device_meta_batch_size or candidates, candidates)
    meta_activations = 0.0
    if learning:
        meta_run = replace(meta.batch(chunk, largest=True), **settings)
        meta_activations = _alive(shapes, meta_run)
        meta_activations += _logits(shapes, prm, chunk * max(meta.steps), frozen_bf16)

    count = vectors(config, domains)
    rough = learning and config.estimator_name in ("unrolled", "neumann", "conjugate_gradient")
    at_meta = meta_activations
    if learning and config.estimator_name == "unrolled":  # the whole window is one graph
        at_meta += 3 * plain * config.unroll_steps * config.gradient_accumulation_steps
    elif rough:  # a gradient with a graph of its own
        at_meta = max(at_meta, 3 * plain * config.gradient_accumulation_steps)
    elif learning and config.estimator_name == "ghost":
        at_meta = max(at_meta, activations)
    fixed = weights + 2 * vector
    moments = {
        "lower": fixed + sum(count.lower) * vector + activations,
        "step": fixed + sum(count.step) * vector,
        "meta": fixed + sum(count.meta) * vector + at_meta,
    }
    peak_at = max(moments, key=lambda name: moments[name])

    plain_flops, all_flops = step_flops(shapes, config, lower, meta, candidates, chunk)
    grouped = config.group_by_length
    batch = lower.batch(config.per_device_train_batch_size, grouped=grouped)
    speed = flops_per_second * efficiency if flops_per_second else None
    seconds = all_flops / speed if speed else None
    return Plan(
        total=shapes.total,
        trainable=shapes.trainable,
        frozen=frozen,
        weights=weights,
        gradients=max(count.lower[0], count.step[0]) * vector,
        moments=2 * vector,
        hypergradient=max(count.lower[1], count.step[1], count.meta[1]) * vector,
        activations=activations,
        activations_plain=plain,
        activations_checkpointed=checkpointed,
        meta_activations=meta_activations,
        logits=logits,
        peak=moments[peak_at],
        peak_at=peak_at,
        flops=all_flops,
        overhead=all_flops / plain_flops - 1,
        tokens=world * config.gradient_accumulation_steps * batch.sequences * batch.tokens,
        steps=config.max_steps,
        seconds=seconds,
        seconds_total=None if seconds is None else seconds * config.max_steps,
        rough=rough,
    )


def cheaper(
    shapes: Shapes,
    prm: PRMConfig,
    config: TrainConfig,
    lower: Lengths,
    meta: Lengths | None = None,
    *,
    domains: int,
    world: int = 1,
    sharded: bool = False,
    frozen_bf16: bool = False,
) -> list[tuple[str, float]]:
    """Peaks with options that save memory and change nothing else, each added to those before.

    The arguments are those of `plan_training`. `meta_gradient_at start` comes last, because it is
    the one that changes what is computed.
    """
    changes: dict[str, Any] = {}
    found = []
    size = config.per_device_train_batch_size
    chunk = config.per_device_meta_batch_size
    options: list[tuple[str, Any, bool]] = [
        ("per_device_meta_batch_size", size, config.learn_weights and not 0 < chunk <= size),
        ("gradient_checkpointing", True, not config.gradient_checkpointing),
        (
            "meta_gradient_at",
            "start",
            config.learn_weights
            and config.meta_gradient_at == "end"
            and config.estimator_name == "inner_product",
        ),
    ]
    for name, value, possible in options:
        if not possible:
            continue
        changes[name] = value
        changed = replace(config, **changes)
        plan = plan_training(
            shapes,
            prm,
            changed,
            lower,
            meta,
            domains=domains,
            world=world,
            sharded=sharded,
            frozen_bf16=frozen_bf16,
        )
        found.append((f"{name} {str(value).lower()}", plan.peak))
    return found


def measure_flops(device: torch.device | str, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """FLOP/s of a matrix product, measured in about a second; for time estimates, nothing finer."""
    device = torch.device(device)
    n = 4096 if device.type == "cuda" else 512
    a = torch.randn(n, n, device=device, dtype=dtype)

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    a @ a  # the first call chooses a kernel
    wait()
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        a @ a
        wait()
        done += 1
    return 2 * n**3 * done / (time.perf_counter() - start)


def _alive(shapes: Shapes, run: Pass) -> float:
    return saved_bytes(shapes, run) + recomputed_bytes(shapes, run)


def _logits(shapes: Shapes, prm: PRMConfig, judged: float, frozen_bf16: bool) -> float:
    """The vocabulary's logits and their gradient, fp32; a frozen bf16 layer makes a bf16 copy."""
    if prm.head != "vocab":
        return 0.0
    return judged * shapes.vocabulary * (4 + 4 + (2 if frozen_bf16 and shapes.lora else 0))
