"""Checkpoints of a run: all that resuming needs, in safetensors and JSON, written atomically.

Data order is a function of seed and step (`bilevel.sampler`) and needs no saving. A checkpoint is
taken between windows, where the estimator has nothing in hand.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamprm.bilevel.config import BilevelConfig
from dreamprm.bilevel.loop import BilevelLoop
from dreamprm.bilevel.meta_loss import AffineNuisance, MetaLoss
from dreamprm.errors import DreamPRMError

TENSORS, STATE = "state.safetensors", "state.json"
# Fields that may differ between the run that wrote a checkpoint and the run that goes on from it.
FREE = {"save_steps", "save_total_limit"}


def save_checkpoint(
    loop: BilevelLoop,
    profile: MetaLoss,
    folder: Path,
    run: dict[str, Any],
    history: list[dict[str, Any]],
    stale: Sequence[Path] = (),
) -> None:
    """Write `folder/checkpoint-<step>`, then remove older ones beyond `save_total_limit`.

    Args:
        run: what else identifies the run (head, data, fixed weights); compared when resuming.
        history: rows of the windows so far.
        stale: checkpoints of a run that was not gone on with; they go once this one is safe.
    """
    target = folder / f"checkpoint-{loop.step}"
    partial = folder / f".checkpoint-{loop.step}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file(_tensors(loop), partial / TENSORS)
        state = {
            "step": loop.step,
            "upper_step": loop.upper_step,
            "domains": loop.weights.domains,
            "config": asdict(loop.config),
            "slope": profile.slope if isinstance(profile, AffineNuisance) else None,
            "run": run,
            "history": history,
        }
        (partial / STATE).write_text(json.dumps(state, indent=2) + "\n")
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)  # noqa: PTH105 - a folder in one stroke
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise DreamPRMError(
            f"{target}: cannot write the checkpoint: {error}; earlier checkpoints are intact"
        ) from error
    for old in stale:
        if old != target:
            shutil.rmtree(old, ignore_errors=True)
    for old in checkpoints(folder)[: -loop.config.save_total_limit]:
        shutil.rmtree(old)


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = [p for p in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name)]
    return sorted(found, key=lambda p: int(p.name.split("-")[1]))


def load_checkpoint(
    loop: BilevelLoop, profile: MetaLoss, path: Path, run: dict[str, Any]
) -> dict[str, Any]:
    """Put a run into the state of a checkpoint; returns its JSON part.

    Raises:
        DreamPRMError: the checkpoint belongs to other settings or other domains (names the field).
    """
    try:
        state: dict[str, Any] = json.loads((path / STATE).read_text())
        tensors = load_file(path / TENSORS)
    except (OSError, ValueError, SafetensorError) as error:
        raise DreamPRMError(f"{path}: cannot read the checkpoint: {error}") from error
    _refuse_other_run(state, loop.config, loop.weights.domains, path)
    for name, value in run.items():
        if state["run"].get(name) != value:
            raise DreamPRMError(
                f"{path} is of a run with another {name}; give the same, or another output_dir"
            )
    with torch.no_grad():
        for name, p in loop.problem.model.named_parameters():
            if p.requires_grad:
                p.copy_(tensors[f"model.{name}"])
        loop.weights.alpha.copy_(tensors["alpha"])
    for name, optimizer in _optimizers(loop):
        restored = optimizer.state_dict()
        restored["state"] = {}
        for key, value in tensors.items():
            if key.startswith(f"{name}."):
                _, index, field = key.split(".")
                restored["state"].setdefault(int(index), {})[field] = value
        optimizer.load_state_dict(restored)
    torch.set_rng_state(tensors["rng"])
    if isinstance(profile, AffineNuisance):
        profile.slope = state["slope"]
    loop.step, loop.upper_step = state["step"], state["upper_step"]
    return state


def _tensors(loop: BilevelLoop) -> dict[str, Tensor]:
    tensors = {
        f"model.{name}": p.detach().cpu().contiguous()
        for name, p in loop.problem.model.named_parameters()
        if p.requires_grad
    }
    tensors["alpha"] = loop.weights.alpha.detach().cpu()
    tensors["rng"] = torch.get_rng_state()
    for name, optimizer in _optimizers(loop):
        for index, fields in optimizer.state_dict()["state"].items():
            for field, value in fields.items():
                tensors[f"{name}.{index}.{field}"] = value.detach().cpu().contiguous()
    return tensors


def _optimizers(loop: BilevelLoop) -> list[tuple[str, torch.optim.Optimizer]]:
    return [("lower", loop.lower_optimizer), ("upper", loop.upper_optimizer)]


def _refuse_other_run(
    state: dict[str, Any], config: BilevelConfig, domains: tuple[str, ...], path: Path
) -> None:
    if tuple(state["domains"]) != domains:
        raise DreamPRMError(
            f"{path} was trained on other domains ({', '.join(state['domains'])}); give the same "
            "data, or another output_dir"
        )
    for field, value in asdict(config).items():
        before = state["config"].get(field)
        if field not in FREE and before != value:
            raise DreamPRMError(
                f"{path} was trained with {field} {before}, now it is {value}; set it back, or "
                "give another output_dir"
            )
