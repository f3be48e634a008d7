"""What a report shows, as plain data, and the one HTML file that shows it.

Any run (demo, training, scoring) can fill `ReportData`; all but its title may be missing. The page
works offline, from a mail attachment, in ten years: it holds its style, its script, its data and
(where there is a chart) plotly.js, and loads nothing. Text from data sets is hostile until escaped:
Jinja escapes all of it, the data for the script goes through `tojson` (which escapes `<`, `>`, `&`
and `'` too, so that `</script>` in a question cannot end the element), and the script puts text on
the page as text, never as HTML.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from dreamprm.data.files import atomic_write
from dreamprm.data.trajectory_weights import verdict
from dreamprm.errors import DataError
from dreamprm.evaluation.calibration import Calibration
from dreamprm.evaluation.statistics import Difference, Estimate
from dreamprm.images import encode_image

METHOD_LABELS = {
    "first_sample": "One sample",
    "self_consistency": "Self-consistency",
    "orm": "Outcome reward model",
    "prm_uniform": "PRM, uniform weights",
    "prm_oracle": "PRM, oracle weights",
    "dreamprm": "DreamPRM",
    "any_right": "Any right (ceiling)",
}
"""Names for readers; a method that is not listed is shown under its own name."""


Range = tuple[float, float]


@dataclass(frozen=True)
class Domain:
    """A training domain and what was learned about it.

    Attributes:
        quality: kind of its planted quality, such as "clean" or "wrong answers"; "" if unknown.
        planted: the planted quality as a number, higher is better; None if unknown.
        weight: learned weight; the mean over domains is 1.
        interval: its 95% interval; None where it was not learned, or nobody kept it.
    """

    name: str
    family: str
    quality: str
    planted: float | None
    weight: float
    interval: Range | None = None


@dataclass(frozen=True)
class AccuracyTable:
    """One table: rows are methods, columns benchmarks and their average.

    Attributes:
        accuracy: benchmark -> method -> estimate.
        average: method -> mean over benchmarks.
        differences: method -> main method minus this one, averaged over benchmarks.
        row_name: what the rows are; the best of a column is marked among methods only.
    """

    title: str
    accuracy: Mapping[str, Mapping[str, Estimate]]
    average: Mapping[str, Estimate] = field(default_factory=dict)
    differences: Mapping[str, Difference] = field(default_factory=dict)
    note: str = ""
    row_name: str = "Method"


@dataclass(frozen=True)
class Fate:
    """What became of the questions under one method; the three are all of them.

    Attributes:
        right: a right candidate was chosen.
        missed: a wrong one was chosen though a right one was there.
        hopeless: no candidate was right.
    """

    right: int
    missed: int
    hopeless: int


@dataclass(frozen=True)
class ExampleCandidate:
    """One candidate with the scores it got.

    Attributes:
        step_scores: (steps,) each in (0, 1), of the report's main method.
        score: aggregated score, higher is better; None where runs are compared by their answers.
        chosen_by: methods that chose this candidate.
    """

    steps: tuple[str, ...]
    step_scores: tuple[float, ...]
    score: float | None
    answer: str | None
    outcome: bool
    sample_index: int = 0
    chosen_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Example:
    """One question with its candidates.

    Attributes:
        images: encoded image files (PNG, JPEG, GIF or WebP).
    """

    question: str
    answer: str
    candidates: tuple[ExampleCandidate, ...]
    options: tuple[str, ...] = ()
    images: tuple[bytes, ...] = ()
    benchmark: str = ""


@dataclass(frozen=True)
class ReportData:
    """Everything on the page.

    Attributes:
        headline: the result in one sentence.
        notice: what a reader must know before believing a number (the model is a toy).
        facts: few and short: version, seed, wall time, when.
        settings: the rest of what is needed to run it again.
        tables: for example one for the default policy, one for a stronger one.
        domains: with their final weights.
        history: (training step, {domain: weight}, {domain: 95% interval}) in order of time.
        scaling: method -> N -> estimate.
        token_curves: method -> tokens that a question may cost -> estimate.
        fates: method -> what became of the questions.
        calibration: method -> its aggregated scores against outcomes.
        step_calibration: method -> its step scores against Monte Carlo labels.
        runs: facts of each run that is compared: name -> {fact: value}.
        main_method: the method the report is about; the filters of the examples compare with it.
        reference_methods: never marked as best (they use what no real run has).
    """

    title: str
    headline: str = ""
    notice: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    tables: tuple[AccuracyTable, ...] = ()
    domains: tuple[Domain, ...] = ()
    history: tuple[tuple[int, Mapping[str, float], Mapping[str, Range]], ...] = ()
    scaling: Mapping[str, Mapping[int, Estimate]] = field(default_factory=dict)
    token_curves: Mapping[str, Mapping[int, Estimate]] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()
    fates: Mapping[str, Fate] = field(default_factory=dict)
    calibration: Mapping[str, Calibration] = field(default_factory=dict)
    step_calibration: Mapping[str, Calibration] = field(default_factory=dict)
    runs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    main_method: str = "dreamprm"
    reference_methods: frozenset[str] = frozenset({"prm_oracle", "any_right"})
    method_labels: Mapping[str, str] = field(default_factory=lambda: METHOD_LABELS)


_LONGEST_TEXT = 4_000  # characters of a text on the page; of all steps of a candidate:
_LONGEST_STEPS, _MOST_STEPS = 40_000, 200


def render(data: ReportData) -> str:
    """The page as text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dreamprm.report", "templates"),
        autoescape=True,  # by default only for names ending in .html
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    charts = bool(
        data.domains
        or data.scaling
        or data.token_curves
        or data.calibration
        or data.step_calibration
    )
    return environment.get_template("report.html.jinja").render(
        report=data,
        tables=[_table(table, data) for table in data.tables],
        page_data=_page_data(data),
        plotly_js=_plotly_js() if charts else None,
    )


def write_report(data: ReportData, path: str | Path) -> None:
    """Write the page as UTF-8; a file that is there is replaced at once or not at all."""
    with atomic_write(path) as file:
        file.write(render(data).encode())


def _plotly_js() -> Markup:
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

    # Our own dependency's code, the one thing on the page that is not escaped.
    return Markup(get_plotlyjs())


def _table(table: AccuracyTable, data: ReportData) -> dict[str, Any]:
    """Columns of benchmarks and rows of cells, with the best of each column marked."""
    columns: dict[str, Mapping[str, Estimate]] = dict(table.accuracy)
    if table.average and len(table.accuracy) > 1:
        columns["Average"] = table.average
    methods = list(dict.fromkeys(m for column in columns.values() for m in column))
    best = {
        name: max(
            (e.mean for m, e in column.items() if m not in data.reference_methods), default=None
        )
        for name, column in columns.items()
    }
    rows = [
        {
            "method": data.method_labels.get(method, method),
            "main": method == data.main_method,
            "reference": method in data.reference_methods,
            "cells": [
                {
                    "estimate": column.get(method),
                    "best": table.row_name == "Method"
                    and method in column
                    and method not in data.reference_methods
                    and column[method].mean == best[name],
                }
                for name, column in columns.items()
            ],
            "difference": table.differences.get(method),
        }
        for method in methods
    ]
    return {
        "title": table.title,
        "note": table.note,
        "columns": list(columns),
        "row_name": table.row_name,
        "sizes": [_size(column) for column in columns.values()],
        "rows": rows,
        "has_differences": bool(table.differences),
    }


def _size(column: Mapping[str, Estimate]) -> int | None:
    """Questions of a column; None where its rows are of different ones."""
    sizes = {e.n for e in column.values()}
    return sizes.pop() if len(sizes) == 1 else None


def _page_data(data: ReportData) -> dict[str, Any]:
    """What the script needs, as plain JSON."""
    return {
        "main": data.main_method,
        "labels": dict(data.method_labels),
        "references": sorted(data.reference_methods),
        "domains": [
            {
                "name": d.name,
                "family": d.family,
                "quality": d.quality,
                "planted": None if d.planted is None else _finite(d.planted, d.name),
                "weight": _finite(d.weight, d.name),
                "interval": d.interval and [_finite(x, d.name) for x in d.interval],
                "verdict": d.interval and verdict(*d.interval),
            }
            for d in data.domains
        ],
        "history": [
            {
                "step": step,
                "w": {name: _finite(w, name) for name, w in weights.items()},
                "i": {name: [_finite(x, name) for x in i] for name, i in intervals.items()},
            }
            for step, weights, intervals in data.history
        ],
        "scaling": _curves(data.scaling),
        "tokens": _curves(data.token_curves),
        "calibration": _bins(data.calibration),
        "stepCalibration": _bins(data.step_calibration),
        "examples": [_example(example) for example in data.examples],
    }


def _curves(curves: Mapping[str, Mapping[int, Estimate]]) -> list[list[Any]]:
    """Pairs: the order of methods is kept, which neither `tojson` nor a JavaScript object does."""
    return [
        [
            method,
            [{"n": n, "mean": e.mean, "lo": e.lo, "hi": e.hi} for n, e in sorted(curve.items())],
        ]
        for method, curve in curves.items()
    ]


def _bins(calibrations: Mapping[str, Calibration]) -> list[list[Any]]:
    return [
        [method, [{"n": b.n, "score": b.score, "right": b.right} for b in one.bins]]
        for method, one in calibrations.items()
    ]


def _example(example: Example) -> dict[str, Any]:
    for c in example.candidates:
        if len(c.steps) != len(c.step_scores):
            raise DataError(
                f"report: a candidate has {len(c.step_scores)} scores for {len(c.steps)} steps"
            )
    return {
        "benchmark": example.benchmark,
        "question": _short(example.question),
        "options": list(map(_short, example.options)),
        "answer": _short(example.answer),
        "images": [encode_image(image) for image in example.images],
        "candidates": [
            _steps(c)
            | {
                "index": c.sample_index,
                "score": None if c.score is None else _finite(c.score, "score"),
                "answer": None if c.answer is None else _short(c.answer),
                "right": c.outcome,
                "chosenBy": list(c.chosen_by),
            }
            for c in example.candidates
        ],
    }


def _steps(c: ExampleCandidate) -> dict[str, Any]:
    """Steps and their scores; the last of too many stands for the rest."""
    steps, scores = list(c.steps), [_finite(score, "step score") for score in c.step_scores]
    if (more := len(steps) - _MOST_STEPS) > 0:
        steps[_MOST_STEPS:], scores[_MOST_STEPS:] = [f"… ({more:,} more steps)"], scores[-1:]
    if sum(map(len, steps)) > _LONGEST_STEPS:
        steps = [_short(step, _LONGEST_STEPS // len(steps)) for step in steps]
    return {"steps": steps, "scores": scores}


def _short(text: str, most: int = _LONGEST_TEXT) -> str:
    more = len(text) - most
    return text if more <= 0 else f"{text[:most]}… ({more:,} more characters)"


def _finite(number: float, what: str) -> float:
    """JSON has no nan; a page that fails to parse its data shows nothing at all."""
    if not math.isfinite(number):
        raise DataError(f"report: {what} is {number}, which cannot be shown")
    return float(number)
