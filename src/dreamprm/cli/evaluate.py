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
    _print(evaluation)


def _print(evaluation: Evaluation) -> None:
    """Methods as rows, benchmarks as columns: accuracy in percent and its interval."""
    from dreamprm.cli.terminal import print_table, tell_unread

    columns = dict(evaluation.accuracy)
    if len(columns) > 1:
        columns["average"] = evaluation.average
    head = [f"{name}\n{next(iter(c.values())).n} questions" for name, c in columns.items()]
    estimates = {m: [column[m] for column in columns.values()] for m in evaluation.values}
    print_table(
        f"Accuracy in %, choosing among {evaluation.n} [95% interval]",
        ["method", *head],
        [
            [m, *(f"{100 * e.mean:.1f} [{100 * e.lo:.1f}, {100 * e.hi:.1f}]" for e in row)]
            for m, row in estimates.items()
        ],
    )
    for method, ties in evaluation.ties.items():
        print(f"{method}: {ties}")
    tell_unread(evaluation.unread, "candidates")
