r"""Choose one answer per question among its candidates.

Reads questions, trajectories and (but for self_consistency and first_sample) step scores; writes
one row per question: question_id, answer, sample_index, score, step_scores. Where outcomes are
known, the accuracy is printed.

  dreamprm select --questions questions.jsonl --trajectories candidates.jsonl \
    --scores scores.jsonl --output chosen.jsonl --n 8
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dreamprm.cli.inputs import read_candidates
from dreamprm.cli.resume import recorded_aggregation
from dreamprm.errors import DataError
from dreamprm.formats import read_scores, write_records
from dreamprm.records import Record, StepScores, Trajectory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of select.

    Attributes:
        questions: file of questions.
        trajectories: file of their candidates.
        output: .jsonl or .parquet file of what is chosen.
        scores: file of step scores, of `dreamprm score`.
        method: `best_of_n` (highest score), `weighted_vote` (answer with the most score),
            `self_consistency` (majority vote) or `first_sample`.
        aggregation: of step logits to one score: mean_logit, sum_logit, min, product, last,
            geometric_mean or mean; by default what the model that scored was trained for.
        n: candidates per question, the first by sample_index; by default all.
    """

    questions: Path
    trajectories: Path
    output: Path
    scores: Path | None = None
    method: Literal["best_of_n", "weighted_vote", "self_consistency", "first_sample"] = "best_of_n"
    aggregation: str | None = None
    n: int | None = None


class Choice(Record):
    """What was chosen for a question.

    Attributes:
        score: aggregated score of the candidate, a logit; None without scores.
        step_scores: of its steps, each in 0-1; None without scores.
    """

    question_id: str
    answer: str | None
    sample_index: int
    score: float | None
    step_scores: tuple[float, ...] | None


def run(config: Config) -> None:
    """Choose and write."""
    from dreamprm.search.aggregation import get_aggregation

    if config.aggregation is None:
        found = recorded_aggregation(config.scores) if config.scores else "mean_logit"
        config = dataclasses.replace(config, aggregation=found)
    get_aggregation(config.aggregation or "")
    if config.n is not None and config.n < 1:
        raise DataError(f"n is {config.n}; it must be above 0")
    scored = config.method in ("best_of_n", "weighted_vote")
    if scored and config.scores is None:
        raise DataError(f"method {config.method} needs scores; give --scores of `dreamprm score`")
    questions, trajectories = read_candidates([config.questions], [config.trajectories])
    rows = read_scores(config.scores) if config.scores else []
    by_candidate = {(s.question_id, s.sample_index): s for s in rows}
    groups: dict[str, list[Trajectory]] = {question.id: [] for question in questions}
    for t in trajectories:
        groups[t.question_id].append(t)
    chosen: dict[str, Trajectory] = {}
    choices = []
    for question_id, group in groups.items():
        group.sort(key=lambda t: t.sample_index)
        first_n = group[: config.n]
        if len(first_n) < (config.n or 1):
            raise DataError(
                f"question '{question_id}' has {len(group)} candidates, fewer than "
                f"{config.n or 1}; sample more or lower n",
                file=config.trajectories,
            )
        numbers = _scores(config, first_n, by_candidate) if config.scores else None
        choice = chosen[question_id] = _choose(config.method, first_n, numbers)
        choices.append(_row(choice, first_n, numbers, by_candidate))
    write_records(config.output, choices, Choice)
    print(f"{config.output}: {len(choices)} choices by {config.method}{_accuracy(chosen)}")


def _choose(
    method: str, candidates: Sequence[Trajectory], numbers: Sequence[float] | None
) -> Trajectory:
    import numpy as np

    from dreamprm.search import selection
    from dreamprm.search.aggregation import log_sigmoid

    if method == "first_sample":
        return selection.first_sample(candidates)
    if method == "self_consistency" or numbers is None:
        return selection.majority_vote(candidates)
    if method == "weighted_vote":
        weights = np.exp(log_sigmoid(np.asarray(numbers, dtype=np.float64)))  # (candidates,)
        return selection.weighted_vote(candidates, weights.tolist())
    return selection.best_of_n(candidates, numbers)


def _scores(
    config: Config, candidates: Sequence[Trajectory], scored: Mapping[tuple[str, int], StepScores]
) -> list[float]:
    from dreamprm.search.aggregation import aggregate

    found = []
    for t in candidates:
        row = scored.get((t.question_id, t.sample_index))
        count = len(row.logits) + row.cut if row else 0
        if row is None or (count != len(t.steps) and config.aggregation != "last"):
            have = f"{count} scores for {len(t.steps)} steps" if row else "no scores"
            raise DataError(
                f"question '{t.question_id}', candidate {t.sample_index} has {have}; score it "
                "again",
                file=config.scores,
            )
        found.append(aggregate(row.logits, config.aggregation or "mean_logit"))
    return found


def _row(
    choice: Trajectory,
    candidates: Sequence[Trajectory],
    numbers: Sequence[float] | None,
    scored: Mapping[tuple[str, int], StepScores],
) -> Choice:
    import numpy as np

    from dreamprm.search.aggregation import log_sigmoid

    score, steps = None, None
    if numbers is not None:
        score = numbers[[t.sample_index for t in candidates].index(choice.sample_index)]
        z = np.asarray(scored[choice.question_id, choice.sample_index].logits, dtype=np.float64)
        steps = tuple(np.exp(log_sigmoid(z)).tolist())
    return Choice(
        question_id=choice.question_id,
        answer=choice.answer,
        sample_index=choice.sample_index,
        score=score,
        step_scores=steps,
    )


def _accuracy(chosen: Mapping[str, Trajectory]) -> str:
    from dreamprm.evaluation.statistics import estimate

    outcomes = [float(t.outcome) for t in chosen.values() if t.outcome is not None]
    if not outcomes:
        return ""
    found = estimate(outcomes)
    return (
        f"; accuracy {found.mean:.1%} (95% interval {found.lo:.1%} to {found.hi:.1%}) of the "
        f"{found.n} with known outcomes"
    )
