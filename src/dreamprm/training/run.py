"""One training run of a PRM: data in, a saved model with what the upper level learned out."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from dreamprm.bilevel import Bilevel, Estimator, LabelCorrection, Weights
from dreamprm.bilevel.parameters import trainable
from dreamprm.data.files import atomic_write, locked
from dreamprm.data.format import Records
from dreamprm.errors import DataWarning, DreamPRMError
from dreamprm.prm.model import PRM
from dreamprm.training.batches import ahead
from dreamprm.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from dreamprm.training.config import TrainConfig
from dreamprm.training.data import TrainData, checked_data
from dreamprm.training.learned import (
    GivenWeights,
    TrainResult,
    domain_weights,
    intervals,
    learned,
    make_weights,
    without_zeros,
    write_learned,
)
from dreamprm.training.meta_ranking import ranking_after, ranking_before
from dreamprm.training.power import warn_if_too_small
from dreamprm.training.problem import PRMProblem
from dreamprm.training.processes import Processes

LORA_FIELDS = ("r", "lora_alpha", "lora_dropout")


def train(
    prm: PRM,
    train_data: Records,
    meta_data: Records | None = None,
    config: TrainConfig | None = None,
    *,
    output_dir: str | Path | None = None,
    weights: GivenWeights | None = None,
    resume: bool = True,
    progress: Callable[[int], None] = lambda done: None,
) -> TrainResult:
    """Train a PRM, and learn weights of its training data (DreamPRM, arXiv 2505.20241).

    >>> import dreamprm as dp
    >>> prm = dp.PRM.from_backbone("tiny")
    >>> dp.train(prm, train, meta, dp.TrainConfig(max_steps=2000), output_dir="prm").weights
    ... # doctest: +SKIP
    {'charts': 1.32, 'geometry': 0.68}

    Args:
        prm: trained in place.
        train_data: questions and labelled trajectories, from `dreamprm.load`.
        meta_data: questions and trajectories with outcomes, none of them of a training question;
            None for plain training (`learn_weights=False`).
        config: settings of both levels.
        output_dir, weights, resume, progress: see `fit`.

    Raises:
        DreamPRMError: the data does not serve its purpose; see `fit` too.
    """
    config = config or TrainConfig()
    data = checked_data(train_data, meta_data, learn_weights=config.learn_weights)
    folder = None if output_dir is None else Path(output_dir)
    with nullcontext() if folder is None else locked(folder):
        return fit(
            prm, data, config, output_dir=folder, weights=weights, resume=resume, progress=progress
        )


def fit(
    model: PRM,
    data: TrainData,
    config: TrainConfig,
    *,
    output_dir: Path | None = None,
    weights: GivenWeights | None = None,
    resume: bool = True,
    progress: Callable[[int], None] = lambda done: None,
) -> TrainResult:
    """Train a PRM, and weights of its data where `config.learn_weights`, on prepared data.

    Args:
        model: trained in place.
        data: from `prepare_data`.
        config: settings of both levels.
        output_dir: gets the model, `weights.json`, `history.jsonl`, `meta_ranking.json` and
            `checkpoints/`, and `instance_weights.jsonl` and `corrected_labels.jsonl` where these
            are learned; nothing is written without it.
        weights: fixed weights instead of learned ones, by domain or by trajectory (question id and
            sample index); they are scaled to mean 1.
        resume: go on from the newest checkpoint in `output_dir`, if there is one.
        progress: called with the number of lower steps done since the last call.

    Raises:
        DreamPRMError: weights that do not fit the data; a loss that is not finite; a checkpoint of
            another run; a disk that is full. Checkpoints written before stay.
    """
    torch.manual_seed(config.seed)
    if weights is not None and config.learn_weights:
        raise DreamPRMError("weights are given and learn_weights is true; set it to false")
    data, weights = without_zeros(data, weights)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    processes = Processes(model.train(), config, output_dir)
    problem = PRMProblem(model, data, config, processes.parallel)
    weighting, correction = make_weights(config, data, weights)
    loop = make_loop(problem, weighting, correction)
    folder = output_dir / "checkpoints" if output_dir else None
    run = _identity(model, data, weights, processes.parallel.world)
    history: list[dict[str, Any]] = []
    stale = checkpoints(folder) if folder and not resume else []
    if folder and resume and checkpoints(folder):
        newest = checkpoints(folder)[-1]
        state = load_checkpoint(loop, config, newest, run)
        history = state["history"]
        progress(loop.steps)
    warn_of_nothing_learned(config, data)
    warn_if_too_small(config, data)
    before = ranking_before(problem, loop.steps, output_dir)
    saved = logged = loop.steps
    for row in windows(loop, problem):
        now = domain_weights(weighting, data)
        history.append(row | {"weights": now, "intervals": intervals(loop, now)})
        progress(loop.steps - (history[-2]["step"] if len(history) > 1 else 0))
        if loop.steps - logged >= config.logging_steps:
            losses = {k: row[k] for k in ("lower_loss", "meta_loss") if row[k] is not None}
            weights_now = {f"weights/{name}": w for name, w in history[-1]["weights"].items()}
            processes.log(losses | weights_now, loop.steps)
            logged = loop.steps
        if folder and config.save_steps and loop.steps - saved >= config.save_steps:
            save_checkpoint(loop, config, folder, run, history, stale)
            processes.wait()
            stale = []
            saved = loop.steps
    result = learned(problem, loop, history)
    result = replace(result, meta_ranking=ranking_after(problem, before, output_dir))
    warn_of_nothing_told_apart(result)
    if output_dir:
        whole = processes.whole_state(model)
        if result.is_main:
            model.save_pretrained(output_dir, result.weights, state=whole)
            write_learned(result, data, output_dir)
            _write_facts(model, data, config, history, output_dir)
        processes.wait()
    processes.finish()
    return result


def _write_facts(
    model: PRM, data: TrainData, config: TrainConfig, history: list[dict[str, Any]], folder: Path
) -> None:
    """How the model came to be: `history.jsonl` and `training_config.json`."""
    facts = {
        "model_name_or_path": model.base,
        "config": asdict(config),
        "domains": {name: len(pairs) for name, pairs in data.lower.items()},
    }
    with atomic_write(folder / "history.jsonl") as file:
        file.writelines(json.dumps(row).encode() + b"\n" for row in history)
    with atomic_write(folder / "training_config.json") as file:
        file.write(json.dumps(facts, indent=2).encode() + b"\n")


def warn_of_nothing_learned(config: TrainConfig, data: TrainData) -> None:
    """Settings under which weights stay at 1 although they are to be learned."""
    if not config.learn_weights:
        return
    # The first window has no optimiser state to take a direction with.
    first = config.unroll_steps if config.meta_gradient_at == "start" else 0
    reason = None
    if max(first, config.meta_warmup_steps) >= config.max_steps:
        reason = "the run ends before the first upper step (max_steps, meta_warmup_steps)"
    elif config.weighting == "domain" and len(data.domains) < 2:
        reason = f"'{data.domains[0]}' is the only domain, and domains are compared"
    if reason:
        warnings.warn(f"no weights are learned: {reason}", DataWarning, stacklevel=3)


def warn_of_nothing_told_apart(result: TrainResult) -> None:
    """A run that has learned weights, and none that means anything."""
    if result.verdicts and set(result.verdicts.values()) == {"not told apart"}:
        warnings.warn(
            "no weight is told apart from 1 (every 95% interval holds it): as far as this meta set "
            "and these windows can tell, the domains are equally good",
            DataWarning,
            stacklevel=3,
        )


def make_loop(
    problem: PRMProblem,
    weighting: Weights,
    correction: LabelCorrection | None = None,
    estimator: type[Estimator] | None = None,
) -> Bilevel:
    """The bi-level loop of a run; `estimator` stands in for that of the settings."""
    model, config = problem.model, problem.config
    for module in (weighting, correction):
        if module is not None and any(
            t.device != model.device for t in module.state_dict().values()
        ):
            module.to(model.device)
    head = {id(p) for p in model.head.parameters()}
    groups = [
        {"params": [p for p in trainable(model) if id(p) not in head], "lr": config.learning_rate},
        {
            "params": [p for p in trainable(model) if id(p) in head],
            "lr": config.head_learning_rate or config.learning_rate,
        },
    ]
    return Bilevel(
        model,
        problem.lower_losses,
        problem.meta_loss,
        weighting,
        labels=correction,
        optimizer=torch.optim.AdamW(
            [group for group in groups if group["params"]], weight_decay=config.weight_decay
        ),
        schedule=lambda step: lr_factor(config, step),
        max_grad_norm=config.max_grad_norm,
        meta_optimizer=config.meta_optimizer,
        meta_lr=config.meta_learning_rate,
        meta_weight_decay=config.meta_weight_decay,
        window=config.unroll_steps,
        meta_warmup=config.meta_warmup_steps,
        max_steps=config.max_steps,
        estimator=estimator or config.estimator,
        meta_gradient_at=config.meta_gradient_at,
        preconditioning=config.preconditioning,
        momentum=config.momentum,
        meta_backward=problem.meta_backward,
        row_owners=problem.owners,
        domains=problem.data.domains,
        parallel=problem.parallel,
    )


def windows(loop: Bilevel, problem: PRMProblem) -> Iterator[dict[str, Any]]:
    """Train to the end; per window its last step, mean loss, meta loss and trajectories seen."""
    config, device = problem.config, problem.model.device
    losses: list[Tensor] = []
    workers = config.dataloader_num_workers
    for batches in ahead(problem.lower_batches, loop.steps, config.max_steps, workers):
        meta_batch = None
        if loop.needs_meta_batch:
            meta_batch = problem.meta_batch(loop.upper_steps).to(device)
        step = loop.step([batch.to(device) for batch in batches], meta_batch)
        losses += step.losses
        if loop.between_windows:
            mean = problem.parallel.mean(torch.stack([x.mean() for x in losses]).mean())
            yield {
                "step": loop.steps,
                "lower_loss": float(mean),
                "meta_loss": step.meta_loss,
                "trajectories": sum(len(x) for x in losses) * problem.parallel.world,
                "meta_part": step.part,
                "effects": {loop.domains[k]: e for k, e in sorted(step.effects.items())},
            }
            losses = []


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


def _identity(
    model: PRM, data: TrainData, weights: GivenWeights | None, world: int
) -> dict[str, Any]:
    """What a checkpoint must share with the run that goes on from it, beside the settings."""
    items = [
        f"{t.question_id}/{t.sample_index}/{t.steps}/{t.labels}/{t.outcome}"
        for pairs in (*data.lower.values(), *data.meta)
        for _, t in pairs
    ]
    adapters = getattr(model.backbone, "peft_config", None)
    given = None if weights is None else sorted((str(k), v) for k, v in weights.items())
    return {
        "data": hashlib.sha256("\n".join(items).encode()).hexdigest(),
        "head or layout": asdict(model.config),
        "set of fixed weights": hashlib.sha256(json.dumps(given).encode()).hexdigest(),
        "number of processes": world,
        # What of the adapters does not show in the shapes of what is trained.
        "set of LoRA options (use_peft, lora_r, lora_alpha, lora_dropout)": adapters
        and {name: getattr(adapters["default"], name) for name in LORA_FIELDS},
        "base model, or dtype of it": _frozen(model),
        "backbone": {n: list(p.shape) for n, p in model.named_parameters() if p.requires_grad},
    }


def _frozen(model: PRM) -> str | None:
    """A few values of every parameter that is not trained, and so in no checkpoint."""
    frozen = [p.detach() for p in model.parameters() if not p.requires_grad]
    if not frozen or isinstance(frozen[0], DTensor):  # shards differ from process to process
        return None
    values = [p.flatten()[:4].float().tolist() for p in frozen]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
