"""One training run of a PRM: data in, a saved model with its learned domain weights out."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamprm.bilevel.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from dreamprm.bilevel.config import BilevelConfig
from dreamprm.bilevel.data import PRMProblem, TrainData, prepare_data
from dreamprm.bilevel.loop import BilevelLoop
from dreamprm.bilevel.weights import DomainWeights
from dreamprm.errors import DreamPRMError
from dreamprm.formats.files import atomic_write
from dreamprm.prm.model import ProcessRewardModel

__all__ = ["TrainData", "TrainResult", "prepare_data", "train"]


@dataclass(frozen=True)
class TrainResult:
    """Outcome of a run.

    Attributes:
        weights: final weight of each domain, mean 1.
        history: one row per window: step, lower_loss, meta_loss, weights.
    """

    weights: dict[str, float]
    history: list[dict[str, Any]]


def train(
    model: ProcessRewardModel,
    data: TrainData,
    config: BilevelConfig,
    *,
    output_dir: Path | None = None,
    weights: Mapping[str, float] | None = None,
    resume: bool = True,
    progress: Callable[[int], None] = lambda done: None,
) -> TrainResult:
    """Train a PRM, and its domain weights where `config.learn_weights`.

    Args:
        model: trained in place.
        data: from `prepare_data`.
        config: settings of both levels.
        output_dir: gets the model, `weights.json`, `history.jsonl` and `checkpoints/`; nothing is
            written without it.
        weights: fixed weights by domain, instead of learned ones; they are scaled to mean 1.
        resume: go on from the newest checkpoint in `output_dir`, if there is one.
        progress: called with the number of lower steps done since the last call.

    Raises:
        DreamPRMError: an unknown domain in `weights`; a loss that is not finite; a checkpoint of
            another run; a disk that is full. Checkpoints written before stay.
    """
    torch.manual_seed(config.seed)
    if config.estimator == "unrolled":
        # The fused attention kernels have no second derivative.
        model.backbone.set_attn_implementation("eager")
    problem = PRMProblem(model.train(), data, config)
    fixed = _fixed_weights(weights, data.domains) if weights is not None else None
    if fixed is not None and config.learn_weights:
        raise DreamPRMError("weights are given and learn_weights is true; set it to false")
    domain_weights = DomainWeights(data.domains).to(model.device)
    head_rate = config.head_learning_rate or config.learning_rate
    loop = BilevelLoop(
        problem,
        domain_weights,
        problem.lower_batch,
        problem.meta_batch,
        config,
        fixed,
        {id(p): head_rate for p in model.head.parameters()},
    )
    folder = output_dir / "checkpoints" if output_dir else None
    run = _identity(model, data, fixed)
    history: list[dict[str, Any]] = []
    stale = checkpoints(folder) if folder and not resume else []
    if folder and resume and checkpoints(folder):
        state = load_checkpoint(loop, problem.profile, checkpoints(folder)[-1], run)
        history = state["history"]
        progress(loop.step)
    before = saved = loop.step
    for log in loop.windows():
        history.append(asdict(log))
        progress(log.step - before)
        before = log.step
        if folder and config.save_steps and log.step - saved >= config.save_steps:
            save_checkpoint(loop, problem.profile, folder, run, history, stale)
            stale = []
            saved = log.step
    final = dict(zip(data.domains, loop.current_weights().tolist(), strict=True))
    result = TrainResult(final, history)
    if output_dir:
        _write(model, result, output_dir)
    return result


def _identity(model: ProcessRewardModel, data: TrainData, fixed: Tensor | None) -> dict[str, Any]:
    """What a checkpoint must share with the run that goes on from it, beside the settings."""
    items = [
        f"{t.question_id}/{t.sample_index}/{t.steps}/{t.labels}/{t.outcome}"
        for pairs in (*data.lower.values(), *data.meta)
        for _, t in pairs
    ]
    return {
        "data": hashlib.sha256("\n".join(items).encode()).hexdigest(),
        "head or layout": asdict(model.config),
        "set of fixed weights": None if fixed is None else fixed.tolist(),
        "backbone": {n: list(p.shape) for n, p in model.named_parameters() if p.requires_grad},
    }


def _fixed_weights(weights: Mapping[str, float], domains: tuple[str, ...]) -> Tensor:
    for name, value in weights.items():
        if name not in domains:
            near = difflib.get_close_matches(name, domains, n=3) or list(domains[:3])
            raise DreamPRMError(
                f"weights: unknown domain '{name}'; the data has, nearest first: {', '.join(near)}"
            )
        if not 0 <= value < float("inf"):
            raise DreamPRMError(f"weights: domain '{name}' has weight {value}; need 0 or more")
    missing = [name for name in domains if name not in weights]
    if missing:
        raise DreamPRMError(f"weights: no weight for domain '{missing[0]}'; give one for each")
    w = torch.tensor([float(weights[name]) for name in domains])
    if not w.sum() > 0:
        raise DreamPRMError("weights: all are 0; at least one domain must count")
    return w * len(w) / w.sum()


def _write(model: ProcessRewardModel, result: TrainResult, output_dir: Path) -> None:
    model.save_pretrained(output_dir, result.weights)
    with atomic_write(output_dir / "weights.json") as file:
        file.write((json.dumps(result.weights, indent=2) + "\n").encode())
    with atomic_write(output_dir / "history.jsonl") as file:
        for row in result.history:
            file.write((json.dumps(row) + "\n").encode())
