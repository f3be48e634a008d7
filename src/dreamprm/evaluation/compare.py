"""Result files made apart -> differences on the questions that they share.

Two methods of one or of two runs are paired question by question, whatever else each was asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri  # type: ignore[import-untyped]
from scipy.stats import binomtest  # type: ignore[import-untyped]

from dreamprm.errors import DataError
from dreamprm.evaluation.results import QuestionResult, Result
from dreamprm.evaluation.statistics import Difference, Values, paired_bootstrap, paired_difference

OF_STEPS = (
    "rows of a step benchmark are solutions: differences are of the share of them (or of their "
    "steps) that is judged right, not of the F1 that the benchmark reports"
)

Table = dict[str, Values]  # benchmark -> (seeds, questions)

_QUANTILES = float(ndtri(0.975) + ndtri(0.8))  # two-sided 5%, power 80%


@dataclass(frozen=True)
class Run:
    """One method of one result file.

    Attributes:
        is_main: is it the file's main method? None where the file names none.
    """

    name: str
    rows: tuple[QuestionResult, ...]
    is_main: bool | None = None


@dataclass(frozen=True)
class Comparison:
    """A run against the baseline.

    Attributes:
        difference: run minus baseline, mean over benchmarks, with interval and p.
        bootstrap: the same by resampling.
        exact: McNemar's test where both are right or wrong in one seed, over all benchmarks.
        p_holm: p (the exact one where there is one), corrected for the number of runs compared
            (Holm, 1979).
        unpaired: questions that only one of the two has.
        needed: questions that would show this difference with 80% power; None where it is 0.
        detectable: smallest difference that the questions at hand show with 80% power.
    """

    name: str
    baseline: str
    difference: Difference
    bootstrap: Difference
    exact: McNemar | None
    p_holm: float
    unpaired: int
    needed: int | None
    detectable: float


def named(results: Sequence[Result]) -> list[tuple[str, Result, str]]:
    """A name of its own for every method of result files: (name, file, method)."""
    names: list[tuple[str, Result, str]] = []
    for result in results:
        methods = dict.fromkeys([*result.metrics, *result.questions])
        for method in methods:
            name = method
            if len(results) > 1:
                name = result.name if len(methods) == 1 else f"{result.name}: {method}"
            while name in {other for other, _, _ in names}:
                name += "'"
            names.append((name, result, method))
    return names


def runs_of(results: Sequence[Result], methods: Sequence[str] = ()) -> list[Run]:
    """The methods of result files that have rows of questions, named as by `named`.

    Args:
        methods: only these; by default all.

    Raises:
        DataError: none of the files has question rows of such a method.
    """
    runs = [
        Run(name, result.questions[method], _is_main(result, method))
        for name, result, method in named(results)
        if method in result.questions and (not methods or method in methods)
    ]
    if not runs:
        known = sorted({m for result in results for m in result.questions}) or ["none"]
        raise DataError(
            f"no rows of questions to compare; methods in the files: {', '.join(known)}"
        )
    return runs


def _is_main(result: Result, method: str) -> bool | None:
    main = result.details.get("main_method")
    return main == method if isinstance(main, str) and main in result.questions else None


def main_runs(results: Sequence[Result]) -> list[Run]:
    """What is compared where nothing is said: the main method of each of several files.

    All methods of a single file, its main one first, and all of those files that name none.
    """
    runs = runs_of(results)
    if len(results) == 1:
        return sorted(runs, key=lambda run: not run.is_main)
    return [run for run in runs if run.is_main is not False]


def compare(runs: Sequence[Run], baseline: str | None = None) -> list[Comparison]:
    """Every run against the baseline, by default the first.

    Raises:
        DataError: fewer than two runs, no such baseline, or runs that share no question.
    """
    if len(runs) < 2:
        raise DataError(f"there is one run, '{runs[0].name}'; a comparison needs two")
    by_name = {run.name: run for run in runs}
    if baseline is not None and baseline not in by_name:
        raise DataError(f"baseline '{baseline}' is none of the runs: {', '.join(by_name)}")
    base = runs[0] if baseline is None else by_name[baseline]
    comparisons = [_compare(run, base) for run in runs if run is not base]
    return _holm(comparisons)


def _compare(run: Run, base: Run) -> Comparison:
    a, b, unpaired = pair(run, base)
    difference = paired_difference(a, b)
    one_seed = all(v.shape[0] == 1 for v in a.values())
    x, y = (np.concatenate([v[0] for v in side.values()]) for side in (a, b))
    exact = None
    if one_seed and np.isin(np.concatenate([x, y]), (0, 1)).all():
        exact = mcnemar(x, y)
    spread = _spread(a, b)
    needed = questions_needed(difference.mean, spread) if difference.mean and spread else None
    p = exact.p if exact is not None else difference.p
    return Comparison(
        name=run.name,
        baseline=base.name,
        difference=difference,
        bootstrap=paired_bootstrap(a, b),
        exact=exact,
        p_holm=p,
        unpaired=unpaired,
        needed=needed,
        detectable=smallest_difference(difference.n, spread),
    )


def _spread(a: Table, b: Table) -> float:
    """Of the differences, such that spread / sqrt(n) is what the questions add to the error of the
    mean over benchmarks; more questions are meant in the proportions at hand.
    """
    parts = [(a[k] - b[k]).mean(axis=0) for k in a]  # (questions,) each
    n = sum(map(len, parts))
    return float(np.sqrt(n * sum(d.var() / len(d) for d in parts)) / len(parts))


def pair(run: Run, base: Run) -> tuple[Table, Table, int]:
    """Values of both on the questions and seeds that both have, and how many questions are left.

    A run without seeds (one that was not trained) stands beside every seed of the other.
    """
    sides = [_table(run), _table(base)]
    shared = [key for key in sides[0] if key in sides[1]]
    if not shared:
        raise DataError(
            f"runs '{run.name}' and '{base.name}' share no question; compare results of the same "
            "benchmark"
        )
    seeds = [{seed for key in shared for seed in side[key]} for side in sides]
    used = sorted(seeds[0] & seeds[1] if min(map(len, seeds)) > 1 else seeds[0] | seeds[1])
    values: list[Table] = []
    for side in sides:
        columns: dict[str, list[list[float]]] = {}
        for benchmark, question in shared:
            by_seed = side[benchmark, question]
            only = next(iter(by_seed.values())) if len(by_seed) == 1 else None
            try:
                column = [by_seed[s] if only is None else only for s in used]
            except KeyError as error:
                raise DataError(
                    f"question '{question}' has no row of seed {error.args[0]}; evaluate it again"
                ) from None
            columns.setdefault(benchmark, []).append(column)
        values.append({name: np.array(c).T for name, c in columns.items()})
    left = len(sides[0]) + len(sides[1]) - 2 * len(shared)
    return values[0], values[1], left


def _table(run: Run) -> dict[tuple[str, str], dict[int, float]]:
    table: dict[tuple[str, str], dict[int, float]] = {}
    for row in run.rows:
        cell = table.setdefault((row.benchmark, row.question_id), {})
        if row.seed in cell:
            raise DataError(f"run '{run.name}' has question '{row.question_id}' twice in a seed")
        cell[row.seed] = row.value
    return table


def _holm(comparisons: list[Comparison]) -> list[Comparison]:
    """Each p times the number of hypotheses not yet rejected, never below a smaller one's."""
    p = np.array([one.p_holm for one in comparisons])
    order = np.argsort(p, kind="stable")
    left = np.arange(len(p), 0, -1)
    p[order] = np.maximum.accumulate(np.minimum(1.0, left * p[order]))
    return [replace(one, p_holm=float(p[i])) for i, one in enumerate(comparisons)]


class McNemar(NamedTuple):
    """Questions that only a, only b has right, and the two-sided p of no difference."""

    only_a: int
    only_b: int
    p: float


def mcnemar(a: ArrayLike, b: ArrayLike) -> McNemar:
    """McNemar's exact test (1947): do two methods differ on the same questions?

    Only questions on which they disagree tell anything. If neither is better, each disagreement
    falls to either with probability one half, which is a sign test.

    Args:
        a: (questions,) 1 where method a is right, else 0.
        b: (questions,) the same questions in the same order.

    >>> mcnemar([1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0]).p
    0.0625
    """
    x, y = np.asarray(a), np.asarray(b)
    only_a, only_b = int((x > y).sum()), int((y > x).sum())
    p = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return McNemar(only_a, only_b, p)


def questions_needed(difference: float, spread: float) -> int:
    """Questions with which a difference shows (p < 0.05) with a probability of 80%.

    The standard error of a mean difference is spread / sqrt(n). The normal approximation of a
    two-sided test is used; below some 50 questions it flatters.

    Args:
        difference: that is to be shown, in [-1, 1], not 0.
        spread: standard deviation of a - b over questions. For right and wrong it follows from how
            often the two disagree: sqrt(disagreement - difference^2) (Connor, 1987).

    >>> questions_needed(0.05, 0.5)
    785
    """
    return max(2, ceil((_QUANTILES * spread / difference) ** 2))


def smallest_difference(questions: int, spread: float) -> float:
    """The smallest difference that so many questions show with a probability of 80%.

    >>> round(smallest_difference(785, 0.5), 3)
    0.05
    """
    return _QUANTILES * spread / sqrt(questions)
