"""Settings of bi-level training, and the two presets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from dreamprm.errors import DreamPRMError

# Names live here, and not beside the functions, because the command line reads this file: no torch.
LowerLoss = Literal["mse", "bce", "hard"]
MetaLossName = Literal["mse", "affine_bce", "affine_mse", "pairwise", "listwise"]
EstimatorName = Literal["inner_product", "finite_difference", "unrolled"]


@dataclass(frozen=True)
class BilevelConfig:
    """Settings of both levels.

    Attributes:
        max_steps: lower steps (optimiser updates of the PRM).
        learning_rate: of the lower level's AdamW.
        head_learning_rate: of the head, which starts from nothing on a backbone that knows much;
            0 takes learning_rate (the paper).
        weight_decay: of the lower level's AdamW.
        lr_scheduler_type: `constant`, `linear` or `cosine` to zero over max_steps, or `step`:
            times lr_gamma every lr_step_size steps (the paper: 0.5 every 5,000).
        lr_step_size: see lr_scheduler_type.
        lr_gamma: see lr_scheduler_type.
        warmup_steps: linear warm-up of the lower learning rate.
        max_grad_norm: the lower gradient is clipped to this norm; 0 does not clip.
        domains_per_step: one-domain micro-batches in a lower step.
        per_domain_batch_size: trajectories in a micro-batch.
        unroll_steps: lower steps between two upper steps (the window).
        meta_questions: questions in a meta batch.
        meta_candidates: candidates of each of these questions, with both outcomes where there are
            both.
        meta_learning_rate: of the upper level's AdamW.
        meta_weight_decay: of the upper level's AdamW.
        meta_warmup_steps: lower steps before the first upper step; weights stay 1.0 until then.
        lower_loss: `mse` (paper), `bce` or `hard`, on step scores against Monte Carlo labels.
        meta_loss: see `bilevel.meta_loss`.
        meta_aggregation: of step logits in the meta loss.
        estimator: of the hypergradient.
        preconditioning: `adam` takes the lower optimiser into account, `none` does not.
        momentum: of a domain's gradient in the hypergradient: `whole`, or cut at the `window` end.
        learn_weights: False keeps the given weights (plain training).
        seed: of data order and initialisation.
        save_steps: lower steps between checkpoints; 0 saves none.
        save_total_limit: checkpoints kept.
    """

    max_steps: int = 300
    learning_rate: float = 1e-4
    head_learning_rate: float = 5e-3
    weight_decay: float = 0.0
    lr_scheduler_type: Literal["constant", "linear", "cosine", "step"] = "constant"
    lr_step_size: int = 5000
    lr_gamma: float = 0.5
    warmup_steps: int = 0
    max_grad_norm: float = 1.0
    domains_per_step: int = 5
    per_domain_batch_size: int = 8
    unroll_steps: int = 3
    meta_questions: int = 16
    meta_candidates: int = 4
    meta_learning_rate: float = 0.1
    meta_weight_decay: float = 1e-3
    meta_warmup_steps: int = 0
    lower_loss: LowerLoss = "mse"
    meta_loss: MetaLossName = "affine_bce"
    meta_aggregation: Literal["mean", "sum"] = "mean"
    estimator: EstimatorName = "inner_product"
    preconditioning: Literal["none", "adam"] = "adam"
    momentum: Literal["window", "whole"] = "whole"
    learn_weights: bool = True
    seed: int = 0
    save_steps: int = 0
    save_total_limit: int = 2

    def __post_init__(self) -> None:
        for name in (
            "max_steps",
            "learning_rate",
            "domains_per_step",
            "per_domain_batch_size",
            "unroll_steps",
            "meta_questions",
            "meta_candidates",
            "save_total_limit",
        ):
            if getattr(self, name) <= 0:
                raise DreamPRMError(f"{name} is {getattr(self, name)}; it must be above 0")


PAPER: dict[str, Any] = {
    "max_steps": 10_000,
    "learning_rate": 5e-7,
    "head_learning_rate": 0.0,
    "lr_scheduler_type": "step",
    "max_grad_norm": 0.0,
    "domains_per_step": 1,
    "per_domain_batch_size": 1,
    "unroll_steps": 5,
    "meta_questions": 1,
    "meta_candidates": 1,
    "meta_learning_rate": 0.01,
    "meta_loss": "mse",
    "estimator": "finite_difference",
    "preconditioning": "none",
    "momentum": "window",
}
"""arXiv 2505.20241: AdamW 5e-7 / 0.01, StepLR 5000 / 0.5, window 5, batch 1, 10,000 iterations."""

PRESETS: dict[str, dict[str, Any]] = {"default": {}, "paper": PAPER}


def preset(name: str, **changes: Any) -> BilevelConfig:
    """A preset with some fields changed."""
    if name not in PRESETS:
        raise DreamPRMError(f"unknown preset '{name}'; there are: {', '.join(PRESETS)}")
    return replace(BilevelConfig(**PRESETS[name]), **changes)
