"""What a meta set of some size finds: subsampled windows of runs, beside `power.py`.

    python -m experiments.testbed train --seeds 1 2 --methods dreamprm
    python -m experiments.power build/testbed/seed-*/scores/dreamprm.json

Takes no training: a smaller meta set is some of the parts that the windows of a run read, a shorter
run some of its windows. Said are the two constants (rho and the effect of harmful domains), and in
which share of subsamples harmful domains are told apart as down, clean ones too, and what the
formula expects. Windows count with the square root of their size, as in `bilevel/evidence.py`; the
chance in a domain's trajectories is left out.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from dreamprm.tiny.world import DOMAINS
from dreamprm.training.power import EFFECT, RHO

BATCH = 16  # meta questions in a window
HARMFUL = {domain.name for domain in DOMAINS if domain.planted < 0.3}
DRAWS = 200


def read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Effects, (windows, domains); the part of each window; which domains are harmful."""
    rows = [row for row in json.loads(path.read_text())["history"] if row.get("effects")]
    names = list(rows[-1]["weights"])
    effects = np.array([[row["effects"].get(n, np.nan) for n in names] for row in rows])
    return (
        effects,
        np.array([r["meta_part"] for r in rows]),
        np.array([n in HARMFUL for n in names]),
    )


def constants(effects: np.ndarray, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The share rho and the effect of each domain: one-way analysis of variance by part."""
    size = np.sqrt(np.nanmean(effects**2, axis=1, keepdims=True))
    e = effects / np.sqrt(size)
    parts, n = np.unique(part, return_counts=True)
    means = np.stack([np.nanmean(e[part == p], axis=0) for p in parts])
    grand = np.nanmean(e, axis=0)
    between = (n[:, None] * (means - grand) ** 2).sum(axis=0) / (len(parts) - 1)
    of_part = dict(zip(parts, means, strict=True))
    within = np.nansum([(x - of_part[p]) ** 2 for x, p in zip(e, part, strict=True)], axis=0)
    within /= len(e) - len(parts)
    n0 = (len(e) - (n**2).sum() / len(e)) / (len(parts) - 1)
    of_questions = np.maximum(0, (between - within) / n0)
    return of_questions / (of_questions + within), grand / np.sqrt((of_questions + within) * BATCH)


def is_down(effects: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Student's t of the means of parts: below 0 with 95%?"""
    e = effects / np.sqrt(np.sqrt(np.nanmean(effects**2, axis=1, keepdims=True)))
    means = np.stack([np.nanmean(e[part == p], axis=0) for p in np.unique(part)])
    z = means.mean(axis=0) / (means.std(axis=0, ddof=1) / len(means) ** 0.5)
    down: np.ndarray = z < -stats.t.ppf(0.975, len(means) - 1)
    return down


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path, nargs="+", help="scores/dreamprm.json of seeds")
    runs = [read(path) for path in parser.parse_args().results]
    rho, effect = (
        np.concatenate(x) for x in zip(*(constants(e, p) for e, p, _ in runs), strict=True)
    )
    harmful = np.concatenate([bad for _, _, bad in runs])
    print(f"rho {rho.mean():.2f}, in the formula {RHO}")
    print(f"effect of harmful domains {effect[harmful].mean():.2f}, in the formula -{EFFECT}")
    print(f"effect of the others {effect[~harmful].mean():.2f}")
    rng = np.random.default_rng(0)
    print("questions  windows  harmful down  others down  formula")
    for parts, share in [(n, s) for n in (3, 4, 6, 8, 12) for s in (0.33, 1.0)]:
        found = []
        for _ in range(DRAWS):
            for effects, part, bad in runs:
                kept = rng.choice(np.unique(part), parts, replace=False)
                mine = np.isin(part, kept) & (rng.random(len(part)) < share)
                if len(np.unique(part[mine])) == parts:
                    down = is_down(effects[mine], part[mine])
                    found.append((down[bad].mean(), down[~bad].mean()))
        windows = np.mean([len(p) for _, p, _ in runs]) * share * parts / 12
        se = (RHO / (parts * BATCH) + (1 - RHO) / (windows * BATCH)) ** 0.5
        expected = 1 - stats.nct.cdf(stats.t.ppf(0.975, parts - 1), parts - 1, EFFECT / se)
        bad, good = np.mean(found, axis=0)
        print(f"{parts * BATCH:9}{windows:9.0f}{bad:14.2f}{good:13.2f}{expected:9.2f}")


if __name__ == "__main__":
    main()
