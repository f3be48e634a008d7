"""The first wrong step of a solution, by ProcessBench's rule and by those of benchmarks like it.

ProcessBench (arXiv 2412.06559): find the first wrong step, or that there is none. Of the erroneous
solutions the share whose first wrong step is found, of the correct ones the share in which none is
found; F1 is the harmonic mean of these two accuracies, per subset, and their mean. BIG-Bench
Mistake, MR-GSM8K, MR-MATH, Mr-Ben and MathCheck (`data/first_error.py`) are scored alike, and by
figures of their own. What is judged is a step that step scores point to, or that a critic names.

Intervals of F1 are by bootstrap over solutions.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from dreamprm.data.files import in_row
from dreamprm.data.first_error import EXTRA, NONE, UNPLACED
from dreamprm.data.rows import Row, each_row, own_extra
from dreamprm.errors import DataError, DataWarning
from dreamprm.evaluation.results import Metric, QuestionResult, metric, resampled_metrics
from dreamprm.evaluation.statistics import (
    Values,
    estimate,
    estimate_average,
)
from dreamprm.records import Question, Trajectory

Figures = tuple[dict[str, Metric], list[QuestionResult]]

Said = Mapping[str, int | None]
"""A solution's id in its benchmark -> 0-based first wrong step that a critic names, NONE where it
finds none, None where its words cannot be read."""

_KINDS = ("erroneous", "correct")
FIRST_STEP = {
    "processbench": 0,
    "big_bench_mistake": 0,
    "mr_gsm8k": 1,
    "mr_math": 1,
    "mr_ben": 1,
    "mathcheck": 1,
}
"""Benchmark of first errors -> the number that it gives the first step."""

_TEXTS = ("generated_critique", "critique", "response", "output")
_NO_ERROR = ("n/a", "none", "correct", "all-correct")


def solution_row(
    t: Trajectory, benchmark: str, value: float, groups: Mapping[str, tuple[str, ...]]
) -> QuestionResult:
    """A solution's row in the result file."""
    return QuestionResult(
        question_id=f"{t.question_id}/{t.sample_index}",
        benchmark=benchmark,
        value=value,
        groups=dict(groups),
        sample_index=t.sample_index,
    )


def labelled(trajectory: Trajectory) -> int:
    """0-based first wrong step by the labels; NONE, or UNPLACED where it is no step of the text."""
    labels = trajectory.labels
    if labels is None and own_extra(trajectory, EXTRA).get("index") == UNPLACED:
        return UNPLACED
    if labels is None:
        raise DataError(
            f"question {trajectory.question_id}, candidate {trajectory.sample_index} has no labels"
        )
    return next((i for i, label in enumerate(labels) if label and label.value < 1), NONE)


def read_said(path: Path, benchmark: str) -> Said:
    r"""What a critic says of each solution, by the solution's id.

    Rows are those of ProcessBench's own `run_eval.py`, or any with `id` (or `uuid`) and the first
    wrong step in `prediction`, or in `label` where the row does not hold the solution. Steps are
    counted as the benchmark counts them (`FIRST_STEP`). -1 is none; where the first step is 1,
    "Step 3" and "N/A" do too; null is what cannot be read, and never right. In place of a
    prediction the critic's text does, in `generated_critique`, `critique`, `response` or `output`:
    its last `\boxed{}` counts. Of a list of texts the commonest answer counts, the first of
    equally common ones.

    Raises:
        DataError: a row without id or prediction, or two rows of one id.
    """
    said: dict[str, int | None] = {}
    for number, row in each_row(path):
        with in_row(path, number):
            id = row.get("id", row.get("uuid"))
            if id is None or str(id) in said:
                message = "two rows have this id" if id is not None else "names no solution"
                raise DataError(message, field="id")
            said[str(id)] = _index_of(_prediction(row), FIRST_STEP[benchmark])
    if not said:
        raise DataError("holds no predictions", file=path)
    return said


def _prediction(row: Row) -> object:
    if "prediction" in row:
        return row["prediction"]
    for field in _TEXTS:
        texts = row.get(field)
        if isinstance(texts, str):
            return _boxed(texts)
        if isinstance(texts, list) and all(isinstance(text, str) for text in texts):
            answers = Counter(answer for text in texts if (answer := _boxed(text)) is not None)
            return answers.most_common(1)[0][0] if answers else None
    if "label" in row and "steps" not in row:
        return row["label"]
    raise DataError(f"has neither prediction nor one of {', '.join(_TEXTS)}; holds {list(row)}")


def _boxed(text: str) -> str | None:
    r"""What the last \boxed{} of a text holds, up to its first closing brace."""
    _, mark, rest = text[: text.rfind("}") + 1].rpartition("\\boxed{")
    return rest.partition("}")[0].strip() if mark else None


def _index_of(prediction: object, first_step: int) -> int | None:
    """The index of a step that a prediction names, NONE, or None where it cannot be read."""
    if isinstance(prediction, float) and prediction.is_integer():  # a column with nulls in it
        prediction = int(prediction)
    text = str("" if prediction is None else prediction).strip().casefold()
    if text == "-1" or (first_step == 1 and text in _NO_ERROR):
        return NONE
    number = re.fullmatch(r"\d{1,9}", text.removeprefix("step ") if first_step == 1 else text)
    return int(number[0]) - first_step if number and int(number[0]) >= first_step else None


def said_of(t: Trajectory, said: Said) -> int | None:
    """What is said of a solution of a benchmark's own file.

    Raises:
        DataError: nothing is.
    """
    id = str(own_extra(t, EXTRA).get("id"))
    if id not in said:
        raise DataError(f"solution '{id}' has no prediction; give one for each of the data's rows")
    return said[id]


def harmonic(error: ArrayLike, correct: ArrayLike) -> Values:
    """F1 of the two accuracies, 0 where both are 0."""
    e, c = np.asarray(error, float), np.asarray(correct, float)
    f1: Values = 2 * e * c / np.maximum(e + c, 1e-12)
    return f1


def first_error_figures(
    benchmark: str,
    questions: Mapping[str, Question],
    trajectories: Sequence[Trajectory],
    said: Sequence[int | None],
) -> Figures:
    """One row per solution: is its first wrong step found?

    Args:
        said: for each solution the 0-based first wrong step that is predicted, NONE, or None where
            a critic's words cannot be read.
    """
    rows = []
    truths = [labelled(t) for t in trajectories]
    for t, truth, answer in zip(trajectories, truths, said, strict=True):
        groups = {"kind": (_KINDS[truth == NONE],)}
        if subject := questions[t.question_id].subject:
            groups["subset"] = (subject,)
        row = solution_row(t, benchmark, float(answer == truth), groups)
        rows.append(row.model_copy(update={"answer": None if answer is None else str(answer)}))
    for count, what in (
        (truths.count(UNPLACED), "are wrong and name no step of their text"),
        (list(said).count(None), "have a prediction that cannot be read"),
    ):
        if count:
            message = f"{count:,} of {len(rows):,} solutions {what}; they count as missed"
            warnings.warn(message, DataWarning, stacklevel=2)
    return first_error_metrics(rows), rows


def first_error_metrics(rows: Sequence[QuestionResult]) -> dict[str, Metric]:
    """F1 and the two accuracies, of every subset and on average over subsets.

    Beside it stand the benchmarks' own figures, over all solutions: BIG-Bench Mistake's accuracy;
    of MR-GSM8K and Mr-Ben the correlation (MCC, 0 where it is negative) of solutions that are right
    with those called right, and of their MR-Score, 0.2 MCC + 0.3 (first wrong step found) + 0.5
    (error explained), what can be had without explanations: at most 0.5. All of MathCheck's
    solutions are wrong: its figure is the accuracy, the mean over kinds of questions.

    Raises:
        DataError: a subset without erroneous or without correct solutions has no F1.
    """
    if not rows:
        raise DataError("holds no solutions to judge")
    benchmark = rows[0].benchmark
    subsets: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        [subset], [kind] = row.groups.get("subset", ("all",)), row.groups["kind"]
        subsets.setdefault(subset, {}).setdefault(kind, []).append(row.value)
    metrics: dict[str, Metric] = {}
    if benchmark == "mathcheck":
        for subset, part in sorted(subsets.items()):
            metrics[f"{benchmark}/{subset}"] = metric(estimate(part["erroneous"]))
        whole = estimate_average({name: part["erroneous"] for name, part in subsets.items()})
        return {benchmark: metric(whole)} | metrics
    tables: list[Values] = []  # of each subset its erroneous, then its correct solutions, (n, 1)
    for subset, part in sorted(subsets.items()):
        if len(part) < 2:
            absent = "erroneous" if "correct" in part else "correct"
            raise DataError(f"subset '{subset}' has no {absent} solutions, and so no F1")
        for kind, values in sorted(part.items()):
            metrics[f"{benchmark}/{subset}/{kind}"] = metric(estimate(values))
        tables += [np.array(part[kind])[:, None] for kind in _KINDS]

    def f1(*sums: Values) -> dict[str, Values]:
        """Of sums (draws, 1) of the tables the mean F1 and that of each subset, (draws,)."""
        shares = [of_table[:, 0] / len(t) for of_table, t in zip(sums, tables, strict=True)]
        f1s = harmonic(np.stack(shares[::2]), np.stack(shares[1::2]))  # (subsets, draws)
        names = [f"{benchmark}/{subset}/f1" for subset in sorted(subsets)]
        return {benchmark: np.mean(f1s, axis=0)} | dict(zip(names, f1s, strict=True))

    metrics = resampled_metrics(f1, *tables, n=len(rows)) | metrics
    for subset, part in subsets.items():
        name, count = f"{benchmark}/{subset}/f1", sum(map(len, part.values()))
        metrics[name] = metrics[name].model_copy(update={"n": count})
    if benchmark == "big_bench_mistake":
        metrics[f"{benchmark}/accuracy"] = metric(estimate([row.value for row in rows]))
    if benchmark in ("mr_gsm8k", "mr_ben"):
        metrics |= {f"{benchmark}/{name}": m for name, m in _mr_metrics(rows).items()}
    return metrics


def _mr_metrics(rows: Sequence[QuestionResult]) -> dict[str, Metric]:
    """MCC and the known part of the MR-Score; a prediction that cannot be read is no judgement."""
    tables = []  # of erroneous and of correct solutions: (solutions, [rightly judged, step found])
    for kind in _KINDS:
        of_kind = [row for row in rows if row.groups["kind"] == (kind,)]
        judged = [
            r.answer is not None and (r.answer == str(NONE)) == (kind == "correct") for r in of_kind
        ]
        tables.append(np.array([judged, [row.value for row in of_kind]]).T.astype(np.float64))
    wrong, right = map(len, tables)

    def figures(wrong_sums: Values, right_sums: Values) -> dict[str, Values]:
        """Of sums (draws, 2) MCC and score, both (draws,)."""
        tn, tp = wrong_sums[:, 0], right_sums[:, 0]
        fp, fn = wrong - tn, right - tp
        root = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
        mcc = np.maximum(0.0, (tp * tn - fp * fn) / np.where(root == 0, 1.0, root))
        return {"mcc": mcc, "mr_score_unexplained": 0.2 * mcc + 0.3 * wrong_sums[:, 1] / wrong}

    return resampled_metrics(figures, *tables, n=len(rows))
