"""FSDP2: parameters, gradients and optimiser states divided among the processes.

By torch's own `fully_shard`, one group per layer of the vision tower and of the language model and
one for the rest, as accelerate's transformer-based wrapping does; and, other than there, on CPUs
too, where the tests run.
"""

from __future__ import annotations

import os

from torch import nn
from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

from dreamprm.errors import DreamPRMError


def is_asked_for() -> bool:
    """Whether accelerate's launcher was told to shard (`use_fsdp` of its config file).

    Raises:
        DreamPRMError: it was told to use the first version of FSDP.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return False
    if os.environ.get("FSDP_VERSION", "2") != "2":
        raise DreamPRMError("FSDP version 1 is not supported; set fsdp_version: 2")
    return True


def frees_layers() -> bool:
    """Whether a layer's gathered parameters go after its forward pass."""
    return os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() != "false"


def shard(model: nn.Module) -> None:
    """Shard a model in place; its parameters are `DTensor`s afterwards."""
    reshard = frees_layers()
    offload = os.environ.get("FSDP_OFFLOAD_PARAMS", "false").lower() == "true"
    policy = CPUOffloadPolicy() if offload else OffloadPolicy()
    for module in list(model.modules()):
        if isinstance(module, nn.ModuleList):
            for layer in module:
                if any(True for _ in layer.parameters()):
                    fully_shard(layer, reshard_after_forward=reshard, offload_policy=policy)
    fully_shard(model, reshard_after_forward=reshard, offload_policy=policy)
