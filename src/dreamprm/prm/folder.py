"""What the folder of a saved reward model says of itself, without loading the model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt, TypeAdapter, ValidationError, with_config

from dreamprm.data.files import load_json_object, open_for_reading
from dreamprm.errors import DataError, DreamPRMError
from dreamprm.records import first_error
from dreamprm.search.aggregation import get_aggregation

CONFIG_FILE, HEAD_FILE = "prm_config.json", "prm_head.safetensors"
ADAPTER_CONFIG, ADAPTER_FILE = "adapter_config.json", "adapter_model.safetensors"
VLLM_FILE = "vllm.yaml"
_BASE = "base_model_name_or_path"

HeadName = Literal["value", "vocab", "token"]
LayoutName = Literal["trajectory", "prefix", "turns"]
INSTRUCTION = (
    "You are given a problem and then its solution, one step at a time. Reply + while the solution "
    "is right up to the step at hand, and - once it is not. Reply with nothing else."
)
"""A system turn for layout `turns`, in our words. A checkpoint that was trained with other words
wants those: they are the first turn of each conversation of its training data."""


@with_config(extra="forbid")
@dataclass(frozen=True)
class LayoutConfig:
    """How a trajectory is laid out for the backbone.

    Attributes:
        name: `trajectory` (one pass for all steps), `prefix` (the paper's) or `turns` (a
            conversation, one turn per step: VisualPRM's).
        step_tag: text that ends each step; must be a single token of the backbone's tokenizer.
            None: `models.plain_text.unused_token`, which no prompt holds and no neighbour merges
            with, as servers need it; a line's end where the tokenizer has none. `turns` has none.
        instruction: what the prompt asks for, after the question; in `turns`, the system turn.
        reply: `turns`: what the assistant said to every earlier step, whatever it deserved.
        padding_side: `right` or `left`; scores do not depend on it.
        max_length: tokens of a sequence, images included; steps that would pass it are not scored,
            with a warning. None: as many as the backbone has positions for.
    """

    name: LayoutName = "trajectory"
    step_tag: str | None = None
    instruction: str = "Judge each step."
    reply: str = "+"
    padding_side: Literal["right", "left"] = "right"
    max_length: PositiveInt | None = None

    @classmethod
    def named(cls, name: LayoutName, **settings: Any) -> LayoutConfig:
        """The settings with which a layout is trained; `turns` has `INSTRUCTION`."""
        if name == "turns":
            settings = {"instruction": INSTRUCTION} | settings
        return cls(name=name, **settings)


@with_config(extra="forbid")
@dataclass(frozen=True)
class PRMConfig:
    """What is not in the backbone's own config.

    Attributes:
        head: `value`: linear on the last hidden state at each step's end; `vocab` (the paper's):
            linear on the vocabulary logits there; `token` (VisualPRM's): the logit of the good
            token minus that of the bad one, without parameters; goes with layout `turns`.
        layout: how trajectories become token sequences.
        aggregation: of step logits to one score at inference, a name of `search.AGGREGATIONS`.
        good_token: `token` head: says that a step is right; a single token.
        bad_token: `token` head: says that it is wrong; a single token.
    """

    head: HeadName = "value"
    layout: LayoutConfig = field(default_factory=LayoutConfig)
    aggregation: str = "mean_logit"
    good_token: str = "+"
    bad_token: str = "-"


def is_prm(path: str | Path) -> bool:
    """Whether a path is the folder of a reward model that `save_pretrained` wrote."""
    return (Path(path) / CONFIG_FILE).is_file()


def has_adapter(folder: str | Path) -> bool:
    """Whether the backbone in a folder is adapters on a base that lies elsewhere."""
    return (Path(folder) / ADAPTER_CONFIG).is_file()


def read_config(folder: Path) -> PRMConfig:
    """What a saved model says of its head and layout.

    Raises:
        DreamPRMError: there is no such model; names the field that is wrong.
    """
    path = folder / CONFIG_FILE
    if not is_prm(folder):
        raise no_prm(folder, CONFIG_FILE)
    facts = load_json_object(path)
    facts.pop("domain_weights", None)
    try:
        config = TypeAdapter(PRMConfig).validate_python(facts)
    except ValidationError as error:
        raise first_error(error).at(file=path) from error
    try:
        get_aggregation(config.aggregation)
    except DreamPRMError as error:
        raise DataError(str(error), file=path, field="aggregation") from error
    return config


def adapter_base(folder: Path) -> str | None:
    """Path or hub name of the base of a folder's adapters; None for a whole model.

    Raises:
        DataError: the file does not say.
    """
    if not has_adapter(folder):
        return None
    path = folder / ADAPTER_CONFIG
    base = load_json_object(path).get(_BASE)
    if not isinstance(base, str) or not base:
        raise DataError("must name the base model of the adapters", file=path, field=_BASE)
    return base


def no_prm(folder: Path, missing: str) -> DreamPRMError:
    """The error for a folder that holds no reward model."""
    return DreamPRMError(
        f"{folder} holds no {missing}: not a PRM saved by dreamprm; give the folder that "
        "`dreamprm train` wrote"
    )


def serve_command(folder: str | Path) -> str:
    """What starts a vLLM server of the model in a folder that has a `VLLM_FILE`."""
    return f"vllm serve {folder} --config {folder}/{VLLM_FILE}"


def trained_aggregation(folder: Path) -> str:
    """The aggregation that the model was trained for."""
    return read_config(folder).aggregation


def identity(folder: Path, served: bool = False) -> str:
    """The folder's name and a digest of its weights, which tells one training from another.

    Scores of two trainings must not end up in one file. The weights of a served model may lie with
    the server alone.
    """
    if not served and not any(folder.glob("*.safetensors")):
        raise no_prm(folder, "weights (*.safetensors)")
    return f"{folder.resolve().name} {weights_digest(folder)}"


def weights_digest(folder: Path) -> str:
    """12 hexadecimal digits for the files of weights: their names and last MiB.

    A backbone is too large to read twice, and training moves all of it.
    """
    digest = hashlib.sha256()
    for weights in sorted(folder.glob("*.safetensors")):
        with open_for_reading(weights) as file:
            file.seek(max(0, weights.stat().st_size - 2**20))
            digest.update(weights.name.encode() + file.read())
    return digest.hexdigest()[:12]
