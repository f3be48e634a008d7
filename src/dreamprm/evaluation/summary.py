"""`summary.json`: the figures of a run for other programs to read.

{"version", "seed", "wall_s",
 "accuracy": {benchmark: {method: {"n", "mean", "ci95": [lo, hi]}}},
 "domains": [{"name", "family", "quality", "planted", "weight"}],
 "scaling": {method: {"1": .., "16": ..}},
 "report": "report.html",
 "average": {method: {"n", "mean", "ci95"}},
 "differences": {"a - b": {"n", "mean", "ci95", "p"}}, ...}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dreamprm.errors import DataError
from dreamprm.evaluation.evaluate import Evaluation

SUMMARY_METHODS = (
    "first_sample",
    "self_consistency",
    "orm",
    "prm_uniform",
    "prm_oracle",
    "dreamprm",
    "any_right",
)


@dataclass(frozen=True)
class Domain:
    """A training domain and what was learned about it.

    Attributes:
        quality: kind of its planted quality, such as "clean" or "wrong answers"; "" if unknown.
        planted: the planted quality as a number, higher is better; None if unknown.
        weight: learned weight; the mean over domains is 1.
    """

    name: str
    family: str
    quality: str
    planted: float | None
    weight: float


def summary_json(
    evaluation: Evaluation,
    *,
    version: str,
    seed: int,
    wall_s: float,
    domains: Sequence[Domain] = (),
    report: str | None = "report.html",
    methods: Sequence[str] = SUMMARY_METHODS,
    main_method: str = "dreamprm",
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of `summary.json`.

    Args:
        methods: must all have been evaluated; others that were come after them.
        main_method: compared with every other method in "differences", where it was evaluated.
        extra: more top-level keys, for example the same tables for a stronger policy.

    Raises:
        DataError: a method was not evaluated, or an extra key would hide one of ours.
    """
    if missing := [m for m in methods if m not in evaluation.values]:
        raise DataError(f"summary: method '{missing[0]}' was not evaluated")
    order = [*methods, *(m for m in evaluation.values if m not in methods)]
    accuracy, average, scaling = evaluation.accuracy, evaluation.average, evaluation.scaling
    summary: dict[str, Any] = {
        "version": version,
        "seed": seed,
        "wall_s": wall_s,
        "accuracy": {
            benchmark: {m: by_method[m].as_json() for m in order}
            for benchmark, by_method in accuracy.items()
        },
        "domains": [asdict(domain) for domain in domains],
        "scaling": {
            m: {str(n): e.mean for n, e in scaling[m].items()} for m in order if m in scaling
        },
        "report": report,
        "average": {m: average[m].as_json() for m in order},
        "differences": {
            f"{main_method} - {m}": evaluation.difference(main_method, m).as_json()
            for m in order
            if main_method in evaluation.values and m != main_method
        },
    }
    for key, value in (extra or {}).items():
        if key in summary:
            raise DataError(f"summary: extra key '{key}' is taken")
        summary[key] = value
    return summary


def write_summary(path: str | Path, summary: Mapping[str, Any]) -> None:
    """Write it as strict JSON: a nan or an infinity is an error, not a token no parser reads."""
    text = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False)
    Path(path).write_text(text + "\n", encoding="utf-8")
