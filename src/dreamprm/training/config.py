"""Settings of bi-level training, and the presets.

Names are those of TRL and transformers where they have one. A micro-batch holds trajectories of one
domain, so `per_device_train_batch_size` is its size and `gradient_accumulation_steps` the number of
domains in a lower step.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from dreamprm.errors import DreamPRMError

# Names live here, and not beside the functions, because the command line reads this file: no torch.
LowerLoss = Literal["mse", "bce", "hard"]
MetaLossName = Literal[
    "mse", "affine_bce", "affine_mse", "pairwise", "listwise", "margin", "mse_steps", "bce_steps"
]
WeightingName = Literal["domain", "instance_table", "instance_net", "none"]
MetaOptimizer = Literal["dual_averaging", "adamw"]
EstimatorName = Literal["auto", "inner_product", "finite_difference", "jvp", "ghost"]

_POSITIVE = {
    *("max_steps", "learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("unroll_steps", "meta_batch_questions", "meta_batch_candidates", "save_total_limit"),
    *("logging_steps", "lr_step_size"),
}
_ANY_NUMBER = {"hard_threshold", "instance_weight_min", "instance_weight_max", "seed"}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
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
        per_device_train_batch_size: trajectories in a micro-batch, all of one domain.
        gradient_accumulation_steps: micro-batches, each of another domain, in a lower step.
        group_by_length: put trajectories of similar length into one micro-batch.
        unroll_steps: lower steps between two upper steps (the window).
        meta_batch_questions: questions in a meta batch; fewer where the meta set would otherwise
            make less than 8 batches, because how they differ says how sure the weights are.
        meta_batch_candidates: candidates of each of these questions, with both outcomes where
            there are both.
        per_device_meta_batch_size: candidates in one forward pass of the meta batch; the rest wait
            and are computed again in the backward pass. 0 takes all at once.
        meta_optimizer: of domain weights: `dual_averaging` (a weight leaves 1 as far as the sum of
            the evidence for it is beyond chance) or `adamw` (the paper). What trajectories and
            labels learn is moved by Adam.
        meta_learning_rate: of the upper level. By default 1 for dual averaging, whose steps are in
            standard errors, and 0.1 for Adam.
        meta_weight_decay: of Adam; pulls every weight toward 1, every label toward the given one.
        meta_warmup_steps: lower steps before the first upper step (cold start): weights stay 1.0.
        lower_loss: `mse` (paper), `bce` or `hard`, on step scores against Monte Carlo labels.
        hard_threshold: of `hard`: a step is good if its label is above.
        meta_loss: of aggregated scores against outcomes: `mse` (paper), `affine_bce` and
            `affine_mse` (scale and shift fitted first, so that only ranking counts), `pairwise`,
            `listwise` and `margin` (within a question); `mse_steps` and `bce_steps` judge every
            step instead.
        meta_aggregation: of step logits in the meta loss.
        weighting: what the upper level learns: `domain` (DreamPRM), `instance_table` or
            `instance_net` (DreamPRM-1.5: a weight of each trajectory), `none`.
        label_correction: labels are upper-level variables too (DreamPRM-Code).
        instance_weight_min: lower end of an instance table's weights (DreamPRM-1.5's code: -1).
        instance_weight_max: upper end.
        estimator: of the hypergradient; `auto` takes inner_product for domains, ghost for
            instances and jvp for labels.
        meta_gradient_at: `start` of the window (keeps one vector) or its `end` (closer to what the
            window does; keeps a gradient per domain).
        preconditioning: `adam` takes the lower optimiser into account, `none` does not.
        momentum: of a domain's gradient in the hypergradient: `whole`, or cut at the `window` end.
        learn_weights: False keeps the given weights (plain training).
        seed: of data order and initialisation.
        save_steps: lower steps between checkpoints; 0 saves none.
        save_total_limit: checkpoints kept.
        bf16: compute in bfloat16; trainable parameters stay in fp32.
        gradient_checkpointing: compute activations again in the backward pass, to save memory.
        dataloader_num_workers: processes that read images and tokenise ahead; 0 does it in place.
        logging_steps: lower steps between two rows sent to `report_to`.
        report_to: trackers of accelerate, comma-separated: wandb, tensorboard, ...; or `none`.
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
    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int = 5
    group_by_length: bool = False
    unroll_steps: int = 3
    meta_batch_questions: int = 16
    meta_batch_candidates: int = 4
    per_device_meta_batch_size: int = 0
    meta_optimizer: MetaOptimizer = "dual_averaging"
    meta_learning_rate: float | None = None
    meta_weight_decay: float = 1e-3
    meta_warmup_steps: int = 0
    lower_loss: LowerLoss = "mse"
    hard_threshold: float = 0.0
    meta_loss: MetaLossName = "margin"
    meta_aggregation: Literal["mean", "sum"] = "mean"
    weighting: WeightingName = "domain"
    label_correction: bool = False
    instance_weight_min: float = 0.0
    instance_weight_max: float = 3.0
    estimator: EstimatorName = "auto"
    meta_gradient_at: Literal["end", "start"] = "start"
    preconditioning: Literal["none", "adam"] = "adam"
    momentum: Literal["window", "whole"] = "whole"
    learn_weights: bool = True
    seed: int = 0
    save_steps: int = 0
    save_total_limit: int = 2
    bf16: bool = False
    gradient_checkpointing: bool = False
    dataloader_num_workers: int = 0
    logging_steps: int = 10
    report_to: str = "none"

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name in _POSITIVE and not value > 0:
                raise DreamPRMError(f"{name} is {value}; it must be above 0")
            if isinstance(value, int | float) and name not in _ANY_NUMBER and not value >= 0:
                raise DreamPRMError(f"{name} is {value}; it must be 0 or more")
        if not self.instance_weight_min < 1 < self.instance_weight_max:
            raise DreamPRMError(
                f"instance weights start at 1, and [{self.instance_weight_min}, "
                f"{self.instance_weight_max}] does not hold it; set instance_weight_min below 1 "
                "and instance_weight_max above"
            )
        self._check_estimator()

    def _check_estimator(self) -> None:
        """Estimators differ in what they can tell apart."""
        if not self.learn_weights:
            return
        if self.weighting == "none" and not self.label_correction:
            raise DreamPRMError(
                "weighting is none and label_correction is false: the upper level has nothing to "
                "learn; set one, or learn_weights false for plain training"
            )
        if self.label_correction and self.lower_loss == "hard":
            raise DreamPRMError(
                "label_correction moves labels by the slope of the loss, and lower_loss hard has "
                "none by the label; use mse or bce"
            )
        if self.momentum == "window" and self.meta_gradient_at == "start":
            raise DreamPRMError(
                "momentum window looks back from the window's end; set meta_gradient_at end, or "
                "momentum whole"
            )
        if self.weighting == "domain" and self.unroll_steps * self.gradient_accumulation_steps < 2:
            raise DreamPRMError(
                "a window of one micro-batch sees one domain, and weights are learned by comparing "
                "domains; raise unroll_steps or gradient_accumulation_steps"
            )
        finest = "labels" if self.label_correction else self.weighting
        if self.estimator == "inner_product" and finest != "domain":
            raise DreamPRMError(
                "estimator inner_product sees whole micro-batches and can weigh domains only; use "
                "ghost or jvp for instance weights, jvp for label_correction, or leave it at auto"
            )
        if self.estimator == "ghost" and self.label_correction:
            raise DreamPRMError(
                "estimator ghost sees whole trajectories and cannot correct the label of a step; "
                "use jvp, or leave it at auto"
            )

    @property
    def estimator_name(self) -> str:
        """The estimator with `auto` resolved."""
        if self.estimator != "auto":
            return self.estimator
        if self.label_correction:
            return "jvp"
        return "inner_product" if self.weighting == "domain" else "ghost"


PAPER: dict[str, Any] = {
    "max_steps": 10_000,
    "learning_rate": 5e-7,
    "head_learning_rate": 0.0,
    "lr_scheduler_type": "step",
    "max_grad_norm": 0.0,
    "gradient_accumulation_steps": 1,
    "per_device_train_batch_size": 1,
    "unroll_steps": 5,
    "meta_batch_questions": 1,
    "meta_batch_candidates": 1,
    "meta_optimizer": "adamw",
    "meta_learning_rate": 0.01,
    "meta_loss": "mse",
    "meta_gradient_at": "end",
    "estimator": "finite_difference",
    "preconditioning": "none",
    "momentum": "window",
}
"""arXiv 2505.20241: AdamW 5e-7 / 0.01, StepLR 5000 / 0.5, window 5, batch 1, 10,000 iterations."""

PRESETS: dict[str, dict[str, Any]] = {"default": {}, "paper": PAPER}


def preset(name: str, **changes: Any) -> TrainConfig:
    """A preset with some fields changed."""
    if name not in PRESETS:
        raise DreamPRMError(f"unknown preset '{name}'; there are: {', '.join(PRESETS)}")
    return replace(TrainConfig(**PRESETS[name]), **changes)
