"""A training run for `test_distributed.py`, begun in each process of a group."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from dreamprm.prm.lora import Lora
from dreamprm.prm.model import PRM
from dreamprm.prm.scorer import StepScorer
from dreamprm.training.config import TrainConfig
from dreamprm.training.processes import leave_together
from dreamprm.training.run import fit
from tests.prm_data import small_data
from tests.tiny_models import random_prm


def main(words: Sequence[str]) -> int:
    """Train and write what was learned.

    Args:
        words: the file to write, and a JSON object with fields of `TrainConfig`; `lora`, to train
            adapters on the embedded backbone; `stop`, to end without a word after so many steps.
    """
    output, settings = Path(words[0]), json.loads(words[1])
    lora, stop = settings.pop("lora", False), settings.pop("stop", 0)
    model = random_prm()
    if lora:
        model = PRM.from_backbone("tiny")
        torch.manual_seed(0)
        model.add_lora(Lora(r=4))
    model = model.double()  # what is left is arithmetic; in fp32 AdamW's first steps magnify it
    config = TrainConfig(max_steps=4, save_steps=2, **settings)
    done = 0

    def leave(steps: int) -> None:
        nonlocal done
        done += steps
        if stop and done >= stop:
            os._exit(0)

    folder = output.parent / output.stem
    result = fit(model, small_data(), config, output_dir=folder, progress=leave)
    if result.is_main:
        saved = PRM.from_pretrained(folder, dtype=torch.float64).double()
        pairs = [pair for group in small_data().meta[:2] for pair in group]
        scores = StepScorer(saved).score(pairs)
        facts = {
            "weights": result.weights,
            "instances": result.instances,
            "scores": {f"{s.question_id}/{s.sample_index}": s.logits for s in scores},
            "history": result.history,
        }
        output.write_text(json.dumps(facts))
    leave_together()
    return 0
