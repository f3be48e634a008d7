"""RewardMATH (arXiv 2410.01729): does the right solution score above all nine wrong ones?

Accuracy counts problems where the right solution is strictly above all others; the mean reciprocal
rank tells how far it is from there (ties rank it last). Each aggregation of step scores is a method
of its own, so that they can be compared problem by problem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dreamprm.data.files import load_json_rows
from dreamprm.errors import DataError
from dreamprm.evaluation.results import Metric, QuestionResult, Result, metric, new_result
from dreamprm.evaluation.statistics import estimate
from dreamprm.search.aggregation import AGGREGATIONS, aggregate, logits_from_probabilities

SOLUTIONS = 10


def read_scores(path: Path) -> dict[str, list[list[float]]]:
    """Problem -> logits of the steps of each solution, the right one first.

    Raises:
        DataError: another layout, or step scores that are no probabilities.
    """
    problems: dict[str, list[list[float]]] = {}
    for number, row in enumerate(load_json_rows(path), start=1):
        scores = row.get("score")
        if not isinstance(row.get("problem"), str) or not isinstance(scores, list):
            raise DataError("needs problem and score", file=path, row=number)
        if len(scores) != SOLUTIONS or not all(isinstance(s, list) and s for s in scores):
            raise DataError(
                f"must hold step scores of {SOLUTIONS} solutions, the right one first",
                file=path,
                row=number,
                field="score",
            )
        try:
            logits = [logits_from_probabilities(s).tolist() for s in scores]
        except (DataError, ValueError, TypeError) as error:
            raise DataError(f"step scores: {error}", file=path, row=number) from None
        if row["problem"] in problems:
            raise DataError("this problem has two rows", file=path, row=number, field="problem")
        problems[row["problem"]] = logits
    return problems


def ranking_result(
    problems: Mapping[str, list[list[float]]],
    *,
    name: str,
    settings: Mapping[str, object],
    aggregations: Sequence[str] = tuple(AGGREGATIONS),
) -> Result:
    """Accuracy and mean reciprocal rank by aggregation."""
    metrics: dict[str, dict[str, Metric]] = {}
    questions: dict[str, tuple[QuestionResult, ...]] = {}
    for aggregation in aggregations:
        rows, reciprocal = [], []
        for number, solutions in enumerate(problems.values(), start=1):
            first, *others = (aggregate(steps, aggregation) for steps in solutions)
            above = sum(other >= first for other in others)
            reciprocal.append(1 / (1 + above))
            rows.append(
                QuestionResult(
                    question_id=str(number), benchmark="rewardmath", value=float(above == 0)
                )
            )
        metrics[aggregation] = {
            "rewardmath": metric(estimate([row.value for row in rows])),
            "rewardmath/mrr": metric(estimate(reciprocal)),
        }
        questions[aggregation] = tuple(rows)
    return new_result(
        name=name,
        kind="responses",
        settings=dict(settings),
        metrics=metrics,
        questions=questions,
        details={"benchmark": "rewardmath"},
    )
