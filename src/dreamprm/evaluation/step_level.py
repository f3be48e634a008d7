"""Benchmarks of the step scores themselves: a step with a score below a threshold is called wrong.

ProcessBench and its like: the first step that is called wrong, see `first_error.py`.

VisualProcessBench (arXiv 2503.10291): every labelled step, F1 of the right steps and F1 of the
wrong ones; their mean is the macro F1. Micro F1 of two classes is the accuracy of single steps;
where right steps are many it looks good for a model that finds no error, so both are stated. Steps
without label (neutral ones) do not count.

PRMBench (arXiv 2501.03124): nine kinds of planted errors. What counts is what its own evaluation
counts: the modified solutions, one per class and `idx`. The PRM score is the macro F1 over all of
them, and of every class; `multi_solutions` has no wrong steps, so its score is the F1 of right
steps. A category has the mean of its classes. Originals (those of the class `redundency`, so that
none is there twice) are stated beside as `correct`: the share of their steps that is called right.

Intervals of F1 are by bootstrap over questions, because steps and solutions of one question are not
independent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dreamprm.data.first_error import NONE
from dreamprm.data.rows import own_extra
from dreamprm.errors import DataError
from dreamprm.evaluation.first_error import (
    FIRST_STEP,
    Figures,
    Said,
    first_error_figures,
    said_of,
    solution_row,
)
from dreamprm.evaluation.results import (
    Metric,
    QuestionResult,
    Result,
    new_result,
    resampled_metrics,
    subject_of,
)
from dreamprm.evaluation.statistics import Values
from dreamprm.records import Question, StepScores, Trajectory
from dreamprm.search.choosing import name_of, scores_of

Scored = Mapping[tuple[str, int], StepScores]  # (question id, sample_index) -> step scores


def score_steps(
    benchmark: str,
    questions: Sequence[Question],
    trajectories: Sequence[Trajectory],
    scores: Sequence[StepScores] | Said,
    *,
    threshold: float = 0.5,
    name: str,
    settings: Mapping[str, object] | None = None,
) -> Result:
    """The benchmark's figures from step scores of its solutions.

    Args:
        benchmark: one of `FIRST_STEP`, visualprocessbench or prmbench.
        scores: of the former also what a critic says, see `read_said`.
        threshold: a step with a score below it is called wrong; choose it on other data.
        name: of the run.

    Raises:
        DataError: a solution has no scores, too few, or other steps were judged.
    """
    by_id = {q.id: q for q in questions}
    said: list[int | None] = []
    scored: Scored = {}
    if isinstance(scores, Mapping):
        said = [said_of(t, scores) for t in trajectories]
    else:
        scored = {(s.question_id, s.sample_index): s for s in scores}
    if benchmark in FIRST_STEP:
        said = said or [predicted(logits_of(t, scored), threshold) for t in trajectories]
        metrics, rows = first_error_figures(benchmark, by_id, trajectories, said)
        if benchmark == "mr_math" and scored:  # its own figure: all steps up to the first error
            steps = f"{benchmark}/steps"
            metrics[steps] = step_figures(by_id, trajectories, scored, steps, threshold)[0][steps]
    elif benchmark == "prmbench":
        metrics, rows = prmbench_figures(trajectories, scored, threshold)
    else:
        metrics, rows = step_figures(by_id, trajectories, scored, benchmark, threshold)
    return new_result(
        name=name,
        kind="steps",
        settings=settings,
        metrics={name: metrics},
        questions={name: rows},
        details={"benchmark": benchmark},
    )


def logit_of(threshold: float) -> float:
    """The logit below which a step is called wrong."""
    if not 0 < threshold < 1:
        raise DataError(f"threshold is {threshold}; it must lie between 0 and 1")
    return math.log(threshold / (1 - threshold))


def logits_of(t: Trajectory, scored: Scored) -> tuple[float, ...]:
    """The logits of a solution, one for each step: a first error may be behind missing ones."""
    row = scores_of(t, scored)
    if len(row.logits) != len(t.steps):
        raise DataError(
            f"{name_of(t)}: {len(row.logits)} scores for {len(t.steps)} steps; score it whole, "
            "with a longer context"
        )
    return row.logits


def predicted(logits: Sequence[float], threshold: float = 0.5) -> int:
    """0-based first step whose score is below the threshold; -1 for none.

    >>> predicted([2.0, -1.0, 3.0]), predicted([2.0, 1.0])
    (1, -1)
    """
    limit = logit_of(threshold)
    return next((i for i, z in enumerate(logits) if z < limit), NONE)


# ---- VisualProcessBench: every step


class Counts(NamedTuple):
    """Steps by truth and prediction."""

    right_right: int = 0
    right_wrong: int = 0  # right, called wrong
    wrong_right: int = 0
    wrong_wrong: int = 0

    def __add__(self, other: tuple[int, ...]) -> Counts:  # type: ignore[override]  # of counts
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def micro(self) -> float:
        """Share of the steps that are judged right."""
        return (self.right_right + self.wrong_wrong) / sum(self)


ByQuestion = dict[str, Counts]
"""Question id -> its solutions' steps: what is resampled."""


def add(by_question: ByQuestion, t: Trajectory, counts: Counts) -> None:
    """Add a solution's steps to those of its question."""
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


def step_figures(
    questions: Mapping[str, Question],
    trajectories: Sequence[Trajectory],
    scored: Scored,
    benchmark: str,
    threshold: float,
) -> Figures:
    """Macro and micro F1, in all and by subject; a row has the micro F1 of a solution."""
    by_group: dict[str, ByQuestion] = {benchmark: {}}
    rows = []
    for t in trajectories:
        counts = count(t, logits_of(t, scored), threshold)
        if not sum(counts):
            continue  # no step is labelled
        question = questions[t.question_id]
        for group in (benchmark, question.subject and f"{benchmark}/{question.subject}"):
            if group:
                add(by_group.setdefault(group, {}), t, counts)
        rows.append(solution_row(t, benchmark, counts.micro, subject_of(question)))
    if not rows:
        raise DataError(f"no step of {benchmark} has a label")
    metrics: dict[str, Metric] = {}
    for group, by_question in by_group.items():
        metrics |= metrics_of(group, by_question)
    return metrics, rows


def metrics_of(name: str, by_question: ByQuestion, main: str = "macro") -> dict[str, Metric]:
    """Figures with 95% intervals; `main` is the one that bears the name."""
    table = np.array(list(by_question.values()), dtype=np.float64)  # (questions, 4)
    metrics = resampled_metrics(_statistics, table, n=int(table.sum()))
    labels = {name: main, f"{name}/micro_f1": "micro"}
    labels |= {f"{name}/{kind}": kind for kind in ("f1_right", "f1_wrong")}
    return {label: metrics[kind] for label, kind in labels.items()}


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


# ---- PRMBench: every step of modified solutions

PRMBENCH = "prmbench"
CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "simplicity": ("redundency", "circular"),
    "soundness": ("counterfactual", "step_contradiction", "domain_inconsistency", "confidence"),
    "sensitivity": ("missing_condition", "deception", "multi_solutions"),
}
CLASSES = {name: category for category, names in CATEGORIES.items() for name in names}
_ALL_RIGHT = "multi_solutions"
_HAS_ORIGINALS = "redundency"


def prmbench_figures(
    trajectories: Sequence[Trajectory], scored: Scored, threshold: float = 0.5
) -> Figures:
    """PRM score of the whole, of categories and of classes, and a row per modified solution."""
    counted: dict[str, ByQuestion] = {name: {} for name in (*CLASSES, "correct", "all")}
    rows: list[QuestionResult] = []
    seen: set[tuple[str, str]] = set()
    of_rows = {_row_of(t): (_class(t), _idx(t)) for t in trajectories if _is_modified(t)}
    for t in trajectories:
        modified = _is_modified(t)
        name, idx = of_rows.get(_row_of(t), ("", ""))
        if not modified and name != _HAS_ORIGINALS:
            continue
        key = (name if modified else "correct", idx)
        if key in seen:
            continue
        seen.add(key)
        counts = count(t, logits_of(t, scored), threshold)
        add(counted[key[0]], t, counts)
        if modified:
            add(counted["all"], t, counts)
            groups = {"class": (name,), "category": (CLASSES[name],)}
            rows.append(solution_row(t, PRMBENCH, counts.micro, groups))
    if not rows:
        raise DataError("holds no modified solutions with steps")
    return _prmbench_metrics(counted), rows


def _prmbench_metrics(counted: Mapping[str, ByQuestion]) -> dict[str, Metric]:
    metrics = metrics_of(PRMBENCH, counted["all"])
    by_class: dict[str, Metric] = {}
    for name in CLASSES:
        if counted[name]:
            kind = "f1_right" if name == _ALL_RIGHT else "macro"
            by_class[name] = metrics_of("", counted[name], kind)[""]
    for category, names in CATEGORIES.items():
        parts = [by_class[name] for name in names if name in by_class]
        if parts:
            value = float(np.mean([m.value for m in parts]))
            n = sum(m.n for m in parts)
            metrics[f"{PRMBENCH}/category/{category}"] = Metric(value=value, n=n)
    metrics |= {f"{PRMBENCH}/class/{name}": metric for name, metric in by_class.items()}
    if originals := counted["correct"]:
        metrics[f"{PRMBENCH}/class/correct"] = metrics_of("", originals, "micro")[""]
    return metrics


def _is_modified(t: Trajectory) -> bool:
    return own_extra(t, PRMBENCH).get("process") == "modified"


def _row_of(t: Trajectory) -> str:
    return str(own_extra(t, PRMBENCH).get("row"))


def _of_row(t: Trajectory, field: str) -> str | None:
    of_row = own_extra(t, PRMBENCH).get("of_row")
    value = of_row.get(field) if isinstance(of_row, dict) else None
    return None if value is None else str(value)


def _idx(t: Trajectory) -> str:
    idx = _of_row(t, "idx")
    if idx is None:
        raise DataError(
            f"row {_row_of(t)} has no idx, by which rows that are there twice are told; give the "
            "file as published",
            field="idx",
        )
    return idx


def _class(t: Trajectory) -> str:
    name = _of_row(t, "classification")
    if name not in CLASSES:
        raise DataError(
            f"classification is {name!r}, none of {', '.join(CLASSES)}: another version of the "
            "file",
            field="classification",
        )
    return name
