"""What the two levels cost: vectors that are kept, and FLOPs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dreamprm.training.config import TrainConfig
from dreamprm.training.estimate.activations import backward_flops, forward_flops
from dreamprm.training.estimate.lengths import Lengths
from dreamprm.training.estimate.shapes import Shapes


@dataclass(frozen=True)
class Vectors:
    """Gradient-sized vectors at each moment: those of the step itself, and the estimator's."""

    lower: tuple[int, int]
    step: tuple[int, int]
    meta: tuple[int, int]


def vectors(config: TrainConfig, domains: int) -> Vectors:
    """How many vectors are alive; see `loop.lower_step` and the estimators."""
    micro, window = config.gradient_accumulation_steps, config.unroll_steps
    # The sum so far and the gradient under way.
    step = (2 if micro > 1 else 1, 0), (2, 0)  # AdamW makes a temporary
    if not config.learn_weights:
        return Vectors(*step, meta=(0, 0))
    jacobian = 1 if config.preconditioning == "adam" else 0
    name, at_end = config.estimator_name, config.meta_gradient_at == "end"
    if name == "inner_product" and at_end:
        before = min(domains, micro * (window - 1))  # one per domain that has come up
        held = min(domains, micro * window)
        return Vectors(
            lower=(2 if micro > 1 else 1, before + micro - 1),
            step=(1, before + micro),
            meta=(1, held),
        )
    if name in ("inner_product", "jvp", "ghost") and not at_end:
        return Vectors(lower=(step[0][0], 1), step=(2, 1), meta=(1, 0))
    if name in ("finite_difference", "jvp", "ghost"):  # phi of every step, and where each goes
        copies = (1 + jacobian) * window + 1
        return Vectors(lower=(step[0][0], copies), step=(2, copies), meta=(1, copies + 2))
    if name == "unrolled":  # each step makes a new phi, both moments and what AdamW's rule keeps
        return Vectors(lower=(step[0][0], 3), step=(2, 3), meta=(1, 3 + 10 * window))
    return Vectors(lower=step[0], step=(2, jacobian), meta=(1, 5 + jacobian))


def step_flops(
    shapes: Shapes,
    config: TrainConfig,
    lower: Lengths,
    meta: Lengths,
    candidates: int,
    chunk: int,
) -> tuple[float, float]:
    """FLOPs of a lower step: of plain training, and with the upper level."""
    checkpointing = config.gradient_checkpointing
    size, micro = config.per_device_train_batch_size, config.gradient_accumulation_steps
    run = replace(lower.batch(size, grouped=config.group_by_length), checkpointing=checkpointing)
    forward = micro * sum(forward_flops(shapes, run))
    backward = micro * backward_flops(shapes, run)
    plain = forward + backward
    if not config.learn_weights:
        return plain, plain
    of_chunk = replace(meta.batch(chunk), checkpointing=checkpointing)
    meta_forward = sum(forward_flops(shapes, of_chunk))
    meta_pass = meta_forward + backward_flops(shapes, of_chunk)
    meta_pass += meta_forward * (chunk < candidates)  # chunks are computed twice
    meta_pass *= candidates / chunk
    extra = {
        "inner_product": 0.0,
        "finite_difference": 2 * forward,
        "jvp": 2 * forward,
        "ghost": forward + backward / 2,  # no gradients of weights
        "unrolled": plain + 2 * plain,  # the window again, and back through it
        "neumann": 2 * forward,
        "conjugate_gradient": 2 * forward,
    }[config.estimator_name]
    if config.estimator_name in ("neumann", "conjugate_gradient"):
        # A Hessian product costs about two gradients, of the window's last step.
        meta_pass += 2 * plain * config.solver_steps
    return plain, plain + extra + meta_pass / config.unroll_steps
