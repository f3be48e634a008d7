"""The tables of `experiments.real_text`, from the runs that are on disk, and a page of each part.

    python -m experiments.real_text_table DATA

Writes `docs/results/real_text.json` and `real_text.md`, and in the output folder what `dreamprm
report` reads with its page, `judge.html` and `trust.html`. Intervals are 95%, by question and by
seed where there are several.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import spearmanr

from dreamprm.cli import main as dreamprm
from dreamprm.data import read_scores, write_questions, write_scores, write_trajectories
from dreamprm.evaluation.evaluate import Evaluation, combine_seeds, evaluate
from dreamprm.evaluation.statistics import Estimate, estimate_average, paired_difference
from dreamprm.records import Question, StepScores, Trajectory, logits_of
from experiments.real_pools import OFFICIAL, Pool
from experiments.real_text import (
    LABELLERS,
    METHODS,
    PARTS,
    PLANTED,
    TEACHER,
    Cut,
    labelled_by,
    read_cut,
    scores_by_candidate,
)

NS = (1, 8, 32)
DRAWS = 2000  # of the questions behind the rank correlation
Runs = dict[str, dict[int, Evaluation]]  # method -> seed -> its evaluation


def evaluations(folder: Path, cuts: Mapping[str, Cut], part: str) -> Runs:
    """Every run of a part that is on disk, each beside the methods that need no training."""
    questions, candidates = test_set(cuts)
    teacher = [s for cut in cuts.values() for s in of_questions(cut.pool.scores[TEACHER], cut)]
    runs: Runs = {}
    for path in sorted((folder / part).glob("*.scores.jsonl")):
        method, seed = path.name.removesuffix(".scores.jsonl").rsplit("-", 1)
        if path.with_name(f"{method}-{seed}.json").exists():
            scores = on_all(read_scores(path), candidates)
            runs.setdefault(method, {})[int(seed)] = evaluate(
                questions,
                candidates,
                {"prm": scores, TEACHER: teacher},
                aggregations={TEACHER: OFFICIAL[TEACHER]},
                n=max(NS),
                ns=NS,
            )
    return runs


def test_set(cuts: Mapping[str, Cut]) -> tuple[list[Question], list[Trajectory]]:
    """All test questions and candidates."""
    groups = [group for cut in cuts.values() for group in cut.test]
    return [group[0][0] for group in groups], [t for group in groups for _, t in group]


def of_questions(scores: Sequence[StepScores], cut: Cut) -> list[StepScores]:
    """Those of the test questions."""
    ids = {group[0][0].id for group in cut.test}
    return [s for s in scores if s.question_id in ids]


def on_all(scores: Sequence[StepScores], candidates: Sequence[Trajectory]) -> list[StepScores]:
    """Scores with zeros for what was not scored: all right or all wrong, whatever is chosen."""
    known = {(s.question_id, s.sample_index) for s in scores}
    rest = [t for t in candidates if (t.question_id, t.sample_index) not in known]
    return [*scores, *(StepScores.of(t, (0.0,) * len(t.steps)) for t in rest)]


def own_accuracy(pool: Pool) -> Evaluation:
    """Best of 32 by each labeller itself, on all questions."""
    scores = dict(pool.scores)
    known = scores_by_candidate(pool)
    for name in ("outcome", *PLANTED):
        scores[name] = [
            StepScores.of(t, logits_of([label.value for label in t.labels or () if label]))
            for t in labelled_by(name, pool.candidates, known, seed=0)
        ]
    rules = OFFICIAL | dict.fromkeys(("outcome", *PLANTED), "mean_logit")
    return evaluate(
        pool.questions,
        pool.candidates,
        {name: scores[name] for name in LABELLERS},
        aggregations=rules,
        n=max(NS),
        ns=NS,
    )


def ranks(own: Evaluation, weights: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Rank correlation of weights and the labellers' own accuracies."""
    [benchmark] = own.question_ids
    values = np.stack([own.values[name][benchmark][0] for name in LABELLERS])  # (9, questions)
    mean = np.mean([[w[name] for name in LABELLERS] for w in weights], axis=0)  # (9,)
    rng = np.random.default_rng(0)
    drawn = [
        _spearman(values[:, rng.integers(values.shape[1], size=values.shape[1])].mean(1), mean)
        for _ in range(DRAWS)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    whole = values.mean(axis=1)
    return {
        "of_mean_weights": _spearman(whole, mean),
        "ci95_over_questions": [float(low), float(high)],
        "per_seed": [_spearman(whole, [w[name] for name in LABELLERS]) for w in weights],
    }


def _spearman(accuracies: ArrayLike, weights: ArrayLike) -> float:
    """Rank correlation; 0 where no weight has left 1."""
    return float(spearmanr(accuracies, weights).statistic) if np.ptp(weights) else 0.0


def collect(folder: Path, cuts: Mapping[str, Cut], part: str) -> dict[str, Any]:
    """All figures of one part."""
    runs = evaluations(folder, cuts, part)
    if not runs:
        return {}
    every = {m: combined(runs[m], sorted(runs[m])) for m in runs}
    first = next(iter(every.values()))
    facts = {
        m: [json.loads((folder / part / f"{m}-{s}.json").read_text()) for s in sorted(runs[m])]
        for m in runs
    }
    untrained = ("first_sample", "self_consistency", TEACHER, "any_right")
    curves = {m: first.curve_values[m] for m in untrained}
    curves = {m: {n: _first_seed(c[n]) for n in NS} for m, c in curves.items()}
    curves |= {f"PRM: {m}": e.curve_values["prm"] for m, e in every.items()}
    result: dict[str, Any] = {
        "seeds": {m: sorted(runs[m]) for m in runs},
        "config": next(iter(facts.values()))[0]["config"],
        "layers": next(iter(facts.values()))[0]["layers"],
        "test_questions": {b: len(c.test) for b, c in cuts.items()},
        "with_a_choice": {b: len(c.scored) // max(NS) for b, c in cuts.items()},
        "minutes": {m: [f["minutes"] for f in rows] for m, rows in facts.items()},
        "accuracy": {
            m: {str(n): _each(values, estimate_average) for n, values in curve.items()}
            for m, curve in curves.items()
        },
        "differences": {
            f"PRM: {m} - {other}": _minus(e, e, other)
            for m, e in every.items()
            for other in untrained[:3]
        },
    }
    if "dreamprm" in runs:
        for m in [m for m in runs if m != "dreamprm"]:
            both = sorted(set(runs[m]) & set(runs["dreamprm"]))
            if both:
                ours, other = (combined(runs[name], both) for name in ("dreamprm", m))
                result["differences"][f"PRM: dreamprm - PRM: {m}"] = _minus(ours, other, "prm")
        own = own_accuracy(cuts["gsm8k"].pool)
        weights = [f["weights"] for f in facts["dreamprm"]]
        plain = [{name: row["weight"] for name, row in w.items()} for w in weights]
        result["labellers"] = {
            name: {
                "own_best_of_32": own.average[name].as_json(),
                "weights": [w[name] for w in weights],
            }
            for name in LABELLERS
        }
        result["spearman"] = ranks(own, plain)
    return result


def combined(by_seed: Mapping[int, Evaluation], seeds: Sequence[int]) -> Evaluation:
    return combine_seeds([by_seed[s] for s in seeds]) if len(seeds) > 1 else by_seed[seeds[0]]


def _minus(a: Evaluation, b: Evaluation, method: str) -> dict[str, Any]:
    """The PRM of one evaluation minus a method of the other, over N."""
    curve, other = a.curve_values["prm"], b.curve_values[method]
    return {str(n): paired_difference(curve[n], other[n]).as_json() for n in NS[1:]}


def _first_seed(values: Mapping[str, Any]) -> dict[str, Any]:
    return {b: v[:1] for b, v in values.items()}


def _each(values: Mapping[str, Any], how: Callable[[Any], Estimate]) -> dict[str, Any]:
    """Of each benchmark and, where there are several, of their average."""
    each = {b: how({b: v}).as_json() for b, v in values.items()}
    return each | ({"average": how(values).as_json()} if len(each) > 1 else {})


def to_markdown(result: Mapping[str, Any]) -> str:
    """The tables for readers."""
    titles = {"judge": "Can it judge?", "trust": "Whom to trust?"}
    lines = ["# A small real model judges real reasonings", "", "Made by `experiments.real_text`."]
    for part, found in result.items():
        asked = ", ".join(
            f"{b} {n} ({found['with_a_choice'][b]} with right and wrong candidates)"
            for b, n in found["test_questions"].items()
        )
        kept, trained = found["layers"]
        lines += [
            "",
            f"## {titles[part]}",
            "",
            f"Test questions: {asked}. SmolLM2-135M-Instruct's first {kept} layers, the last "
            f"{trained} of them trained, {found['config']['max_steps']} steps. Expected accuracy "
            "with N of 32 candidates [95% interval].",
            "",
            "| method | seeds | benchmark | " + " | ".join(f"N = {n}" for n in NS) + " |",
            "|---" * (3 + len(NS)) + "|",
        ]
        for m, curve in found["accuracy"].items():
            seeds = found["seeds"].get(m.removeprefix("PRM: "), [])
            for b in curve["1"]:
                cells = " | ".join(_percent(curve[str(n)][b]) for n in NS)
                lines.append(f"| {m} | {', '.join(map(str, seeds))} | {b} | {cells} |")
        lines += ["", "| difference | N = 8 | N = 32 | p |", "|---|---|---|---|"]
        for name, d in found["differences"].items():
            lines.append(
                f"| {name} | {_points(d['8'])} | {_points(d['32'])} | {d['32']['p']:.2g} |"
            )
        if "labellers" in found:
            rank = found["spearman"]
            low, high = rank["ci95_over_questions"]
            per_seed = " / ".join(f"{r:.2f}" for r in rank["per_seed"])
            lines += [
                "",
                "Rank correlation of mean weight and the labellers' own best of 32 (all): "
                f"{rank['of_mean_weights']:.2f} [{low:.2f}, {high:.2f}]; "
                f"per seed {per_seed}.",
                "",
                "| labeller | own best of 32 | weight [95% interval] per seed |",
                "|---|---|---|",
            ]
            for name, row in found["labellers"].items():
                weights = "; ".join(
                    f"{w['weight']:.2f} [{w['low']:.2f}, {w['high']:.2f}] {w['verdict']}"
                    for w in row["weights"]
                )
                lines.append(f"| {name} | {_percent(row['own_best_of_32'])} | {weights} |")
    return "\n".join(lines) + "\n"


def _percent(e: Mapping[str, Any]) -> str:
    return f"{100 * e['mean']:.1f} [{100 * e['ci95'][0]:.1f}, {100 * e['ci95'][1]:.1f}]"


def _points(d: Mapping[str, Any]) -> str:
    return f"{100 * d['mean']:+.1f} [{100 * d['ci95'][0]:+.1f}, {100 * d['ci95'][1]:+.1f}]"


def write_page(folder: Path, cuts: Mapping[str, Cut], part: str) -> None:
    """The page of the first seed by `dreamprm report`, and the files that it reads."""
    questions, candidates = test_set(cuts)
    write_questions(folder / part / "questions.jsonl", questions)
    write_trajectories(folder / part / "candidates.jsonl", candidates)
    teacher = [s for cut in cuts.values() for s in of_questions(cut.pool.scores[TEACHER], cut)]
    scores = {TEACHER: teacher}
    for method in ("qwen", *METHODS):
        path = folder / part / f"{method}-1.scores.jsonl"
        if path.exists():
            scores[f"prm_{method}"] = on_all(read_scores(path), candidates)
    words = []
    for name, rows in scores.items():
        write_scores(folder / part / f"page.{name}.jsonl", rows)
        words += [f"--scores.{name}", str(folder / part / f"page.{name}.jsonl")]
    learned = folder / part / "dreamprm-1"
    if (learned / "weights.json").exists():
        words += ["--training_dir", str(learned)]
    dreamprm(
        [
            "report",
            *("--questions", f"[{folder / part / 'questions.jsonl'}]"),
            *("--trajectories", f"[{folder / part / 'candidates.jsonl'}]"),
            *("--output", str(folder / f"{part}.html"), "--n", "32"),
            *(f"--aggregations.{TEACHER}", OFFICIAL[TEACHER]),
            *("--title", "SmolLM2-135M judges real reasonings"),
            *words,
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--output-dir", type=Path, default=Path("build/real_text"))
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    parser.add_argument("--questions", type=int, help="as for `train`")
    args = parser.parse_args()
    result = {}
    for part, benchmarks in PARTS.items():
        cuts = {b: read_cut(args.data, b, args.questions) for b in benchmarks}
        if found := collect(args.output_dir, cuts, part):
            result[part] = found
            write_page(args.output_dir, cuts, part)
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / "real_text.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.results / "real_text.md").write_text(to_markdown(result))
    print(to_markdown(result))


if __name__ == "__main__":
    main()
