"""A run -> one HTML file that works offline, from a mail attachment, in ten years.

The page holds its style, its script, its data and (where there is a chart) plotly.js; it loads
nothing. Text from data sets is hostile until escaped: Jinja escapes all of it, the data for the
script goes through `tojson` (which escapes `<`, `>`, `&` and `'` too, so that `</script>` in a
question cannot end the element), and the script puts text on the page as text, never as HTML.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from dreamprm.errors import DataError
from dreamprm.evaluation.calibration import Calibration
from dreamprm.evaluation.statistics import Estimate
from dreamprm.report.data import AccuracyTable, Example, ReportData

_SIGNATURES = {
    b"\x89PNG": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"RIFF": "image/webp",
}


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
    """Write the page as UTF-8."""
    Path(path).write_text(render(data), encoding="utf-8")


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
            }
            for d in data.domains
        ],
        "history": [
            {"step": step, "w": {name: _finite(w, name) for name, w in weights.items()}}
            for step, weights in data.history
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


def _bins(found: Mapping[str, Calibration]) -> list[list[Any]]:
    return [
        [method, [{"n": b.n, "score": b.score, "right": b.right} for b in one.bins]]
        for method, one in found.items()
    ]


def _example(example: Example) -> dict[str, Any]:
    for c in example.candidates:
        if len(c.steps) != len(c.step_scores):
            raise DataError(
                f"report: a candidate has {len(c.step_scores)} scores for {len(c.steps)} steps"
            )
    return {
        "benchmark": example.benchmark,
        "question": example.question,
        "options": list(example.options),
        "answer": example.answer,
        "images": [_data_uri(image) for image in example.images],
        "candidates": [
            {
                "index": c.sample_index,
                "steps": list(c.steps),
                "scores": [_finite(s, "step score") for s in c.step_scores],
                "score": None if c.score is None else _finite(c.score, "score"),
                "answer": c.answer,
                "right": c.outcome,
                "chosenBy": list(c.chosen_by),
            }
            for c in example.candidates
        ],
    }


def _data_uri(image: bytes) -> str:
    for signature, kind in _SIGNATURES.items():
        if image.startswith(signature):
            return f"data:{kind};base64,{base64.b64encode(image).decode('ascii')}"
    raise DataError("report: an example's image is no PNG, JPEG, GIF or WebP file", field="images")


def _finite(number: float, what: str) -> float:
    """JSON has no nan; a page that fails to parse its data shows nothing at all."""
    if not math.isfinite(number):
        raise DataError(f"report: {what} is {number}, which cannot be shown")
    return float(number)
