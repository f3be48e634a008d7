r"""Accuracy of every way of choosing, with 95% intervals clustered by question.

Reads questions, candidates with outcomes, and step scores by method; prints a table and writes
JSON: accuracy per benchmark, averages, the curve over N, paired differences to the main method.

  dreamprm evaluate --questions mathvista.jsonl wemath.jsonl --trajectories candidates.jsonl \
    --scores.dreamprm scores.jsonl --scores.orm orm.jsonl --aggregations.orm last \
    --output results.json
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dreamprm import __version__
from dreamprm.cli.inputs import EvaluationInputs
from dreamprm.formats.files import atomic_write

if TYPE_CHECKING:
    from dreamprm.evaluation.evaluate import Evaluation


@dataclass(frozen=True, kw_only=True)
class Config(EvaluationInputs):
    """Options of evaluate.

    Attributes:
        output: JSON file of results; none is written without it.
    """

    output: Path | None = None


def run(config: Config) -> None:
    """Evaluate, print and write."""
    from dreamprm.cli import inputs
    from dreamprm.evaluation.summary import summary_json

    start = time.monotonic()
    evaluation = inputs.evaluate(config).evaluation
    if config.output is not None:
        summary = summary_json(
            evaluation,
            version=__version__,
            seed=config.seed,
            wall_s=round(time.monotonic() - start, 3),
            report=None,
            methods=(),
            main_method=config.main(),
            extra={"n": config.n, "main_method": config.main()},
        )
        text = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False)
        with atomic_write(config.output) as file:
            file.write(text.encode() + b"\n")
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
        found = [column[method] for column in columns.values()]
        cells = [f"{100 * e.mean:.1f} [{100 * e.lo:.1f}, {100 * e.hi:.1f}]" for e in found]
        table.add_row(Text(method), *map(Text, cells))
    console.print(table)
