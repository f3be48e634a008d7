"""What `dreamprm train --dry_run` prints: the plan of a run on the user's own data and device.

The processor is loaded and a sample of the data encoded; the backbone's weights are not.
"""

from __future__ import annotations

from typing import Any

import torch

from dreamprm.models.loading import load_processor
from dreamprm.prm.layout import Encoder
from dreamprm.prm.lora import Lora
from dreamprm.prm.model import PRMConfig
from dreamprm.training.config import TrainConfig
from dreamprm.training.data import TrainData
from dreamprm.training.estimate.lengths import measure_lengths
from dreamprm.training.estimate.plan import cheaper, measure_flops, plan_training
from dreamprm.training.estimate.shapes import read_shapes
from dreamprm.training.estimate.table import render_plan


def describe_run(
    backbone: str,
    prm: PRMConfig,
    config: TrainConfig,
    data: TrainData,
    *,
    lora: Lora | None = None,
    device: torch.device | str = "cpu",
    world: int = 1,
    sharded: bool = False,
    frozen_bf16: bool = False,
    measure: bool = True,
) -> str:
    """The plan as text.

    Args:
        backbone: hub name or folder.
        prm: head and layout.
        config: of the run.
        data: that it is to be trained on.
        lora: adapters; None: everything is trained.
        device: that the run is to use; its speed is measured, and a GPU's memory compared.
        world: number of such devices.
        sharded: FSDP2, not replicas.
        frozen_bf16: what adapters are on is loaded in bfloat16.
        measure: measure the device's speed, for the time.

    Raises:
        DreamPRMError: the backbone or its processor cannot be read; no data.
    """
    device = torch.device(device)
    shapes = read_shapes(backbone, prm, lora)
    encode = Encoder(load_processor(backbone), prm.layout)
    # Used where images come whole, and then a patch is of one image: three numbers per pixel.
    side = round((shapes.vision.patch_values / 3) ** 0.5) if shapes.vision else 14
    lower = measure_lengths(encode, data.items, side)
    candidates = [pair for group in data.meta for pair in group]
    meta = measure_lengths(encode, candidates, side) if config.learn_weights else None
    domains = len(data.domains)
    speed = None
    if measure:
        speed = measure_flops(device, torch.bfloat16 if config.bf16 else torch.float32)
    run = (shapes, prm, config, lower, meta)
    machine: dict[str, Any] = {
        "domains": domains,
        "world": world,
        "sharded": sharded,
        "frozen_bf16": frozen_bf16,
    }
    plan = plan_training(*run, **machine, flops_per_second=speed)
    options = cheaper(*run, **machine)
    memory = None
    if device.type == "cuda":
        memory = float(torch.cuda.get_device_properties(device).total_memory)
    return render_plan(plan, memory, options)
