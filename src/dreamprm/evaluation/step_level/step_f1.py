"""Every step right or wrong, as in VisualProcessBench (arXiv 2503.10291) and PRMBench (`prmbench`).

F1 of the right steps and F1 of the wrong steps. Their mean is VisualProcessBench's macro F1 and, at
its weight of one half, PRMBench's PRM score. Micro F1 of two classes is the accuracy of single
steps; where right steps are many it looks good for a model that finds no error, so both are stated.
Steps without label (neutral ones) do not count. Intervals are by bootstrap over questions,
because steps and solutions of one are not independent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dreamprm.errors import DataError
from dreamprm.evaluation.results import Metric, QuestionResult
from dreamprm.evaluation.statistics import Values, resampled_sums, spread
from dreamprm.evaluation.step_level.first_error import logit_of, scores_of
from dreamprm.records import Question, StepScores, Trajectory


class Counts(NamedTuple):
    """Steps by truth and prediction."""

    right_right: int = 0
    right_wrong: int = 0  # right, called wrong
    wrong_right: int = 0
    wrong_wrong: int = 0

    def __add__(self, other: tuple[int, ...]) -> Counts:  # type: ignore[override]  # of counts
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def f1_right(self) -> float:
        return self._value("f1_right")

    @property
    def f1_wrong(self) -> float:
        return self._value("f1_wrong")

    @property
    def macro(self) -> float:
        return self._value("macro")

    @property
    def micro(self) -> float:
        return self._value("micro")

    def _value(self, kind: str) -> float:
        return float(_statistics(np.array([self], dtype=np.float64))[kind][0])


ByQuestion = dict[str, Counts]
"""Question id -> its solutions' steps: what is resampled."""


def add(by_question: ByQuestion, t: Trajectory, counts: Counts) -> None:
    """Put a solution's steps to those of its question."""
    by_question[t.question_id] = by_question.get(t.question_id, Counts()) + counts


def count(trajectory: Trajectory, logits: Sequence[float], threshold: float = 0.5) -> Counts:
    """Steps of one solution; a step is called right if its score is at least the threshold."""
    limit = logit_of(threshold)
    total = Counts()
    for label, z in zip(trajectory.labels or (), logits, strict=False):
        if label is not None:
            cell = 2 * (label.value < 1) + (z < limit)  # in the order of the fields
            total += tuple(int(i == cell) for i in range(4))
    return total


def step_metrics(
    questions: Mapping[str, Question],
    trajectories: Sequence[Trajectory],
    scores: Mapping[tuple[str, int], StepScores],
    benchmark: str,
    threshold: float = 0.5,
) -> tuple[dict[str, Metric], list[QuestionResult]]:
    """Macro and micro F1 of the whole and of every subject, and the share of right verdicts per
    solution.
    """
    by_group: dict[str, ByQuestion] = {benchmark: {}}
    rows = []
    for t in trajectories:
        at = (t.question_id, t.sample_index)
        found = count(t, scores_of(t, scores).logits, threshold)
        if not sum(found):
            continue  # no step is labelled
        subject = questions[t.question_id].subject
        for group in [benchmark] + ([f"{benchmark}/{subject}"] if subject else []):
            add(by_group.setdefault(group, {}), t, found)
        rows.append(
            QuestionResult(
                question_id=f"{at[0]}/{at[1]}",
                benchmark=benchmark,
                value=found.micro,
                groups={"subject": (subject,)} if subject else {},
                sample_index=at[1],
            )
        )
    if not rows:
        raise DataError(f"no step of {benchmark} has a label")
    metrics: dict[str, Metric] = {}
    for group, counts in by_group.items():
        metrics |= metrics_of(group, counts)
    return metrics, rows


def metrics_of(name: str, by_question: ByQuestion, main: str = "macro") -> dict[str, Metric]:
    """Figures with 95% intervals; `main` is the one that bears the name."""
    table = np.array(list(by_question.values()), dtype=np.float64)  # (questions, 4)
    values = _statistics(table.sum(0)[None])
    draws = _statistics(resampled_sums(table))
    n = int(table.sum())
    found = {}
    for kind, label in (
        (main, name),
        ("micro", f"{name}/micro_f1"),
        ("f1_right", f"{name}/f1_right"),
        ("f1_wrong", f"{name}/f1_wrong"),
    ):
        value = float(values[kind][0])
        found[label] = Metric(value=value, ci95=spread(draws[kind], value), n=n)
    return found


def _statistics(counts: Values) -> dict[str, Values]:
    """Name -> (n,), of counts (n, 4) in the order of `Counts`."""
    right_right, right_wrong, wrong_right, wrong_wrong = counts.T
    errors = right_wrong + wrong_right
    f1_right = 2 * right_right / np.maximum(2 * right_right + errors, 1)
    f1_wrong = 2 * wrong_wrong / np.maximum(2 * wrong_wrong + errors, 1)
    return {
        "micro": (right_right + wrong_wrong) / counts.sum(1),
        "f1_right": f1_right,
        "f1_wrong": f1_wrong,
        "macro": (f1_right + f1_wrong) / 2,
    }
