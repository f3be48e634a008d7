"""`dreamprm select` among candidates that are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dreamprm.cli.inputs import read_candidates
from dreamprm.cli.resume import recorded_aggregation
from dreamprm.cli.select import Config, told_accuracy, write_choices
from dreamprm.data import read_scores, write_records
from dreamprm.errors import DataError, DreamPRMError
from dreamprm.evaluation.evaluate import OF_OTHERS
from dreamprm.records import StepScores, Trajectory
from dreamprm.search.aggregation import aggregate, log_sigmoid
from dreamprm.search.answer import PARALLEL, TREES, SearchOptions
from dreamprm.search.choice import Choice
from dreamprm.search.selection import best_of_n, first_sample, majority_vote, weighted_vote


def select_stored(config: Config) -> None:
    """Choose and write."""
    SearchOptions(method=config.method)
    if config.method in TREES:
        raise DreamPRMError(
            f"method {config.method} asks the policy for more; leave --trajectories out, or choose "
            f"among {', '.join(PARALLEL)}"
        )
    if config.method in ("best_of_n", "weighted_vote") and config.scores is None:
        raise DataError(f"method {config.method} needs scores; give --scores of `dreamprm score`")
    assert config.trajectories is not None
    aggregation = config.aggregation
    if aggregation is None:
        aggregation = recorded_aggregation(config.scores) if config.scores else "mean_logit"
    questions, trajectories = read_candidates([config.questions], [config.trajectories])
    rows = read_scores(config.scores) if config.scores else []
    scored = {(s.question_id, s.sample_index): s for s in rows}
    groups: dict[str, list[Trajectory]] = {question.id: [] for question in questions}
    for t in trajectories:
        groups[t.question_id].append(t)
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
        numbers = _scores(config, aggregation, first_n, scored) if config.scores else None
        choice = _choose(config.method, first_n, numbers)
        choices.append(_row(choice, first_n, numbers, scored))
    write_records(config.output, choices, Choice)
    write_choices(config, choices, questions, n=config.n, aggregation=aggregation)
    told = told_accuracy(c.outcome for c in choices)
    print(f"{config.output}: {len(choices)} choices by {config.method}{told}")


def _choose(
    method: str, candidates: Sequence[Trajectory], numbers: Sequence[float] | None
) -> Trajectory:
    if method == "first_sample":
        return first_sample(candidates)
    if method == "self_consistency" or numbers is None:
        return majority_vote(candidates)
    if method == "weighted_vote":
        weights = np.exp(log_sigmoid(np.asarray(numbers, dtype=np.float64)))  # (candidates,)
        return weighted_vote(candidates, weights.tolist())
    return best_of_n(candidates, numbers)


def _scores(
    config: Config,
    aggregation: str,
    candidates: Sequence[Trajectory],
    scored: Mapping[tuple[str, int], StepScores],
) -> list[float]:
    found = []
    for t in candidates:
        row = scored.get((t.question_id, t.sample_index))
        count = len(row.logits) + row.cut if row else 0
        if row is None or (count != len(t.steps) and aggregation != "last"):
            have = f"{count} scores for {len(t.steps)} steps" if row else "no scores"
            raise _others(t, f"has {have}", config)
        if not row.are_of(t):
            raise _others(t, "has other steps than were judged", config)
        found.append(aggregate(row.logits, aggregation))
    return found


def _others(t: Trajectory, what: str, config: Config) -> DataError:
    return DataError(
        f"question '{t.question_id}', candidate {t.sample_index} {what}: {OF_OTHERS}",
        file=config.scores,
    )


def _row(
    choice: Trajectory,
    candidates: Sequence[Trajectory],
    numbers: Sequence[float] | None,
    scored: Mapping[tuple[str, int], StepScores],
) -> Choice:
    score, steps = None, None
    if numbers is not None:
        score = numbers[[t.sample_index for t in candidates].index(choice.sample_index)]
        logits = scored[choice.question_id, choice.sample_index].logits
        steps = tuple(np.exp(log_sigmoid(np.asarray(logits, dtype=np.float64))).tolist())
    return Choice(
        question_id=choice.question_id,
        answer=choice.answer,
        sample_index=choice.sample_index,
        score=score,
        step_scores=steps,
        outcome=choice.outcome,
        steps=choice.steps,
    )
