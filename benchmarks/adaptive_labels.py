"""How many completions do labels need? Adaptive ones against a fixed K, on the embedded world.

    python -m benchmarks.adaptive_labels

Candidates of some questions of the embedded world are sampled once. The true value of each of their
prefixes is taken from many completions of a run of its own. Then every plan labels the same
trajectories, each from a store that holds the candidates and nothing else. Reported are the
completions that it asked for, the mean squared error over all steps of all trajectories (the noise
of the "true" values taken off), and the ratio: its completions over those that a fixed K would need
for the same error. A fixed K's error is proportional to 1 / K, so that number follows from the
fixed runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dreamprm.formats.files import atomic_write
from dreamprm.policy.local import LocalPolicy
from dreamprm.records import Question, Trajectory
from dreamprm.rollouts.adaptive import SequentialStopping
from dreamprm.rollouts.label import FixedCompletions, Plan, label_trajectories, prefixes
from dreamprm.rollouts.sample import sample_candidates
from dreamprm.rollouts.sampler import Sampler
from dreamprm.rollouts.store import RolloutStore
from dreamprm.tiny.world import WorldSize, build_world

TRUE_SEED = 10**6
PLANS: dict[str, Plan] = {
    **{f"fixed, K = {k}": FixedCompletions(k) for k in (4, 8, 16)},
    **{f"adaptive, {p}": SequentialStopping(p) for p in (0.2, 0.16, 0.12, 0.1, 0.08)},
    **{
        f"adaptive without reuse, {p}": SequentialStopping(p, reuse=False)
        for p in (0.16, 0.12, 0.1)
    },
}


class Bench:
    """The questions, their candidates and the true values."""

    def __init__(self, folder: Path, per_domain: int, candidates: int, true_k: int) -> None:
        world = build_world(7, WorldSize(per_domain, 2 * per_domain, 1))
        self.folder, self.policy = (
            folder,
            LocalPolicy("tiny/policy", prompt="bare", max_new_tokens=48, batch_size=512),
        )
        self.questions: list[Question] = [*world.train, *world.meta]
        self.by_id = {question.id: question for question in self.questions}
        with RolloutStore(folder / "candidates.db") as store:
            sampler = Sampler(self.policy, store)
            _, found = asyncio.run(sample_candidates(sampler, self.questions, candidates))
        self.trajectories: list[Trajectory] = found
        truth, _ = self.label(FixedCompletions(true_k), TRUE_SEED)
        self.truth = truth
        self.noise = float(np.mean(truth * (1 - truth)) / (true_k - 1))

    def label(self, plan: Plan, seed: int = 0) -> tuple[np.ndarray, int]:
        """A label per step of each trajectory, (steps,), and how many completions it took."""
        path = self.folder / "plan.db"
        shutil.copy(self.folder / "candidates.db", path)
        with RolloutStore(path) as store:
            before = store.counts()["rollouts"]
            sampler = Sampler(self.policy, store, seed)
            work = label_trajectories(sampler, self.by_id, self.trajectories, plan)
            outcome, found = asyncio.run(work)
            assert outcome.stopped is None and not outcome.refused
            asked = store.counts()["rollouts"] - before
        path.unlink()
        return _values(found), asked

    def prefixes(self) -> int:
        """Distinct prefixes."""
        return len({(t.question_id, p) for t in self.trajectories for p in prefixes(t)})


def _values(trajectories: Sequence[Trajectory]) -> np.ndarray:
    return np.array([label.value for t in trajectories for label in t.labels or () if label])


def run() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--per_domain", type=int, default=5)
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--true_completions", type=int, default=256)
    parser.add_argument("--output", type=Path, default=Path("docs/results/adaptive_labels.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(
            Path(folder), options.per_domain, options.candidates, options.true_completions
        )
        rows: dict[str, dict[str, float]] = {}
        for name, plan in PLANS.items():
            values, asked = bench.label(plan)
            error = float(np.mean((values - bench.truth) ** 2)) - bench.noise
            rows[name] = {"completions": asked, "mse": error}
            print(f"{name:30} {asked:8} completions, mse {error:.5f}", flush=True)
        fixed = [row for name, row in rows.items() if name.startswith("fixed")]
        constant = float(np.mean([row["mse"] * row["completions"] for row in fixed]))
        for row in rows.values():
            row["ratio_to_fixed_at_equal_mse"] = row["completions"] * row["mse"] / constant
        result: dict[str, Any] = {
            "questions": len(bench.questions),
            "trajectories": len(bench.trajectories),
            "distinct_prefixes": bench.prefixes(),
            "true_completions": options.true_completions,
            "plans": rows,
        }
    with atomic_write(options.output) as file:
        file.write(json.dumps(result, indent=2).encode() + b"\n")
    for name, row in rows.items():
        print(f"{name:30} ratio {row['ratio_to_fixed_at_equal_mse']:.2f}")


if __name__ == "__main__":
    run()
