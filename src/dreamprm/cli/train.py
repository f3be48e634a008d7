r"""Train a process reward model and learn one weight per training domain (DreamPRM).

Reads labelled trajectories and a meta set of trajectories with outcomes: questions and trajectories
in two files each, or one file each in the paper's format (train.json, meta.json). Writes the model,
weights.json, history.jsonl and checkpoints; the same command again goes on from the newest one.

  dreamprm train --train_file train.json --meta_file meta.json \
    --model_name_or_path Qwen/Qwen2-VL-2B-Instruct --output_dir prm --bilevel.max_steps 2000
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dreamprm.bilevel.config import PRESETS as BILEVEL_PRESETS
from dreamprm.bilevel.config import BilevelConfig
from dreamprm.cli.inputs import read_candidates
from dreamprm.cli.terminal import held_warnings, progress
from dreamprm.errors import DataError, DreamPRMError
from dreamprm.formats import check_images, check_references, read_pair
from dreamprm.formats.files import open_for_reading
from dreamprm.records import Question, Trajectory

PRESETS = {
    name: {f"bilevel.{option}": value for option, value in values.items()}
    for name, values in BILEVEL_PRESETS.items()
}
PRESETS["paper"] |= {"head": "vocab", "layout": "prefix"}
Pair = tuple[list[Question], list[Trajectory]]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of train.

    Attributes:
        output_dir: folder that gets the model and all else.
        train_file: questions and labelled trajectories in one file (the paper's train.json).
        train_questions: file of questions, in place of train_file.
        train_trajectories: file of their labelled trajectories.
        meta_file: questions and trajectories with outcomes in one file (the paper's meta.json).
        meta_questions: file of questions, in place of meta_file.
        meta_trajectories: file of their trajectories with outcomes.
        image_root: folder that relative image paths start from; by default the
            folder of each file.
        model_name_or_path: backbone: any vision-language model of transformers, by path or hub
            name; `tiny` is the embedded one.
        objective: `prm` (step labels) or `orm`, the outcome reward model (outcomes alone, plain
            training).
        head: `value` (linear on the hidden state) or `vocab` (on the vocabulary logits, the paper).
        layout: `trajectory` (one pass for all steps) or `prefix` (one pass per step, the paper).
        step_tag: text that ends a step; a single token of the backbone.
        weights_file: JSON {domain: weight}: train with these fixed weights, learn none.
        preset: values of the options that you do not give: `default`, or `paper` as published.
        bilevel: settings of both levels.
        resume: go on from the newest checkpoint in output_dir.
        device: cpu, cuda, cuda:1, ...; by default cuda where there is one.
    """

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
    head: Literal["value", "vocab"] = "value"
    layout: Literal["trajectory", "prefix"] = "trajectory"
    step_tag: str = "\n"
    weights_file: Path | None = None
    preset: Literal["default", "paper"] = "default"
    bilevel: BilevelConfig = field(default_factory=lambda: BilevelConfig(save_steps=100))
    resume: bool = True
    device: str | None = None


def run(config: Config) -> None:
    """Read, check, train, save."""
    weights = read_weights(config.weights_file) if config.weights_file else None
    learn = config.bilevel.learn_weights and weights is None and config.objective == "prm"
    bilevel = dataclasses.replace(config.bilevel, learn_weights=learn)
    with held_warnings():
        train_pair = _read(config, "train")
        meta_pair = _read(config, "meta") if learn else ([], [])
    if train_pair is None:
        raise DreamPRMError(
            "no training data; give train_file, or train_questions and _trajectories"
        )
    if meta_pair is None:
        raise DreamPRMError(
            "learning domain weights needs a meta set: give meta_file, or meta_questions and "
            "meta_trajectories; or --bilevel.learn_weights false for plain training"
        )
    questions, trajectories = train_pair
    from dreamprm.bilevel.training import prepare_data, train
    from dreamprm.cli.models import new_prm
    from dreamprm.prm.layout import LayoutConfig
    from dreamprm.prm.model import PRMConfig

    if config.objective == "orm":
        from dreamprm.baselines.outcome import outcome_labels

        trajectories = outcome_labels(trajectories)
        if not trajectories:
            raise DataError("no trajectory has an outcome", file=_source(config, "train"))
    data = prepare_data(
        questions,
        trajectories,
        *meta_pair,
        source=_source(config, "train"),
        meta_source=_source(config, "meta"),
    )
    facts = PRMConfig(
        head=config.head,
        layout=LayoutConfig(name=config.layout, step_tag=config.step_tag),
        aggregation=_aggregation(config),
    )
    model = new_prm(config.model_name_or_path, facts, config.device)
    with progress("training steps", bilevel.max_steps) as advance:
        result = train(
            model,
            data,
            bilevel,
            output_dir=config.output_dir,
            weights=weights,
            resume=config.resume,
            progress=advance,
        )
    print(f"{config.output_dir}: saved; weights of the domains:")
    for name, weight in sorted(result.weights.items(), key=lambda item: -item[1]):
        print(f"  {weight:6.3f}  {name}")


def _aggregation(config: Config) -> str:
    """Of step logits at inference: the one that the model was trained for."""
    if config.objective == "orm":
        return "last"
    return "sum_logit" if config.bilevel.meta_aggregation == "sum" else "mean_logit"


def read_weights(path: Path) -> dict[str, float]:
    """Domain weights of a JSON file."""
    with open_for_reading(path) as file:
        try:
            weights = json.loads(file.read())
        except ValueError as error:
            raise DataError(f"not JSON ({error})", file=path) from error
    if not isinstance(weights, dict) or not weights:
        raise DataError("must be an object {domain: weight}", file=path)
    for domain, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise DataError(f"must be a number, not {weight!r}", file=path, field=domain)
    return {domain: float(weight) for domain, weight in weights.items()}


def _source(config: Config, kind: Literal["train", "meta"]) -> Path | str:
    return (
        getattr(config, f"{kind}_file") or getattr(config, f"{kind}_trajectories") or f"{kind} data"
    )


def _read(config: Config, kind: Literal["train", "meta"]) -> Pair | None:
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
