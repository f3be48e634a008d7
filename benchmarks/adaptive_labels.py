"""How many completions do labels need? Adaptive ones against a fixed K, on the embedded world.

    python -m benchmarks.adaptive_labels

Candidates of some questions of the embedded world are sampled once. The true value of each of their
prefixes is taken from many completions of a run of its own. Then every plan labels the same
trajectories, each from a store that holds the candidates and nothing else. Reported are the
completions that it asked for, the mean squared error over all steps of all trajectories (the noise
of the "true" values taken off), and the ratio: its completions over those that a fixed K would need
for the same error. A fixed K's error is proportional to 1 / K, so that number follows from the
fixed runs. `outward` is how far labels of values between 0.1 and 0.9 lie towards 0 or 1 in the
mean: the bias of stopping. The completions of candidates cost nothing here, because they are there
anyway; rows without them stand beside.
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

from dreamprm.data.files import atomic_write
from dreamprm.policy.policy import Policy
from dreamprm.records import Question, Trajectory
from dreamprm.rollouts.labels import (
    FixedCompletions,
    Plan,
    SequentialStopping,
    label_trajectories,
    prefixes,
)
from dreamprm.rollouts.sampler import Sampler, sample_candidates, stored_candidates
from dreamprm.rollouts.store import RolloutStore
from dreamprm.tiny.world import WorldSize, build_world

TRUE_SEED = 10**6
WITH, WITHOUT = 0, 1
"""Seeds: the candidates were sampled with 0, so only that run finds them in its store."""

PLANS: dict[str, tuple[Plan, int]] = {
    **{f"fixed, K = {k}": (FixedCompletions(k), WITH) for k in (4, 8, 16)},
    # never precise enough: K completions for each prefix, and what those of others bring
    **{f"fixed, K = {k}, reuse": (SequentialStopping(1e-9, k), WITHOUT) for k in (4, 8)},
    **{
        f"fixed, K = {k}, reuse, also of the candidates": (SequentialStopping(1e-9, k), WITH)
        for k in (4, 8)
    },
    **{f"stopping, {p}": (SequentialStopping(p, reuse=False), WITH) for p in (0.16, 0.12, 0.1)},
    **{f"stopping, {p}, reuse": (SequentialStopping(p), WITHOUT) for p in (0.16, 0.12, 0.1)},
    **{
        f"stopping, {p}, reuse, also of the candidates": (SequentialStopping(p), WITH)
        for p in (0.2, 0.16, 0.12, 0.1, 0.08)
    },
}


class Bench:
    """The questions, their candidates and the true values."""

    def __init__(self, folder: Path, per_domain: int, candidates: int, true_k: int) -> None:
        world = build_world(7, WorldSize(per_domain, 2 * per_domain, 1))
        self.folder, self.policy = (
            folder,
            Policy("tiny/policy", max_new_tokens=48, per_device_batch_size=512),
        )
        self.questions: list[Question] = [*world.train, *world.meta]
        self.by_id = {question.id: question for question in self.questions}
        with RolloutStore(folder / "candidates.db") as store:
            sampler = Sampler(self.policy, store)
            asyncio.run(sample_candidates(sampler, self.questions, candidates))
            found = list(stored_candidates(sampler, self.questions, candidates))
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
        for name, (plan, seed) in PLANS.items():
            values, asked = bench.label(plan, seed)
            off = values - bench.truth
            open_ones = (bench.truth > 0.1) & (bench.truth < 0.9)
            outward = float(np.mean((off * np.sign(bench.truth - 0.5))[open_ones]))
            error = float(np.mean(off**2)) - bench.noise
            rows[name] = {"completions": asked, "mse": error, "outward_bias": outward}
            print(f"{name:48} {asked:7} completions, mse {error:.5f}, outward {outward:+.3f}")
        fixed = [row for name, row in rows.items() if "reuse" not in name and "fixed" in name]
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
        print(f"{name:48} ratio {row['ratio_to_fixed_at_equal_mse']:.2f}")


if __name__ == "__main__":
    run()
