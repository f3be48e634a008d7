"""The model card: what a saved reward model is, from the facts in its folder.

Nothing is claimed that is not recorded there: what is missing is said to be missing.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml

from dreamprm import __version__
from dreamprm.data.files import load_json_object
from dreamprm.errors import DataError, DreamPRMError
from dreamprm.training.config import TrainConfig

CARD_FILE, PRM_FILE, WEIGHTS_FILE = "README.md", "prm_config.json", "weights.json"
TRAINING_FILE = "training_config.json"
MARKER = "<!-- Written by dreamprm; remove this line to keep your own text. -->"
_RUN_ONLY = {  # how a run was carried out, which says nothing about the model
    "save_steps", "save_total_limit", "dataloader_num_workers", "logging_steps", "report_to",
    "gradient_checkpointing", "per_device_meta_batch_size",
}  # fmt: skip


@dataclass(frozen=True)
class ModelFacts:
    """What a folder says of its model.

    Attributes:
        prm: content of prm_config.json.
        weights: of the domains, largest first; empty if none were saved.
        training: {"model_name_or_path", "config", "domains"} of training_config.json; None if it
            is not there.
        adapter_base: base of the adapters; None for a whole model.
    """

    prm: dict[str, Any]
    weights: tuple[tuple[str, float], ...] = ()
    training: dict[str, Any] | None = None
    adapter_base: str | None = None

    @property
    def learned(self) -> bool:
        """Whether the weights were learned, not given."""
        config = (self.training or {}).get("config") or {}
        return bool(self.weights) and bool(config.get("learn_weights", True))

    @property
    def base(self) -> str | None:
        """Name or path of the backbone; None if it is not recorded."""
        name = (self.training or {}).get("model_name_or_path")
        return self.adapter_base or (str(name) if name else None)


@dataclass(frozen=True)
class Table:
    """Evaluation results as text.

    Attributes:
        columns: their heads.
        rows: of cells.
        intervals: cells are accuracies in percent with intervals.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    intervals: bool


def read_facts(folder: str | Path) -> ModelFacts:
    """What is recorded in a model's folder.

    Raises:
        DreamPRMError: it holds no reward model, or one of its files is damaged.
    """
    folder = Path(folder)
    prm = read_object(folder / PRM_FILE)
    if prm is None:
        raise DreamPRMError(
            f"{folder} holds no {PRM_FILE}: not a PRM saved by dreamprm; give the folder that "
            "`dreamprm train` wrote"
        )
    weights = read_object(folder / WEIGHTS_FILE) or prm.get("domain_weights") or {}
    adapter = read_object(folder / "adapter_config.json")
    return ModelFacts(
        prm=prm,
        weights=tuple(sorted(weights.items(), key=lambda item: -item[1])),
        training=read_object(folder / TRAINING_FILE),
        adapter_base=None if adapter is None else str(adapter["base_model_name_or_path"]),
    )


def read_object(path: Path) -> dict[str, Any] | None:
    """A JSON object; None if the file is not there."""
    return load_json_object(path) if path.is_file() else None


def model_card(facts: ModelFacts, repo_id: str, evaluation: Mapping[str, Any] | None = None) -> str:
    """The card as markdown with YAML front matter.

    Args:
        facts: of the model.
        repo_id: where it will be found on the hub.
        evaluation: {"accuracy": {benchmark: {method: {"n", "mean", "ci95"}}}}, or {name: number}.

    Raises:
        DataError: the evaluation is neither.
    """
    training = facts.training or {}
    config = training.get("config")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dreamprm.prm", "templates"),
        autoescape=False,  # markdown; cells of tables are made safe by the filter
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = _cell
    return environment.get_template("card.md.j2").render(
        front_matter=yaml.safe_dump(_front_matter(facts), sort_keys=False, allow_unicode=True),
        marker=MARKER,
        title=repo_id.rpartition("/")[2],
        repo_id=repo_id,
        base=_shown(facts.base) if facts.base else "not recorded",
        adapter=facts.adapter_base is not None,
        prm=facts.prm,
        domains=training.get("domains") or {},
        weights=facts.weights,
        learned=facts.learned,
        settings=None if config is None else non_default(config),
        evaluation=_table(evaluation) if evaluation else None,
        versions=_versions(),
    )


def non_default(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run that differ from the defaults and bear on the model."""
    defaults = dataclasses.asdict(TrainConfig())
    return {
        name: value
        for name, value in config.items()
        if name not in _RUN_ONLY and (name not in defaults or defaults[name] != value)
    }


def is_hub_name(name: str) -> bool:
    """Whether a model's name means the same on every machine."""
    return name.count("/") == 1 and not name.startswith(("/", ".", "~", "tiny/"))


def _shown(base: str) -> str:
    """A backbone's name; of a path of this machine, the last part alone."""
    return base if is_hub_name(base) else Path(base).name


def _front_matter(facts: ModelFacts) -> dict[str, Any]:
    tags = ["process-reward-model", "reward-model"]
    adapter = facts.adapter_base is not None
    front: dict[str, Any] = {"library_name": "dreamprm", "pipeline_tag": "image-text-to-text"}
    if facts.base and is_hub_name(facts.base) and not Path(facts.base).exists():
        front["base_model"] = facts.base
        front["base_model_relation"] = "adapter" if adapter else "finetune"
    if adapter:
        tags += ["peft", "lora"]
    front["tags"] = tags + ["arxiv:2505.20241"] * facts.learned
    return front


def _table(evaluation: Mapping[str, Any]) -> Table:
    accuracy = evaluation.get("accuracy")
    try:
        if isinstance(accuracy, Mapping):
            benchmarks = list(accuracy)
            methods = list(dict.fromkeys(m for column in accuracy.values() for m in column))
            rows = [
                (method, *(_accuracy(accuracy[name].get(method)) for name in benchmarks))
                for method in methods
            ]
            return Table(("method", *benchmarks), tuple(rows), intervals=True)
        rows = [(name, f"{float(value):.4g}") for name, value in evaluation.items()]
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise DataError(
            "the evaluation is neither a summary.json of `dreamprm evaluate` nor an object "
            f"{{name: number}}: {type(error).__name__}: {error}"
        ) from error
    return Table(("measure", "value"), tuple(rows), intervals=False)


def _accuracy(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None:
        return ""
    low, high = estimate["ci95"]
    return f"{100 * estimate['mean']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _versions() -> dict[str, str]:
    others = ("torch", "transformers", "peft", "accelerate")
    return {"dreamprm": __version__} | {n: importlib.metadata.version(n) for n in others}


def _cell(value: Any) -> str:
    """Text that cannot leave its cell of a markdown table, nor become HTML."""
    text = " ".join(str(value).split())
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
