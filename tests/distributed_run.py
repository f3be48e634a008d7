"""A training run for `test_distributed.py`, started once per process by torch's launcher.

    python -m torch.distributed.run --nproc_per_node 2 tests/distributed_run.py OUT.json '{...}'

The second argument: fields of `TrainConfig`; `lora`, to train adapters on the embedded backbone;
`stop`, to end without a word after so many steps.
"""

from __future__ import annotations

import json
import os
import sys
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


def main() -> None:
    torch.set_num_threads(1)
    output, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    lora, stop = settings.pop("lora", False), settings.pop("stop", 0)
    model = random_prm()
    if lora:
        model = PRM.from_backbone("tiny")
        torch.manual_seed(0)
        model.add_lora(Lora(r=4))
    model = model.double()  # what is left is arithmetic; in fp32 AdamW's first steps magnify it
    config = TrainConfig(max_steps=6, save_steps=2, **settings)
    done = 0

    def leave(steps: int) -> None:
        nonlocal done
        done += steps
        if stop and done >= stop:
            os._exit(0)

    folder = output.parent / output.stem
    result = fit(model, small_data(), config, output_dir=folder, progress=leave)
    if not result.is_main:
        return
    saved = PRM.from_pretrained(folder, dtype=torch.float64).double()
    pairs = [pair for group in small_data().meta for pair in group]
    scores = {f"{s.question_id}/{s.sample_index}": s.logits for s in StepScorer(saved).score(pairs)}
    facts = {
        "weights": result.weights,
        "instances": result.instances,
        "scores": scores,
        "history": result.history,
    }
    output.write_text(json.dumps(facts))


if __name__ == "__main__":
    try:
        main()
    finally:
        leave_together()
    sys.stdout.flush()
    sys.stderr.flush()
    # Once in some twenty runs on a full machine a thread of torch's was not joined when the
    # interpreter ended, and the process aborted with all its work done.
    os._exit(0)
