"""Checkpoints of a run: all that resuming needs, in safetensors and JSON, written atomically.

Data order is a function of seed and step (`training.batches`) and needs no saving. A checkpoint is
taken between windows, where the estimator has nothing in hand. With several processes it holds
whole tensors, gathered from the shards.
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
from pydantic import NonNegativeInt
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from dreamprm.bilevel.loop import Bilevel
from dreamprm.data.files import in_row, load_json_object
from dreamprm.data.trajectory_weights import Window
from dreamprm.errors import DataError, DreamPRMError
from dreamprm.records import Record
from dreamprm.training.config import TrainConfig

TENSORS, STATE = "state.safetensors", "state.json"
# Fields that may differ between the run that wrote a checkpoint and the run that goes on from it.
FREE = {"save_steps", "save_total_limit", "dataloader_num_workers", "logging_steps", "report_to"}


class State(Record):
    """What a checkpoint's JSON holds."""

    step: NonNegativeInt
    upper_step: NonNegativeInt
    domains: tuple[str, ...]
    config: dict[str, Any]
    run: dict[str, Any]
    history: tuple[Window, ...]


def save_checkpoint(
    loop: Bilevel,
    config: TrainConfig,
    folder: Path,
    run: dict[str, Any],
    history: list[dict[str, Any]],
    stale: Sequence[Path] = (),
) -> None:
    """Write `folder/checkpoint-<step>`, then remove older ones beyond `save_total_limit`.

    Args:
        run: what else identifies the run (head, data, fixed weights); compared when resuming.
        stale: checkpoints of a run that was not gone on with; they go once this one is safe.
    """
    tensors = _tensors(loop)  # every process takes part in gathering shards
    if loop.parallel.rank > 0:
        return
    target = folder / f"checkpoint-{loop.steps}"
    partial = folder / f".checkpoint-{loop.steps}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file(tensors, partial / TENSORS)
        state = {
            "step": loop.steps,
            "upper_step": loop.upper_steps,
            "domains": loop.domains,
            "config": asdict(config),
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
    for old in checkpoints(folder)[: -config.save_total_limit]:
        shutil.rmtree(old)
    for rest in folder.glob(".checkpoint-*.partial"):  # of a run that was killed while writing
        shutil.rmtree(rest, ignore_errors=True)


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    complete = [p for p in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name)]
    return sorted(complete, key=lambda p: int(p.name.split("-")[1]))


def load_checkpoint(
    loop: Bilevel, config: TrainConfig, path: Path, run: dict[str, Any]
) -> dict[str, Any]:
    """Put a run into the state of a checkpoint; returns its JSON part.

    Raises:
        DreamPRMError: the checkpoint is damaged, or belongs to other settings or other domains
            (names the field).
    """
    try:
        state = load_json_object(path / STATE)
        with in_row(path / STATE, None):
            State.parse(state)
        if path.name != f"checkpoint-{state['step']}":
            raise DataError("is another than its folder's", file=path / STATE, field="step")
        tensors = load_file(path / TENSORS)
    except (DataError, OSError, SafetensorError) as error:
        raise DreamPRMError(
            f"{path}: cannot read the checkpoint: {error}; remove this folder to go on from an "
            "earlier one"
        ) from error
    if tuple(state["domains"]) != loop.domains:
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
    for name, value in run.items():
        if state["run"].get(name) != value:
            raise DreamPRMError(
                f"{path} is of a run with another {name}; give the same, or another output_dir"
            )
    try:
        _restore(loop, tensors)
        torch.set_rng_state(tensors["rng"])
        device = loop.parameters[0].device
        if "cuda_rng" in tensors and device.type == "cuda":
            torch.cuda.set_rng_state(tensors["cuda_rng"], device)
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        raise DreamPRMError(
            f"{path} does not fit this model ({error}); give the same, or another output_dir"
        ) from error
    loop.steps, loop.upper_steps = state["step"], state["upper_step"]
    return state


def _tensors(loop: Bilevel) -> dict[str, Tensor]:
    tensors = {name: _whole(p) for name, p in _variables(loop).items()}
    for name, holder, attribute in _evidence(loop):
        tensors[name] = torch.from_numpy(getattr(holder, attribute))
    tensors["rng"] = torch.get_rng_state()
    device = loop.parameters[0].device
    if device.type == "cuda":
        tensors["cuda_rng"] = torch.cuda.get_rng_state(device)
    for name, optimizer in _optimizers(loop):
        for index, fields in optimizer.state_dict()["state"].items():
            for field, value in fields.items():
                tensors[f"{name}_optimizer.{index}.{field}"] = _whole(value)
    return tensors


def _restore(loop: Bilevel, tensors: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, variable in _variables(loop).items():
            variable.copy_(_sharded_as(variable, tensors[name]))
    for name, holder, attribute in _evidence(loop):
        setattr(holder, attribute, tensors[name].numpy())
    for name, optimizer in _optimizers(loop):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        restored = optimizer.state_dict() | {"state": {}}
        for key, value in tensors.items():
            if key.startswith(f"{name}_optimizer."):
                _, index, field = key.split(".")
                kept = value if field == "step" else _sharded_as(parameters[int(index)], value)
                restored["state"].setdefault(int(index), {})[field] = kept
        optimizer.load_state_dict(restored)


def _variables(loop: Bilevel) -> dict[str, Tensor]:
    """What is learned, by name: the model's trainable parameters, alpha and label corrections."""
    parts = [("model", loop.model), ("upper.weights", loop.weights), ("upper.labels", loop.labels)]
    return {
        name: p
        for prefix, module in parts
        if module is not None
        for name, p in module.named_parameters(prefix=prefix)
        if p.requires_grad
    }


def _whole(tensor: Tensor) -> Tensor:
    """A copy on the CPU, gathered from all processes if it is sharded."""
    tensor = tensor.detach()
    if isinstance(tensor, DTensor):
        tensor = tensor.full_tensor()
    return tensor.cpu().contiguous()


def _sharded_as(p: Tensor, whole: Tensor) -> Tensor:
    if isinstance(p, DTensor):
        return distribute_tensor(whole.to(p.device), p.device_mesh, p.placements)
    return whole


def _evidence(loop: Bilevel) -> list[tuple[str, Any, str]]:
    """Name of each tensor of the evidence, with what holds it and the attribute there."""
    found: list[tuple[str, Any, str]] = []
    for name, of in (("evidence", loop.evidence), ("evidence_of_labels", loop.evidence_of_labels)):
        found.append((f"{name}.squares", of, "squares"))
        for part, sums in (("parts", of.parts), ("blocks", of.blocks)):
            found += [(f"{name}.{part}.{field}", sums, field) for field in ("total", "count")]
    return found


def _optimizers(loop: Bilevel) -> list[tuple[str, torch.optim.Optimizer]]:
    return [("lower", loop.lower_optimizer), ("upper", loop.upper_optimizer)]
