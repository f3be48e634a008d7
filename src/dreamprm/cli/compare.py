r"""Differences between runs on the questions that they share, and how sure they are.

Reads result files of `dreamprm evaluate`, `select` or `benchmark`; pairs them question by question.
One file compares its methods with each other. Prints each run minus the baseline with its 95%
interval (clustered by question; with several seeds, over seeds too), McNemar's exact p where
answers are right or wrong, p corrected for the number of comparisons (Holm), how many questions
would show the difference with 80% power, and which difference the questions at hand would.

  dreamprm compare --results ours.json theirs.json --baseline theirs
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dreamprm.data.files import atomic_write
from dreamprm.errors import DataError

if TYPE_CHECKING:
    from dreamprm.evaluation.compare import Comparison


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of compare.

    Attributes:
        results: result files.
        baseline: run that the others are compared with; by default the first. A run is named as
            its file says; where a file has several methods, "name: method".
        methods: look at these methods; by default at the main method of each file, or at all of
            a single file.
        benchmark: look at the questions of this benchmark only.
        output: JSON file of the comparison; none is written without it.
    """

    results: list[Path]
    baseline: str | None = None
    methods: list[str] = field(default_factory=list)
    benchmark: str | None = None
    output: Path | None = None


def run(config: Config) -> None:
    """Compare and print."""
    from dreamprm.evaluation.compare import OF_STEPS, compare, main_runs, runs_of
    from dreamprm.evaluation.results import read_result

    if not config.results:
        raise DataError("there are no result files; give some")
    results = [read_result(path) for path in config.results]
    runs = runs_of(results, config.methods) if config.methods else main_runs(results)
    if any(result.kind == "steps" for result in results):
        print(f"note: {OF_STEPS}", file=sys.stderr)
    if config.benchmark is not None:
        known = sorted({row.benchmark for one in runs for row in one.rows})
        if config.benchmark not in known:
            raise DataError(f"no run has benchmark '{config.benchmark}'; there are {known}")
        runs = [
            replace(one, rows=tuple(r for r in one.rows if r.benchmark == config.benchmark))
            for one in runs
        ]
    comparisons = compare(runs, config.baseline)
    if config.output is not None:
        rows = [_as_json(c) for c in comparisons]
        with atomic_write(config.output) as file:
            file.write((json.dumps(rows, indent=1) + "\n").encode())
    _print(comparisons)


def _as_json(c: Comparison) -> dict[str, object]:
    return {
        "run": c.name,
        "baseline": c.baseline,
        "n": c.difference.n,
        "difference": c.difference.mean,
        "ci95": list(c.difference.ci95),
        "bootstrap_ci95": list(c.bootstrap.ci95),
        "p": c.difference.p,
        "mcnemar": None if c.exact is None else c.exact._asdict(),
        "p_holm": c.p_holm,
        "unpaired": c.unpaired,
        "questions_needed": c.needed,
        "detectable": c.detectable,
    }


def _print(rows: list[Comparison]) -> None:
    from dreamprm.cli.terminal import print_table

    head = ["run", "questions", "difference [95% interval]", "bootstrap", "only run / only"]
    head += ["p", "p (Holm)", "these questions show", "questions for 80% power"]
    print_table(f"Percentage points above {rows[0].baseline}", head, map(_row, rows))


def _row(c: Comparison) -> list[str]:
    d, b = c.difference, c.bootstrap
    return [
        c.name,
        f"{d.n:,}" + (f" (+{c.unpaired:,} unpaired)" if c.unpaired else ""),
        f"{100 * d.mean:+.1f} [{100 * d.lo:+.1f}, {100 * d.hi:+.1f}]",
        f"[{100 * b.lo:+.1f}, {100 * b.hi:+.1f}]",
        f"{c.exact.only_a} / {c.exact.only_b}" if c.exact else "",
        f"{c.exact.p if c.exact else d.p:.2g}",
        f"{c.p_holm:.2g}",
        f"{100 * c.detectable:.1f}",
        "" if c.needed is None else f"{c.needed:,}",
    ]
