"""RewardMATH (arXiv 2410.01729): does the right solution score above all nine wrong ones?

Accuracy counts problems where the right solution is strictly above all others; the mean reciprocal
rank tells how far it is from there (ties rank it last).

A row of the published result files (kimsh0507/RewardMATH_official, results/RewardMATH) holds
`problem`, `solution_reference` (who wrote each solution) and `score`. The solution by
`human_to_GPT-4` is the right one. There are three layouts:

- ten lists of step scores, each a probability (process reward models). Each aggregation of them is
  a method of its own, so that they can be compared problem by problem.
- ten numbers (reward models, and language models that rate a solution): one method, `reward`.
- nine letters (`..._pairwise_reward.json`): which of two solutions a judge prefers, the right one
  or that of the reference. `chosen_position` says which letter the right one had. Null is a
  verdict that could not be read, and counts as lost. One method, `pairwise`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dreamprm.data.files import in_row
from dreamprm.data.rows import Row, exact_text, is_whole, load_json_rows, text_list
from dreamprm.errors import DataError
from dreamprm.evaluation.results import Metric, QuestionResult, Result, metric, new_result
from dreamprm.evaluation.statistics import estimate
from dreamprm.records import logits_of
from dreamprm.search.aggregation import AGGREGATIONS, aggregate

SOLUTIONS = 10
RIGHT = "human_to_GPT-4"
"""The reference of the right solution."""

Losses = Mapping[str, int]
"""Method -> wrong solutions of a problem that the right one is not above."""


def read_losses(path: Path) -> dict[str, Losses]:
    """Problem -> how many wrong solutions the right one is not strictly above, by method.

    Raises:
        DataError: another layout, step scores that are no probabilities, or a row whose right
            solution is not the first or cannot be told.
    """
    problems: dict[str, Losses] = {}
    for number, row in enumerate(load_json_rows(path), start=1):
        with in_row(path, number):
            problem, losses = exact_text(row, "problem"), _losses(row)
            if problem in problems:
                raise DataError("this problem has two rows", field="problem")
            if problems and losses.keys() != next(iter(problems.values())).keys():
                raise DataError("has scores of another kind than the rows above", field="score")
            problems[problem] = losses
    if not problems:
        raise DataError("holds no problems", file=path)
    return problems


def _losses(row: Row) -> Losses:
    references, scores = text_list(row, "solution_reference"), row.get("score")
    if not isinstance(scores, list) or len(scores) != len(references):
        raise DataError(f"must hold {len(references)} scores, one per reference", field="score")
    if "chosen_position" in row:
        if len(references) != SOLUTIONS - 1 or RIGHT in references:
            message = f"must name the {SOLUTIONS - 1} wrong solutions of the pairs"
            raise DataError(message, field="solution_reference")
        places = text_list(row, "chosen_position")
        return {"pairwise": sum(a != b for a, b in zip(scores, places, strict=True))}
    if references.count(RIGHT) != 1 or references[0] != RIGHT or len(references) != SOLUTIONS:
        message = (
            f"must name {SOLUTIONS} solutions, first the right one, '{RIGHT}', and it alone; "
            "give the file as published"
        )
        raise DataError(message, field="solution_reference")
    if all(isinstance(score, list) for score in scores):
        try:
            logits = [logits_of(steps) for steps in scores]
            totals = {name: [aggregate(z, name) for z in logits] for name in AGGREGATIONS}
        except (DataError, ValueError, TypeError) as error:
            raise DataError(f"step scores: {error}", field="score") from None
    elif all(is_whole(score) or isinstance(score, float) for score in scores):
        totals = {"reward": scores}
        if not np.isfinite(scores).all():
            raise DataError("holds a score that is not finite", field="score")
    else:
        message = "must hold a number per solution, or a list of step scores"
        raise DataError(message, field="score")
    return {name: sum(x >= first for x in others) for name, (first, *others) in totals.items()}


def ranking_result(
    problems: Mapping[str, Losses], *, name: str, settings: Mapping[str, object]
) -> Result:
    """Accuracy and mean reciprocal rank by method."""
    metrics: dict[str, dict[str, Metric]] = {}
    questions: dict[str, list[QuestionResult]] = {}
    for method in next(iter(problems.values())):
        losses = [of_problem[method] for of_problem in problems.values()]
        metrics[method] = {
            "rewardmath": metric(estimate([float(n == 0) for n in losses])),
            "rewardmath/mrr": metric(estimate([1 / (1 + n) for n in losses])),
        }
        questions[method] = [
            QuestionResult(question_id=str(number), benchmark="rewardmath", value=float(n == 0))
            for number, n in enumerate(losses, start=1)
        ]
    return new_result(
        name=name,
        kind="responses",
        settings=settings,
        metrics=metrics,
        questions=questions,
        details={"benchmark": "rewardmath"},
    )
