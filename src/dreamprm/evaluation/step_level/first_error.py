"""ProcessBench (arXiv 2412.06559): find the first wrong step, or that there is none.

A solution is judged right to step i as long as no step so far has a score below a threshold. Of
the erroneous solutions the share whose first wrong step is found, of the correct ones the share in
which none is found; F1 is the harmonic mean of these two accuracies, per subset, and their mean.
Intervals of F1 are by bootstrap over solutions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from dreamprm.errors import DataError
from dreamprm.evaluation.results import Metric, QuestionResult
from dreamprm.evaluation.statistics import Values, estimate, resampled_sums, spread
from dreamprm.records import Question, StepScores, Trajectory

NONE = -1
_KINDS = ("erroneous", "correct")


def predicted(logits: Sequence[float], threshold: float = 0.5) -> int:
    """0-based first step whose score is below the threshold; -1 for none.

    >>> predicted([2.0, -1.0, 3.0]), predicted([2.0, 1.0])
    (1, -1)
    """
    limit = logit_of(threshold)
    return next((i for i, z in enumerate(logits) if z < limit), NONE)


def logit_of(threshold: float) -> float:
    """The logit below which a step is called wrong."""
    if not 0 < threshold < 1:
        raise DataError(f"threshold is {threshold}; it must lie between 0 and 1")
    return math.log(threshold / (1 - threshold))


def labelled(trajectory: Trajectory) -> int:
    """0-based first wrong step by the labels; -1 for none."""
    labels = trajectory.labels
    if labels is None:
        raise DataError(
            f"question {trajectory.question_id}, candidate {trajectory.sample_index} has no labels"
        )
    return next((i for i, label in enumerate(labels) if label and label.value < 1), NONE)


def harmonic(error: float, correct: float) -> float:
    """F1 of the two accuracies."""
    return 2 * error * correct / (error + correct) if error + correct else 0.0


def predictions(
    trajectories: Sequence[Trajectory],
    scores: Mapping[tuple[str, int], StepScores],
    threshold: float,
) -> dict[tuple[str, int], int]:
    """(question id, sample_index) -> first wrong step by the scores.

    Raises:
        DataError: a solution with fewer scores than steps: its first error may be behind them.
    """
    found = {}
    for t in trajectories:
        at = (t.question_id, t.sample_index)
        if at in scores:
            check_complete(t, scores[at])
            found[at] = predicted(scores[at].logits, threshold)
    return found


def scores_of(t: Trajectory, scores: Mapping[tuple[str, int], StepScores]) -> StepScores:
    """The scores of a solution, one for each step.

    Raises:
        DataError: it has none, or too few.
    """
    found = scores.get((t.question_id, t.sample_index))
    if found is None:
        raise DataError(
            f"question '{t.question_id}', candidate {t.sample_index} has no scores; score all of "
            "the file"
        )
    check_complete(t, found)
    return found


def check_complete(t: Trajectory, scores: StepScores) -> None:
    """Refuse scores that are not one for each step."""
    if not scores.are_of(t):
        raise DataError(
            f"question '{t.question_id}', candidate {t.sample_index} has other steps than were "
            "judged; score this file into a new one"
        )
    if len(scores.logits) != len(t.steps):
        raise DataError(
            f"question '{t.question_id}', candidate {t.sample_index}: {len(scores.logits)} scores "
            f"for {len(t.steps)} steps; score it whole, with a longer context"
        )


def first_error_rows(
    questions: Mapping[str, Question],
    trajectories: Sequence[Trajectory],
    found: Mapping[tuple[str, int], int],
    benchmark: str,
) -> list[QuestionResult]:
    """One row per solution: is its first wrong step found?

    Args:
        found: (question id, sample_index) -> predicted first wrong step.
    """
    rows = []
    for t in trajectories:
        at = (t.question_id, t.sample_index)
        if at not in found:
            raise DataError(
                f"question '{at[0]}', candidate {at[1]} has no prediction; score all of the file"
            )
        truth = labelled(t)
        groups: dict[str, tuple[str, ...]] = {
            "kind": ("correct" if truth == NONE else "erroneous",)
        }
        if subject := questions[t.question_id].subject:
            groups["subset"] = (subject,)
        rows.append(
            QuestionResult(
                question_id=f"{at[0]}/{at[1]}",
                benchmark=benchmark,
                value=float(found[at] == truth),
                groups=groups,
                sample_index=at[1],
                answer=str(found[at]),
            )
        )
    return rows


def first_error_metrics(rows: Sequence[QuestionResult]) -> dict[str, Metric]:
    """F1 and the two accuracies, of every subset and on average over subsets.

    Raises:
        DataError: a subset without erroneous or without correct solutions has no F1.
    """
    benchmark = rows[0].benchmark
    subsets: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        [subset], [kind] = row.groups.get("subset", ("all",)), row.groups["kind"]
        subsets.setdefault(subset, {}).setdefault(kind, []).append(row.value)
    metrics: dict[str, Metric] = {}
    scores: list[float] = []
    draws: list[Values] = []
    for subset, part in sorted(subsets.items()):
        if len(part) < 2:
            absent = "erroneous" if "correct" in part else "correct"
            raise DataError(f"subset '{subset}' has no {absent} solutions, and so no F1")
        for kind, values in sorted(part.items()):
            e = estimate(np.array(values))
            metrics[f"{benchmark}/{subset}/{kind}"] = Metric(value=e.mean, ci95=e.ci95, n=e.n)
        f1 = harmonic(*(float(np.mean(part[k])) for k in _KINDS))
        scores.append(f1)
        draws.append(_f1_draws([np.array(part[k]) for k in _KINDS], seed=len(draws)))
        count = sum(map(len, part.values()))
        interval = spread(draws[-1], f1)
        metrics[f"{benchmark}/{subset}/f1"] = Metric(value=f1, ci95=interval, n=count)
    value = float(np.mean(scores))
    ci95 = spread(np.mean(draws, axis=0), value)
    return {benchmark: Metric(value=value, ci95=ci95, n=len(rows))} | metrics


def _f1_draws(parts: Sequence[Values], seed: int) -> Values:
    """F1 of resampled solutions, erroneous and correct ones each among themselves; (draws,)."""
    error, correct = (
        resampled_sums(values[:, None], seed=2 * seed + i)[:, 0] / len(values)
        for i, values in enumerate(parts)
    )
    f1: Values = 2 * error * correct / np.maximum(error + correct, 1e-12)
    return f1
