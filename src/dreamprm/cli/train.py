r"""Train a process reward model and learn weights of its training data (DreamPRM).

Reads labelled trajectories and a meta set of trajectories with outcomes: questions and trajectories
in two files each, or one file each in the paper's format (train.json, meta.json). Writes the model,
weights.json, history.jsonl and checkpoints; the same command again goes on from the newest one.
On several GPUs: accelerate launch --config_file configs/accelerate/ddp.yaml -m dreamprm train

  dreamprm train --train_file train.json --meta_file meta.json \
    --model_name_or_path Qwen/Qwen2-VL-2B-Instruct --output_dir prm --max_steps 2000 \
    --learning_rate 1e-5 --use_peft --bf16 --dtype bfloat16 --gradient_checkpointing
"""

from __future__ import annotations

import dataclasses
import os
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dreamprm.cli.pictures import UsedImages
from dreamprm.cli.terminal import held_warnings, is_main_process, progress
from dreamprm.data import Records, load
from dreamprm.data.files import locked
from dreamprm.errors import DataError, DreamPRMError
from dreamprm.training.config import PRESETS as BILEVEL_PRESETS
from dreamprm.training.config import (  # the names of types: jsonargparse looks them up here
    EstimatorName,  # noqa: F401
    LowerLoss,  # noqa: F401
    MetaLossName,  # noqa: F401
    TrainConfig,
    WeightingName,  # noqa: F401
)

# No `if TYPE_CHECKING` here: jsonargparse would run it, and --help would wait for torch.
PRESETS = {name: dict(values) for name, values in BILEVEL_PRESETS.items()}
PRESETS["paper"] |= {"head": "vocab", "layout": "prefix"}


@dataclass(frozen=True, kw_only=True)
class Config(TrainConfig, UsedImages):
    """Options of train.

    Attributes:
        output_dir: folder that gets the model and all else.
        train_file: questions and labelled trajectories in one file (the paper's train.json).
        train_questions: file of questions, in place of train_file.
        train_trajectories: file of their labelled trajectories.
        meta_file: questions and trajectories with outcomes in one file (the paper's meta.json).
        meta_questions: file of questions, in place of meta_file.
        meta_trajectories: file of their trajectories with outcomes.
        model_name_or_path: backbone: any vision-language model of transformers, by path or hub
            name; `tiny` is the embedded one. Or a PRM that dreamprm saved, to go on from (its head
            and layout stand).
        objective: `prm` (step labels) or `orm`, the outcome reward model (outcomes alone, plain
            training).
        head: `value` (linear on the hidden state), `vocab` (on the vocabulary logits, the paper) or
            `token` (the logit of + minus that of -, no new parameters: VisualPRM, DreamPRM-1.5).
        layout: `trajectory` (one pass for all steps), `prefix` (one pass per step, the paper) or
            `turns` (a conversation with a turn per step: VisualPRM, DreamPRM-1.5).
        step_tag: text that ends a step; a single token of the backbone. By default an unused
            special token of its tokenizer, as vLLM needs it.
        max_length: tokens of a sequence; steps beyond are cut off and told. By default what the
            backbone can take.
        use_peft: train LoRA adapters and the head instead of the whole model.
        lora_r: rank of the adapters.
        lora_alpha: adapters are scaled by lora_alpha / lora_r.
        lora_dropout: on the adapters' input.
        lora_target_modules: names of linear layers to adapt; by default all of the language model.
        lora_vision: adapt the vision tower too.
        dtype: of what is not trained: with use_peft, bfloat16 halves the memory of the base.
            Whatever is trained is float32.
        weights_file: train with fixed weights, learn none: JSON {domain: weight}, JSON Lines of
            trajectories (`dreamprm weigh`), or the folder of an earlier run (what it learned).
        preset: values of the options that you do not give: `default`, or `paper` as published.
        resume_from_checkpoint: go on from the newest checkpoint in output_dir.
        null_check: train once more with the meta outcomes permuted, in output_dir/null_check, and
            show which weights chance alone gives.
        null_check_runs: of these, how many.
        dry_run: check data and settings, show what memory and time the run takes, and stop;
            no weights are loaded.
        push_to_hub: upload the model with its card when it is done.
        hub_model_id: name on the hub, `me/my-prm`.
        hub_private_repo: for push_to_hub.
        device: cpu, cuda, cuda:1, ...; by default cuda where there is one.
    """

    output_dir: Path
    train_file: Path | None = None
    train_questions: Path | None = None
    train_trajectories: Path | None = None
    meta_file: Path | None = None
    meta_questions: Path | None = None
    meta_trajectories: Path | None = None
    model_name_or_path: str = "tiny"
    objective: Literal["prm", "orm"] = "prm"
    head: Literal["value", "vocab", "token"] = "value"
    layout: Literal["trajectory", "prefix", "turns"] = "trajectory"
    step_tag: str | None = None
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
    null_check: bool = False
    null_check_runs: int = 1
    dry_run: bool = False
    push_to_hub: bool = False
    hub_model_id: str | None = None
    hub_private_repo: bool = False
    device: str | None = None
    save_steps: int = 100

    def _check_estimator(self) -> None:
        """Done by `settings`: objective and weights_file say whether anything is learned at all."""

    @property
    def learns(self) -> bool:
        return self.learn_weights and self.weights_file is None and self.objective == "prm"

    def settings(self) -> TrainConfig:
        """The part that training itself reads."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(TrainConfig)}
        return TrainConfig(**values | {"learn_weights": self.learns})


def run(config: Config) -> None:
    """Read, check, train, save."""
    if config.push_to_hub and not config.hub_model_id:
        raise DreamPRMError("push_to_hub needs hub_model_id, the model's name there (me/my-prm)")
    _check_output_dir(config.output_dir)
    with nullcontext() if config.dry_run else locked(config.output_dir):
        _train(config)


def _train(config: Config) -> None:
    settings = config.settings()
    with held_warnings():
        train_set = _read_set(config, "train")
        meta_set = _read_set(config, "meta") if config.learns else None
    if train_set is None:
        raise DreamPRMError(
            "no training data; give train_file, or train_questions and _trajectories"
        )
    if config.null_check and (not config.learns or config.null_check_runs < 1):
        raise DreamPRMError(
            "null_check trains again with permuted outcomes: it needs weights that are learned "
            "(learn_weights true, no weights_file, objective prm) and null_check_runs of 1 or more"
        )
    if meta_set is None and config.learns:
        raise DreamPRMError(
            "learning weights needs a meta set: give meta_file, or meta_questions and "
            "meta_trajectories; or --learn_weights false for plain training"
        )

    import torch

    from dreamprm.cli.terminal import quiet_transformers
    from dreamprm.training.data import checked_data
    from dreamprm.training.learned import read_weights

    if config.objective == "orm":
        from dreamprm.baselines.outcome import outcome_labels

        judged = outcome_labels(train_set.trajectories)
        if not judged:
            raise DataError("no trajectory has an outcome", file=train_set.source)
        train_set = dataclasses.replace(train_set, trajectories=judged)
    data = checked_data(train_set, meta_set, learn_weights=config.learns)
    given = read_weights(config.weights_file) if config.weights_file else None
    from dreamprm.prm.lora import Lora

    lora = Lora(
        r=config.lora_r,
        alpha=config.lora_alpha,
        dropout=config.lora_dropout,
        target_modules=tuple(config.lora_target_modules) or "all-linear",
        vision=config.lora_vision,
    )
    adapters = lora if config.use_peft else None
    quiet_transformers()
    if config.dry_run:
        if is_main_process():
            _print_plan(config, data, adapters, given)
        return

    from dreamprm.prm.model import PRM, trainable_prm
    from dreamprm.training.processes import leave_together
    from dreamprm.training.run import fit

    def make_model() -> PRM:
        torch.manual_seed(config.seed)  # adapters begin at random
        return trainable_prm(
            config.model_name_or_path,
            _prm_config(config),
            lora=adapters,
            dtype=config.dtype,
            device=config.device,
        )

    with progress("training steps", settings.max_steps) as advance:
        result = fit(
            make_model(),
            data,
            settings,
            output_dir=config.output_dir,
            weights=given,
            resume=config.resume_from_checkpoint,
            progress=advance,
        )
    band = None
    if config.null_check:
        from dreamprm.training.null_check import null_check

        runs = config.null_check_runs
        with progress("steps of null runs", runs * settings.max_steps) as advance:
            band = null_check(make_model, data, settings, result, config.output_dir, runs, advance)
    leave_together()
    if not result.is_main:
        return
    _print_weights(config.output_dir, result)
    for line in band.lines() if band else ():
        print(line)
    if config.push_to_hub and config.hub_model_id:
        from dreamprm.training.hub import push_to_hub, write_card

        write_card(config.output_dir, config.hub_model_id)
        print(push_to_hub(config.output_dir, config.hub_model_id, config.hub_private_repo or None))


def _print_plan(config: Config, data: Any, adapters: Any, given: Any) -> None:
    """What `dry_run` shows."""
    import torch

    from dreamprm.models.loading import device_of
    from dreamprm.training.dry_run import plan_run
    from dreamprm.training.processes import sharding_asked_for

    plan = plan_run(
        config.model_name_or_path,
        _prm_config(config),
        data,
        config.settings(),
        lora=adapters,
        dtype=getattr(torch, config.dtype),
        weights=given,
        device=device_of(config.device),
        world=int(os.environ.get("WORLD_SIZE", "1")),
        sharded=sharding_asked_for(),
    )
    print(plan)


def _read_set(config: Config, kind: Literal["train", "meta"]) -> Records | None:
    """Questions and trajectories of one of the two sets; None when no file is given."""
    parts = ("file", "questions", "trajectories")
    one, questions, trajectories = (getattr(config, f"{kind}_{part}") for part in parts)
    if one and (questions or trajectories):
        raise DreamPRMError(
            f"give {kind}_file or {kind}_questions and {kind}_trajectories, not both"
        )
    if bool(questions) != bool(trajectories):
        raise DreamPRMError(f"{kind}_questions and {kind}_trajectories belong together; give both")
    paths = [path for path in (one, questions, trajectories) if path]
    if not paths:
        return None
    config.limit_images()
    records = load(*paths, image_root=config.image_root, bad_image=config.bad_image)
    seen = config.seen(records.questions, None, config.model_name_or_path)
    unseen = {q.id for q in records.questions} - {q.id for q in seen}
    kept = [t for t in records.trajectories if t.question_id not in unseen]
    return dataclasses.replace(records, questions=seen, trajectories=kept)


def _check_output_dir(folder: Path) -> None:
    """Refuse a place where nothing can be written while no step is lost yet."""
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not nearest.is_dir():
        raise DreamPRMError(f"output_dir {folder}: {nearest} is a file; give another folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise DreamPRMError(
            f"output_dir {folder}: {nearest} may not be written to; correct the permissions or "
            "give another folder"
        )


def _prm_config(config: Config) -> Any:
    """Head, layout, and the aggregation of step logits that the model is trained for."""
    from dreamprm.prm.folder import INSTRUCTION, LayoutConfig, PRMConfig

    layout = LayoutConfig(
        name=config.layout, step_tag=config.step_tag, max_length=config.max_length
    )
    if config.layout == "turns":
        layout = dataclasses.replace(layout, instruction=INSTRUCTION)
    aggregation = "sum_logit" if config.meta_aggregation == "sum" else "mean_logit"
    if config.objective == "orm":
        aggregation = "last"
    return PRMConfig(head=config.head, layout=layout, aggregation=aggregation)


def _print_weights(folder: Path, result: Any) -> None:
    print(f"{folder}: saved; weights of the domains:")
    for name, weight in sorted(result.weights.items(), key=lambda item: -item[1]):
        sure = ""
        if name in result.intervals:
            low, high = result.intervals[name]
            sure = f"  [{low:.2f}, {high:.2f}] {result.verdicts[name]:14}"
        print(f"  {weight:5.2f}{sure}  {name}")
    if result.intervals:
        print("  [95% interval] and what it says: up, down, or not told apart from 1")
    if ranking := result.meta_ranking:
        print(f"meta set, before -> after training ({ranking.sizes()}):")
        for name, before, after in ranking.rows():
            print(f"  {name}: {before} -> {after}")
