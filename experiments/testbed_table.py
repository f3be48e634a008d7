"""The tables of the testbed, from what `experiments/testbed.py` left on disk.

    python -m experiments.testbed_table --seeds 101 102 103 104 105

Writes `docs/results/testbed.json` and `docs/results/testbed.md`, or with `--variant hard`
`testbed_hard.json` and `testbed_hard.md`, and from both the table of `docs/CHOOSING.md`. All
intervals are 95% and cover the choice of questions and of seeds. With `--keep`, rows of methods
that are not on disk stay as the last table had them, for who adds a method without hours of
training the others again; it is refused unless the seeds and the rows without training come out as
they were.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from scipy.stats import spearmanr

from dreamprm import __version__
from dreamprm.data import Records, read_questions, read_trajectories
from dreamprm.evaluation.evaluate import Evaluation, combine_seeds
from dreamprm.records import domain_of
from dreamprm.tiny.demo_report import evaluate_folder
from dreamprm.tiny.world import VARIANTS, Domain
from dreamprm.training.data import prepare_data
from experiments.testbed import CHECKS, COMPARED, CONFIG, FOLDERS, METHODS

MAIN = [m for m in [*METHODS, *CHECKS] if not m.startswith("meta_")]
ABOUT = {
    "first_sample": "no choice",
    "self_consistency": "the most frequent answer",
    "prm_uniform": "all weights 1 (the ablation without the upper level)",
    "prm_oracle": "weights from the planted quality",
    "orm": "outcome reward model, uniform weights",
    "random_half": "uniform weights on a random half",
    "s1": "the half that s1's filter keeps",
    "car": "the half that CaR keeps",
    "bis": "the half with the highest BIS",
    "small_loss": "down-weighted by the loss under prm_uniform",
    "dreamprm": "learned domain weights",
    "instance_table": "a learned weight per trajectory",
    "instance_net": "weights by a learned network",
    "label_correction": "learned labels",
    "no_aggregation": "dreamprm, meta loss on single steps",
    "no_steps": "dreamprm, reasonings cut at random places",
    "no_steps_uniform": "prm_uniform, reasonings cut at random places",
    "without_doubling": "prm_uniform without domains of quality wrong_doubling",
    "without_comparison": "prm_uniform without those of wrong_comparison",
    "without_distance": "prm_uniform without those of wrong_distance",
    "without_demanding": "prm_oracle without those of demanding",
    "any_right": "is any candidate right (ceiling)",
}
START, END = "<!-- table: experiments.testbed_table -->", "<!-- end of the table -->"
COMPARISONS = [("prm_oracle", "prm_uniform"), ("prm_oracle", "without_demanding")] + [
    (m, "prm_uniform") for m, method in CHECKS.items() if method.weights == "uniform"
]
NEEDS = {  # what the methods of docs/CHOOSING.md need besides labelled training data
    "prm_uniform": "nothing",
    "bis": "nothing",
    "small_loss": "a second training",
    "dreamprm": "a meta set",
    "instance_table": "a meta set",
    "instance_net": "a meta set",
    "label_correction": "a meta set",
    "prm_oracle": "knowing what is planted",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--variant", default="standard", choices=["standard", "hard"])
    parser.add_argument("--output-dir", type=Path, default=Path("build/testbed"))
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    parser.add_argument("--keep", action="store_true", help="rows that are not on disk")
    args = parser.parse_args()
    folders = [args.output_dir / f"{FOLDERS[args.variant]}-{seed}" for seed in args.seeds]
    controls = [args.output_dir / f"{FOLDERS['control']}-{seed}" for seed in args.seeds]
    if args.variant != "standard":
        controls = []
    name = _name(args.variant)
    result = {
        "variant": args.variant,
        "seeds": args.seeds,
        "version": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "config": asdict(CONFIG),
    } | collect(folders, controls, VARIANTS[args.variant])
    if args.keep:
        result = merged(json.loads((args.results / f"{name}.json").read_text()), result)
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.results / f"{name}.md").write_text(to_markdown(result))
    print(to_markdown(result))
    update_choosing(args.results.parent / "CHOOSING.md", args.results)


def collect(
    folders: Sequence[Path], controls: Sequence[Path], domains: Sequence[Domain]
) -> dict[str, Any]:
    """All figures of the table as one JSON object."""
    whole = [m for m in MAIN if all(_done(f, m) for f in folders)]
    default = [evaluate_folder(f, "candidates", whole) for f in folders]
    strong = [evaluate_folder(f, "strong", whole) for f in folders]
    together, together_strong = combine_seeds(default), combine_seeds(strong)
    weights = [_weights(f, "dreamprm") for f in folders] if "dreamprm" in whole else []
    losses = [domain_losses(f) for f in folders] if "prm_uniform" in whole else []
    ready = [c for c in controls if _done(c, "dreamprm") and _done(c, "prm_uniform")]
    return {
        "n": together.n,
        "accuracy": {m: e.as_json() for m, e in together.average.items()},
        "per_benchmark": {
            b: {m: e.as_json() for m, e in by_method.items()}
            for b, by_method in together.accuracy.items()
        },
        "per_seed": {m: [float(e.average[m].mean) for e in default] for m in together.average},
        "scaling": {
            m: {str(n): e.as_json() for n, e in curve.items()}
            for m, curve in together.scaling.items()
        },
        "strong_accuracy": {m: e.as_json() for m, e in together_strong.average.items()},
        "differences": _differences(together),
        "strong_differences": _differences(together_strong),
        "meta_losses": {
            m: _meta_loss([f for f in folders if _done(f, m)], m, domains)
            for m in METHODS
            if (m == "dreamprm" or m.startswith("meta_")) and any(_done(f, m) for f in folders)
        },
        "weights": {
            d.name: {
                "quality": d.quality,
                "planted": d.planted,
                "loss": [loss[d.name] for loss in losses],
                "learned": [w[d.name] for w in weights],
            }
            for d in domains
            if losses or weights
        },
        "seconds": {m: [_facts(f, m)["seconds"] for f in folders] for m in whole},
        "in_part": {
            m: _in_part([f for f in folders if _done(f, m)], m)
            for m in MAIN
            if m not in whole and any(_done(f, m) for f in folders)
        },
        "control": _control(ready) if ready else None,
    }


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The new table, with the old one's rows where the new one has none.

    Raises:
        SystemExit: the two are not of the same seeds and data.
    """
    fixed = ("first_sample", "self_consistency", "any_right")
    same = all(old["accuracy"][m] == new["accuracy"][m] for m in fixed)
    if old["seeds"] != new["seeds"] or not same:
        raise SystemExit("--keep: the table on disk is of other seeds or data; run all methods")
    found = _over(old, new)
    found["kept"] = [m for m in old["accuracy"] if m not in new["accuracy"]]
    found["in_part"] = {m: v for m, v in found["in_part"].items() if m not in found["accuracy"]}
    order = [*fixed[:2], *MAIN, fixed[2]]
    for key in ("accuracy", "per_seed", "scaling", "strong_accuracy"):
        found[key] = {m: found[key][m] for m in order if m in found[key]}
    return found


def _over(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return old | {k: _over(old[k], v) if k in old else v for k, v in new.items()}
    return old if new is None else new


def _done(folder: Path, method: str) -> bool:
    return (folder / "scores" / f"{method}.json").exists()


def _in_part(folders: Sequence[Path], method: str) -> dict[str, Any]:
    """A method that was run on some of the seeds, beside uniform weights and DreamPRM there."""
    methods = ["prm_uniform", "dreamprm", method]
    found = combine_seeds([evaluate_folder(f, "candidates", methods) for f in folders])
    return {
        "seeds": [f.name for f in folders],
        "accuracy": {m: found.average[m].as_json() for m in methods},
    }


def _meta_loss(folders: Sequence[Path], method: str, domains: Sequence[Domain]) -> dict[str, Any]:
    """A meta loss at N = 8, on the seeds that have been run with it."""
    methods = ["prm_uniform", "prm_oracle", method]
    found = [evaluate_folder(f, "candidates", methods, limit=COMPARED) for f in folders]
    return {
        "seeds": [f.name for f in folders],
        "accuracy": combine_seeds(found).average[method].as_json(),
        "won_back": won_back(found, method),
        "spearman": [_rank(_weights(f, method), domains) for f in folders],
    }


def _control(folders: Sequence[Path]) -> dict[str, Any]:
    methods = ["prm_uniform", "dreamprm"]
    control = combine_seeds(
        [evaluate_folder(c, "candidates", methods, limit=COMPARED) for c in folders]
    )
    return {
        "seeds": [f.name for f in folders],
        "accuracy": {m: e.as_json() for m, e in control.average.items()},
        "dreamprm - prm_uniform": control.difference("dreamprm", "prm_uniform").as_json(),
    }


def _differences(evaluation: Evaluation) -> dict[str, Any]:
    pairs = [("dreamprm", m) for m in evaluation.values if m != "dreamprm"]
    pairs += COMPARISONS
    pairs = [(a, b) for a, b in pairs if a in evaluation.values and b in evaluation.values]
    return {f"{a} - {b}": evaluation.difference(a, b).as_json() for a, b in pairs}


def won_back(evaluations: Sequence[Evaluation], method: str, draws: int = 4000) -> dict[str, Any]:
    """(method - uniform) / (oracle - uniform), with a bootstrap over seeds and questions."""
    rng = np.random.default_rng(0)
    names = ("prm_uniform", "prm_oracle", method)
    # (seeds, methods, benchmarks * questions): benchmarks are equally large
    values = np.stack(
        [
            np.stack([np.concatenate([e.values[m][b][0] for b in e.question_ids]) for m in names])
            for e in evaluations
        ]
    )
    seeds, _, questions = values.shape
    ratios = []
    for _ in range(draws):
        picked = values[rng.integers(seeds, size=seeds)]
        means = np.mean(
            [v[:, rng.integers(questions, size=questions)].mean(axis=1) for v in picked], axis=0
        )
        ratios.append(_ratio(means))
    per_seed = values.mean(axis=2)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return {
        "mean": _ratio(per_seed.mean(axis=0)),
        "ci95": [float(low), float(high)],
        "per_seed": [_ratio(means) for means in per_seed],
    }


def _ratio(means: Any) -> float:
    uniform, oracle, ours = means
    return float((ours - uniform) / (oracle - uniform)) if oracle != uniform else float("nan")


def _facts(folder: Path, method: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "scores" / f"{method}.json").read_text())
    return facts


def _weights(folder: Path, method: str) -> dict[str, float]:
    weights: dict[str, float] = _facts(folder, method)["weights"]
    return weights


def domain_losses(folder: Path) -> dict[str, float]:
    """Mean lower loss of each domain's trajectories after training with uniform weights."""
    labelled = read_trajectories(folder / "train.labelled.jsonl")
    data = prepare_data(Records(read_questions(folder / "train.jsonl"), labelled))
    losses: dict[str, list[float]] = {}
    for pair, loss in zip(data.items, _facts(folder, "prm_uniform")["losses"], strict=True):
        losses.setdefault(domain_of(*pair), []).append(loss)
    return {name: float(np.mean(values)) for name, values in losses.items()}


def _rank(weights: dict[str, float], domains: Sequence[Domain]) -> float:
    planted = [d.planted for d in domains]
    return float(spearmanr(planted, [weights[d.name] for d in domains]).statistic)


def to_markdown(result: dict[str, Any]) -> str:
    """The tables for readers."""
    made_by = _name(result["variant"])
    lines = [
        f"# Testbed: the embedded world, {result['variant']} variant",
        "",
        f"Best of {result['n']}, mean of five benchmarks, seeds {result['seeds']}; 95% intervals "
        f"over questions and seeds. Made by `make {made_by}`; figures in `{made_by}.json`.",
        "",
        "## Methods",
        "",
        "| method | what | default policy | stronger policy | per seed |",
        "|---|---|---|---|---|",
    ]
    if kept := result.get("kept"):
        lines[2] += (
            f" Rows of {', '.join(f'`{m}`' for m in kept)}, and the differences and p that name "
            "them, were made by an earlier run of the same command (`--keep`)."
        )
    for m, e in result["accuracy"].items():
        strong = result["strong_accuracy"].get(m)
        seeds = " / ".join(f"{100 * v:.1f}" for v in result["per_seed"][m])
        shown = _percent(strong) if strong else ""
        lines.append(f"| {m} | {ABOUT[m]} | {_percent(e)} | {shown} | {seeds} |")
    for m, part in result["in_part"].items():
        others = ", ".join(
            f"{name} {_percent(part['accuracy'][name])}" for name in ("prm_uniform", "dreamprm")
        )
        lines += [
            "",
            f"`{m}` ({ABOUT[m]}) was run on {', '.join(part['seeds'])} only: "
            f"{_percent(part['accuracy'][m])}; there: {others}.",
        ]
    lines += [
        "",
        "## Differences",
        "",
        "| | default policy | p | stronger policy |",
        "|---|---|---|---|",
    ]
    for name, d in result["differences"].items():
        strong = result["strong_differences"].get(name)
        lines.append(
            f"| {name} | {_points(d)} | {d['p']:.2g} | {_points(strong) if strong else ''} |"
        )
    lines += [
        "",
        "## Meta losses",
        "",
        "Share of the difference between oracle and uniform weights that is won back, and rank "
        "correlation of learned weight and planted quality. `dreamprm` is the default. A row with "
        "fewer figures was run on the first of the seeds only.",
        "",
        "| meta loss | accuracy | won back | won back per seed | Spearman per seed |",
        "|---|---|---|---|---|",
    ]
    for m, found in result["meta_losses"].items():
        w = found["won_back"]
        seeds = " / ".join(f"{v:.2f}" for v in w["per_seed"])
        ranks = " / ".join(f"{v:.2f}" for v in found["spearman"])
        interval = f"{w['mean']:.2f} [{w['ci95'][0]:.2f}, {w['ci95'][1]:.2f}]"
        name = f"{m} ({result['config']['meta_loss']})" if m == "dreamprm" else m
        lines.append(f"| {name} | {_percent(found['accuracy'])} | {interval} | {seeds} | {ranks} |")
    lines += ["", "## Accuracy over N", "", "| method | " + " | ".join(_ns(result)) + " |"]
    lines.append("|---" * (1 + len(_ns(result))) + "|")
    for m, curve in result["scaling"].items():
        row = " | ".join(f"{100 * curve[n]['mean']:.1f}" for n in _ns(result))
        lines.append(f"| {m} | {row} |")
    lines += [
        "",
        "## Losses and learned weights",
        "",
        "Loss: the mean over a domain's trajectories after training with uniform weights.",
        "",
        "| domain | quality | planted | loss, per seed | learned, per seed |",
        "|---|---|---|---|---|",
    ]
    for name, d in sorted(result["weights"].items(), key=lambda item: -item[1]["planted"]):
        learned = " / ".join(f"{w:.2f}" for w in d["learned"])
        loss = " / ".join(f"{v:.3f}" for v in d["loss"])
        lines.append(f"| {name} | {d['quality']} | {d['planted']:.2g} | {loss} | {learned} |")
    if control := result["control"]:
        lines += [
            "",
            "## Control: every domain clean",
            "",
            f"DreamPRM minus uniform: {_points(control['dreamprm - prm_uniform'])} points "
            f"({', '.join(control['seeds'])}).",
        ]
    return "\n".join(lines) + "\n"


def update_choosing(page: Path, results: Path) -> None:
    """Write the page's table anew, between its two marks."""
    before, _, rest = page.read_text().partition(START)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{START}\n{choosing_table(saved_results(results))}\n{END}{after}")


def saved_results(folder: Path) -> dict[str, dict[str, Any]]:
    """What `main` wrote of each variant that it was run on."""
    paths = {v: folder / f"{_name(v)}.json" for v in ("standard", "hard")}
    return {v: json.loads(path.read_text()) for v, path in paths.items() if path.exists()}


def choosing_table(variants: dict[str, dict[str, Any]]) -> str:
    """Accuracy of each method of `NEEDS` on each variant."""
    heads = [f"{v} variant, seeds {', '.join(map(str, r['seeds']))}" for v, r in variants.items()]
    lines = [f"| method | needs | {' | '.join(heads)} |", "|---" * (2 + len(heads)) + "|"]
    for m, needs in NEEDS.items():
        shown = [
            _percent(r["accuracy"][m]) if m in r["accuracy"] else "" for r in variants.values()
        ]
        lines.append(f"| `{m}` | {needs} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _name(variant: str) -> str:
    return "testbed" if variant == "standard" else f"testbed_{variant}"


def _ns(result: dict[str, Any]) -> list[str]:
    return list(next(iter(result["scaling"].values())))


def _percent(e: dict[str, Any]) -> str:
    return f"{100 * e['mean']:.1f} [{100 * e['ci95'][0]:.1f}, {100 * e['ci95'][1]:.1f}]"


def _points(d: dict[str, Any]) -> str:
    return f"{100 * d['mean']:+.1f} [{100 * d['ci95'][0]:+.1f}, {100 * d['ci95'][1]:+.1f}]"


if __name__ == "__main__":
    main()
