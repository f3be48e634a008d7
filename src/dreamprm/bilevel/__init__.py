"""Bi-level training: the lower level fits a model, the upper level weighs its data.

Usable without the rest of dreamprm: give `BilevelLoop` a `Problem` (a model that returns one loss
per trajectory, and a meta loss) and an `UpperLevel`. See `examples/noisy_classes.py`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dreamprm.bilevel.hypergradient import LowerOutput, Problem
    from dreamprm.bilevel.loop import BilevelLoop
    from dreamprm.bilevel.weights import (
        DomainWeights,
        FixedWeights,
        InstanceNet,
        InstanceTable,
        LabelCorrection,
        UpperLevel,
        Weighting,
    )
    from dreamprm.training.config import TrainConfig

_HOMES = {
    "dreamprm.training.config": ("TrainConfig",),
    "dreamprm.bilevel.hypergradient": ("LowerOutput", "Problem"),
    "dreamprm.bilevel.loop": ("BilevelLoop",),
    "dreamprm.bilevel.weights": (
        "DomainWeights",
        "FixedWeights",
        "InstanceNet",
        "InstanceTable",
        "LabelCorrection",
        "UpperLevel",
        "Weighting",
    ),
}
__all__ = [
    "BilevelLoop",
    "DomainWeights",
    "FixedWeights",
    "InstanceNet",
    "InstanceTable",
    "LabelCorrection",
    "LowerOutput",
    "Problem",
    "TrainConfig",
    "UpperLevel",
    "Weighting",
]


def __getattr__(name: str) -> Any:
    """Import when asked for: the command line reads `config` and must not wait for torch."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'dreamprm.bilevel' has no attribute '{name}'")
