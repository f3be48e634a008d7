"""LoRA adapters (arXiv 2106.09685) on a reward model's backbone, by peft.

The base stays as it is and is not saved again: a saved model is an adapter in peft's own format and
the name of its base. The head is no part of the adapter and is trained whole.
"""

from __future__ import annotations

import copy
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import safe_open
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from dreamprm.errors import DreamPRMError
from dreamprm.models.loading import load_backbone, reading, refuse_pickles
from dreamprm.prm.folder import ADAPTER_CONFIG, ADAPTER_FILE, adapter_base


@dataclass(frozen=True)
class Lora:
    """Size and place of LoRA adapters.

    Attributes:
        r: rank.
        alpha: adapters are scaled by alpha / r.
        dropout: on the adapters' input. The hypergradient compares gradients: 0 keeps them exact.
        target_modules: `all-linear`, or names of linear layers (`("q_proj", "v_proj")`).
        modules_to_save: names of modules that are trained whole and saved along; on a bf16 base
            they are fp32 and need autocast.
        vision: adapt the vision tower and the projector too, not the language model alone.

    >>> Lora(r=8, target_modules=("q_proj", "v_proj")).alpha
    32
    """

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    modules_to_save: tuple[str, ...] = ()
    vision: bool = False

    def __post_init__(self) -> None:
        for name in ("r", "alpha"):
            if getattr(self, name) < 1:
                raise DreamPRMError(f"lora {name} is {getattr(self, name)}; it must be 1 or more")
        if not 0 <= self.dropout < 1:
            raise DreamPRMError(
                f"lora dropout is {self.dropout}; it must be 0 or more, and below 1"
            )


def with_adapters(backbone: Any, options: Lora) -> PeftModel:
    """Freeze a backbone and put trainable adapters on it.

    Raises:
        DreamPRMError: there are adapters already; no layer has one of the names.
    """
    if isinstance(backbone, PeftModel):
        raise DreamPRMError(
            "the model has adapters already; train these on, or save it with merged=True and start "
            "from that"
        )
    targets = _targets(backbone, options)
    modules = [name for name, _ in backbone.named_modules()]
    for name in options.modules_to_save:
        if not any(module.endswith(name) for module in modules):  # as peft finds them
            raise DreamPRMError(f"lora modules_to_save: the backbone has no module '{name}'")
    config = LoraConfig(
        r=options.r,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=targets,
        modules_to_save=list(options.modules_to_save) or None,
    )
    with _quiet_peft():
        adapted: PeftModel = get_peft_model(backbone, config)
    return adapted


def unwrapped(backbone: Any) -> Any:
    """The backbone itself. Its adapters are inside its layers, and work without peft's wrapper."""
    return backbone.get_base_model() if isinstance(backbone, PeftModel) else backbone


def save_adapter(
    backbone: PeftModel, folder: Path, base: str, state: dict[str, Tensor] | None = None
) -> None:
    """Write the adapter, its config with the name of its base, and the base's own config.

    `state` holds parameters to write in place of the backbone's own, gathered from shards.
    """
    if base and os.path.abspath(folder) == base:
        raise DreamPRMError(
            f"{folder} holds the adapters' base model; give another folder, or merged=True"
        )
    if not base:
        raise DreamPRMError(
            f"{folder}: the adapters' base model has no name or path to load it from again; save "
            "with merged=True, or save the base first"
        )
    backbone.peft_config["default"].base_model_name_or_path = base
    # peft would ask the hub whether the vocabulary was resized; ours never is.
    backbone.save_pretrained(str(folder), save_embedding_layers=False, state_dict=state)
    unwrapped(backbone).config.save_pretrained(folder)  # processors are chosen by it


def load_with_adapter(
    folder: Path, *, trainable: bool, base_model: str | None = None, **kwargs: Any
) -> tuple[Any, str]:
    """The backbone with the adapter of a folder on it, and the name of its base.

    `base_model` stands in place of the saved name; `kwargs` are those of `load_backbone`.

    Raises:
        DreamPRMError: the base cannot be loaded, or the adapter does not fit it.
    """
    base = base_model or adapter_base(folder) or ""
    moved = f"give base_model, or set base_model_name_or_path in {folder / ADAPTER_CONFIG}"
    if Path(base).is_absolute() and not Path(base).exists():
        raise DreamPRMError(f"{folder}: the adapter's base model is no longer at '{base}'; {moved}")
    if not (folder / ADAPTER_FILE).is_file():
        refuse_pickles(folder)
    try:
        backbone = load_backbone(base, **kwargs)
    except DreamPRMError as error:
        raise DreamPRMError(f"{folder}: the adapter's base model: {error}; {moved}") from error
    with reading(f"the adapters of {folder} onto '{base}'"), _quiet_peft():
        adapted = PeftModel.from_pretrained(backbone, str(folder), is_trainable=trainable)
        wanted = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
        with safe_open(folder / ADAPTER_FILE, framework="pt") as file:
            saved = set(file.keys())
    if saved != wanted:
        name = min(saved ^ wanted)
        raise DreamPRMError(
            f"{folder}: the adapters do not fit '{base}': '{name}' is "
            f"{'not wanted' if name in saved else 'missing'}; give the base they were trained on"
        )
    return adapted, base


def merged_copy(backbone: PeftModel) -> Any:
    """A copy of the backbone with its adapters added to its weights, in main memory.

    A copy, because subtracting an adapter again from bf16 weights does not give them back.
    """
    device = backbone.device
    try:
        twin = copy.deepcopy(backbone.to("cpu"))
    finally:
        backbone.to(device)
    return twin.merge_and_unload()


def base_name(path: str) -> str:
    """How a saved adapter names its base: what lies here by its full path, a hub name as given."""
    return os.path.abspath(path) if Path(path).exists() else path


@contextmanager
def _quiet_peft() -> Iterator[None]:
    """Without a warning about an attribute of transformers that peft itself reads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is dep", FutureWarning)
        yield


def _targets(backbone: Any, options: Lora) -> str | list[str]:
    """What peft is to adapt: a pattern for the language model, or names that are meant anywhere."""
    decoder = backbone.get_decoder()
    scope = backbone if options.vision else decoder
    leaves = {
        name.rpartition(".")[2]
        for name, m in scope.named_modules()
        if isinstance(m, nn.Linear | Conv1D)  # GPT-2's linear layers
    }
    if options.target_modules != "all-linear":
        unknown = sorted(set(options.target_modules) - leaves)
        if unknown:
            raise DreamPRMError(
                f"lora target_modules: no linear layer is named '{unknown[0]}'; there are: "
                f"{', '.join(sorted(leaves))}"
            )
        leaves = set(options.target_modules)
    if options.vision:
        return "all-linear" if options.target_modules == "all-linear" else sorted(leaves)
    prefix = next(name for name, child in backbone.named_modules() if child is decoder)
    names = "|".join(re.escape(leaf) for leaf in sorted(leaves))
    return rf"{re.escape(prefix)}\.(.*\.)?({names})"
