"""The evidence table: every method on the embedded world, several seeds, one command each.

    python -m experiments.testbed data  --seeds 101 102
    python -m experiments.testbed train --seeds 101 102
    python -m experiments.testbed_table --seeds 101 102

`--variant hard` takes the world's hard variant, on both stages and for the table; `--variant
control` the one where every domain is clean.

`data` samples candidates and Monte Carlo labels once per seed; `train` fits every method on them
with the same budget and settings and scores the same candidates; `testbed_table` evaluates and
writes `docs/results/`. `make testbed` does it all, as many runs at a time as there are cores.
Whatever is on disk is not made again, so the stages can be killed and rerun. Seeds from 101 are for
reporting; everything was tuned on others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dreamprm.baselines.features import embeddings_and_quality, reference_losses
from dreamprm.baselines.outcome import outcome_labels
from dreamprm.baselines.selection import Pool, select_weights
from dreamprm.data import (
    Records,
    read_questions,
    read_trajectories,
    write_scores,
    write_trajectories,
)
from dreamprm.policy.policy import Policy
from dreamprm.prm.folder import is_prm
from dreamprm.prm.model import PRM
from dreamprm.prm.scorer import StepScorer
from dreamprm.records import Question, StepScores, Trajectory
from dreamprm.rollouts.labels import FixedCompletions, label_trajectories
from dreamprm.rollouts.sampler import Sampler, sample_candidates, stored_candidates
from dreamprm.rollouts.store import RolloutStore
from dreamprm.tiny.demo_report import evaluate_folder, scores_path
from dreamprm.tiny.world import VARIANTS, WorldSize, build_world, in_other_words, write_world
from dreamprm.training.config import TrainConfig
from dreamprm.training.data import TrainData, prepare_data
from dreamprm.training.learned import GivenWeights, without_zeros
from dreamprm.training.null_check import permuted
from dreamprm.training.run import fit

SIZE = WorldSize(per_domain=60, meta=240, per_benchmark=60)
TRAIN_CANDIDATES, META_CANDIDATES, CANDIDATES, STRONG_CANDIDATES = 2, 8, 16, 8
COMPLETIONS = 4
COMPARED = 8  # N of the tables
CONFIG = TrainConfig(max_steps=300)


@dataclass(frozen=True)
class Method:
    """What differs between methods; all else is `CONFIG`, the same for all of them.

    Attributes:
        changes: fields of the configuration.
        weights: where they come from: `learned`, `uniform`, `oracle`, or the name of a selector of
            `baselines.selection` (with `BUDGET` of the trajectories).
        outcome_only: an outcome reward model.
        cut_anywhere: reasonings are cut at random places instead of at their steps.
        without: domains of this planted quality get the weight 0.
        permuted: outcomes of the meta set are permuted within questions and say nothing.
    """

    changes: dict[str, Any] = field(default_factory=dict)
    weights: str = "learned"
    outcome_only: bool = False
    cut_anywhere: bool = False
    without: str = ""
    permuted: bool = False


BUDGET = 0.5
METHODS = {  # `dreamprm` is one of the meta losses too: the default of TrainConfig
    "prm_uniform": Method(weights="uniform"),
    "prm_oracle": Method(weights="oracle"),
    "orm": Method(weights="uniform", outcome_only=True),
    "random_half": Method(weights="random"),
    "s1": Method(weights="s1"),
    "car": Method(weights="car"),
    "bis": Method(weights="bis"),
    "small_loss": Method(weights="loss"),
    "dreamprm": Method(),
    "instance_table": Method({"weighting": "instance_table"}),
    # A net moves all weights at once and wants a slower upper level (docs/LOG.md, 2026-11-27).
    "instance_net": Method({"weighting": "instance_net", "meta_learning_rate": 0.02}),
    "label_correction": Method({"weighting": "none", "label_correction": True}),
    "meta_at_end": Method({"meta_gradient_at": "end"}),
    "no_aggregation": Method({"meta_loss": "mse_steps"}),
    "no_steps": Method(cut_anywhere=True),
    "no_steps_uniform": Method(weights="uniform", cut_anywhere=True),
    "meta_mse_mean": Method({"meta_loss": "mse"}),
    "meta_mse_sum": Method({"meta_loss": "mse", "meta_aggregation": "sum"}),
    "meta_affine_mse": Method({"meta_loss": "affine_mse"}),
    "meta_affine_bce": Method({"meta_loss": "affine_bce"}),
    "meta_pairwise": Method({"meta_loss": "pairwise"}),
    "meta_listwise": Method({"meta_loss": "listwise"}),
    "meta_margin": Method({"meta_loss": "margin"}),
}
del METHODS[f"meta_{CONFIG.meta_loss}"]
CHECKS = {  # of the intervals, and of what is planted in the hard variant
    "permuted": Method(permuted=True),
    "without_doubling": Method(weights="uniform", without="wrong_doubling"),
    "without_comparison": Method(weights="uniform", without="wrong_comparison"),
    "without_distance": Method(weights="uniform", without="wrong_distance"),
    "without_demanding": Method(weights="oracle", without="demanding"),
}
KEPT = {"dreamprm": "prm", "prm_uniform": "prm_uniform"}
"""Models that `experiments.search` and `experiments.rl` go on with, and their folders."""
FOLDERS = {"standard": "seed", "hard": "hard", "control": "control"}


def make_data(folder: Path, seed: int, variant: str) -> None:
    """Questions, candidates and labels of one seed, on disk under `folder`."""
    control = variant == "control"
    world = build_world(seed, SIZE, VARIANTS[variant])
    if not (folder / "train.jsonl").exists():
        write_world(world, folder)
    policy = Policy("tiny/policy", max_new_tokens=48, per_device_batch_size=512)
    test = COMPARED if control else CANDIDATES
    store = RolloutStore(folder / "rollouts.db")
    counts = {"train": TRAIN_CANDIDATES, "meta": META_CANDIDATES, "test": test}
    for name, count in counts.items():
        _sample(
            policy,
            store,
            folder / f"{name}.jsonl",
            folder / f"{name}.candidates.jsonl",
            count,
            seed,
        )
    labelled = folder / "train.labelled.jsonl"
    if not labelled.exists():
        questions = {q.id: q for q in read_questions(folder / "train.jsonl")}
        candidates = read_trajectories(folder / "train.candidates.jsonl")
        plan = FixedCompletions(COMPLETIONS, world.completions)
        sampler = Sampler(policy, store, seed)
        _, found = asyncio.run(label_trajectories(sampler, questions, candidates, plan))
        reworded = {d.name for d in VARIANTS[variant] if d.quality == "other_words"}
        write_trajectories(
            labelled,
            [
                in_other_words(t) if questions[t.question_id].domain in reworded else t
                for t in found
            ],
        )
    if not control:
        strong = Policy("tiny/policy-strong", max_new_tokens=48, per_device_batch_size=512)
        _sample(
            strong,
            store,
            folder / "test.jsonl",
            folder / "test.strong.jsonl",
            STRONG_CANDIDATES,
            seed,
        )
    store.close()


def _sample(
    policy: Policy, store: RolloutStore, questions: Path, target: Path, count: int, seed: int
) -> None:
    if not target.exists():
        sampler = Sampler(policy, store, seed)
        asked = read_questions(questions)
        asyncio.run(sample_candidates(sampler, asked, count))
        write_trajectories(target, stored_candidates(sampler, asked, count))


def train_method(
    folder: Path,
    name: str,
    seed: int,
    variant: str = "standard",
    config: TrainConfig = CONFIG,
    rate: float | None = None,
) -> None:
    """Fit one method on one seed's data and score the benchmarks' candidates with it.

    Args:
        rate: of the upper level, in place of the method's own.
    """
    method = (METHODS | CHECKS)[name]
    if rate is not None:
        method = replace(method, changes=method.changes | {"meta_learning_rate": rate})
    done = folder / "scores" / f"{name}.json"  # written last
    if done.exists() and (name not in KEPT or is_prm(folder / KEPT[name])):
        return
    started = time.time()
    trajectories = read_trajectories(folder / "train.labelled.jsonl")
    meta = read_trajectories(folder / "meta.candidates.jsonl")
    if method.outcome_only:
        trajectories = outcome_labels(trajectories)
    if method.cut_anywhere:
        trajectories, meta = cut_anywhere(trajectories), cut_anywhere(meta)
    data = prepare_data(
        Records(read_questions(folder / "train.jsonl"), trajectories),
        Records(read_questions(folder / "meta.jsonl"), meta),
    )
    if method.permuted:
        data = replace(data, meta=permuted(data.meta, seed))
    weights: GivenWeights | None = None
    if method.weights in ("uniform", "oracle"):
        planted = {d.name: d.planted for d in VARIANTS[variant]}
        weights = planted if method.weights == "oracle" else dict.fromkeys(planted, 1.0)
        weights |= {d.name: 0.0 for d in VARIANTS[variant] if d.quality == method.without}
    elif method.weights != "learned":
        data, weights = without_zeros(data, _selected(folder, method.weights, data, seed))
    changes = {"seed": seed, "learn_weights": weights is None} | method.changes
    model = PRM.from_backbone("tiny")
    result = fit(model, data, replace(config, **changes), weights=weights)
    seconds = time.time() - started
    _score_tests(model, folder, name, method)
    if name in KEPT:
        model.save_pretrained(folder / KEPT[name])
    facts = {"weights": result.weights, "seconds": seconds, "history": result.history}
    if name == "prm_uniform":  # what small_loss looks at
        facts["losses"] = reference_losses(model, data.items, 128, CONFIG.lower_loss).tolist()
    done.write_text(json.dumps(facts))


def _score_tests(model: PRM, folder: Path, name: str, method: Method) -> None:
    """Scores of both policies' candidates on disk."""
    for suffix in ("candidates", "strong"):
        pairs = _test_pairs(folder, suffix)
        whole = {(t.question_id, t.sample_index): len(t.steps) for _, t in pairs}
        if method.cut_anywhere:
            cut = cut_anywhere([t for _, t in pairs])
            pairs = [(q, t) for (q, _), t in zip(pairs, cut, strict=True)]
        if name.startswith("meta_"):  # compared at N = 8 on the default policy alone
            kept = suffix == "candidates"
            pairs = [(q, t) for q, t in pairs if kept and t.sample_index < COMPARED]
        if pairs:
            path = scores_path(folder, suffix, name)
            path.parent.mkdir(exist_ok=True)
            scores = list(StepScorer(model, batch_size=128).score(pairs))
            if method.cut_anywhere:
                scores = [on_all_steps(s, whole[s.question_id, s.sample_index]) for s in scores]
            write_scores(path, scores)


def _selected(
    folder: Path, selector: str, data: TrainData, seed: int
) -> dict[tuple[str, int], float]:
    """Weights of a selection baseline."""
    pool = Pool(tuple(data.items))
    if selector == "car":
        model = PRM.from_backbone("tiny")
        features, quality = embeddings_and_quality(model, pool.pairs, 128)
        pool = replace(pool, features=features, quality=quality)
    if selector == "loss":
        facts = json.loads((folder / "scores" / "prm_uniform.json").read_text())
        pool = replace(pool, losses=np.array(facts["losses"]))
    found = select_weights(selector, pool, BUDGET, seed)
    return {(q.id, t.sample_index): float(w) for (q, t), w in zip(pool.pairs, found, strict=True)}


def cut_anywhere(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """The same reasonings with steps run together at random: no structure to judge by.

    Each end of a step, but the last, is kept with probability one half, with its label.
    """
    found = []
    for t in trajectories:
        rng = random.Random(f"{t.question_id}/{t.sample_index}")
        ends = [i for i in range(1, len(t.steps)) if rng.random() < 0.5] + [len(t.steps)]
        starts = [0, *ends[:-1]]
        changes: dict[str, Any] = {
            "steps": tuple(" ".join(t.steps[a:b]) for a, b in zip(starts, ends, strict=True))
        }
        if t.labels is not None:
            changes["labels"] = tuple(t.labels[end - 1] for end in ends)
        found.append(t.model_copy(update=changes))
    return found


def on_all_steps(scores: StepScores, count: int) -> StepScores:
    """The mean score of a reasoning's parts, for each of its steps: what evaluation expects."""
    mean = sum(scores.logits) / len(scores.logits)
    return scores.model_copy(update={"logits": (mean,) * count, "steps_digest": None})


def _test_pairs(folder: Path, suffix: str) -> list[tuple[Question, Trajectory]]:
    path = folder / f"test.{suffix}.jsonl"
    if not path.exists():
        return []
    questions = {q.id: q for q in read_questions(folder / "test.jsonl")}
    return [(questions[t.question_id], t) for t in read_trajectories(path)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("stage", choices=["data", "train"])
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--output-dir", type=Path, default=Path("build/testbed"))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=[*METHODS, *CHECKS])
    parser.add_argument("--variant", default="standard", choices=list(VARIANTS))
    parser.add_argument(
        "--meta_learning_rate", type=float, help="of the upper level; with an --output-dir apart"
    )
    parser.add_argument("--processes", type=int, default=torch.get_num_threads())
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    args = parser.parse_args()
    folders = {seed: args.output_dir / f"{FOLDERS[args.variant]}-{seed}" for seed in args.seeds}
    work: list[tuple[Any, ...]]
    if args.stage == "data":
        work = [(_data, folders[seed], seed, args.variant, args.threads) for seed in args.seeds]
    else:  # seed after seed would leave processes idle at each one's end
        work = [
            (_train, folders[seed], name, seed, args.variant, args.threads, args.meta_learning_rate)
            for name in args.methods
            for seed in args.seeds
        ]
    started = time.time()
    with ProcessPoolExecutor(args.processes, mp_context=get_context("spawn")) as pool:
        for future in [pool.submit(task[0], *task[1:]) for task in work]:
            print(f"{future.result()} after {time.time() - started:.0f} s", flush=True)


def _data(folder: Path, seed: int, variant: str, threads: int) -> str:
    torch.set_num_threads(threads)
    make_data(folder, seed, variant)
    return f"{folder.name}: data"


def _train(
    folder: Path, name: str, seed: int, variant: str, threads: int, rate: float | None
) -> str:
    torch.set_num_threads(threads)
    if name == "small_loss":
        train_method(folder, "prm_uniform", seed, variant)
    train_method(folder, name, seed, variant, rate=rate)
    facts = json.loads((folder / "scores" / f"{name}.json").read_text())
    chosen = evaluate_folder(folder, "candidates", [name], limit=COMPARED).average[name].mean
    return f"{folder.name}: {name}: {100 * chosen:.1f} in {facts['seconds']:.0f} s"


if __name__ == "__main__":
    main()
