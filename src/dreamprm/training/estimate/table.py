"""A `Plan` as text."""

from __future__ import annotations

from collections.abc import Sequence

from dreamprm.training.estimate.plan import Plan

MARGIN = 0.1  # fragments and work space, which are not counted
_MOMENTS = {
    "lower": "backward pass of a micro-batch",
    "step": "optimiser's step",
    "meta": "backward pass of the meta batch",
}


def render_plan(
    plan: Plan, memory: float | None = None, cheaper: Sequence[tuple[str, float]] = ()
) -> str:
    """The plan as two aligned columns, with what decides and what is only an estimate.

    Args:
        plan: from `plan_training`.
        memory: bytes of the device; None: not known.
        cheaper: options and the peaks they lead to, from `cheaper`; shown where the plan does not
            fit.
    """
    rows = [
        ("parameters", _count(plan.total)),
        ("  trainable", _count(plan.trainable)),
        ("  frozen", _count(plan.frozen)),
        ("memory of a device", ""),
        ("  weights", _bytes(plan.weights)),
        ("  gradients", _bytes(plan.gradients)),
        ("  AdamW moments", _bytes(plan.moments)),
        ("  hypergradient", _bytes(plan.hypergradient)),
        ("  activations, micro-batch", _bytes(plan.activations)),
        ("    without checkpointing", _bytes(plan.activations_plain)),
        ("    with checkpointing", _bytes(plan.activations_checkpointed)),
        ("  activations, meta batch", _bytes(plan.meta_activations)),
    ]
    if plan.logits:
        rows.append(("  vocabulary logits", _bytes(plan.logits)))
    rows += [
        ("  peak", f"{_bytes(plan.peak)}   in the {_MOMENTS[plan.peak_at]}"),
        ("work of a step", ""),
        ("  tokens", f"{plan.tokens:,.0f}"),
        ("  TFLOP of a device", f"{plan.flops / 1e12:,.3g}"),
        ("  share of the upper level", f"{plan.overhead / (1 + plan.overhead):.0%}"),
    ]
    if plan.seconds is not None and plan.seconds_total is not None:
        rows += [
            ("  time", _time(plan.seconds)),
            (f"time of {plan.steps:,} steps", _time(plan.seconds_total)),
        ]
    width = max(len(name) for name, _ in rows) + 2
    lines = [f"{name:<{width}}{value}".rstrip() for name, value in rows]
    if memory is not None:
        fits = plan.peak * (1 + MARGIN) <= memory
        verdict = "fits" if fits else "does not fit"
        lines.append(f"The peak and a tenth more {verdict} the device's {memory / 1e9:.0f} GB.")
        if not fits:
            lines += [f"  with {name}: {_bytes(peak).strip()}" for name, peak in cheaper]
    lines.append("Estimates: allow a tenth more memory; the time can be off by a factor of two.")
    if plan.rough:
        lines.append("This estimator's own graph is guessed: watch the first window.")
    return "\n".join(lines)


def _count(number: int) -> str:
    if number < 100_000:
        return f"{number:>9,}"
    return f"{number / 1e6:>9,.1f} M" if number < 1e9 else f"{number / 1e9:>9,.3f} B"


def _bytes(number: float) -> str:
    return f"{number / 1e9:>9,.2f} GB" if number >= 1e8 else f"{number / 1e6:>9,.2f} MB"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
