"""A training run for `test_distributed.py`, started once per process by torch's launcher.

    python -m torch.distributed.run --nproc_per_node 2 tests/distributed_run.py OUT.json '{...}'

The argument: fields of `BilevelConfig`, and `lora` or not.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from dreamprm.bilevel.config import BilevelConfig
from dreamprm.bilevel.training import train
from dreamprm.prm.lora import add_lora
from dreamprm.prm.model import ProcessRewardModel
from dreamprm.prm.scorer import StepScorer
from tests.prm_data import small_data
from tests.tiny_models import random_prm


def main() -> None:
    torch.set_num_threads(1)
    output, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    lora = settings.pop("lora", False)
    model = random_prm()
    if lora:
        base = output.parent / "base"
        if not base.exists():
            raise SystemExit("the test makes the base model before it starts processes")
        model = ProcessRewardModel.from_backbone(str(base))
        add_lora(model)
    folder = output.parent / output.stem
    config = BilevelConfig(max_steps=6, save_steps=4, **settings)
    result = train(model, small_data(), config, output_dir=folder)
    if not result.is_main:
        return
    saved = ProcessRewardModel.from_pretrained(folder)
    pairs = [pair for group in small_data().meta for pair in group]
    scores = {
        f"{s.question_id}/{s.sample_index}": list(s.logits) for s in StepScorer(saved).score(pairs)
    }
    facts = {"weights": result.weights, "history": result.history, "scores": scores}
    facts["instances"] = result.learned.instances
    output.write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
