r"""One HTML page on an evaluation: tables, curves over N, calibration, domain weights, examples.

Reads what `dreamprm evaluate` reads and, where it is given, the folder of a training run; or any
number of result files, whose runs it compares. Writes a single file that needs no network.

  dreamprm report --questions questions.jsonl --trajectories candidates.jsonl \
    --scores.dreamprm scores.jsonl --training_dir prm --output report.html
  dreamprm report --results ours.json theirs.json --questions questions.jsonl \
    --baseline ours --output comparison.html
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dreamprm.cli.inputs import EvaluationInputs
from dreamprm.cli.pictures import UsedImages
from dreamprm.data import read_questions
from dreamprm.errors import DataError
from dreamprm.policy.options import is_embedded

TOY = (
    "The policy is the toy model that comes with dreamprm. It knows a small world of coloured "
    "shapes; on any other data its accuracy is near chance and says nothing about the method."
)


@dataclass(frozen=True, kw_only=True)
class Config(EvaluationInputs, UsedImages):
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
    from dreamprm.cli import inputs
    from dreamprm.report.build import evaluation_report
    from dreamprm.report.comparison import comparison_report
    from dreamprm.report.page import write_report

    config.limit_images()
    if config.results:
        questions = [
            question
            for path in config.questions
            for question in read_questions(path, image_root=config.image_root)
        ]
        data = comparison_report(
            config.results,
            title=config.title,
            notice=config.notice,
            baseline=config.baseline,
            questions=questions,
            max_examples=config.max_examples,
            bad_image=config.bad_image,
        )
    elif config.questions and config.trajectories:
        evaluation = inputs.evaluate(config, config.image_root)
        toy = any(is_embedded(t.policy) for t in evaluation.trajectories)
        data = evaluation_report(
            evaluation,
            title=config.title,
            main_method=config.main(),
            notice=" ".join(part for part in (config.notice, TOY if toy else "") if part),
            settings=_settings(config),
            training_dir=config.training_dir,
            max_examples=config.max_examples,
            bad_image=config.bad_image,
        )
    else:
        raise DataError("give --questions and --trajectories, or --results to compare")
    write_report(data, config.output)
    print(f"{config.output}: {data.headline}")


def _settings(config: Config) -> dict[str, str]:
    return {
        "questions": ", ".join(map(str, config.questions)),
        "trajectories": ", ".join(map(str, config.trajectories)),
        **{f"scores of {method}": str(files) for method, files in config.scores.items()},
        **{f"aggregation of {method}": name for method, name in config.aggregations.items()},
        "n": str(config.n),
        "seed": str(config.seed),
    } | ({"training_dir": str(config.training_dir)} if config.training_dir else {})
