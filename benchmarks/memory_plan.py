"""What `--dry_run` estimates for Qwen2-VL-2B: 8 trajectories of 1,200 tokens, 256 of them visual.

    python -m benchmarks.memory_plan [--output docs/results/memory_plan.md]

From the published config alone; no weights, no GPU, nothing measured.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from transformers import Qwen2VLConfig

from benchmarks.training_setup import QWEN2_VL_2B
from dreamprm.prm.lora import Lora
from dreamprm.prm.model import PRMConfig
from dreamprm.training.config import TrainConfig
from dreamprm.training.estimate.lengths import Lengths
from dreamprm.training.estimate.plan import plan_training
from dreamprm.training.estimate.shapes import read_shapes

DOMAINS = 15
TRAJECTORIES = Lengths(tokens=(1200,) * 8, patches=(1024,) * 8, steps=(5,) * 8, sequences=(1,) * 8)
START = TrainConfig(bf16=True, per_device_meta_batch_size=8)
CASES: dict[str, tuple[Lora | None, TrainConfig]] = {
    "full, checkpointing": (None, replace(START, gradient_checkpointing=True)),
    "full, checkpointing, meta gradient at the end": (
        None,
        replace(START, gradient_checkpointing=True, meta_gradient_at="end"),
    ),
    "full": (None, START),
    "LoRA r = 16, bfloat16 base, checkpointing": (
        Lora(r=16),
        replace(START, gradient_checkpointing=True),
    ),
    "LoRA r = 16, bfloat16 base": (Lora(r=16), START),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("docs/results/memory_plan.md"))
    args = parser.parse_args()
    prm, backbone = PRMConfig(), Qwen2VLConfig(**QWEN2_VL_2B)
    lines = [
        "# Memory, estimated: Qwen2-VL-2B, bf16 compute, 8 trajectories of 1,200 tokens",
        "",
        "Made by `python -m benchmarks.memory_plan`. Not measured on a GPU.",
        "",
        "| | peak, GB |",
        "|---|---|",
    ]
    for name, (lora, config) in CASES.items():
        plan = plan_training(
            read_shapes(backbone, prm, lora),
            prm,
            config,
            TRAJECTORIES,
            domains=DOMAINS,
            frozen_bf16=lora is not None,
        )
        lines.append(f"| {name} | {plan.peak / 1e9:.1f} |")
    args.output.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
