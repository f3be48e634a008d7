r"""Accuracy of every way of choosing, with 95% intervals clustered by question.

Reads questions, candidates with outcomes, and step scores by method; prints a table and writes a
result file: accuracy per benchmark, subject and on average, a row per question and method, the
curve over N, paired differences to the main method. `dreamprm compare` and `dreamprm report` read
it.

  dreamprm evaluate --questions mathvista.jsonl wemath.jsonl --trajectories candidates.jsonl \
    --scores.dreamprm scores.jsonl --scores.orm orm.jsonl --aggregations.orm last \
    --output results.json
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dreamprm.cli.inputs import EvaluationInputs

if TYPE_CHECKING:
    from dreamprm.evaluation.evaluate import Evaluation


@dataclass(frozen=True, kw_only=True)
class Config(EvaluationInputs):
    """Options of evaluate.

    Attributes:
        output: result file (JSON); none is written without it.
        name: of the run, as comparisons show it; by default that of the output file.
    """

    output: Path | None = None
    name: str | None = None


def run(config: Config) -> None:
    """Evaluate, print and write."""
    from dreamprm.cli import inputs

    evaluation = inputs.evaluate(config)
    for method, choice in evaluation.choices.items():
        others = ", ".join(f"{name} {100 * a:.1f}" for name, a in choice.accuracy.items())
        print(
            f"{method}: aggregation {choice.name}, chosen on {choice.questions} validation "
            f"questions ({others})"
        )
    if config.output is not None:
        evaluation.save(
            config.output,
            name=config.name or config.output.stem,
            main_method=config.main(),
            settings=json.loads(json.dumps(asdict(config), default=str)),
        )
    print_table(evaluation)


def print_table(evaluation: Evaluation) -> None:
    """Methods as rows, benchmarks as columns: accuracy in percent and its interval."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a log has no width to fit
    columns = dict(evaluation.accuracy)
    if len(columns) > 1:
        columns["average"] = evaluation.average
    table = Table(title=f"Accuracy in %, choosing among {evaluation.n} [95% interval]")
    table.title = Text(str(table.title))  # not markup
    table.add_column("method")
    for name, column in columns.items():
        count = next(iter(column.values())).n
        table.add_column(Text(f"{name}\n{count} questions"), justify="right")
    for method in evaluation.values:
        estimates = [column[method] for column in columns.values()]
        cells = [f"{100 * e.mean:.1f} [{100 * e.lo:.1f}, {100 * e.hi:.1f}]" for e in estimates]
        table.add_row(Text(method), *map(Text, cells))
    console.print(table)
