"""Random-weight models of the embedded architecture, for tests that need no knowledge."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from dreamprm.prm.folder import PRMConfig
from dreamprm.prm.model import PRM
from dreamprm.records import Question
from dreamprm.tiny.model import build_model, build_processor
from dreamprm.tiny.scene import random_scene, render, to_png


@cache
def processor() -> Any:
    return build_processor()


def random_prm(config: PRMConfig | None = None, seed: int = 0, **changes: Any) -> PRM:
    """A PRM with random weights, the head's too (a fresh head is zero and scores all alike)."""
    torch.manual_seed(seed)
    backbone = build_model(processor())
    model = PRM(backbone, processor(), config)
    if config is None or config.head != "token":  # that one has no parameters
        torch.nn.init.normal_(model.head.weight, std=0.1)
    return model.eval()


def picture_question(name: str = "q", seed: int = 0, images: int = 1) -> Question:
    rng = random.Random(seed)
    pictures = tuple(to_png(render(random_scene(rng, "chart"))) for _ in range(images))
    return Question(
        id=name, domain="d", text=f"what is red plus blue ? {name}", images=pictures, answer="1"
    )


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


STEPS: Sequence[str] = (
    "Step 1: look at red and blue",
    "Step 2: red is 3",
    "Step 3: blue is 5",
    "Step 4: 3 + 5 = 8",
    "Step 5: so it is 8",
)
