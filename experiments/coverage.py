"""Do 95% intervals cover the truth 95% of the time? Simulation with known truth.

    python -m experiments.coverage [--output docs/results]

A question's difficulty is drawn from a Beta distribution, its samples from that difficulty, so that
samples of one question are correlated; two methods share the difficulty. A training seed shifts all
questions. Every row is 2,000 simulated evaluations; the standard error of a coverage of 95% is 0.5
points. Written to `coverage.json` and `coverage.md`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamprm.evaluation.statistics import (
    estimate_average,
    paired_bootstrap,
    paired_difference,
)

REPEATS = 2000
RANGE = (0.93, 0.97)


@dataclass(frozen=True)
class Setting:
    """One simulated evaluation.

    Attributes:
        questions: of each benchmark.
        accuracy: mean over questions.
        spread: of the difficulty: 0: all alike, 1: each question always right or always wrong.
        samples: answers per question, of which the mean counts.
        benchmarks: with the same number of questions.
        seeds: repeated trainings; each shifts the logit of all questions by N(0, 0.2).
        gain: of method b over a, in logits.
    """

    questions: int
    accuracy: float
    spread: float = 0.5
    samples: int = 1
    benchmarks: int = 1
    seeds: int = 1
    gain: float = 0.4


SETTINGS = [
    *(
        Setting(n, p, spread)
        for n in (30, 100, 300, 1000)
        for p in (0.1, 0.5, 0.9)
        for spread in (0.2, 0.8)
    ),
    *(Setting(n, p, 0.5, samples=8) for n in (30, 100, 300) for p in (0.1, 0.5, 0.95)),
    *(Setting(60, p, 0.5, benchmarks=5) for p in (0.2, 0.5, 0.8)),
    *(Setting(60, 0.5, 0.5, benchmarks=5, seeds=s) for s in (3, 5)),
    *(Setting(100, 0.7, 0.5, seeds=s) for s in (3, 5)),
]
Values = NDArray[np.float64]  # (seeds, questions)


def draw(setting: Setting, rng: np.random.Generator) -> Iterator[tuple[Values, Values]]:
    """Values of methods a and b on each benchmark."""
    shift = rng.normal(0, 0.2, size=(setting.seeds, 1, 2)) if setting.seeds > 1 else 0.0
    for _ in range(setting.benchmarks):
        chance = _chances(setting, rng, setting.questions)[None, :, None]  # (1, questions, 1)
        moved = _moved(chance, shift + np.array([0.0, setting.gain]))  # (seeds, questions, 2)
        moved = np.broadcast_to(moved, (setting.seeds, setting.questions, 2))
        right = rng.binomial(setting.samples, moved) / setting.samples
        yield right[..., 0], right[..., 1]


def _chances(setting: Setting, rng: np.random.Generator, count: int) -> Values:
    if setting.spread == 0:
        return np.full(count, setting.accuracy)
    total = 1 / setting.spread - 1  # Beta's a + b: the correlation of two samples is `spread`
    return rng.beta(setting.accuracy * total, (1 - setting.accuracy) * total, size=count)


def _moved(chance: Any, by: Any) -> Any:
    chance = np.clip(chance, 1e-12, 1 - 1e-12)
    return 1 / (1 + (1 - chance) / chance * np.exp(-by))


def truth(setting: Setting, rng: np.random.Generator) -> tuple[float, float]:
    """Accuracies of a and b over all questions and seeds there could be."""
    chance = _chances(setting, rng, 2_000_000)
    shift = rng.normal(0, 0.2, size=len(chance)) if setting.seeds > 1 else 0.0
    a, b = (float(_moved(chance, shift + gain).mean()) for gain in (0.0, setting.gain))
    return a, b


def coverage(setting: Setting, repeats: int = REPEATS, seed: int = 0) -> dict[str, float]:
    """Share of intervals that hold the truth, and on how many questions the methods differ."""
    rng = np.random.default_rng([seed, SETTINGS.index(setting) if setting in SETTINGS else 999])
    a_true, b_true = truth(setting, rng)
    hits = {"accuracy": 0, "difference": 0, "bootstrap": 0}
    resampled, differ = 0, 0.0
    for repeat in range(repeats):
        pairs = list(draw(setting, rng))
        a = {str(i): pair[0] for i, pair in enumerate(pairs)}
        b = {str(i): pair[1] for i, pair in enumerate(pairs)}
        differ += sum(float((x.mean(axis=0) != y.mean(axis=0)).sum()) for x, y in pairs) / repeats
        found = estimate_average(a)
        hits["accuracy"] += found.lo <= a_true <= found.hi
        gain = paired_difference(b, a)
        hits["difference"] += gain.lo <= b_true - a_true <= gain.hi
        if repeat % 4 == 0:  # it costs more than all the rest
            boot = paired_bootstrap(b, a, draws=400, seed=repeat)
            hits["bootstrap"] += boot.lo <= b_true - a_true <= boot.hi
            resampled += 1
    counts = {"accuracy": repeats, "difference": repeats, "bootstrap": resampled}
    return {name: hits[name] / counts[name] for name in hits} | {"differ": differ}


def to_markdown(rows: list[dict[str, Any]]) -> str:
    shown = ("questions", "accuracy", "spread", "samples", "benchmarks", "seeds")
    heads = (*shown, "differ", "of the accuracy", "of the difference", "bootstrap")
    lines = [
        "# Coverage of nominal 95% intervals",
        "",
        "Made by `python -m experiments.coverage`; 2,000 simulated evaluations per row (500 for "
        "the bootstrap). `differ`: questions on which the two methods give different values, on "
        "average. Figures outside 93 to 97% are in bold.",
        "",
        "| " + " | ".join(heads) + " |",
        "|---" * len(heads) + "|",
    ]
    for row in rows:
        found = [row["coverage"][k] for k in ("accuracy", "difference", "bootstrap")]
        cells = [
            f"{100 * c:.1f}" if RANGE[0] <= c <= RANGE[1] else f"**{100 * c:.1f}**" for c in found
        ]
        facts = [*(str(row["setting"][k]) for k in shown), f"{row['coverage']['differ']:.0f}"]
        lines.append("| " + " | ".join([*facts, *cells]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--output", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    rows = []
    for setting in SETTINGS:
        rows.append({"setting": asdict(setting), "coverage": coverage(setting, args.repeats)})
        print(rows[-1], flush=True)
    (args.output / "coverage.json").write_text(json.dumps(rows, indent=1) + "\n")
    (args.output / "coverage.md").write_text(to_markdown(rows))


if __name__ == "__main__":
    main()
