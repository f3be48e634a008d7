"""The processes of a run and its trackers: accelerate's part, and FSDP2's.

`dreamprm train` alone is one process; `accelerate launch --config_file configs/accelerate/ddp.yaml
-m dreamprm train ...` is several, with replicated (DDP) or sharded (FSDP2) parameters as the
file says. Replicas need no wrapper: the loop averages one gradient per step, and the estimators
see each process's own before (see `bilevel.parallel`). Torch's `fully_shard` makes shards, one
group per layer of the vision tower and of the language model and one for the rest, as accelerate's
transformer-based wrapping does; and, other than there, on CPUs too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

from dreamprm.bilevel.parallel import Parallel
from dreamprm.errors import DreamPRMError
from dreamprm.prm.model import PRM
from dreamprm.training.config import TrainConfig


def leave_together() -> None:
    """End the group of processes: its threads must not outlive the interpreter."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


class Processes:
    """The processes of a run and its trackers.

    Args:
        model: put on its device, and sharded where accelerate was told to.
        output_dir: where file-based trackers write.
    """

    def __init__(self, model: PRM, config: TrainConfig, output_dir: Path | None) -> None:
        names = [n.strip() for n in config.report_to.split(",") if n.strip() not in ("", "none")]
        try:
            self.accelerator = Accelerator(
                cpu=model.device.type == "cpu",
                log_with=names or None,
                project_dir=output_dir,
            )
        except (ValueError, ImportError) as error:
            raise DreamPRMError(f"report_to '{config.report_to}': {error}") from error
        known = {getattr(kind, "value", kind) for kind in self.accelerator.log_with}
        for name in names:
            if name not in ("all", *known):
                raise DreamPRMError(
                    f"report_to '{name}': not installed; pip install it, or use none"
                )
        kind = self.accelerator.distributed_type
        sharded = self.accelerator.num_processes > 1 and sharding_asked_for()
        if kind in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
            raise DreamPRMError(f"{kind} is not supported; use DDP or FSDP2")
        if sharded and config.estimator == "finite_difference" and not _frees_layers():
            raise DreamPRMError(
                "estimator finite_difference moves sharded parameters, which gathered layers would "
                "not follow; set fsdp_reshard_after_forward: true"
            )
        self.parallel = Parallel(
            self.accelerator.process_index, self.accelerator.num_processes, sharded
        )
        if self.parallel.world > 1:
            model.to(self.accelerator.device)
            if sharded:
                _shard(model)
            else:
                for tensor in model.state_dict().values():  # replicas start alike
                    dist.broadcast(tensor, src=0)
        self._tracks = bool(names)
        if names:
            settings = {k: v for k, v in asdict(config).items() if isinstance(v, int | float | str)}
            self.accelerator.init_trackers("dreamprm", settings)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Send figures to the trackers."""
        if self._tracks:
            self.accelerator.log(dict(values), step=step)

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()

    def finish(self) -> None:
        """Close the trackers."""
        if self._tracks:
            self.accelerator.end_training()

    def whole_state(self, model: PRM) -> dict[str, Any] | None:
        """All parameters gathered from their shards, on the main process; None if not sharded."""
        if not self.parallel.sharded:
            return None
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        with torch.no_grad():
            return get_model_state_dict(model, options=options)


def sharding_asked_for() -> bool:
    """Whether accelerate's launcher was told to shard (`use_fsdp` of its config file).

    Raises:
        DreamPRMError: it was told to use the first version of FSDP.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return False
    if os.environ.get("FSDP_VERSION", "2") != "2":
        raise DreamPRMError("FSDP version 1 is not supported; set fsdp_version: 2")
    return True


def _frees_layers() -> bool:
    """Whether a layer's gathered parameters go after its forward pass."""
    return os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() != "false"


def _shard(model: nn.Module) -> None:
    """Shard a model in place; its parameters are `DTensor`s afterwards."""
    reshard = _frees_layers()
    offload = os.environ.get("FSDP_OFFLOAD_PARAMS", "false").lower() == "true"
    policy = CPUOffloadPolicy() if offload else OffloadPolicy()
    for module in list(model.modules()):
        if isinstance(module, nn.ModuleList):
            for layer in module:
                if any(True for _ in layer.parameters()):
                    fully_shard(layer, reshard_after_forward=reshard, offload_policy=policy)
    fully_shard(model, reshard_after_forward=reshard, offload_policy=policy)
