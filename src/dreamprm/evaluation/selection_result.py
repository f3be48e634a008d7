"""An evaluation of ways of choosing -> a result file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dreamprm.errors import DataError
from dreamprm.evaluation.aggregation_choice import AggregationChoice
from dreamprm.evaluation.evaluate import Evaluation
from dreamprm.evaluation.results import Metric, QuestionResult, Result, new_result
from dreamprm.evaluation.statistics import Estimate, estimate
from dreamprm.evaluation.summary import difference_json, estimate_json
from dreamprm.records import Question, Trajectory

AVERAGE = "average"
"""Metric of all benchmarks together."""


def check_name(benchmark: str) -> str:
    """The benchmark's name, if a metric can bear it."""
    if benchmark == AVERAGE:
        raise DataError(
            f"a domain is called '{AVERAGE}', as the mean over domains is; rename it",
            field="domain",
        )
    return benchmark


def metric(found: Estimate) -> Metric:
    """An estimate as a result file holds it."""
    return Metric(value=found.mean, ci95=found.ci95, n=found.n)


def selection_result(
    evaluation: Evaluation,
    questions: Sequence[Question],
    trajectories: Sequence[Trajectory],
    *,
    name: str,
    main_method: str,
    settings: Mapping[str, Any],
    choices: Mapping[str, AggregationChoice] | None = None,
) -> Result:
    """Every method's figures, and what it chose for every question.

    Metrics of a method are `average` (over benchmarks), one per benchmark and, where questions have
    subjects, one per benchmark and subject.
    """
    by_id = {q.id: q for q in questions}
    answers = {(t.question_id, t.sample_index): t.answer for t in trajectories}
    metrics: dict[str, dict[str, Metric]] = {}
    rows: dict[str, list[QuestionResult]] = {}
    for method, values in evaluation.values.items():
        found = {AVERAGE: metric(evaluation.average[method])}
        rows[method] = []
        for benchmark, ids in evaluation.question_ids.items():
            found[check_name(benchmark)] = metric(evaluation.accuracy[benchmark][method])
            subjects: dict[str, list[int]] = {}
            for place, question_id in enumerate(ids):
                subject = by_id[question_id].subject
                if subject is not None:
                    subjects.setdefault(subject, []).append(place)
                chosen = evaluation.chosen.get(method, {}).get(question_id)
                for seed, value in enumerate(values[benchmark][:, place]):
                    rows[method].append(
                        QuestionResult(
                            question_id=question_id,
                            benchmark=benchmark,
                            value=float(value),
                            groups={} if subject is None else {"subject": (subject,)},
                            # What other seeds chose is not kept.
                            sample_index=None if seed else chosen,
                            answer=None if chosen is None or seed else answers[question_id, chosen],
                            seed=seed,
                        )
                    )
            for subject, places in subjects.items():
                found[f"{benchmark}/{subject}"] = metric(estimate(values[benchmark][:, places]))
        metrics[method] = found
    others = [m for m in evaluation.values if m != main_method]
    return new_result(
        name=name,
        kind="selection",
        settings=dict(settings),
        metrics=metrics,
        questions={method: tuple(found) for method, found in rows.items()},
        details={
            "n": evaluation.n,
            "main_method": main_method,
            "curve": {
                method: {str(n): estimate_json(e) for n, e in curve.items()}
                for method, curve in evaluation.scaling.items()
            },
            "differences": {
                f"{main_method} - {m}": difference_json(evaluation.difference(main_method, m))
                for m in others
            },
            "aggregation_chosen": {m: asdict(c) for m, c in (choices or {}).items()},
        },
    )
