"""Answers that were chosen -> a result file: accuracy, and accuracy over tokens spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dreamprm.errors import DataError
from dreamprm.evaluation.results import QuestionResult, Result, new_result
from dreamprm.evaluation.selection_result import AVERAGE, check_name, metric
from dreamprm.evaluation.statistics import Estimate, estimate, estimate_average
from dreamprm.evaluation.summary import estimate_json
from dreamprm.records import Question
from dreamprm.search.choosing import Choice

POINTS = 24  # of the curve over tokens


def choices_result(
    choices: Sequence[Choice],
    questions: Sequence[Question],
    *,
    name: str,
    method: str,
    settings: Mapping[str, Any],
) -> Result:
    """Figures of one method; questions whose outcome is not known are left out.

    Raises:
        DataError: no outcome is known.
    """
    by_id = {q.id: q for q in questions}
    known = sorted(
        (c for c in choices if c.outcome is not None and c.question_id in by_id),
        key=lambda c: c.question_id,
    )
    if not known:
        raise DataError("no answer is known to be right or wrong; give questions with answers")
    groups: dict[str, list[Choice]] = {}
    for choice in known:
        groups.setdefault(by_id[choice.question_id].domain, []).append(choice)
    values = {b: [float(bool(c.outcome)) for c in group] for b, group in groups.items()}
    metrics = {AVERAGE: metric(estimate_average(values))}
    metrics |= {check_name(b): metric(estimate(found)) for b, found in values.items()}
    curve = token_curve(groups)
    return new_result(
        name=name,
        kind="selection",
        settings=dict(settings),
        metrics={method: metrics},
        questions={
            method: tuple(_row(c, by_id[c.question_id]) for group in groups.values() for c in group)
        },
        details={
            "main_method": method,
            "asked": len(questions),
            "answered": len(choices),
            "token_curve": {method: {str(t): estimate_json(e) for t, e in curve.items()}},
        },
    )


def token_curve(benchmarks: Mapping[str, Sequence[Choice]]) -> dict[int, Estimate]:
    """Tokens that a question may cost -> accuracy if each had stopped there.

    A question without an answer at that point counts as wrong. The last point is the whole search.

    Args:
        benchmarks: choices with known outcomes; no curve where one has no `changes`.
    """
    every = [c for group in benchmarks.values() for c in group]
    if not all(c.changes for c in every):
        return {}
    first = min(c.changes[0].tokens for c in every)
    last = max(c.tokens or c.changes[-1].tokens for c in every)
    budgets = np.unique(np.geomspace(first, last, POINTS).round().astype(int))  # (points,)
    return {
        int(budget): estimate_average(
            {b: [_right_by(c, budget) for c in group] for b, group in benchmarks.items()}
        )
        for budget in budgets
    }


def _right_by(choice: Choice, tokens: int) -> float:
    so_far = [change for change in choice.changes if change.tokens <= tokens]
    return float(bool(so_far and so_far[-1].outcome))


def _row(choice: Choice, question: Question) -> QuestionResult:
    return QuestionResult(
        question_id=choice.question_id,
        benchmark=question.domain,
        value=float(bool(choice.outcome)),
        groups={} if question.subject is None else {"subject": (question.subject,)},
        sample_index=choice.sample_index,
        answer=choice.answer,
        tokens=choice.tokens,
    )
