"""What the demo found: its summary and its page."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers
from scipy.stats import spearmanr  # type: ignore[import-untyped]

from dreamprm import __version__
from dreamprm.data import read_questions, read_scores, read_trajectories
from dreamprm.errors import DataError
from dreamprm.evaluation.evaluate import Evaluation, evaluate
from dreamprm.report.build import (
    accuracy_table,
    calibrations,
    examples,
    fates,
    meta_facts,
    training_history,
)
from dreamprm.report.page import Domain, ReportData, write_report
from dreamprm.tiny.world import DOMAINS

NOTICE = (
    "The models are toys of a million parameters in a world of coloured shapes. Everything on this "
    "page really happened on this machine and shows that the method works; no figure on it says "
    "anything about a real model."
)
SUMMARY_METHODS = (
    "first_sample",
    "self_consistency",
    "orm",
    "prm_uniform",
    "prm_oracle",
    "dreamprm",
    "any_right",
)
# Of methods that are not trained for the mean of the step logits.
AGGREGATIONS = {"orm": "last", "meta_mse_sum": "sum_logit"}


def write_demo_report(
    folder: Path, methods: Sequence[str], seed: int, wall_s: float, settings: Mapping[str, Any]
) -> None:
    """Evaluate what the demo left in `folder`; write `summary.json` and `report.html` there."""
    default = evaluate_folder(folder, "candidates", methods)
    strong = evaluate_folder(folder, "strong", methods)
    learned, history = training_history(folder / "models" / "dreamprm")
    of_name = {domain.name: domain for domain in learned}
    domains = [
        replace(of_name[d.name], family=d.family, quality=d.quality, planted=d.planted)
        for d in DOMAINS
    ]
    rank = float(spearmanr([d.planted for d in domains], [d.weight for d in domains]).statistic)
    if math.isnan(rank):  # all weights equal: a run too short to learn any
        rank = 0.0
    summary = summary_json(default, domains, seed, round(wall_s, 1)) | {
        "strong_policy": {m: e.as_json() for m, e in strong.average.items()},
        "spearman_weight_planted": rank,
    }
    threads = torch.get_num_threads()
    ours, uniform = default.average["dreamprm"], default.average["prm_uniform"]
    questions = read_questions(folder / "test.jsonl")
    candidates = read_trajectories(folder / "test.candidates.jsonl")
    data = ReportData(
        title="DreamPRM on its embedded world",
        headline=(
            f"Best of {default.n}: {ours.mean:.1%} with learned domain weights, "
            f"{uniform.mean:.1%} with uniform ones, {default.average['first_sample'].mean:.1%} "
            f"for one sample. Learned weights follow planted quality with a rank correlation of "
            f"{rank:.2f}."
        ),
        notice=NOTICE,
        facts={
            "dreamprm": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
            "machine": f"{platform.machine()}, {threads} thread{'s' * (threads > 1)}",
            "seed": str(seed),
            "wall time": f"{wall_s / 60:.1f} minutes",
            "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        }
        | meta_facts(folder / "models" / "dreamprm"),
        settings={name: _shown(value) for name, value in settings.items()},
        tables=(
            accuracy_table(default, f"Accuracy, best of {default.n}"),
            accuracy_table(
                strong,
                f"A stronger policy, best of {strong.n}",
                note="The same reward models choose among samples of a policy that they never saw.",
            ),
        ),
        domains=tuple(domains),
        history=history,
        scaling=default.scaling,
        fates=fates(default),
        calibration=calibrations(default, candidates),
        examples=examples(
            default,
            questions,
            candidates,
            read_scores(scores_path(folder, "candidates", "dreamprm")),
        ),
    )
    write_report(data, folder / "report.html")
    text = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")


def summary_json(
    evaluation: Evaluation, domains: Sequence[Domain], seed: int, wall_s: float
) -> dict[str, Any]:
    """The figures of a run for other programs to read.

    {"version", "seed", "wall_s",
     "accuracy": {benchmark: {method: {"n", "mean", "ci95": [lo, hi]}}},
     "domains": [{"name", "family", "quality", "planted", "weight"}],
     "scaling": {method: {"1": .., "16": ..}},
     "report": "report.html",
     "average": {method: {"n", "mean", "ci95"}},
     "differences": {"dreamprm - b": {"n", "mean", "ci95", "p"}}}

    Raises:
        DataError: one of `SUMMARY_METHODS` was not evaluated.
    """
    if missing := [m for m in SUMMARY_METHODS if m not in evaluation.values]:
        raise DataError(f"summary: method '{missing[0]}' was not evaluated")
    methods = (*SUMMARY_METHODS, *(m for m in evaluation.values if m not in SUMMARY_METHODS))
    average, scaling = evaluation.average, evaluation.scaling
    return {
        "version": __version__,
        "seed": seed,
        "wall_s": wall_s,
        "accuracy": {
            benchmark: {m: by_method[m].as_json() for m in methods}
            for benchmark, by_method in evaluation.accuracy.items()
        },
        "domains": [asdict(domain) for domain in domains],
        "scaling": {
            m: {str(n): e.mean for n, e in scaling[m].items()} for m in methods if m in scaling
        },
        "report": "report.html",
        "average": {m: average[m].as_json() for m in methods},
        "differences": {
            f"dreamprm - {m}": evaluation.difference("dreamprm", m).as_json()
            for m in methods
            if m != "dreamprm"
        },
    }


def evaluate_folder(
    folder: Path, kind: str, methods: Sequence[str], limit: int | None = None
) -> Evaluation:
    """Evaluate the scored test candidates of one policy (`candidates` or `strong`).

    Args:
        limit: look at the first so many candidates of each question only.
    """

    def within(sample_index: int) -> bool:
        return limit is None or sample_index < limit

    return evaluate(
        read_questions(folder / "test.jsonl"),
        [t for t in read_trajectories(folder / f"test.{kind}.jsonl") if within(t.sample_index)],
        {
            m: [s for s in read_scores(scores_path(folder, kind, m)) if within(s.sample_index)]
            for m in methods
        },
        aggregations={m: AGGREGATIONS[m] for m in methods if m in AGGREGATIONS},
    )


def scores_path(folder: Path, kind: str, method: str) -> Path:
    return folder / "scores" / f"{kind}.{method}.jsonl"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return str(value)
