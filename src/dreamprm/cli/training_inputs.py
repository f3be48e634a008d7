"""What `dreamprm train` reads: the training set, the meta set, and fixed weights."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dreamprm.cli.inputs import read_candidates
from dreamprm.cli.terminal import held_warnings
from dreamprm.data import check_images, check_references, read_pair
from dreamprm.data.files import open_for_reading
from dreamprm.errors import DataError, DreamPRMError
from dreamprm.records import Question, Trajectory

Pair = tuple[list[Question], list[Trajectory]]


@dataclass(frozen=True, kw_only=True)
class TrainingInputs:
    """Files, model and where the result goes; see `train.Config`."""

    output_dir: Path
    train_file: Path | None = None
    train_questions: Path | None = None
    train_trajectories: Path | None = None
    meta_file: Path | None = None
    meta_questions: Path | None = None
    meta_trajectories: Path | None = None
    image_root: Path | None = None
    model_name_or_path: str = "tiny"
    objective: Literal["prm", "orm"] = "prm"
    head: Literal["value", "vocab", "token"] = "value"
    layout: Literal["trajectory", "prefix", "turns"] = "trajectory"
    step_tag: str = "\n"
    max_length: int | None = None
    use_peft: bool = False
    lora_r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    lora_target_modules: list[str] = field(default_factory=list)
    lora_vision: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"
    weights_file: Path | None = None
    preset: Literal["default", "paper"] = "default"
    resume_from_checkpoint: bool = True
    dry_run: bool = False
    push_to_hub: bool = False
    hub_model_id: str | None = None
    hub_private_repo: bool = False
    device: str | None = None


def source_of(config: TrainingInputs, kind: Literal["train", "meta"]) -> Path | str:
    """The file to name in messages about one of the two sets."""
    return (
        getattr(config, f"{kind}_file") or getattr(config, f"{kind}_trajectories") or f"{kind} data"
    )


def read_set(config: TrainingInputs, kind: Literal["train", "meta"]) -> Pair | None:
    """Questions and trajectories of one of the two sets; None when no file is given."""
    one = getattr(config, f"{kind}_file")
    two = [getattr(config, f"{kind}_questions"), getattr(config, f"{kind}_trajectories")]
    if one and any(two):
        raise DreamPRMError(
            f"give {kind}_file or {kind}_questions and {kind}_trajectories, not both"
        )
    if any(two) and not all(two):
        raise DreamPRMError(f"{kind}_questions and {kind}_trajectories belong together; give both")
    if not one and not any(two):
        return None
    if one:
        questions, trajectories = read_pair(one, image_root=config.image_root)
        check_references(questions, trajectories, one)
    else:
        questions, trajectories = read_candidates([two[0]], [two[1]], config.image_root)
    check_images(questions, one or two[0])
    return questions, trajectories


def check_output_dir(folder: Path) -> None:
    """Refuse a place where nothing can be written while no step is lost yet.

    Raises:
        DreamPRMError: a part of the path is a file, or may not be written to.
    """
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not nearest.is_dir():
        raise DreamPRMError(f"output_dir {folder}: {nearest} is a file; give another folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise DreamPRMError(
            f"output_dir {folder}: {nearest} may not be written to; correct the permissions or "
            "give another folder"
        )


def read_data(config: TrainingInputs, objective: Literal["prm", "orm"], learn: bool) -> Any:
    """Both sets, joined and checked, as `TrainData`; the meta set only where weights are learned.

    Raises:
        DreamPRMError: a set is missing or does not serve its purpose.
    """
    with held_warnings():
        train_pair = read_set(config, "train")
        meta_pair = read_set(config, "meta") if learn else ([], [])
    if train_pair is None:
        raise DreamPRMError(
            "no training data; give train_file, or train_questions and _trajectories"
        )
    if meta_pair is None:
        raise DreamPRMError(
            "learning weights needs a meta set: give meta_file, or meta_questions and "
            "meta_trajectories; or --learn_weights false for plain training"
        )
    questions, trajectories = train_pair
    from dreamprm.training.data import prepare_data

    if objective == "orm":
        from dreamprm.baselines.outcome import outcome_labels

        trajectories = outcome_labels(trajectories)
        if not trajectories:
            raise DataError("no trajectory has an outcome", file=source_of(config, "train"))
    return prepare_data(
        questions,
        trajectories,
        *meta_pair,
        source=source_of(config, "train"),
        meta_source=source_of(config, "meta"),
        learn_weights=learn,
    )


def read_weights(path: Path) -> Mapping[str, float] | Mapping[tuple[str, int], float]:
    """Fixed weights: of domains (a JSON object), or of trajectories (JSON Lines).

    A folder that `dreamprm train` wrote stands for what was learned there.
    """
    if path.is_dir():
        instances = path / "instance_weights.jsonl"
        path = instances if instances.exists() else path / "weights.json"
    if path.suffix == ".jsonl":
        from dreamprm.data.trajectory_weights import read_weights as read_instances

        return read_instances(path)
    with open_for_reading(path) as file:
        try:
            weights: Any = json.loads(file.read())
        except ValueError as error:
            raise DataError(f"not JSON ({error})", file=path) from error
    if not isinstance(weights, dict) or not weights:
        raise DataError("must be an object {domain: weight}", file=path)
    for domain, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise DataError(f"must be a number, not {weight!r}", file=path, field=domain)
    return {domain: float(weight) for domain, weight in weights.items()}
