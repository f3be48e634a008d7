"""Loading of models, on the right device and without their chatter.

The one module of the command line that imports torch; verbs import it once their options are read.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from transformers.utils import logging

from dreamprm.cli.policy_options import PolicyOptions
from dreamprm.errors import DreamPRMError
from dreamprm.policy.local import LocalPolicy
from dreamprm.prm.conventions import TextStepScorer, load_convention
from dreamprm.prm.lora import LoraOptions, add_lora, has_adapter
from dreamprm.prm.model import CONFIG_FILE, PRM, PRMConfig
from dreamprm.prm.scorer import StepScorer


def load_policy(options: PolicyOptions) -> LocalPolicy:
    """The local policy that the options describe."""
    quiet_transformers()
    return LocalPolicy(
        options.model_name_or_path,
        prompt=options.prompt_name(),
        temperature=options.temperature,
        max_new_tokens=options.max_new_tokens,
        answer_tokens=options.answer_tokens,
        batch_size=options.per_device_batch_size,
        device=device_of(options.device),
        dtype=options.dtype,
    )


def new_prm(backbone: str, config: PRMConfig, device: str | None) -> PRM:
    """An untrained PRM on a pretrained backbone."""
    quiet_transformers()
    return PRM.from_backbone(backbone, config).to(device_of(device))


def trainable_prm(
    name: str,
    config: PRMConfig,
    device: str | None,
    lora: LoraOptions | None = None,
    dtype: str = "float32",
) -> PRM:
    """A PRM to train: new on a pretrained backbone, or a saved one to go on from.

    Args:
        name: backbone, by path or hub name, or folder of a PRM (whose own config stands).
        config: head and layout of a new PRM.
        device: see `Config`.
        lora: adapters to add.
        dtype: of what is not trained.
    """
    quiet_transformers()
    frozen = getattr(torch, dtype)
    if (Path(name) / CONFIG_FILE).is_file():
        model = PRM.from_pretrained(name, trainable=True, dtype=frozen)
        if lora is not None and not has_adapter(Path(name)):
            add_lora(model, lora)
    else:
        model = PRM.from_backbone(name, config, dtype=frozen)
        if lora is not None:
            add_lora(model, lora)
    model.fp32_trainables()
    return model.to(device_of(device))


def load_prm(folder: Path, device: str | None) -> PRM:
    """A trained PRM."""
    quiet_transformers()
    return PRM.from_pretrained(folder).to(device_of(device))


def load_scorer(
    name: str, convention: str | None, device: str | None, batch_size: int
) -> StepScorer | TextStepScorer:
    """A scorer of a trained PRM: ours, or of somebody else's convention."""
    if convention is None:
        return StepScorer(load_prm(Path(name), device), batch_size)
    quiet_transformers()
    return load_convention(convention, name, device_of(device), batch_size)


def quiet_transformers() -> None:
    """Silence what transformers says while it loads a model; errors are still told."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def device_of(name: str | None) -> str:
    """What a `device` option means; each process of a launch has a GPU of its own."""
    if name is None and torch.cuda.is_available():
        return f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "cuda"
    if name is None:
        return "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        cause = str(error).splitlines()[0]
        raise DreamPRMError(f"device '{name}' cannot be used ({cause}); give another") from error
    return name
