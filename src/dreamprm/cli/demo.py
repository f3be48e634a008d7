r"""The whole of DreamPRM on the embedded model: one command, some minutes, one page to look at.

Makes the questions of the embedded world, then runs the other verbs one after another on files in
the output folder, as you would on your own: sample, label, train (four ways), score, evaluate.
Writes report.html, summary.json and everything in between; the same command again goes on where a
killed run stopped.

  dreamprm demo --output_dir demo
"""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dreamprm.cli import label, sample, score, train
from dreamprm.data.files import atomic_write
from dreamprm.errors import DreamPRMError
from dreamprm.training.config import TrainConfig

METHODS = ("orm", "prm_uniform", "prm_oracle", "dreamprm")
SAMPLING: dict[str, Any] = {"prompt": "bare", "max_new_tokens": 48, "per_device_batch_size": 512}


SHIPPED: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "demo.yaml").read_text())


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of demo; the defaults are those of `demo.yaml` beside this file.

    Attributes:
        output_dir: folder that gets the results.
        seed: of the world, of sampling and of training.
        questions_per_domain: training questions of each of the fifteen domains.
        meta_questions: questions of the meta set.
        questions_per_benchmark: test questions of each of the five benchmarks.
        train_candidates: reasonings per training question.
        meta_candidates: reasonings per meta question.
        candidates: reasonings per test question (the largest N).
        strong_candidates: the same for the stronger policy.
        completions: completions per step prefix (K of the Monte Carlo labels).
        bilevel: settings of both levels.
    """

    output_dir: Path = Path("demo")
    seed: int = SHIPPED["seed"]
    questions_per_domain: int = SHIPPED["questions_per_domain"]
    meta_questions: int = SHIPPED["meta_questions"]
    questions_per_benchmark: int = SHIPPED["questions_per_benchmark"]
    train_candidates: int = SHIPPED["train_candidates"]
    meta_candidates: int = SHIPPED["meta_candidates"]
    candidates: int = SHIPPED["candidates"]
    strong_candidates: int = SHIPPED["strong_candidates"]
    completions: int = SHIPPED["completions"]
    bilevel: TrainConfig = field(default_factory=lambda: TrainConfig(**SHIPPED["bilevel"]))


def run(config: Config) -> None:
    """Run every stage; each skips what is on disk already."""
    from dreamprm.tiny.demo_report import write_demo_report
    from dreamprm.tiny.world import DOMAINS, WorldSize, build_world, write_world

    out = config.output_dir
    _refuse_other_settings(config)
    size = (config.questions_per_domain, config.meta_questions, config.questions_per_benchmark)
    world = build_world(config.seed, WorldSize(*size))
    clock = Clock(out / "wall_seconds.json", complete=(out / "summary.json").exists())
    clock.stage("making the questions and pictures")
    write_world(world, out)

    def draw(stage: str, name: str, count: int, kind: str, policy: str) -> None:
        clock.stage(stage)
        sample.run(
            sample.Config(
                questions=out / f"{name}.jsonl",
                output=out / f"{name}.{kind}.jsonl",
                num_candidates=count,
                model_name_or_path=policy,
                seed=config.seed,
                **SAMPLING,
            )
        )

    weak, strong = ("candidates", "tiny/policy"), ("strong", "tiny/policy-strong")
    about = "sampling reasonings about the"
    draw(f"{about} training questions", "train", config.train_candidates, *weak)
    draw(f"{about} meta set", "meta", config.meta_candidates, *weak)
    draw(f"{about} benchmarks", "test", config.candidates, *weak)
    draw("the same with the stronger policy", "test", config.strong_candidates, *strong)

    clock.stage("estimating Monte Carlo labels")
    label.run(
        label.Config(
            questions=out / "train.jsonl",
            trajectories=out / "train.candidates.jsonl",
            output=out / "train.labelled.jsonl",
            num_completions=config.completions,
            domain_completions=world.completions,
            model_name_or_path="tiny/policy",
            seed=config.seed,
            **SAMPLING,
        )
    )
    uniform = {domain.name: 1.0 for domain in DOMAINS}
    planted = {domain.name: domain.planted for domain in DOMAINS}
    fixed = {"orm": uniform, "prm_uniform": uniform, "prm_oracle": planted}
    for method in METHODS:
        clock.stage(f"training: {method}")
        _train(config, method, fixed.get(method))
        for kind in ("candidates", "strong"):
            score.run(
                score.Config(
                    model_name_or_path=str(out / "models" / method),
                    questions=out / "test.jsonl",
                    trajectories=out / f"test.{kind}.jsonl",
                    output=out / "scores" / f"{kind}.{method}.jsonl",
                    per_device_batch_size=128,
                )
            )
    clock.stage("evaluating, and writing the report")
    write_demo_report(out, METHODS, config.seed, clock.total(), dataclasses.asdict(config))
    print(f"\n{out / 'report.html'}: open it in a browser; figures in {out / 'summary.json'}")


def _refuse_other_settings(config: Config) -> None:
    """What is on disk is not made again, so it must have been made with these settings."""
    path = config.output_dir / "settings.json"
    settings = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    del settings["output_dir"]
    if path.exists():
        before = json.loads(path.read_text())
        for name, value in settings.items():
            if before.get(name) != value:
                raise DreamPRMError(
                    f"{config.output_dir} was begun with {name} {before.get(name)}, now it is "
                    f"{value}; set it back, or give another output_dir"
                )
    with atomic_write(path) as file:
        file.write(json.dumps(settings, indent=2).encode())


class Clock:
    """Announces stages and adds up their seconds, also over runs that were killed and resumed.

    Once a run is complete its time stands: a rerun, which makes nothing again, does not add to it.
    """

    def __init__(self, path: Path, complete: bool) -> None:
        self.path, self.complete = path, complete
        self.before = float(json.loads(path.read_text())) if path.exists() else 0.0
        self.started = time.monotonic()

    def stage(self, text: str) -> None:
        print(f"\n== {text}", flush=True)
        with atomic_write(self.path) as file:
            file.write(json.dumps(self.total()).encode())

    def total(self) -> float:
        """Wall seconds until now."""
        return self.before + (0.0 if self.complete else time.monotonic() - self.started)


def _train(config: Config, method: str, weights: dict[str, float] | None) -> None:
    out = config.output_dir
    target = out / "models" / method
    if (target / "weights.json").exists():
        return
    weights_file = None
    if weights is not None:
        weights_file = out / "models" / f"{method}.fixed_weights.json"
        with atomic_write(weights_file) as file:
            file.write(json.dumps(weights).encode())
    train.run(
        train.Config(
            output_dir=target,
            train_questions=out / "train.jsonl",
            train_trajectories=out / "train.labelled.jsonl",
            meta_questions=out / "meta.jsonl",
            meta_trajectories=out / "meta.candidates.jsonl",
            model_name_or_path="tiny",
            objective="orm" if method == "orm" else "prm",
            weights_file=weights_file,
            **dataclasses.asdict(dataclasses.replace(config.bilevel, seed=config.seed)),
        )
    )
