"""PRMBench (arXiv 2501.03124): nine kinds of planted errors, one PRM score.

What counts is what its own evaluation counts: the modified solutions, one per class and `idx`. The
PRM score is the mean of the F1 of right steps and the F1 of wrong steps over all of them, and of
every class; `multi_solutions` has no wrong steps, so its score is the F1 of right steps. A category
has the mean of its classes. Originals (those of the class `redundency`, so that none is there
twice) are stated beside as `correct`: the share of their steps that is called right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dreamprm.data.rows import own_extra
from dreamprm.errors import DataError
from dreamprm.evaluation.results import Metric, QuestionResult
from dreamprm.evaluation.step_level.first_error import scores_of
from dreamprm.evaluation.step_level.step_f1 import ByQuestion, add, count, metrics_of
from dreamprm.records import StepScores, Trajectory

NAME = "prmbench"
CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "simplicity": ("redundency", "circular"),
    "soundness": ("counterfactual", "step_contradiction", "domain_inconsistency", "confidence"),
    "sensitivity": ("missing_condition", "deception", "multi_solutions"),
}
CLASSES = {name: category for category, names in CATEGORIES.items() for name in names}
_ALL_RIGHT = "multi_solutions"
_HAS_ORIGINALS = "redundency"


def prmbench_metrics(
    trajectories: Sequence[Trajectory],
    scores: Mapping[tuple[str, int], StepScores],
    threshold: float = 0.5,
) -> tuple[dict[str, Metric], list[QuestionResult]]:
    """PRM score of the whole, of categories and of classes, and a row per modified solution.

    Raises:
        DataError: a solution has no scores, or no class that PRMBench knows.
    """
    found: dict[str, ByQuestion] = {name: {} for name in (*CLASSES, "correct", "all")}
    rows: list[QuestionResult] = []
    seen: set[tuple[str, str]] = set()
    of_rows = {_row_of(t): (_class(t), _idx(t)) for t in trajectories if _side(t) == "modified"}
    for t in trajectories:
        modified = _side(t) == "modified"
        name, idx = of_rows.get(_row_of(t), ("", ""))
        if not modified and name != _HAS_ORIGINALS:
            continue
        key = (name if modified else "correct", idx)
        if key in seen:
            continue
        seen.add(key)
        at = (t.question_id, t.sample_index)
        counts = count(t, scores_of(t, scores).logits, threshold)
        add(found[key[0]], t, counts)
        if modified:
            add(found["all"], t, counts)
            rows.append(
                QuestionResult(
                    question_id=f"{at[0]}/{at[1]}",
                    benchmark=NAME,
                    value=counts.micro,
                    groups={"class": (name,), "category": (CLASSES[name],)},
                    sample_index=at[1],
                )
            )
    if not rows:
        raise DataError("holds no modified solutions with steps")
    return _metrics(found), rows


def _metrics(found: Mapping[str, ByQuestion]) -> dict[str, Metric]:
    metrics = metrics_of(NAME, found["all"])
    by_class: dict[str, Metric] = {}
    for name in CLASSES:
        if found[name]:
            kind = "f1_right" if name == _ALL_RIGHT else "macro"
            by_class[name] = metrics_of("", found[name], kind)[""]
    for category, names in CATEGORIES.items():
        there = [by_class[name] for name in names if name in by_class]
        if there:
            value = float(np.mean([m.value for m in there]))
            n = sum(m.n for m in there)
            metrics[f"{NAME}/category/{category}"] = Metric(value=value, n=n)
    metrics |= {f"{NAME}/class/{name}": metric for name, metric in by_class.items()}
    if originals := found["correct"]:
        metrics[f"{NAME}/class/correct"] = metrics_of("", originals, "micro")[""]
    return metrics


def _side(t: Trajectory) -> str:
    return str(own_extra(t, NAME).get("process"))


def _row_of(t: Trajectory) -> str:
    return str(own_extra(t, NAME).get("row"))


def _of_row(t: Trajectory, field: str) -> str | None:
    of_row = own_extra(t, NAME).get("of_row")
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
