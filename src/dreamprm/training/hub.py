"""A saved reward model to the Hugging Face hub, with a model card.

The card claims nothing that is not recorded in the model's folder: what is missing is said to be.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # has no __all__
from pydantic import JsonValue, NonNegativeInt

from dreamprm import __version__
from dreamprm.data.files import atomic_write, in_row, load_json_object
from dreamprm.data.trajectory_weights import DomainWeight, read_domain_weights
from dreamprm.errors import DataError, DreamPRMError
from dreamprm.models.loading import reads_images
from dreamprm.prm.folder import CONFIG_FILE, VLLM_FILE, adapter_base, is_prm, no_prm
from dreamprm.records import Record
from dreamprm.training.config import TrainConfig
from dreamprm.training.meta_ranking import FILE, read_ranking

CARD_FILE = "README.md"
MARKER = "<!-- Written by dreamprm; remove this line to keep your own text. -->"
IGNORED = ["checkpoints/*", "checkpoints/**/*", ".*", "**/.*"]
_RUN_ONLY = {  # how a run was carried out, which says nothing about the model
    "save_steps", "save_total_limit", "dataloader_num_workers", "logging_steps", "report_to",
    "gradient_checkpointing", "per_device_meta_batch_size",
}  # fmt: skip
# The HTTP library below huggingface_hub changes between its versions; its errors have this base.
_HTTP_ERROR: type[Exception] = HfHubHTTPError.__mro__[1]


def write_card(
    folder: str | Path, repo_id: str, evaluation: Mapping[str, Any] | None = None
) -> bool:
    """Write the card into the model's folder, and tell whether: a user's own text is kept.

    Raises:
        DreamPRMError: no model there; an evaluation that is none; a name that the hub does not
            allow; a folder that cannot be written.
    """
    _check_name(repo_id)
    path = Path(folder) / CARD_FILE
    card = model_card(folder, repo_id, evaluation)
    if path.is_file():
        text = path.read_text(encoding="utf-8", errors="replace")
        if MARKER not in text and "library_name: peft" not in text:  # peft leaves an empty one
            return False
    with atomic_write(path) as file:
        file.write(card.encode())
    return True


def push_to_hub(
    folder: str | Path, repo_id: str, private: bool | None = None, *, api: HfApi | None = None
) -> str:
    """Upload a model's folder, without its checkpoints, and return the model's address.

    Args:
        repo_id: `owner/name`; made if it is not there.
        private: of a repository that is made now; None: the owner's default.

    Raises:
        DreamPRMError: no model there; a name that is none; adapters on a base that only this
            machine has; not logged in; no network; refused. The model stays in its folder.
    """
    _check_name(repo_id)
    if not is_prm(folder):
        raise no_prm(Path(folder), CONFIG_FILE)
    base = adapter_base(Path(folder))
    if base is not None and not _is_hub_name(base):
        raise DreamPRMError(
            f"{folder}: the adapters' base model is '{base}', which others do not have; set "
            "base_model_name_or_path in adapter_config.json to its name on the hub, or save the "
            "model merged"
        )
    safe = f"the model is safe in {folder}"
    hub = api or HfApi()
    try:
        hub.create_repo(repo_id, private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=repo_id,
            folder_path=str(folder),
            commit_message="Upload a process reward model",
            ignore_patterns=IGNORED,
        )
    except LocalTokenNotFoundError as error:
        raise DreamPRMError(f"not logged in to the hub: run `hf auth login`; {safe}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        mend = " (run `hf auth login`)" if status in (401, 403) else ""
        reason = str(error).strip().splitlines()[0]
        raise DreamPRMError(f"the hub refused '{repo_id}'{mend}: {reason}; {safe}") from error
    except (_HTTP_ERROR, OSError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DreamPRMError(f"cannot reach the hub: {reason}; {safe}") from error
    return f"https://huggingface.co/{repo_id}"


def model_card(
    folder: str | Path, repo_id: str, evaluation: Mapping[str, Any] | None = None
) -> str:
    """The card of a folder's model as markdown with YAML front matter.

    Args:
        repo_id: where it will be found on the hub.
        evaluation: {"accuracy": {benchmark: {method: {"n", "mean", "ci95"}}}}, or {name: number}.

    Raises:
        DreamPRMError: no reward model there, or one of its files is damaged; the evaluation is
            neither.
    """
    folder = Path(folder)
    if not is_prm(folder):
        raise no_prm(folder, CONFIG_FILE)
    prm, saved, training = (
        load_json_object(folder / name) if (folder / name).is_file() else {}
        for name in (CONFIG_FILE, "weights.json", "training_config.json")
    )
    given = prm.get("domain_weights") or {}
    weights = {name: DomainWeight(weight=w) for name, w in given.items()}
    if saved:
        weights = read_domain_weights(folder / "weights.json")
    with in_row(folder / "training_config.json", None):
        trained = _Trained.parse(training)
    config = trained.config
    learned = bool(weights) and bool((config or {}).get("learn_weights", True))
    base_of_adapters = adapter_base(folder)
    adapter = base_of_adapters is not None
    base = base_of_adapters or trained.model_name_or_path or ""
    is_public = _is_hub_name(base)
    tags = ["process-reward-model", "reward-model"]
    sees = not (folder / "config.json").is_file() or reads_images(str(folder))
    task = "image-text-to-text" if sees else "text-classification"
    front: dict[str, Any] = {"library_name": "dreamprm", "pipeline_tag": task}
    if is_public and not Path(base).exists():
        front["base_model"] = base
        front["base_model_relation"] = "adapter" if adapter else "finetune"
    front["tags"] = tags + ["peft", "lora"] * adapter + ["arxiv:2505.20241"] * learned
    settings = None  # those that differ from the defaults and bear on the model
    if config is not None:
        defaults = dataclasses.asdict(TrainConfig())
        settings = {
            name: value
            for name, value in config.items()
            if name not in _RUN_ONLY and (name not in defaults or defaults[name] != value)
        }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dreamprm.training", "templates"),
        autoescape=False,  # markdown; cells of tables are made safe by the filter
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = _cell
    others = ("torch", "transformers", "peft", "accelerate")
    versions = {"dreamprm": __version__} | {n: importlib.metadata.version(n) for n in others}
    return environment.get_template("card.md.j2").render(
        front_matter=yaml.safe_dump(front, sort_keys=False, allow_unicode=True),
        marker=MARKER,
        title=repo_id.rpartition("/")[2],
        repo_id=repo_id,
        sees_images=sees,
        # Of a path of this machine, the last part alone.
        base=(base if is_public else Path(base).name) if base else "not recorded",
        adapter=adapter,
        served=(folder / VLLM_FILE).is_file(),
        prm=prm,
        domains=trained.domains or {},
        weights=sorted(weights.items(), key=lambda item: -item[1].weight),
        learned=learned,
        settings=settings,
        ranking=read_ranking(folder / FILE) if (folder / FILE).is_file() else None,
        evaluation=_table(evaluation) if evaluation else None,
        versions=versions,
    )


class _Trained(Record):
    """What `training_config.json` tells."""

    model_name_or_path: str | None = None
    config: dict[str, JsonValue] | None = None
    domains: dict[str, NonNegativeInt] | None = None


def _is_hub_name(name: str) -> bool:
    """Whether a model's name means the same on every machine."""
    return name.count("/") == 1 and not name.startswith(("/", ".", "~", "tiny/"))


def _table(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Columns and rows of text; `intervals` where cells are accuracies in percent with theirs."""

    def accuracy_cell(estimate: Mapping[str, Any] | None) -> str:
        if estimate is None:
            return ""
        low, high = estimate["ci95"]
        return f"{100 * estimate['mean']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"

    accuracy = evaluation.get("accuracy")
    try:
        if isinstance(accuracy, Mapping):
            methods = dict.fromkeys(m for column in accuracy.values() for m in column)
            rows = [(m, *(accuracy_cell(c.get(m)) for c in accuracy.values())) for m in methods]
            return {"columns": ("method", *accuracy), "rows": rows, "intervals": True}
        rows = [(name, f"{float(value):.4g}") for name, value in evaluation.items()]
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise DataError(
            "the evaluation is neither a summary.json of `dreamprm evaluate` nor an object "
            f"{{name: number}}: {type(error).__name__}: {error}"
        ) from error
    return {"columns": ("measure", "value"), "rows": rows, "intervals": False}


def _cell(value: Any) -> str:
    """Text that cannot leave its cell of a markdown table, nor become HTML."""
    text = " ".join(str(value).split())
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def _check_name(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise DreamPRMError(f"repo_id: {error}; give owner/name") from error
