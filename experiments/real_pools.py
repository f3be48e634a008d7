"""Best-of-N, voting and early stop on real candidates with the scores of real reward models.

    python -m experiments.real_pools DATA

DATA is a folder with candidates and step scores of StrictPRMBench (CC-BY-4.0): 500 questions of
GSM8K and of MATH-500, 32 candidates each, five reward models on the first set and one on the
second. Verdicts are those of the files. Answers vote together where the files' own rule holds them
for the same number. Writes `docs/results/real_pools.md`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dreamprm.evaluation.evaluate import (
    Evaluation,
    best_of_n_expectation,
    evaluate,
    vote_expectation,
)
from dreamprm.evaluation.statistics import Difference, Estimate, Values, estimate, paired_difference
from dreamprm.records import Question, StepScores, Trajectory
from dreamprm.search.aggregation import AGGREGATIONS, step_scores
from dreamprm.search.choosing import choose
from dreamprm.search.search import WAVE, agreement

OFFICIAL = {
    "qwen_prm": "product",
    "skywork_prm": "mean",
    "skywork_prm_1_5b": "mean",
    "math_shepherd": "min",
    "internlm2_1_8b_reward": "last",
}
"""Reward model -> the aggregation that its authors use."""
SCORED = {"gsm8k": tuple(OFFICIAL), "math500": ("qwen_prm",)}
NS = (1, 2, 4, 8, 16, 32)
RULES = tuple(AGGREGATIONS)
EARLY = ("self_consistency", "weighted_vote", "best_of_n")
ORDERS = 16  # random orders of the candidates, over which an early stop is averaged


@dataclass(frozen=True)
class Pool:
    """Questions of one benchmark, their candidates, and reward model -> step scores."""

    questions: list[Question]
    candidates: list[Trajectory]
    scores: dict[str, list[StepScores]]


def read_pool(data: Path, benchmark: str) -> Pool:
    """The files of one benchmark as our records."""
    questions, candidates = [], []
    for row in _rows(data / f"{benchmark}.jsonl.gz"):
        given = {"id": row["id"], "domain": benchmark, "answer": row["answer"]}
        questions.append(Question(text=row["question"], **given))
        candidates += [
            Trajectory(
                question_id=row["id"],
                sample_index=i,
                steps=candidate["steps"],
                answer=vote_of(candidate["extracted"]),
                outcome=candidate["correct"],
                extra={"extracted": candidate["extracted"]},
            )
            for i, candidate in enumerate(row["candidates"])
        ]
    scores = {}
    for model in SCORED[benchmark]:
        rows = _rows(data / "scores" / f"{model}_{benchmark}.jsonl.gz")
        scores[model] = [
            StepScores.parse(
                {
                    "question_id": row["id"],
                    "sample_index": row["candidate"],
                    "step_scores": row["step_scores"],
                }
            )
            for row in rows
        ]
    return Pool(questions, candidates, scores)


def _rows(path: Path) -> Iterator[Any]:
    with gzip.open(path, "rt") as file:
        yield from map(json.loads, file)


def vote_of(answer: str) -> str:
    """The number that the files' rule takes an answer for: a fraction, or the last in the text."""
    text = re.sub(r"\\text\{([^}]*)\}", r"\1", answer.strip()).replace("$", "")
    text = re.sub(r",(?=\d{3}(\D|$))", "", text).strip()
    fraction = re.fullmatch(r"\\frac\{\s*([-+]?\d+)\s*\}\{\s*([-+]?\d+)\s*\}", text)
    fraction = fraction or re.fullmatch(r"([-+]?\d+)\s*/\s*([-+]?\d+)", text)
    if fraction and int(fraction[2]):
        return f"{int(fraction[1]) / int(fraction[2]):.12g}"
    numbers = re.findall(r"[-+]?\d*\.?\d+(?:e[-+]?\d+)?", text, re.IGNORECASE)
    try:
        return f"{float(text):.12g}"
    except ValueError:
        return f"{float(numbers[-1]):.12g}" if numbers else text


# ---- figures


def with_every_rule(pool: Pool) -> Evaluation:
    """Method `MODEL RULE` for every reward model and aggregation, over N."""
    names = {f"{model} {rule}": (model, rule) for model in pool.scores for rule in RULES}
    return evaluate(
        pool.questions,
        pool.candidates,
        {name: pool.scores[model] for name, (model, _) in names.items()},
        aggregations={name: rule for name, (_, rule) in names.items()},
        n=max(NS),
        ns=NS,
    )


def by_question(evaluation: Evaluation) -> dict[str, list[Trajectory]]:
    groups: dict[str, list[Trajectory]] = {}
    for t in evaluation.trajectories:
        groups.setdefault(t.question_id, []).append(t)
    return groups


def weighted_votes(evaluation: Evaluation, method: str) -> dict[int, Values]:
    """N -> (1, questions): accuracy of voting with the step scores that a method aggregates."""
    curve: dict[int, list[float]] = {n: [] for n in NS}
    for question, group in by_question(evaluation).items():
        logits = [evaluation.aggregated[method][question, t.sample_index] for t in group]
        rng = np.random.default_rng(zlib.crc32(question.encode()))
        for n in NS:
            curve[n].append(vote_expectation(group, n, rng, weights=step_scores(logits)))
    return {n: np.array([values]) for n, values in curve.items()}


def early_stop(evaluation: Evaluation, scored: str, threshold: float) -> dict[str, Values]:
    """(1, questions) each: candidates that are seen, and accuracies of choosing among these.

    As `dreamprm select --early_stop`: candidates come in waves, until one answer leads clearly.
    """
    rng = np.random.default_rng(0)
    table: dict[str, list[float]] = {name: [] for name in ("candidates", *EARLY)}
    for question, group in by_question(evaluation).items():
        seen, right = [], {method: [] for method in EARLY}
        for _ in range(ORDERS):
            order = [group[i] for i in rng.permutation(len(group))]
            k = next(
                (
                    k
                    for k in range(WAVE, len(order), WAVE)
                    if agreement([t.answer for t in order[:k]]) >= threshold
                ),
                len(order),
            )
            logits = [evaluation.aggregated[scored][question, t.sample_index] for t in order[:k]]
            seen.append(k)
            for method in EARLY:
                best = choose(method, order[:k], logits)
                right[method].append(np.mean([bool(t.outcome) for t in best]))
        table["candidates"].append(float(np.mean(seen)))
        for method in EARLY:
            table[method].append(float(np.mean(right[method])))
    return {name: np.array([values]) for name, values in table.items()}


def best_of_fixed(evaluation: Evaluation, method: str, n: int) -> Values:
    """(1, questions): accuracy of best-of-N for one N."""
    values = []
    for question, group in by_question(evaluation).items():
        scores = [evaluation.aggregated[method][question, t.sample_index] for t in group]
        values.append(best_of_n_expectation(scores, [bool(t.outcome) for t in group], n))
    return np.array([values])


# ---- tables


def report(benchmark: str, pool: Pool) -> str:
    """All figures of one benchmark."""
    evaluation = with_every_rule(pool)
    curves: dict[str, dict[int, Values]] = {
        method: {n: curve[n][benchmark] for n in NS}
        for method, curve in evaluation.curve_values.items()
    }
    votes = {
        f"{model} vote by {rule}": weighted_votes(evaluation, f"{model} {rule}")
        for model in pool.scores
        for rule in dict.fromkeys((OFFICIAL[model], "geometric_mean"))
    }
    official = [f"{model} {OFFICIAL[model]}" for model in pool.scores]
    shown = ["first_sample", "self_consistency", *official, *votes, "any_right"]
    every = curves | votes
    parts = [f"## {benchmark}", "Accuracy over N [95% interval at 32], best-of-N unless told:"]
    parts.append(_table(["method", *map(str, NS)], [_curve_row(m, every[m]) for m in shown]))
    parts.append("Best of 32 by every rule, the authors' own in bold:")
    rows = []
    for model in pool.scores:
        cells = [f"{100 * every[f'{model} {rule}'][32].mean():.1f}" for rule in RULES]
        own = RULES.index(OFFICIAL[model])
        rows.append([model, *(f"**{c}**" if i == own else c for i, c in enumerate(cells))])
    parts.append(_table(["reward model", *RULES], rows))
    parts.append("Differences on the same questions, in points [95% interval]:")
    pairs = [
        *((f"{m}, 32 - 8", every[m][32], every[m][8]) for m in [*official, "self_consistency"]),
        *((f"{m} - voting, 32", every[m][32], curves["self_consistency"][32]) for m in official),
        *((f"{m} - voting, 32", v[32], curves["self_consistency"][32]) for m, v in votes.items()),
        *((f"{m} - voting, 8", v[8], curves["self_consistency"][8]) for m, v in votes.items()),
    ]
    parts.append(
        _table(
            ["what", "difference", "p"],
            [[w, *_difference(paired_difference({"": a}, {"": b}))] for w, a, b in pairs],
        )
    )
    ties = [
        [m, f"{t.choices}", f"{t.mixed}", f"{100 * t.worst:.1f} to {100 * t.best:.1f}"]
        for m, t in evaluation.ties.items()
        if m in shown
    ]
    parts.append("Ties at N = 32:")
    parts.append(_table(["method", "questions", "between right and wrong", "accuracy"], ties))
    parts.append(f"Early stop among 32, scored by {official[0]}:")
    rows = []
    for threshold in (0.9, 0.95, 0.99):
        stop = early_stop(evaluation, official[0], threshold)
        n = round(float(stop["candidates"].mean()))
        cells = [_percent(estimate(stop[method])) for method in EARLY]
        fixed = _percent(estimate(best_of_fixed(evaluation, official[0], n)))
        rows.append([f"{threshold}", f"{stop['candidates'].mean():.1f}", *cells, f"{fixed} ({n})"])
    parts.append(_table(["threshold", "candidates", *EARLY, "best_of_n, fixed N"], rows))
    return "\n\n".join(parts)


def _curve_row(name: str, curve: dict[int, Values]) -> list[str]:
    cells = [f"{100 * values.mean():.1f}" for values in curve.values()]
    return [name, *cells[:-1], _percent(estimate(curve[32]))]


def _percent(e: Estimate) -> str:
    return f"{100 * e.mean:.1f} [{100 * e.lo:.1f}, {100 * e.hi:.1f}]"


def _difference(d: Difference) -> list[str]:
    return [f"{100 * d.mean:+.1f} [{100 * d.lo:+.1f}, {100 * d.hi:+.1f}]", f"{d.p:.2g}"]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, default=Path("docs/results/real_pools.md"))
    args = parser.parse_args()
    parts = ["# Real candidates, real reward models", "Made by `python -m experiments.real_pools`."]
    parts += [report(benchmark, read_pool(args.data, benchmark)) for benchmark in SCORED]
    args.output.write_text("\n\n".join(parts) + "\n")
    print("\n\n".join(parts))


if __name__ == "__main__":
    main()
