r"""Are the intervals of learned weights right? Read from what `experiments.testbed` left on disk.

    python -m experiments.testbed data --seeds 101 102 103 104 105
    python -m experiments.testbed train --seeds 101 102 103 104 105 --methods dreamprm permuted
    python -m experiments.testbed data --variant control --seeds 101 102 103 104 105
    python -m experiments.testbed train --variant control --seeds 101 ... \
      --methods dreamprm instance_table
    python -m experiments.intervals --seeds 101 102 103 104 105

Writes `docs/results/intervals.json` and `docs/results/intervals.md`:

- null: runs in which no domain is better than another (all are clean; or the meta outcomes are
  permuted within their questions): how many intervals hold 1, and how far the weights go;
- power: in how many seeds each domain is told apart, and the rank correlation of weight and planted
  quality;
- coverage: how many intervals hold the mean weight that the same domain has in the other seeds.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from dreamprm.data.trajectory_weights import verdict
from dreamprm.tiny.world import VARIANTS

HARMFUL = 0.1  # planted quality up to which a domain does harm
CLEAN = 1.0
EQUAL = (0.7, 1.4)  # weights of domains that do not differ should stay within


def learned(folder: Path, method: str) -> dict[str, Any] | None:
    """The last window of a run: weights and intervals by domain; None where it was not run."""
    path = folder / "scores" / f"{method}.json"
    if not path.exists():
        return None
    row: dict[str, Any] = json.loads(path.read_text())["history"][-1]
    return row


def null(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Of runs in which all domains are worth the same."""
    weights = np.array([list(row["weights"].values()) for row in rows])  # (runs, domains)
    ends = np.array([list(row["intervals"].values()) for row in rows])  # (runs, domains, 2)
    held = (ends[..., 0] <= 1) & (ends[..., 1] >= 1)
    near = (weights >= EQUAL[0]) & (weights <= EQUAL[1])
    return {
        "runs": len(rows),
        "intervals_hold_1": held.mean(),
        "weights_near_1": near.mean(),
        "lowest": weights.min(),
        "highest": weights.max(),
    }


def power(rows: list[dict[str, Any]], planted: dict[str, float]) -> dict[str, Any]:
    """Verdicts by domain, and how weights follow planted quality."""
    counts = {name: Counter(verdict(*row["intervals"][name]) for row in rows) for name in planted}
    ranks = [
        spearmanr(list(planted.values()), [row["weights"][n] for n in planted]).statistic
        for row in rows
    ]
    return {
        "runs": len(rows),
        "verdicts": {
            name: {"planted": quality, **counts[name]} for name, quality in planted.items()
        },
        "rank_correlation": ranks,
    }


def coverage(rows: list[dict[str, Any]]) -> float:
    """Share of intervals that hold the domain's mean weight over the other runs."""
    held = []
    for i, row in enumerate(rows):
        others = [other["weights"] for j, other in enumerate(rows) if j != i]
        for name, (low, high) in row["intervals"].items():
            held.append(low <= np.mean([w[name] for w in others]) <= high)
    return float(np.mean(held))


def page(results: dict[str, Any], planted: dict[str, float], kinds: dict[str, str]) -> str:
    """The results as markdown."""
    lines = ["# Are the intervals right?", "", "Made by `python -m experiments.intervals`.", ""]
    lines += ["| no domain differs | runs | intervals hold 1 | weights in 0.7 to 1.4 | range |"]
    lines += ["|---|---:|---:|---:|---:|"]
    for name, r in results["null"].items():
        lines.append(
            f"| {name} | {r['runs']} | {r['intervals_hold_1']:.1%} | {r['weights_near_1']:.1%} "
            f"| {r['lowest']:.2f} to {r['highest']:.2f} |"
        )
    shown = results["power"]
    ranks = np.array(shown["rank_correlation"])
    lines += ["", f"Standard world, {shown['runs']} seeds:", ""]
    lines += [
        "| domain | planted | | down | not told apart | up |",
        "|---|---:|---|---:|---:|---:|",
    ]
    for name, quality in sorted(planted.items(), key=lambda item: item[1]):
        of = shown["verdicts"][name]
        counts = (of.get(v, 0) for v in ("down", "not told apart", "up"))
        lines.append(
            f"| {name} | {quality:.1f} | {kinds[name]} | " + " | ".join(map(str, counts)) + " |"
        )
    lines += [
        "",
        f"Rank correlation of weight and planted quality: {ranks.mean():.2f} in the mean "
        f"({ranks.min():.2f} to {ranks.max():.2f}). Intervals that hold the mean weight of the "
        f"same domain in the other seeds: {results['coverage']:.1%}.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--output-dir", type=Path, default=Path("build/testbed"))
    parser.add_argument("--results-dir", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    sets = {
        "all clean": ("control", "dreamprm"),
        "all clean, weights of trajectories": ("control", "instance_table"),
        "outcomes permuted": ("seed", "permuted"),
        "standard": ("seed", "dreamprm"),
    }
    runs = {
        label: [
            row
            for seed in args.seeds
            if (row := learned(args.output_dir / f"{kind}-{seed}", method)) is not None
        ]
        for label, (kind, method) in sets.items()
    }
    rows = runs.pop("standard")
    planted = {d.name: d.planted for d in VARIANTS["standard"]}
    results = {
        "seeds": args.seeds,
        "null": {label: null(of) for label, of in runs.items() if of},
        "power": power(rows, planted),
        "coverage": coverage(rows),
    }
    kinds = {d.name: d.quality for d in VARIANTS["standard"]}
    text = page(results, planted, kinds)
    (args.results_dir / "intervals.json").write_text(json.dumps(results, indent=2) + "\n")
    (args.results_dir / "intervals.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
