"""The result file: what was measured, on what, with what; one schema for every kind of evaluation.

`dreamprm evaluate` and `dreamprm benchmark` write it, `dreamprm report` compares any number of
them, and the exports to other tools start from it. It keeps a row per question, so that two runs
made apart can be compared question by question afterwards.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, JsonValue, model_validator

from dreamprm import __version__
from dreamprm.data.files import atomic_write, load_json_object
from dreamprm.errors import DataError
from dreamprm.evaluation.statistics import (
    Estimate,
    Values,
    estimate,
    estimate_average,
    resampled_sums,
    spread,
)
from dreamprm.records import Question, Record, check_json
from dreamprm.search.choosing import Choice

SCHEMA: Literal["dreamprm.result/1"] = "dreamprm.result/1"
_PACKAGES = ("torch", "transformers", "math-verify", "numpy", "scipy")


class Metric(Record):
    """One figure.

    Attributes:
        value: in the metric's own unit; accuracies and F1 are in [0, 1].
        ci95: interval, clustered by question; None where none is defined.
        n: how many questions (or rows) it was computed from.
    """

    value: FiniteFloat
    ci95: tuple[FiniteFloat, FiniteFloat] | None = None
    n: int


class QuestionResult(Record):
    """What one method did on one question.

    Attributes:
        benchmark: that the question belongs to.
        value: 1.0 right, 0.0 wrong; fractions where a benchmark gives part marks.
        groups: finer groups that tables are made of, as `{"subject": ["algebra"]}`; a question
            may be in several of a grouping, as of skills.
        sample_index: the candidate that was chosen; None where nothing was chosen.
        answer: as extracted.
        seed: training seed, where there are several.
        tokens: completion tokens spent on the question, where known.
        tied: candidates (or answers, where they vote) that were as good as the chosen one, itself
            included; `value` is then the share of them that is right.
    """

    question_id: str
    benchmark: str
    value: FiniteFloat
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    sample_index: int | None = None
    answer: str | None = None
    seed: int = 0
    tokens: int | None = None
    tied: int = 1


class Ties(Record):
    """Where several candidates of a question were equally good for a method.

    Attributes:
        choices: how often; once per question and seed.
        mixed: how many of these were between right and wrong ones.
        worst, best: accuracy if every tie fell to a wrong candidate, or to a right one.
    """

    choices: int
    mixed: int
    worst: FiniteFloat
    best: FiniteFloat

    def __str__(self) -> str:
        told = f"equal best scores in {self.choices:,} choices"
        if not self.mixed:
            return f"{told}, none between right and wrong"
        return (
            f"{told}, {self.mixed:,} between right and wrong: accuracy {self.worst:.1%} to "
            f"{self.best:.1%} as they fall"
        )


class Result(Record):
    """The content of a result file.

    Attributes:
        schema_name: `dreamprm.result/1`, written as `schema`.
        name: of the run, as tables show it.
        kind: `selection` (choosing among candidates), `answers` (a benchmark's verdicts on one
            answer per question), `steps` (step-level benchmark) or `responses` (ranking of whole
            solutions).
        versions: package -> version; `dreamprm`, `python` and what figures depend on.
        commit: of the source tree that dreamprm runs from; None when it is not a checkout.
        settings: options of the run.
        metrics: method -> metric name -> figure. A benchmark's main metric bears the benchmark's
            name (`mathvista`), others follow a slash (`mathvision/algebra`).
        questions: method -> one row per question (and seed).
        ties: method -> its ties, where it has some.
        details: anything else, by name.
    """

    schema_name: Literal["dreamprm.result/1"] = Field(default=SCHEMA, alias="schema")
    name: str
    kind: Literal["selection", "answers", "steps", "responses"]
    versions: dict[str, str]
    commit: str | None = None
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    metrics: dict[str, dict[str, Metric]]
    questions: dict[str, tuple[QuestionResult, ...]] = Field(default_factory=dict)
    ties: dict[str, Ties] = Field(default_factory=dict)
    details: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_json("settings", self.settings)
        check_json("details", self.details)
        return self


def new_result(settings: Mapping[str, Any] | None = None, **fields: Any) -> Result:
    """A result of this version and commit; `fields` are the other ones of `Result`."""
    made = {"versions": versions(), "commit": commit(), "settings": dict(settings or {})}
    return Result.parse(made | fields)


def write_result(path: Path, result: Result) -> None:
    """Write it as strict JSON, whole or not at all."""
    facts = result.model_dump(mode="json", by_alias=True)
    text = json.dumps(facts, indent=1, allow_nan=False, ensure_ascii=False)
    with atomic_write(path) as file:
        file.write(text.encode() + b"\n")


def read_result(path: Path) -> Result:
    """Read a result file.

    Raises:
        DataError: it is none, or of a version that we do not know.
    """
    facts = load_json_object(path)
    schema = facts.get("schema")
    if schema != SCHEMA:
        raise DataError(
            f"schema is {schema!r}, not {SCHEMA!r}; give a file that `dreamprm evaluate --output`, "
            "`select --result` or `benchmark --output` of this version wrote",
            file=path,
            field="schema",
        )
    try:
        return Result.parse(facts)
    except DataError as error:
        raise error.at(file=path) from None


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


def metric(e: Estimate) -> Metric:
    """An estimate as a result file holds it."""
    return Metric(value=e.mean, ci95=e.ci95, n=e.n)


def resampled_metrics(
    figures: Callable[..., Mapping[str, Values]], *tables: NDArray[np.float64], n: int
) -> dict[str, Metric]:
    """Figures of the column sums of tables, with intervals by bootstrap over the rows of each.

    Args:
        figures: takes the sums of each table, (draws, columns); gives (draws,) by name.
        tables: (clusters, columns) each; rows are drawn within a table.
        n: of the metrics.
    """
    values = figures(*(table.sum(0)[None] for table in tables))
    draws = figures(*(resampled_sums(table, seed=i) for i, table in enumerate(tables)))
    return {
        name: Metric(value=float(value[0]), ci95=spread(draws[name], float(value[0])), n=n)
        for name, value in values.items()
    }


def subject_of(question: Question) -> dict[str, tuple[str, ...]]:
    """The question's groups in a result file: its subject, where it has one."""
    return {} if question.subject is None else {"subject": (question.subject,)}


def main_figures(result: Result) -> dict[str, dict[str, dict[str, Any]]]:
    """Metric -> method -> {"n", "mean", "ci95"}, without the parts of a benchmark."""
    figures: dict[str, dict[str, dict[str, Any]]] = {}
    for method, metrics in result.metrics.items():
        for name, metric in metrics.items():
            if "/" not in name:
                ci95 = list(metric.ci95 or (metric.value, metric.value))
                figure = {"n": metric.n, "mean": metric.value, "ci95": ci95}
                figures.setdefault(name, {})[method] = figure
    return figures


def versions() -> dict[str, str]:
    """Versions of what figures depend on, where it is installed."""
    installed = {"dreamprm": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def commit() -> str | None:
    """Commit of the checkout that this package is imported from, with `+` if it was changed."""
    package = Path(__file__).resolve().parents[1]

    def git(*words: str) -> str:
        words = ("git", "-C", str(package), *words)
        done = subprocess.run(words, capture_output=True, check=True, text=True, timeout=30)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "records.py")  # fails in some other project's checkout
        changed = git("status", "--porcelain", "--untracked-files=no", ".")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


# ---- answers that were chosen by `dreamprm select`

POINTS = 24  # of the curve over tokens


def choices_result(
    choices: Sequence[Choice],
    questions: Sequence[Question],
    *,
    name: str,
    method: str,
    settings: Mapping[str, Any],
) -> Result:
    """Choices as a result file: accuracy, and accuracy over tokens spent.

    Questions whose outcome is not known are left out.

    Raises:
        DataError: no outcome is known.
    """
    by_id = {q.id: q for q in questions}
    known = sorted(
        (c for c in choices if c.outcome is not None and c.question_id in by_id),
        key=lambda c: c.question_id,
    )
    if not known:
        raise DataError("no answer is known to be right or wrong; give questions with answers")
    groups: dict[str, list[Choice]] = {}
    for choice in known:
        groups.setdefault(by_id[choice.question_id].domain, []).append(choice)
    values = {b: [float(bool(c.outcome)) for c in group] for b, group in groups.items()}
    metrics = {AVERAGE: metric(estimate_average(values))}
    metrics |= {check_name(b): metric(estimate(right)) for b, right in values.items()}
    curve = token_curve(groups)
    return new_result(
        name=name,
        kind="selection",
        settings=settings,
        metrics={method: metrics},
        questions={method: [_row(c, by_id[c.question_id]) for g in groups.values() for c in g]},
        details={
            "main_method": method,
            "asked": len(questions),
            "answered": len(choices),
            "unread": dict(Counter(c.unread for c in choices if c.unread)),
            "token_curve": {method: {str(t): e.as_json() for t, e in curve.items()}},
        },
    )


def token_curve(benchmarks: Mapping[str, Sequence[Choice]]) -> dict[int, Estimate]:
    """Tokens that a question may cost -> accuracy if each had stopped there.

    A question without an answer at that point counts as wrong. The last point is the whole search.

    Args:
        benchmarks: choices with known outcomes; no curve where one has no `changes`.
    """
    every = [c for group in benchmarks.values() for c in group]
    if not all(c.changes for c in every):
        return {}
    first = min(c.changes[0].tokens for c in every)
    last = max(c.tokens or c.changes[-1].tokens for c in every)
    budgets = np.unique(np.geomspace(first, last, POINTS).round().astype(int))  # (points,)
    return {
        int(budget): estimate_average(
            {b: [_right_by(c, budget) for c in group] for b, group in benchmarks.items()}
        )
        for budget in budgets
    }


def _right_by(choice: Choice, tokens: int) -> float:
    so_far = [change for change in choice.changes if change.tokens <= tokens]
    return float(bool(so_far and so_far[-1].outcome))


def _row(choice: Choice, question: Question) -> QuestionResult:
    return QuestionResult(
        question_id=choice.question_id,
        benchmark=question.domain,
        value=float(bool(choice.outcome)),
        groups=subject_of(question),
        sample_index=choice.sample_index,
        answer=choice.answer,
        tokens=choice.tokens,
        tied=choice.tied,
    )
