"""Candidates and scores -> the accuracy of every way of choosing, per benchmark and over N.

Three methods need no scores: `first_sample` (what one sample of the policy gives),
`self_consistency` (majority vote) and `any_right` (the ceiling). Every other method is best-of-N by
its own step scores. The accuracy table uses the first `n` candidates of each question; the curve
over N uses all of them (see `n_curve`), so the two agree exactly only at N = M.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dreamprm.errors import DataError
from dreamprm.evaluation.n_curve import (
    any_right_expectation,
    best_of_n_expectation,
    vote_expectation,
)
from dreamprm.evaluation.statistics import (
    Difference,
    Estimate,
    estimate,
    estimate_average,
    paired_difference,
)
from dreamprm.records import Question, StepScores, Trajectory
from dreamprm.search.aggregation import DEFAULT_AGGREGATION, aggregate, get_aggregation
from dreamprm.search.choosing import (
    AnswerKey,
    any_right,
    first_sample,
    highest_score,
    majority_vote,
)

UNSCORED_METHODS = ("first_sample", "self_consistency", "any_right")
DEFAULT_NS = (1, 2, 4, 8, 16)

Values = NDArray[np.float64]  # (seeds, questions)


@dataclass(frozen=True)
class Evaluation:
    """What every method chose and how right it was. Benchmarks are the questions' domains.

    Attributes:
        n: candidates per question that the accuracy table uses.
        question_ids: per benchmark, in the order of the last axis of `values`.
        values: method -> benchmark -> (seeds, questions), 1.0 where the chosen candidate is right.
        curve_values: method -> N -> benchmark -> (seeds, questions), expected accuracy at N.
        chosen: method -> question id -> sample_index of the chosen candidate (first seed; not for
            `any_right`, which chooses nothing).
        aggregated: scored method -> (question id, sample_index) -> aggregated score (first seed).
    """

    n: int
    question_ids: dict[str, list[str]]
    values: dict[str, dict[str, Values]]
    curve_values: dict[str, dict[int, dict[str, Values]]]
    chosen: dict[str, dict[str, int]]
    aggregated: dict[str, dict[tuple[str, int], float]]

    @property
    def accuracy(self) -> dict[str, dict[str, Estimate]]:
        """Benchmark -> method -> accuracy with its interval."""
        return {
            benchmark: {m: estimate(self.values[m][benchmark]) for m in self.values}
            for benchmark in self.question_ids
        }

    @property
    def average(self) -> dict[str, Estimate]:
        """Method -> mean over benchmarks, each benchmark counting the same."""
        return {method: estimate_average(self.values[method]) for method in self.values}

    @property
    def scaling(self) -> dict[str, dict[int, Estimate]]:
        """Method -> N -> mean over benchmarks of the expected accuracy with N candidates."""
        return {
            method: {n: estimate_average(by_benchmark) for n, by_benchmark in curve.items()}
            for method, curve in self.curve_values.items()
        }

    def difference(self, a: str, b: str) -> Difference:
        """Method a minus method b on the same questions, averaged over benchmarks."""
        return paired_difference(self.values[a], self.values[b])


def evaluate_methods(
    questions: Sequence[Question],
    trajectories: Sequence[Trajectory],
    scores: Mapping[str, Sequence[StepScores]],
    *,
    aggregations: Mapping[str, str] | None = None,
    n: int = 8,
    ns: Sequence[int] = DEFAULT_NS,
    seed: int = 0,
    vote_subsets: int = 64,
    answer_key: AnswerKey | None = None,
) -> Evaluation:
    """Evaluate all methods on the candidates of one policy.

    Args:
        questions: of one or more benchmarks; `domain` names the benchmark.
        trajectories: candidates with outcomes, at least `n` per question.
        scores: method -> step logits of every candidate.
        aggregations: method -> name in `search.aggregation`; others use the default.
        n: candidates per question for the accuracy table: the first n by sample_index.
        ns: points of the curve; those that some question has too few candidates for are left out.
        seed: of the random subsets that the voting curve is averaged over.
        vote_subsets: subsets per question and N, see `n_curve.vote_expectation`.
        answer_key: tells which answers are the same in a vote; by default the same text.

    Raises:
        DataError: a question without candidates or with fewer than n, a candidate without outcome,
            without scores, given twice or of an unknown question.
    """
    aggregations = aggregations or {}
    for name in aggregations.values():
        get_aggregation(name)
    if clash := sorted(set(scores) & set(UNSCORED_METHODS)):
        raise DataError(f"method '{clash[0]}' takes no scores; name the scored method differently")
    candidates = group_candidates(questions, trajectories, n)
    largest = min(len(group) for group in candidates.values())
    ns = [point for point in ns if point <= largest]

    benchmarks: dict[str, list[str]] = {}
    for question in questions:
        benchmarks.setdefault(question.domain, []).append(question.id)
    aggregated = {
        method: _aggregate(method, rows, aggregations.get(method, DEFAULT_AGGREGATION), candidates)
        for method, rows in scores.items()
    }

    right: dict[str, dict[str, float]] = {}  # method -> question -> 1.0 or 0.0
    curve: dict[str, dict[int, dict[str, float]]] = {}  # method -> N -> question -> expectation
    chosen: dict[str, dict[str, int]] = {}

    def record(method: str, question: str, choice: Trajectory | None, value: bool | None) -> None:
        right.setdefault(method, {})[question] = float(bool(value))
        if choice is not None:
            chosen.setdefault(method, {})[question] = choice.sample_index

    for question_id, group in candidates.items():
        first_n = group[:n]
        sample, vote = first_sample(first_n), majority_vote(first_n, answer_key)
        record("first_sample", question_id, sample, sample.outcome)
        record("self_consistency", question_id, vote, vote.outcome)
        for method, numbers in aggregated.items():
            best = highest_score(first_n, [numbers[question_id, c.sample_index] for c in first_n])
            record(method, question_id, best, best.outcome)
        record("any_right", question_id, None, any_right(first_n))

        outcomes = [bool(c.outcome) for c in group]
        rng = np.random.default_rng([seed, zlib.crc32(question_id.encode())])
        for point in ns:
            at_n = {
                "first_sample": sum(outcomes) / len(outcomes),  # the same at every N
                "self_consistency": vote_expectation(
                    group, point, rng, subsets=vote_subsets, key=answer_key
                ),
                **{
                    method: best_of_n_expectation(
                        [numbers[question_id, c.sample_index] for c in group], outcomes, point
                    )
                    for method, numbers in aggregated.items()
                },
                "any_right": any_right_expectation(outcomes, point),
            }
            for method, value in at_n.items():
                curve.setdefault(method, {}).setdefault(point, {})[question_id] = value

    def arrays(by_question: Mapping[str, float]) -> dict[str, Values]:
        return {b: np.array([[by_question[q] for q in ids]]) for b, ids in benchmarks.items()}

    return Evaluation(
        n=n,
        question_ids=benchmarks,
        values={method: arrays(by_question) for method, by_question in right.items()},
        curve_values={
            method: {point: arrays(by_question) for point, by_question in points.items()}
            for method, points in curve.items()
        },
        chosen=chosen,
        aggregated=aggregated,
    )


def combine_seeds(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Evaluations of repeated runs -> one whose intervals cover the chance in training too.

    All must hold the same benchmarks, methods and numbers of questions (the questions themselves
    may differ from seed to seed). `chosen` and `aggregated` are of the first.
    """
    first, *others = evaluations
    for other in others:
        shapes = [{b: len(ids) for b, ids in e.question_ids.items()} for e in (first, other)]
        if shapes[0] != shapes[1] or list(first.values) != list(other.values):
            raise DataError("cannot combine seeds that differ in benchmarks, questions or methods")
    points = [
        p
        for p in next(iter(first.curve_values.values()), {})
        if all(p in next(iter(e.curve_values.values())) for e in evaluations)
    ]
    return Evaluation(
        n=first.n,
        question_ids=first.question_ids,
        values={
            method: {b: np.vstack([e.values[method][b] for e in evaluations]) for b in by_benchmark}
            for method, by_benchmark in first.values.items()
        },
        curve_values={
            method: {
                p: {
                    b: np.vstack([e.curve_values[method][p][b] for e in evaluations])
                    for b in curve[p]
                }
                for p in points
            }
            for method, curve in first.curve_values.items()
        },
        chosen=first.chosen,
        aggregated=first.aggregated,
    )


def group_candidates(
    questions: Sequence[Question], trajectories: Sequence[Trajectory], n: int = 1
) -> dict[str, list[Trajectory]]:
    """Question id -> its candidates in order of sample_index, checked; see `evaluate_methods`."""
    groups: dict[str, list[Trajectory]] = {}
    for question in questions:
        if question.id in groups:
            raise DataError(f"question {question.id} is given twice", field="id")
        groups[question.id] = []
    if not groups:
        raise DataError("there are no questions to evaluate")
    seen: set[tuple[str, int]] = set()
    for t in trajectories:
        what = f"question {t.question_id}, candidate {t.sample_index}"
        if t.question_id not in groups:
            raise DataError(f"{what}: no such question", field="question_id")
        if (t.question_id, t.sample_index) in seen:
            raise DataError(
                f"{what} is given twice; evaluate one policy at a time and number its samples",
                field="sample_index",
            )
        if t.outcome is None:
            raise DataError(f"{what} has no outcome; verify its answer first", field="outcome")
        seen.add((t.question_id, t.sample_index))
        groups[t.question_id].append(t)
    for question_id, group in groups.items():
        if not group:
            raise DataError(
                f"question {question_id} has no candidates; sample some or remove the question"
            )
        if len(group) < n:
            raise DataError(
                f"question {question_id} has {len(group)} candidates, fewer than n = {n}; sample "
                "more or lower n"
            )
        group.sort(key=lambda t: t.sample_index)
    return groups


OF_OTHERS = "the scores are of other candidates; score these into a new file"


def _aggregate(
    method: str,
    rows: Sequence[StepScores],
    aggregation: str,
    candidates: Mapping[str, Sequence[Trajectory]],
) -> dict[tuple[str, int], float]:
    """(question id, sample_index) -> aggregated score, for every candidate."""
    scored: dict[tuple[str, int], StepScores] = {}
    for row in rows:
        at = (row.question_id, row.sample_index)
        if at in scored:
            raise DataError(f"{method}: question {at[0]}, candidate {at[1]} is scored twice")
        scored[at] = row
    result = {}
    for question_id, group in candidates.items():
        for t in group:
            at = (question_id, t.sample_index)
            what = f"scores of {method}: question {question_id}, candidate {t.sample_index}"
            if at not in scored:
                raise DataError(f"{what} has no scores; score it, or drop it")
            logits = scored[at].logits
            # Steps beyond the context were not judged; `dreamprm score` has told how many.
            if aggregation != "last" and len(logits) + scored[at].cut != len(t.steps):
                raise DataError(
                    f"{what} has {len(logits)} logits for {len(t.steps)} steps: {OF_OTHERS}"
                )
            if not scored[at].are_of(t):
                raise DataError(f"{what} has other steps than were judged: {OF_OTHERS}")
            try:
                result[at] = aggregate(logits, aggregation)
            except DataError as error:
                raise DataError(f"{what}: {error.message}", field=error.field) from None
    return result
