"""Any number of result files -> one page that compares their runs.

Every method of every file is a run. Figures stand side by side; differences are taken only on the
questions that both runs have, and the page says where these are not all. Questions on which runs
differ are shown with the answer of each, which a table cannot show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dreamprm.data import check_images
from dreamprm.data.files import BadRow, refuse
from dreamprm.errors import DataError, offer
from dreamprm.evaluation.compare import (
    OF_STEPS,
    Comparison,
    Run,
    compare,
    main_runs,
    named,
    runs_of,
)
from dreamprm.evaluation.results import AVERAGE, Metric, QuestionResult, Result, read_result
from dreamprm.evaluation.statistics import Difference, Estimate
from dreamprm.records import Question
from dreamprm.report.build import evenly, example_of
from dreamprm.report.page import AccuracyTable, Example, ExampleCandidate, ReportData


def comparison_report(
    paths: Sequence[Path],
    *,
    title: str,
    notice: str = "",
    baseline: str | None = None,
    questions: Sequence[Question] = (),
    max_examples: int = 24,
    bad_image: BadRow = refuse,
) -> ReportData:
    """The page's content.

    Args:
        baseline: run that the others are compared with; by default the main method of the first
            file.
        questions: shown where runs differ, with the answer of each.
        bad_image: see `data.check_images`; questions that it leaves out are not shown.

    Raises:
        DataError: no files, one of another version, or no such baseline.
    """
    if not paths:
        raise DataError("there are no result files; give some")
    results = [read_result(path) for path in paths]
    names = named(results)
    metrics = {name: result.metrics.get(method, {}) for name, result, method in names}
    with_rows = runs_of(results) if any(result.questions for result in results) else []
    first = [run.name for run in main_runs(results)] if with_rows else []
    main = baseline or next(iter(first or metrics))
    if main not in metrics:
        raise DataError(f"baseline '{main}' is none of the runs; {offer(main, list(metrics))}")
    differences, notes = _differences(with_rows, main)
    for name, result, method in names:
        if method in result.ties:
            notes.append(f"{name}: {result.ties[method]}.")
    if any(result.kind == "steps" for result in results):
        notes.append(f"Note: {OF_STEPS}.")
    return ReportData(
        title=title,
        headline=f"{len(metrics)} runs of {len(results)} result files, compared with {main}.",
        notice=notice,
        tables=(_main_table(metrics, differences, notes), *_part_tables(metrics)),
        scaling=_curves(names, "curve"),
        token_curves=_curves(names, "token_curve"),
        examples=_disagreements(
            with_rows, questions, main=main, limit=max_examples, bad_image=bad_image
        ),
        runs={r.name if len(results) > 1 else "settings": _facts(r) for r in results},
        main_method=main,
        reference_methods=frozenset({"prm_oracle", "any_right"})
        | {name for name in metrics if name.endswith((": any_right", ": prm_oracle"))},
        method_labels={},
    )


def _differences(runs: Sequence[Run], main: str) -> tuple[dict[str, Difference], list[str]]:
    """Main run minus each other, and what a reader must know about them."""
    if main not in {run.name for run in runs}:
        return {}, ["The baseline's file holds no rows of questions, so there are no differences."]
    differences: dict[str, Difference] = {}
    notes = []
    base = next(run for run in runs if run.name == main)
    for run in runs:
        if run is base:
            continue
        try:
            [one] = compare([base, run])
        except DataError:
            notes.append(f"{run.name} shares no question with {main}.")
            continue
        differences[run.name] = _negated(one)
        if one.unpaired:
            notes.append(f"{run.name}: {one.unpaired} questions of one of the two are left out.")
    return differences, notes


def _negated(one: Comparison) -> Difference:
    d = one.difference
    return Difference(d.n, -d.mean, -d.hi, -d.lo, one.exact.p if one.exact else d.p)


def _main_table(
    metrics: Mapping[str, Mapping[str, Metric]],
    differences: Mapping[str, Difference],
    notes: Sequence[str],
) -> AccuracyTable:
    columns: dict[str, dict[str, Estimate]] = {}
    for run, of_run in metrics.items():
        for name, metric in of_run.items():
            if "/" not in name:
                columns.setdefault(name, {})[run] = _estimate(metric)
    average = columns.pop(AVERAGE, {})
    if not columns:
        columns, average = {AVERAGE: average}, {}
    return AccuracyTable("Results", columns, average, differences, " ".join(notes))


def _part_tables(metrics: Mapping[str, Mapping[str, Metric]]) -> list[AccuracyTable]:
    """One table for each grouping of a benchmark: groups as rows, runs as columns."""
    parts: dict[tuple[str, str], dict[str, dict[str, Estimate]]] = {}
    for run, of_run in metrics.items():
        for name, metric in of_run.items():
            benchmark, *groups = name.split("/", 2)  # a group's own name may hold one
            if groups:
                by = " and ".join(groups[:-1] or ["part"])
                row = f"{groups[-1]} ({metric.n:,})"
                parts.setdefault((benchmark, by), {}).setdefault(run, {})[row] = _estimate(metric)
    return [
        AccuracyTable(f"{benchmark} by {by}", columns, row_name=by.capitalize())
        for (benchmark, by), columns in parts.items()
    ]


def _estimate(metric: Metric) -> Estimate:
    low, high = metric.ci95 or (metric.value, metric.value)
    return Estimate(metric.n, metric.value, low, high)


def _curves(
    names: Sequence[tuple[str, Result, str]], detail: str
) -> dict[str, dict[int, Estimate]]:
    """Accuracy over N or over tokens, where a file has it."""
    by_run = {}
    for name, result, method in names:
        curves = result.details.get(detail)
        points = curves.get(method) if isinstance(curves, dict) else None
        if isinstance(points, dict) and points:
            by_run[name] = {int(n): _point(e) for n, e in points.items()}
    return by_run


def _point(estimate: Any) -> Estimate:
    low, high = estimate["ci95"]
    return Estimate(int(estimate["n"]), float(estimate["mean"]), float(low), float(high))


def _facts(result: Result) -> dict[str, str]:
    commit = {"commit": result.commit} if result.commit else {}
    settings = {k: str(v) for k, v in result.settings.items() if v not in (None, [], {})}
    return {"kind": result.kind} | commit | result.versions | settings


def _disagreements(
    runs: Sequence[Run],
    questions: Sequence[Question],
    *,
    main: str,
    limit: int = 24,
    bad_image: BadRow = refuse,
) -> tuple[Example, ...]:
    """Up to `limit` questions that some runs have right and others wrong, first seed of each.

    One half are questions that the main run has right, one half those that it has wrong, as far as
    there are such. Answers that are spelled alike stand together, with the runs that gave them.
    """
    answers: dict[str, dict[str, QuestionResult]] = {}
    for run in runs:
        for row in run.rows:
            if row.seed == 0:
                answers.setdefault(row.question_id, {})[run.name] = row
    kinds: dict[bool, list[str]] = {True: [], False: []}
    by_id = {q.id: q for q in questions}
    for name, rows in answers.items():
        if name in by_id and len({row.value > 0 for row in rows.values()}) > 1 and main in rows:
            kinds[rows[main].value > 0].append(name)
    first = [q for ids in kinds.values() for q in evenly(ids, limit // 2)]
    left = [q for ids in kinds.values() for q in ids if q not in set(first)]
    picked = first + evenly(left, limit - len(first))
    usable = check_images([by_id[name] for name in picked], None, bad_image)
    return tuple(_answers_of(question, answers[question.id]) for question in usable)


def _answers_of(question: Question, rows: dict[str, QuestionResult]) -> Example:
    groups: dict[tuple[bool, str | None], list[str]] = {}
    for name, row in rows.items():
        groups.setdefault((row.value > 0, row.answer), []).append(name)
    ordered = sorted(groups.items(), key=lambda group: (not group[0][0], -len(group[1])))
    shown = [
        ExampleCandidate(
            steps=(),
            step_scores=(),
            score=None,
            answer=answer,
            outcome=right,
            sample_index=place,
            chosen_by=tuple(names),
        )
        for place, ((right, answer), names) in enumerate(ordered)
    ]
    return example_of(question, shown)
