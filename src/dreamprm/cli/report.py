r"""One HTML page on an evaluation: tables, curves over N, calibration, domain weights, examples.

Reads what `dreamprm evaluate` reads and, where it is given, the folder of a training run; or any
number of result files, whose runs it compares. Writes a single file that needs no network.

  dreamprm report --questions questions.jsonl --trajectories candidates.jsonl \
    --scores.dreamprm scores.jsonl --training_dir prm --output report.html
  dreamprm report --results ours.json theirs.json --questions questions.jsonl \
    --baseline ours --output comparison.html
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamprm import __version__
from dreamprm.cli.inputs import EvaluationInputs
from dreamprm.cli.policy_options import is_embedded
from dreamprm.data import check_images, read_questions
from dreamprm.data.files import atomic_write, open_for_reading
from dreamprm.data.jsonl import iterate_rows
from dreamprm.errors import DataError

if TYPE_CHECKING:
    from dreamprm.evaluation.evaluate import Evaluation
    from dreamprm.evaluation.summary import Domain
    from dreamprm.report.data import Example

TOY = (
    "The policy is the toy model that comes with dreamprm. It knows a small world of coloured "
    "shapes; on any other data its accuracy is near chance and says nothing about the method."
)


@dataclass(frozen=True, kw_only=True)
class Config(EvaluationInputs):
    """Options of report.

    Attributes:
        results: result files to compare instead of evaluating; with `questions`, those on which
            runs differ are shown. All options but output, title, notice, baseline, questions and
            max_examples belong to the other use.
        baseline: run that the others are compared with; by default the main method of the first
            file.
        output: HTML file.
        training_dir: output_dir of `dreamprm train`; adds weights.json and history.jsonl.
        title: of the page.
        notice: what a reader must know before believing a number.
        max_examples: questions shown with their candidates.
    """

    questions: list[Path] = field(default_factory=list)
    trajectories: list[Path] = field(default_factory=list)
    results: list[Path] = field(default_factory=list)
    baseline: str | None = None
    output: Path = Path("report.html")
    training_dir: Path | None = None
    title: str = "DreamPRM report"
    notice: str = ""
    max_examples: int = 24


def run(config: Config) -> None:
    """Evaluate, or compare results, and write the page."""
    if config.results:
        _compare(config)
    elif config.questions and config.trajectories:
        _evaluate(config)
    else:
        raise DataError("give --questions and --trajectories, or --results to compare")


def _compare(config: Config) -> None:
    from dreamprm.report.comparison import comparison_report
    from dreamprm.report.render import render

    questions = [q for path in config.questions for q in read_questions(path)]
    check_images(questions, ", ".join(map(str, config.questions)))
    data = comparison_report(
        config.results,
        title=config.title,
        notice=config.notice,
        baseline=config.baseline,
        questions=questions,
        max_examples=config.max_examples,
    )
    with atomic_write(config.output) as file:
        file.write(render(data).encode())
    print(f"{config.output}: {data.headline}")


def _evaluate(config: Config) -> None:
    from dreamprm.cli import inputs
    from dreamprm.report.build import (
        accuracy_table,
        calibrations,
        examples,
        fates,
        step_calibrations,
    )
    from dreamprm.report.data import METHOD_LABELS, ReportData
    from dreamprm.report.render import render

    evaluation, main = inputs.evaluate(config), config.main()
    check_images(evaluation.questions, ", ".join(map(str, config.questions)))
    domains, history = _training(config.training_dir) if config.training_dir else ((), ())
    shown: tuple[Example, ...] = ()
    if main in evaluation.scores:
        rivals = [
            m for m in ("prm_uniform", *evaluation.scores) if m in evaluation.scores and m != main
        ]
        shown = examples(
            evaluation,
            evaluation.questions,
            evaluation.trajectories,
            evaluation.scores[main],
            main_method=main,
            rival=rivals[0] if rivals else "self_consistency",
            limit=config.max_examples,
        )
    data = ReportData(
        title=config.title,
        headline=_headline(evaluation, main, METHOD_LABELS.get(main, main)),
        notice=_notice(config, evaluation),
        facts={"dreamprm": __version__, "made": time.strftime("%Y-%m-%d %H:%M")} | _versions(),
        settings=_settings(config),
        tables=(accuracy_table(evaluation, f"Accuracy among {config.n}", main_method=main),),
        domains=domains,
        history=history,
        scaling=evaluation.scaling,
        fates=fates(evaluation),
        calibration=calibrations(evaluation, evaluation.trajectories),
        step_calibration=step_calibrations(evaluation.scores, evaluation.trajectories),
        examples=shown,
        main_method=main,
    )
    with atomic_write(config.output) as file:
        file.write(render(data).encode())
    print(f"{config.output}: {data.headline}")


def _notice(config: Config, evaluation: Evaluation) -> str:
    toy = any(is_embedded(t.policy) for t in evaluation.trajectories)
    return " ".join(part for part in (config.notice, TOY if toy else "") if part)


def _headline(evaluation: Evaluation, main: str, label: str) -> str:
    average = evaluation.average
    best, sample = average[main], average["first_sample"]
    where = (
        f"{len(evaluation.question_ids)} benchmarks"
        if len(evaluation.question_ids) > 1
        else (f"{best.n} questions")
    )
    return (
        f"{label}: {best.mean:.1%} right on {where}, choosing among {evaluation.n}; one sample is "
        f"right in {sample.mean:.1%}."
    )


def _settings(config: Config) -> dict[str, str]:
    return {
        "questions": ", ".join(map(str, config.questions)),
        "trajectories": ", ".join(map(str, config.trajectories)),
        **{f"scores of {method}": str(files) for method, files in config.scores.items()},
        **{f"aggregation of {method}": name for method, name in config.aggregations.items()},
        "n": str(config.n),
        "seed": str(config.seed),
    } | ({"training_dir": str(config.training_dir)} if config.training_dir else {})


def _versions() -> dict[str, str]:
    found = {}
    for name in ("torch", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _training(
    folder: Path,
) -> tuple[tuple[Domain, ...], tuple[tuple[int, dict[str, float]], ...]]:
    """Final weights and their history from the output of a training run."""
    from dreamprm.evaluation.summary import Domain

    with open_for_reading(folder / "weights.json") as file:
        try:
            weights: dict[str, float] = json.loads(file.read())
            domains = tuple(Domain(name, "", "", None, float(w)) for name, w in weights.items())
        except (ValueError, TypeError, AttributeError) as error:
            message = f"must be an object {{domain: weight}} ({error})"
            raise DataError(message, file=folder / "weights.json") from error
    history = []
    path = folder / "history.jsonl"
    for number, row in iterate_rows(path) if path.is_file() else ():
        history.append(_window(row, path, number))
    return domains, tuple(history)


def _window(row: Any, path: Path, number: int) -> tuple[int, dict[str, float]]:
    try:
        return int(row["step"]), {str(name): float(w) for name, w in row["weights"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        message = f"no line of a training history ({error!r}); remove it"
        raise DataError(message, file=path, row=number) from error
