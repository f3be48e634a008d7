"""Does a change of the code change a training run? The first windows of a run, kept and compared.

    python -m experiments.testbed data --seeds 101
    python -m experiments.same_run build/testbed/seed-101 --output before.json   # one commit
    python -m experiments.same_run build/testbed/seed-101 --against before.json  # another commit

Weights, losses and meta losses of every window must agree to 1e-6 (float32 on one thread; another
machine or torch adds its own rounding). Runs go through the command line, which commits share.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

WINDOWS, UNROLL_STEPS = 15, 3
TOLERANCE = 1e-6
VARIANTS = {  # name -> options of `dreamprm train`; the first is the default of a run
    "dreamprm": [],
    "at_end": ["--meta_gradient_at=end", "--momentum=window"],
    "instance_table": ["--weighting=instance_table"],
    "instance_table_jvp": ["--weighting=instance_table", "--estimator=jvp"],
    "instance_net": ["--weighting=instance_net", "--meta_learning_rate=0.02"],
    "label_correction": ["--weighting=none", "--label_correction=true"],
    "finite_difference": [
        "--estimator=finite_difference",
        "--meta_gradient_at=end",
        "--momentum=window",
    ],
    "pairwise": ["--meta_loss=pairwise", "--per_device_meta_batch_size=20"],
    "mse_steps": ["--meta_loss=mse_steps", "--per_device_meta_batch_size=20"],
}


def history(folder: Path, options: list[str]) -> list[dict[str, Any]]:
    """One row per window of a run on a testbed folder's data."""
    with tempfile.TemporaryDirectory() as output:
        command = [
            *(sys.executable, "-m", "dreamprm", "train", "--model_name_or_path=tiny"),
            f"--train_questions={folder / 'train.jsonl'}",
            f"--train_trajectories={folder / 'train.labelled.jsonl'}",
            f"--meta_questions={folder / 'meta.jsonl'}",
            f"--meta_trajectories={folder / 'meta.candidates.jsonl'}",
            *(f"--output_dir={output}", "--seed=101", f"--max_steps={WINDOWS * UNROLL_STEPS}"),
            *options,
        ]
        one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, env=one_thread, stdout=subprocess.DEVNULL)
        rows = (Path(output) / "history.jsonl").read_text().splitlines()
    return [json.loads(row) for row in rows]


def largest_difference(a: Any, b: Any) -> float:
    """Between the numbers of two rows; infinite where anything else differs."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return max((largest_difference(a[k], b[k]) for k in a), default=0.0)
    if isinstance(a, int | float) and isinstance(b, int | float):
        return abs(a - b)
    return 0.0 if a == b else float("inf")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path, help="of a testbed seed, with its data")
    parser.add_argument("--variants", nargs="+", default=["dreamprm"], choices=list(VARIANTS))
    parser.add_argument("--output", type=Path, help="keep the rows of this commit")
    parser.add_argument("--against", type=Path, help="rows that another commit has kept")
    args = parser.parse_args()
    rows = {name: history(args.folder, VARIANTS[name]) for name in args.variants}
    if args.output:
        args.output.write_text(json.dumps(rows, indent=1) + "\n")
    if not args.against:
        return 0
    before = json.loads(args.against.read_text())
    worst = 0.0
    for name, mine in rows.items():
        if len(mine) != len(before[name]):
            print(f"{name}: {len(mine)} windows, before {len(before[name])}")
            return 1
        pairs = zip(mine, before[name], strict=True)
        difference = max(largest_difference(a, b) for a, b in pairs)
        worst = max(worst, difference)
        print(f"{name}: {len(mine)} windows, largest difference {difference:.2e}")
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
