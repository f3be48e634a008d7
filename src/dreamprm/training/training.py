"""One training run of a PRM: data in, a saved model with what the upper level learned out."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from dreamprm.bilevel.loop import BilevelLoop
from dreamprm.data.files import atomic_write
from dreamprm.errors import DataWarning, DreamPRMError
from dreamprm.prm.model import PRM
from dreamprm.training.batches import Ahead, on_device
from dreamprm.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from dreamprm.training.config import TrainConfig
from dreamprm.training.data import TrainData, prepare_data
from dreamprm.training.engine import Engine
from dreamprm.training.learned import (
    GivenWeights,
    Learned,
    domain_weights,
    learned,
    make_upper,
    write_learned,
)
from dreamprm.training.problem import PRMProblem

__all__ = ["TrainData", "TrainResult", "prepare_data", "train"]


@dataclass(frozen=True)
class TrainResult:
    """Outcome of a run.

    Attributes:
        learned: final weights and labels.
        history: one row per window: step, lower_loss, meta_loss, weights of the domains.
        is_main: this is the process that writes and prints.
    """

    learned: Learned
    history: list[dict[str, Any]]
    is_main: bool = True

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each domain, the mean over trajectories 1 where they have weights."""
        return self.learned.domains


def train(
    model: PRM,
    data: TrainData,
    config: TrainConfig,
    *,
    output_dir: Path | None = None,
    weights: GivenWeights | None = None,
    resume: bool = True,
    progress: Callable[[int], None] = lambda done: None,
) -> TrainResult:
    """Train a PRM, and weights of its data where `config.learn_weights`.

    Args:
        model: trained in place.
        data: from `prepare_data`.
        config: settings of both levels.
        output_dir: gets the model, `weights.json`, `history.jsonl` and `checkpoints/`, and
            `instance_weights.jsonl` and `corrected_labels.jsonl` where these are learned; nothing
            is written without it.
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
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    head_rate = config.head_learning_rate or config.learning_rate
    engine = Engine(model.train(), config, output_dir)
    model = engine.model
    problem = PRMProblem(model, data, config, engine.parallel)
    upper = make_upper(config, data, weights, engine.parallel).to(model.device)
    loop = BilevelLoop(
        problem,
        upper,
        problem.lower_batches,
        problem.meta_batch,
        config,
        data.domains,
        {id(p): head_rate for p in model.head.parameters()},
        engine.parallel,
    )
    folder = output_dir / "checkpoints" if output_dir else None
    run = _identity(model, data, weights, engine.parallel.world)
    history: list[dict[str, Any]] = []
    stale = checkpoints(folder) if folder and not resume else []
    if folder and resume and checkpoints(folder):
        state = load_checkpoint(loop, problem.profile, checkpoints(folder)[-1], run)
        history = state["history"]
        progress(loop.step)
    _warn_of_nothing_learned(config, data)
    _prefetch(loop, problem)
    before = saved = logged = loop.step
    for log in loop.windows():
        history.append(asdict(log) | {"weights": domain_weights(upper, data)})
        progress(log.step - before)
        before = log.step
        if log.step - logged >= config.logging_steps:
            engine.log(_figures(history[-1]), log.step)
            logged = log.step
        if folder and config.save_steps and log.step - saved >= config.save_steps:
            save_checkpoint(loop, problem.profile, folder, run, history, stale)
            engine.wait()
            stale = []
            saved = log.step
    result = TrainResult(learned(problem, upper), history, engine.is_main)
    if output_dir:
        whole = engine.whole_state()
        if engine.is_main:
            _write(model, data, result, config, output_dir, whole)
        engine.wait()
    engine.finish()
    return result


def _warn_of_nothing_learned(config: TrainConfig, data: TrainData) -> None:
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


def _prefetch(loop: BilevelLoop, problem: PRMProblem) -> None:
    """Make batches where they are needed: ahead if asked for, on the model's device."""
    config, device = loop.config, problem.model.device
    lower = Ahead(problem.lower_batches, loop.step, config.max_steps, config.dataloader_num_workers)
    loop.lower_batches = lambda step: on_device(lower(step), device)
    loop.meta_batches = lambda step: problem.meta_batch(step).to(device)


def _figures(row: dict[str, Any]) -> dict[str, float]:
    """A window's row for trackers."""
    figures = {"lower_loss": row["lower_loss"]}
    if row["meta_loss"] is not None:
        figures["meta_loss"] = row["meta_loss"]
    return figures | {f"weights/{name}": w for name, w in row["weights"].items()}


def _identity(
    model: PRM, data: TrainData, weights: GivenWeights | None, world: int
) -> dict[str, Any]:
    """What a checkpoint must share with the run that goes on from it, beside the settings."""
    items = [
        f"{t.question_id}/{t.sample_index}/{t.steps}/{t.labels}/{t.outcome}"
        for pairs in (*data.lower.values(), *data.meta)
        for _, t in pairs
    ]
    given = None if weights is None else sorted((str(k), v) for k, v in weights.items())
    return {
        "data": hashlib.sha256("\n".join(items).encode()).hexdigest(),
        "head or layout": asdict(model.config),
        "set of fixed weights": hashlib.sha256(json.dumps(given).encode()).hexdigest(),
        "number of processes": world,
        "set of LoRA options (use_peft, lora_r, lora_alpha, lora_dropout)": _lora(model),
        "base model, or dtype of it": _frozen(model),
        "backbone": {n: list(p.shape) for n, p in model.named_parameters() if p.requires_grad},
    }


def _lora(model: PRM) -> dict[str, Any] | None:
    """What of the adapters does not show in the shapes of what is trained."""
    found = getattr(model.backbone, "peft_config", None)
    names = ("r", "lora_alpha", "lora_dropout")
    return {name: getattr(found["default"], name) for name in names} if found else None


def _frozen(model: PRM) -> str | None:
    """A few values of every parameter that is not trained, and so in no checkpoint."""
    frozen = [p.detach() for p in model.parameters() if not p.requires_grad]
    if not frozen or isinstance(frozen[0], DTensor):  # shards differ from process to process
        return None
    values = [p.flatten()[:4].float().tolist() for p in frozen]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _write(
    model: PRM,
    data: TrainData,
    result: TrainResult,
    config: TrainConfig,
    output_dir: Path,
    whole: dict[str, Any] | None,
) -> None:
    model.save_pretrained(output_dir, result.weights, state=whole)
    write_learned(result.learned, data, output_dir)
    with atomic_write(output_dir / "history.jsonl") as file:
        for row in result.history:
            file.write((json.dumps(row) + "\n").encode())
    facts = {
        "model_name_or_path": model.base,
        "config": asdict(config),
        "domains": {name: len(pairs) for name, pairs in data.lower.items()},
    }
    with atomic_write(output_dir / "training_config.json") as file:
        file.write((json.dumps(facts, indent=2) + "\n").encode())
