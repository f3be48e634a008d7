"""A policy trained by TRL's GRPO on four rewards: does it learn, and does it fool its judge?

    python -m experiments.testbed data  --seeds 101 102 103
    python -m experiments.testbed train --seeds 101 102 103 --methods dreamprm prm_uniform
    python -m experiments.rl train --seeds 101 102 103
    python -m experiments.rl table --seeds 101 102 103

The embedded policy is trained on new questions of the meta set's kind, whose gold answers are
right. It earns by its answer (`outcome`), by DreamPRM's reward model (`prm`), by that model where
the answer is right (`gate`), or by a reward model whose domains all weigh the same (`prm_uniform`).
`blind` and `blind_gate` are `prm` and `gate` with a judge that is not shown the pictures: one that
can be fooled. Before and after, the policy answers the five benchmarks. Each run is a process of
one thread; what is on disk is not made again. Writes `docs/results/rl.{json,md,svg}`. Needs the
extra `rl`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dreamprm.answers import extract_answer, verify_answer
from dreamprm.data import read_questions
from dreamprm.evaluation.statistics import estimate_average, paired_difference
from dreamprm.models.loading import load_backbone, load_processor
from dreamprm.policy import Reply, Request
from dreamprm.policy.policy import Policy, wait_for
from dreamprm.prm.model import PRM
from dreamprm.prm.scorer import Plain, Shared, StepModel
from dreamprm.records import Question
from dreamprm.rl import StepReward, training_rows, trl_reward
from dreamprm.tiny.world import WorldSize, build_world
from experiments.testbed import FOLDERS, KEPT

POLICY = "tiny/policy"


@dataclass(frozen=True)
class Arm:
    """What a policy earns by.

    Attributes:
        prm: method of the testbed that trained the reward model.
        outcome: the answer alone is rewarded; the model's scores are but logged.
        gate: wrong answers earn nothing.
        blind: the model is not shown the pictures.
    """

    prm: str = "dreamprm"
    outcome: bool = False
    gate: bool = False
    blind: bool = False

    def judge(self, folder: Path) -> StepModel:
        prm = PRM.from_pretrained(folder / KEPT[self.prm])
        return Blind(prm) if self.blind else prm


ARMS = {
    "outcome": Arm(outcome=True),
    "prm": Arm(),
    "gate": Arm(gate=True),
    "prm_uniform": Arm("prm_uniform"),
    "blind": Arm(blind=True),
    "blind_gate": Arm(blind=True, gate=True),
}
STEPS, QUESTIONS, COMPLETIONS, RATE = 150, 8, 8, 1e-4
SAMPLES = 4  # of each question of the benchmarks; accuracy is that of one
OTHER_WORLD = 10_000  # added to the seed: questions of no file of the testbed
CURVES = {"score": "#c44e52", "correct": "#4c72b0"}


class Blind:
    """A reward model that is not shown the pictures."""

    def __init__(self, prm: PRM) -> None:
        self.prm = prm

    def passes(self) -> tuple[Plain, Shared | None]:
        """See `scorer.StepModel`."""
        plain, shared = self.prm.passes()

        def without(of_question: Sequence[tuple[Question, Any]]) -> list[tuple[Question, Any]]:
            return [(q.model_copy(update={"images": ()}), rest) for q, rest in of_question]

        return (
            lambda pairs: plain(without(pairs)),
            shared and (lambda groups: shared(without(groups))),
        )


def train(folder: Path, name: str, seed: int, output: Path, steps: int) -> str:
    """One run, from the embedded policy to answers of the trained one."""
    done, arm = output / f"{name}-{seed}.json", ARMS[name]
    if done.exists():
        return f"{name}, seed {seed}: on disk"
    torch.set_num_threads(1)
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    judge = arm.judge(folder)
    judged = trl_reward(judge, gate=arm.gate, batch_size=64)
    config = GRPOConfig(
        output_dir=str(output / f"{name}-{seed}"),
        max_steps=steps,
        per_device_train_batch_size=QUESTIONS * COMPLETIONS,
        num_generations=COMPLETIONS,
        max_completion_length=48,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        reward_weights=[0.0, 1.0] if arm.outcome else [1.0],
        seed=seed,
        use_cpu=True,
        bf16=False,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    asked = build_world(OTHER_WORLD + seed, WorldSize(per_domain=1, meta=480, per_benchmark=1)).meta
    processor = load_processor(POLICY)
    trainer = GRPOTrainer(
        model=load_backbone(POLICY),
        reward_funcs=[judged, right_answer] if arm.outcome else judged,
        args=config,
        train_dataset=Dataset.from_list(training_rows(asked, prompt="bare")),
        processing_class=processor,
    )
    started = time.time()
    trainer.train()
    seconds = time.time() - started
    trainer.save_model(config.output_dir)
    history = [
        {name: entry.get(f"prm/{name}", 0.0) for name in ("score", "correct", "steps", "unread")}
        for entry in trainer.state.log_history
        if "prm/unread" in entry
    ]
    after = answers(config.output_dir, folder, judge, seed)
    facts = {"seconds": seconds, "steps": steps, "history": history, "after": after}
    done.write_text(json.dumps(facts))
    return f"{name}, seed {seed}: {steps} steps in {seconds:.0f} s, {accuracy(after):.3f} right"


def right_answer(
    completions: Sequence[Any], answer: Sequence[str], options: Sequence[list[str]], **_: Any
) -> list[float]:
    """1 where the answer is right."""
    texts = [turns[-1]["content"] for turns in completions]
    return [
        float(verify_answer(extract_answer(text, o), gold, o))
        for text, gold, o in zip(texts, answer, options, strict=True)
    ]


def answers(policy_path: str, folder: Path, judge: StepModel, seed: int) -> dict[str, Any]:
    """Per benchmark and question: the share of right samples, and the judge's mean score."""
    questions = read_questions(folder / "test.jsonl")

    async def sample(policy: Policy) -> list[Reply]:
        asked = [policy.sample(Request(question), SAMPLES, seed) for question in questions]
        return await asyncio.gather(*asked)

    with Policy(policy_path, max_new_tokens=48, per_device_batch_size=512, prompt="bare") as policy:
        replies = wait_for(sample(policy))
    texts = [c.text for reply in replies for c in reply.completions]
    repeated = [question for question in questions for _ in range(SAMPLES)]
    rewards = StepReward(judge, batch_size=128)(repeated, texts)
    found: dict[str, Any] = {}
    for i, question in enumerate(questions):
        mine = rewards[i * SAMPLES : (i + 1) * SAMPLES]
        rows = found.setdefault(question.domain, {"right": [], "score": []})
        rows["right"].append(float(np.mean([bool(r.correct) for r in mine])))
        rows["score"].append(float(np.mean([r.score or 0.0 for r in mine])))
    return found


def before(folder: Path, arm: Arm, seed: int, output: Path) -> dict[str, Any]:
    """The policy's answers as it is embedded, judged by the reward model of an arm."""
    done = output / f"before-{'blind-' * arm.blind}{arm.prm}-{seed}.json"
    if not done.exists():
        done.write_text(json.dumps(answers(POLICY, folder, arm.judge(folder), seed)))
    found: dict[str, Any] = json.loads(done.read_text())
    return found


def accuracy(found: dict[str, Any]) -> float:
    return float(np.mean([np.mean(rows["right"]) for rows in found.values()]))


def table(folders: dict[int, Path], output: Path) -> dict[str, Any]:
    """Every arm that has run on all seeds."""
    rows: dict[str, Any] = {}
    outcome: list[dict[str, Any]] = []
    for name, arm in ARMS.items():
        files = [output / f"{name}-{seed}.json" for seed in folders]
        if not all(file.exists() for file in files):
            continue
        runs = [json.loads(file.read_text()) for file in files]
        old = [before(folder, arm, seed, output) for seed, folder in folders.items()]
        new = [run["after"] for run in runs]
        facts: dict[str, Any] = {"steps": runs[0]["steps"]}
        facts["seconds"] = float(np.mean([run["seconds"] for run in runs]))
        for when, found in (("before", old), ("after", new)):
            facts[when] = {
                "accuracy": estimate_average(stacked(found, "right")).as_json(),
                "score": estimate_average(stacked(found, "score")).mean,
                "benchmarks": {b: float(v.mean()) for b, v in stacked(found, "right").items()},
            }
        facts["gain"] = paired_difference(stacked(new, "right"), stacked(old, "right")).as_json()
        if arm.outcome:
            outcome = new
        elif outcome:
            rival = paired_difference(stacked(new, "right"), stacked(outcome, "right"))
            facts["minus_outcome"] = rival.as_json()
        facts["curves"] = {
            curve: np.mean([[e[curve] for e in run["history"]] for run in runs], axis=0).tolist()
            for curve in CURVES
        }
        facts["steps_written"] = float(
            np.mean([e["steps"] for run in runs for e in run["history"][-10:]])
        )
        facts["peak"] = float(smooth(facts["curves"]["correct"]).max())
        rows[name] = facts
    settings = {"questions": QUESTIONS, "completions": COMPLETIONS, "learning_rate": RATE}
    return {"seeds": list(folders), "settings": settings, "arms": rows}


def smooth(values: Sequence[float]) -> NDArray[np.float64]:
    """Means of ten steps that follow each other."""
    window = min(10, len(values))
    return np.convolve(values, np.ones(window) / window, "valid")


def stacked(seeds: list[dict[str, Any]], what: str) -> dict[str, Any]:
    """Benchmark -> (seeds, questions)."""
    return {b: np.array([seed[b][what] for seed in seeds]) for b in seeds[0]}


def to_markdown(result: dict[str, Any]) -> str:
    seeds = " ".join(map(str, result["seeds"]))
    steps = next(iter(result["arms"].values()))["steps"]
    lines = [
        "# Rewards for reinforcement learning",
        "",
        f"The embedded policy after {steps} steps of TRL's GRPO ({QUESTIONS} questions with "
        f"{COMPLETIONS} completions each), seeds {seeds}: accuracy of one sample, mean of five "
        "benchmarks, with 95% intervals over questions and seeds, and what the reward model of the "
        "run says of the same samples. Best while training: right answers among the completions of "
        "ten steps; steps written: by the last completions. Made by "
        f"`python -m experiments.rl table --seeds {seeds}`.",
        "",
        "| reward | accuracy before | after | gain | judge before | judge after | minus outcome "
        "| best while training | steps written |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for arm, facts in result["arms"].items():
        old, new = facts["before"], facts["after"]
        rival = _difference(facts["minus_outcome"]) if "minus_outcome" in facts else ""
        lines.append(
            f"| {arm} | {100 * old['accuracy']['mean']:.1f} | {_share(new['accuracy'])} | "
            f"{_difference(facts['gain'])} | {100 * old['score']:.1f} | {100 * new['score']:.1f} | "
            f"{rival} | {100 * facts['peak']:.1f} | {facts['steps_written']:.1f} |"
        )
    names = list(next(iter(result["arms"].values()))["after"]["benchmarks"])
    lines += ["", f"| accuracy after | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for arm, facts in result["arms"].items():
        values = [f"{100 * facts['after']['benchmarks'][b]:.1f}" for b in names]
        lines.append(f"| {arm} | {' | '.join(values)} |")
    lines += [
        "",
        "While it trains (mean of the seeds and of ten steps): the judge's score and the share of "
        "right answers. Where the first rises above the second, the policy pleases its judge.",
        "",
        "![Score and accuracy over the steps](rl.svg)",
    ]
    return "\n".join(lines) + "\n"


def _share(estimate: dict[str, Any]) -> str:
    low, high = estimate["ci95"]
    return f"{100 * estimate['mean']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _difference(d: dict[str, Any]) -> str:
    low, high = d["ci95"]
    return f"{100 * d['mean']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def to_svg(result: dict[str, Any]) -> str:
    """A panel per arm: the judge's score and the share of right answers over the steps."""
    width, height, gap = 200, 140, 30
    arms = result["arms"]
    parts = []
    for i, (arm, facts) in enumerate(arms.items()):
        left = gap + i * (width + gap)
        parts.append(f'<text x="{left}" y="18" font-weight="bold">{arm}</text>')
        for share in (0, 0.5, 1):
            y = 30 + height * (1 - share)
            parts.append(f'<path d="M{left} {y} h{width}" stroke="#ddd"/>')
            parts.append(f'<text x="{left - 4}" y="{y + 4}" text-anchor="end">{share:g}</text>')
        for curve, colour in CURVES.items():
            values = smooth(facts["curves"][curve])
            xs = np.linspace(left, left + width, len(values))
            points = " ".join(
                f"{x:.1f},{30 + height * (1 - v):.1f}" for x, v in zip(xs, values, strict=True)
            )
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
    bottom = 30 + height + 24
    for i, (curve, colour) in enumerate(CURVES.items()):
        parts.append(f'<text x="{gap + 90 * i}" y="{bottom}" fill="{colour}">{curve}</text>')
    size = f'width="{gap + len(arms) * (width + gap)}" height="{bottom + 10}"'
    style = 'font-family="sans-serif" font-size="11" style="background: white"'
    body = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n{body}\n</svg>\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("stage", choices=["train", "table"])
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS)[:4])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--data", type=Path, default=Path("build/testbed"))
    parser.add_argument("--output-dir", type=Path, default=Path("build/rl"))
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    parser.add_argument("--processes", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    folders = {seed: args.data / f"{FOLDERS['standard']}-{seed}" for seed in args.seeds}
    if args.stage == "train":
        with ProcessPoolExecutor(args.processes, mp_context=get_context("spawn")) as pool:
            runs = [
                pool.submit(train, folder, name, seed, args.output_dir, args.steps)
                for name in args.arms
                for seed, folder in folders.items()
            ]
            for run in runs:
                print(run.result(), flush=True)
        return
    result = table(folders, args.output_dir)
    (args.results / "rl.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.results / "rl.md").write_text(to_markdown(result))
    (args.results / "rl.svg").write_text(to_svg(result))
    print(to_markdown(result))


if __name__ == "__main__":
    main()
