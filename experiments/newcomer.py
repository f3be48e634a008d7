"""What the weights of small data say: cases in which a newcomer would read news into noise.

    python -m experiments.testbed data --variant control --seeds 101 102 103
    python -m experiments.newcomer --seeds 101 102 103

Eighty trajectories of clean domains, split at random in two; or beside forty others with right,
random or inverted labels. Each with a meta set of six questions (18 candidates) and with all 240.
Results are in `docs/results/newcomer.json`; runs that are on disk are not made again. A run takes
about a minute on one core.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import torch

from dreamprm.data import Records, read_questions, read_trajectories
from dreamprm.prm.model import PRM
from dreamprm.records import Label, Trajectory
from dreamprm.tiny.world import VARIANTS
from dreamprm.training.config import TrainConfig
from dreamprm.training.data import prepare_data
from dreamprm.training.run import fit

CASES = ("halves", "right", "random", "inverted")
META = {"6 questions": (6, 3), "240 questions": (240, 8)}  # questions, candidates of each
CONFIG = TrainConfig(max_steps=60)


def small_set(folder: Path, case: str, seed: int) -> Records:
    """Two domains of clean trajectories; what is called `other` has the labels of the case."""
    clean = {d.name for d in VARIANTS["standard"] if d.quality == "clean"}
    questions = {q.id: q for q in read_questions(folder / "train.jsonl") if q.domain in clean}
    labelled = read_trajectories(folder / "train.labelled.jsonl")
    mine = sorted((t for t in labelled if t.question_id in questions), key=lambda t: t.question_id)
    rng = random.Random(f"newcomer/{seed}")
    ids = rng.sample(sorted(questions), 60)
    first, second = (ids[:20], ids[20:40]) if case == "halves" else (ids[:40], ids[40:])
    of_domain = dict.fromkeys(first, "one half" if case == "halves" else "clean")
    of_domain |= dict.fromkeys(second, "other half" if case == "halves" else "other")
    kept = [t for t in mine if t.question_id in of_domain]
    changed = [relabelled(t, case, rng) if of_domain[t.question_id] == "other" else t for t in kept]
    named = [questions[i].model_copy(update={"domain": name}) for i, name in of_domain.items()]
    return Records(named, changed)


def relabelled(t: Trajectory, case: str, rng: random.Random) -> Trajectory:
    """A trajectory with random or inverted labels."""
    if case == "right" or t.labels is None:
        return t
    labels = [
        label and (label.correct if case == "right" else label.total - label.correct, label.total)
        for label in t.labels
    ]
    if case == "random":
        labels = [label and (rng.randint(0, label[1]), label[1]) for label in labels]
    return t.model_copy(update={"labels": tuple(label and Label.of(*label) for label in labels)})


def run(folder: Path, case: str, meta: str, seed: int) -> dict[str, Any]:
    """Weights, intervals and verdicts of one case."""
    count, candidates = META[meta]
    questions = read_questions(folder / "meta.jsonl")[:count]
    ids = {q.id for q in questions}
    outcomes = [
        t
        for t in read_trajectories(folder / "meta.candidates.jsonl")
        if t.question_id in ids and t.sample_index < candidates
    ]
    data = prepare_data(small_set(folder, case, seed), Records(questions, outcomes))
    torch.manual_seed(seed)
    result = fit(PRM.from_backbone("tiny"), data, CONFIG)
    return {
        name: {
            "weight": w,
            "interval": list(result.intervals[name]),
            "verdict": result.verdicts[name],
        }
        for name, w in result.weights.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--output-dir", type=Path, default=Path("build/testbed"))
    parser.add_argument("--results", type=Path, default=Path("docs/results/newcomer.json"))
    args = parser.parse_args()
    results: dict[str, Any] = json.loads(args.results.read_text()) if args.results.exists() else {}
    for meta in META:
        for case in CASES:
            for seed in args.seeds:
                key = f"{meta}, {case}, seed {seed}"
                if key not in results:
                    results[key] = run(args.output_dir / f"control-{seed}", case, meta, seed)
                    args.results.write_text(json.dumps(results, indent=2) + "\n")
                row = results[key]
                said = "; ".join(
                    f"{name} {w['weight']:.2f} [{w['interval'][0]:.2f}, {w['interval'][1]:.2f}] "
                    f"{w['verdict']}"
                    for name, w in row.items()
                )
                print(f"{key}: {said}", flush=True)


if __name__ == "__main__":
    main()
