"""DreamPRM: multimodal process reward models with learned domain weights.

The public API. What a name needs (torch among it) is imported when the name is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dreamprm.data import Records, load
    from dreamprm.errors import DataError, DreamPRMError
    from dreamprm.evaluation.evaluate import evaluate
    from dreamprm.policy.policy import Policy
    from dreamprm.prm.lora import Lora
    from dreamprm.prm.model import PRM
    from dreamprm.prm.served import ServedPRM
    from dreamprm.records import Label, Question, StepScores, Trajectory
    from dreamprm.search.api import (
        abeam_search,
        abest_of_n,
        aweighted_vote,
        beam_search,
        best_of_n,
        weighted_vote,
    )
    from dreamprm.search.search import SearchResult
    from dreamprm.training.config import TrainConfig
    from dreamprm.training.learned import TrainResult
    from dreamprm.training.run import train

__version__ = "0.1.0"
__all__ = [
    "PRM",
    "DataError",
    "DreamPRMError",
    "Label",
    "Lora",
    "Policy",
    "Question",
    "Records",
    "SearchResult",
    "ServedPRM",
    "StepScores",
    "TrainConfig",
    "TrainResult",
    "Trajectory",
    "abeam_search",
    "abest_of_n",
    "aweighted_vote",
    "beam_search",
    "best_of_n",
    "evaluate",
    "load",
    "train",
    "weighted_vote",
]

_HOMES = {
    "data": ("Records", "load"),
    "errors": ("DataError", "DreamPRMError"),
    "evaluation.evaluate": ("evaluate",),
    "policy.policy": ("Policy",),
    "prm.lora": ("Lora",),
    "prm.model": ("PRM",),
    "prm.served": ("ServedPRM",),
    "records": ("Label", "Question", "StepScores", "Trajectory"),
    "search.api": (
        *("best_of_n", "weighted_vote", "beam_search"),
        *("abest_of_n", "aweighted_vote", "abeam_search"),
    ),
    "search.search": ("SearchResult",),
    "training.config": ("TrainConfig",),
    "training.learned": ("TrainResult",),
    "training.run": ("train",),
}

if not TYPE_CHECKING:  # a type checker would take it to know every name

    def __getattr__(name: str) -> object:
        for home, names in _HOMES.items():
            if name in names:
                value = getattr(importlib.import_module(f"dreamprm.{home}"), name)
                globals()[name] = value
                return value
        raise AttributeError(f"module 'dreamprm' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
