"""VisualProcessBench (arXiv 2503.10291) and PRMBench (arXiv 2501.03124): every step right or wrong.

F1 of the right steps and F1 of the wrong steps. Their mean is VisualProcessBench's macro F1 and, at
its weight of one half, PRMBench's PRM score. Micro F1 of two classes is the accuracy of single
steps; where right steps are many it looks good for a model that finds no error, so both are stated.
Steps without label (neutral ones) do not count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dreamprm.errors import DataError
from dreamprm.evaluation.results import Metric, QuestionResult
from dreamprm.evaluation.step_level.first_error import check_complete
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
        return _f1(self.right_right, self.wrong_right, self.right_wrong)

    @property
    def f1_wrong(self) -> float:
        return _f1(self.wrong_wrong, self.right_wrong, self.wrong_right)

    @property
    def macro(self) -> float:
        return (self.f1_right + self.f1_wrong) / 2

    @property
    def micro(self) -> float:
        return (self.right_right + self.wrong_wrong) / sum(self)


def _f1(hits: int, false: int, missed: int) -> float:
    return 2 * hits / (2 * hits + false + missed) if hits else 0.0


def count(trajectory: Trajectory, logits: Sequence[float], threshold: float = 0.5) -> Counts:
    """Steps of one solution; a step is called right if its score is at least the threshold."""
    limit = math.log(threshold / (1 - threshold))
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
    if not 0 < threshold < 1:
        raise DataError(f"threshold is {threshold}; it must lie between 0 and 1")
    by_group: dict[str, Counts] = {benchmark: Counts()}
    rows = []
    for t in trajectories:
        at = (t.question_id, t.sample_index)
        if at not in scores:
            raise DataError(f"question '{at[0]}', candidate {at[1]} has no scores; score all")
        check_complete(t, scores[at])
        found = count(t, scores[at].logits, threshold)
        if not sum(found):
            continue  # no step is labelled
        subject = questions[t.question_id].subject
        for group in [benchmark] + ([f"{benchmark}/{subject}"] if subject else []):
            by_group[group] = by_group.get(group, Counts()) + found
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
    metrics = {}
    for group, counts in by_group.items():
        n = sum(counts)
        metrics[group] = Metric(value=counts.macro, n=n)
        metrics[f"{group}/micro_f1"] = Metric(value=counts.micro, n=n)
        metrics[f"{group}/f1_right"] = Metric(value=counts.f1_right, n=n)
        metrics[f"{group}/f1_wrong"] = Metric(value=counts.f1_wrong, n=n)
    return metrics, rows
