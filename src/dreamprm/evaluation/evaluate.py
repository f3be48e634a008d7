"""Candidates and scores -> the accuracy of every way of choosing, per benchmark and over N.

Three methods need no scores: `first_sample` (what one sample of the policy gives),
`self_consistency` (majority vote) and `any_right` (the ceiling). Every other method is best-of-N by
its own step scores. Where candidates tie for the best, a question counts as the share of them that
is right: the expectation, were one drawn. The accuracy table uses the first `n` candidates of each
question; the curve over N uses all M of them, so the two agree exactly only at N = M.

The best of seven aggregations on the very questions that are reported is better than any of them by
luck alone, so an aggregation is chosen on other questions, the validation split.
"""

from __future__ import annotations

import itertools
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dreamprm.data.overlap import find_overlap, hash_images, question_key
from dreamprm.errors import DataError
from dreamprm.evaluation.results import (
    AVERAGE,
    Metric,
    QuestionResult,
    Result,
    Ties,
    check_name,
    metric,
    new_result,
    subject_of,
    write_result,
)
from dreamprm.evaluation.statistics import (
    Difference,
    Estimate,
    Values,
    estimate,
    estimate_average,
    paired_difference,
)
from dreamprm.records import Question, StepScores, Trajectory
from dreamprm.search.aggregation import AGGREGATIONS, DEFAULT_AGGREGATION, get_aggregation
from dreamprm.search.choosing import first_sample, highest_scored, most_voted, score_of
from dreamprm.unread import Unread, unanswered

UNSCORED_METHODS = ("first_sample", "self_consistency", "any_right")
DEFAULT_NS = (1, 2, 4, 8, 16)

Scores = Mapping[str, Sequence[StepScores]]  # method -> step logits of every candidate


@dataclass(frozen=True)
class AggregationChoice:
    """What validation questions chose for one method, and what all aggregations gave.

    Attributes:
        name: of the chosen aggregation.
        accuracy: aggregation -> accuracy of best-of-N on the validation questions.
        questions: how many these were.
    """

    name: str
    accuracy: dict[str, float]
    questions: int


@dataclass(frozen=True)
class Evaluation:
    """What every method chose and how right it was. Benchmarks are the questions' domains.

    Attributes:
        n: candidates per question that the accuracy table uses.
        question_ids: per benchmark, in the order of the last axis of `values`.
        outcomes: method -> benchmark -> (seeds, questions, 4): of the candidates that are best,
            the share that is right, the worst outcome, the best one, and their number.
        curve_values: method -> N -> benchmark -> (seeds, questions), expected accuracy at N.
        chosen: method -> question id -> sample_index of the first of the best candidates (first
            seed; not for `any_right`, which chooses nothing).
        aggregated: scored method -> (question id, sample_index) -> aggregated score (first seed).
        questions, trajectories, scores: that were evaluated (first seed).
        choices: method -> aggregation that validation questions chose.
    """

    n: int
    question_ids: dict[str, list[str]]
    outcomes: dict[str, dict[str, NDArray[np.float64]]]
    curve_values: dict[str, dict[int, dict[str, Values]]]
    chosen: dict[str, dict[str, int]]
    aggregated: dict[str, dict[tuple[str, int], float]]
    questions: Sequence[Question]
    trajectories: Sequence[Trajectory]
    scores: Scores
    choices: Mapping[str, AggregationChoice] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, dict[str, Values]]:
        """Method -> benchmark -> (seeds, questions): 1.0 right, 0.0 wrong, or a share in a tie."""
        return {m: {b: o[..., 0] for b, o in by.items()} for m, by in self.outcomes.items()}

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

    @property
    def ties(self) -> dict[str, Ties]:
        """Method -> its ties, of methods that have some."""
        ties = {}
        for method, of in self.outcomes.items():
            if several := sum(int((o[..., 3] > 1).sum()) for o in of.values()):
                ties[method] = Ties(
                    choices=several,
                    mixed=sum(int((o[..., 1] < o[..., 2]).sum()) for o in of.values()),
                    worst=estimate_average({b: o[..., 1] for b, o in of.items()}).mean,
                    best=estimate_average({b: o[..., 2] for b, o in of.items()}).mean,
                )
        return ties

    @property
    def unread(self) -> Unread:
        """How many of the candidates state no answer."""
        return unanswered(self.questions, self.trajectories)

    def difference(self, a: str, b: str) -> Difference:
        """Method a minus method b on the same questions, averaged over benchmarks."""
        return paired_difference(self.values[a], self.values[b])

    def save(self, path: str | Path, **options: Any) -> None:
        """Write a result file, which `dreamprm compare` and `report` read.

        Args:
            options: of `result`; the name is that of the file by default.
        """
        path = Path(path)
        write_result(path, self.result(**({"name": path.stem} | options)))

    def result(
        self,
        name: str,
        *,
        main_method: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Result:
        """Every method's figures, and what it chose for every question, as a result file has them.

        Metrics of a method are `average` (over benchmarks), one per benchmark and, where questions
        have subjects, one per benchmark and subject.

        Args:
            name: of the run, as comparisons show it.
            main_method: the others are compared with it.
            settings: of the run.
        """
        main = main_method or main_of(self.scores)
        answers: dict[tuple[str, int | None], str | None] = {
            (t.question_id, t.sample_index): t.answer for t in self.trajectories
        }
        by_id = {q.id: q for q in self.questions}
        accuracy, average = self.accuracy, self.average
        metrics: dict[str, dict[str, Metric]] = {}
        rows: dict[str, list[QuestionResult]] = {}
        for method, outcomes in self.outcomes.items():
            metrics[method] = {AVERAGE: metric(average[method])}
            rows[method] = []
            for benchmark, ids in self.question_ids.items():
                metrics[method][check_name(benchmark)] = metric(accuracy[benchmark][method])
                subjects: dict[str, list[int]] = defaultdict(list)
                for place, question_id in enumerate(ids):
                    groups = subject_of(by_id[question_id])
                    for subject in groups.get("subject", ()):
                        subjects[subject].append(place)
                    for seed, (value, _, _, tied) in enumerate(outcomes[benchmark][:, place]):
                        # What other seeds than the first chose is not kept.
                        chosen = None if seed else self.chosen.get(method, {}).get(question_id)
                        rows[method].append(
                            QuestionResult(
                                question_id=question_id,
                                benchmark=benchmark,
                                value=float(value),
                                groups=groups,
                                sample_index=chosen,
                                answer=answers.get((question_id, chosen)),
                                seed=seed,
                                tied=int(tied),
                            )
                        )
                for subject, places in subjects.items():
                    part = estimate(outcomes[benchmark][:, places, 0])
                    metrics[method][f"{benchmark}/{subject}"] = metric(part)
        return new_result(
            name=name,
            kind="selection",
            settings=settings,
            metrics=metrics,
            questions=rows,
            ties=self.ties,
            details={
                "n": self.n,
                "main_method": main,
                "unread": dict(self.unread.reasons),
                "curve": {
                    method: {str(n): e.as_json() for n, e in curve.items()}
                    for method, curve in self.scaling.items()
                },
                "differences": {
                    f"{main} - {m}": self.difference(main, m).as_json()
                    for m in self.values
                    if m != main
                },
                "aggregation_chosen": {m: asdict(c) for m, c in self.choices.items()},
            },
        )


def main_of(scored: Collection[str]) -> str:
    """What other methods are compared with: `dreamprm`, else the last method with scores."""
    names = [*scored] or ["self_consistency"]
    return "dreamprm" if "dreamprm" in names else names[-1]


def evaluate(
    questions: Sequence[Question],
    trajectories: Sequence[Trajectory],
    scores: Scores | Sequence[Scores] | None = None,
    *,
    aggregations: Mapping[str, str] | None = None,
    trained_for: Mapping[str, str] | None = None,
    n: int = 8,
    ns: Sequence[int] = DEFAULT_NS,
    seed: int = 0,
    validation_share: float | None = None,
    validation: tuple[Sequence[Question], Sequence[Trajectory], Scores] | None = None,
) -> Evaluation:
    """How often is each way of choosing among the candidates of one policy right?

    Args:
        questions: of one or more benchmarks; `domain` names the benchmark.
        trajectories: candidates with outcomes, at least `n` per question.
        scores: method -> step scores of every candidate, by a name of yours; or a sequence of such
            mappings, one per repeated training, and intervals cover the chance in training too.
        aggregations: method -> aggregation of its step scores, see `search.aggregation`.
        trained_for: the same, where a validation split may choose another one.
        n: candidates per question for the accuracy table: the first n by sample_index.
        ns: points of the curve; those that some question has too few candidates for are left out.
        seed: of the random subsets behind the curve of voting, and of `validation_share`.
        validation_share: choose each method's aggregation on this share of the questions, and
            report on the others only.
        validation: choose it on these questions, candidates and scores instead; none of the
            questions may be among `questions`, under whatever id.

    Raises:
        DataError: a question without candidates or with fewer than n, a candidate without outcome,
            without scores, given twice or of an unknown question.

    >>> question = Question(id="q", domain="mathvista", text="What is 2 + 2?", answer="4")
    >>> candidates = [
    ...     Trajectory(question_id="q", steps=(f"It is {a}.",), answer=a, outcome=a == "4",
    ...                sample_index=i)
    ...     for i, a in enumerate("54")
    ... ]
    >>> scores = [StepScores(question_id="q", sample_index=i, logits=(i,)) for i in (0, 1)]
    >>> result = evaluate([question], candidates, {"prm": scores}, n=2)
    >>> result.average["first_sample"].mean, result.average["prm"].mean
    (0.0, 1.0)
    """
    by_seed = [scores] if isinstance(scores, Mapping) else list(scores or [{}])
    fixed = dict(aggregations or {})
    for name in (*fixed.values(), *(trained_for or {}).values()):
        get_aggregation(name)
    if unknown := [method for method in fixed if method not in by_seed[0]]:
        raise DataError(f"aggregations: method '{unknown[0]}' has no scores")
    if validation_share is not None:
        if validation is not None:
            raise DataError("give validation_share or validation files, not both")
        held_out, questions = split_questions(questions, validation_share, seed)
        validation = (held_out, *_of(held_out, trajectories, by_seed[0]))
        trajectories, _ = _of(questions, trajectories, {})
        by_seed = [_of(questions, [], one)[1] for one in by_seed]
    by_method = dict(trained_for or {}) | fixed
    choices: dict[str, AggregationChoice] = {}
    if validation is not None:
        theirs, candidates, their_scores = validation
        check_apart(theirs, questions)
        if unknown := [m for m in their_scores if m not in by_seed[0]]:
            raise DataError(f"validation_scores: method '{unknown[0]}' has no scores on the test")
        for method, rows in their_scores.items():
            if method not in fixed:
                default = by_method.get(method, DEFAULT_AGGREGATION)
                choice = choose_aggregation(theirs, candidates, rows, n=n, default=default)
                choices[method] = choice
        by_method |= {method: choice.name for method, choice in choices.items()}
    evaluations = [
        _evaluate(questions, trajectories, one, by_method, n, ns, seed) for one in by_seed
    ]
    together = combine_seeds(evaluations) if len(evaluations) > 1 else evaluations[0]
    return replace(together, choices=choices)


def _of(
    questions: Sequence[Question], trajectories: Sequence[Trajectory], scores: Scores
) -> tuple[list[Trajectory], dict[str, list[StepScores]]]:
    """The candidates and scores of these questions."""
    ids = {q.id for q in questions}
    return (
        [t for t in trajectories if t.question_id in ids],
        {m: [s for s in rows if s.question_id in ids] for m, rows in scores.items()},
    )


def _evaluate(
    questions: Sequence[Question],
    trajectories: Sequence[Trajectory],
    scores: Scores,
    aggregations: Mapping[str, str],
    n: int,
    ns: Sequence[int],
    seed: int,
) -> Evaluation:
    """One seed; arguments as of `evaluate`."""
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

    outcomes: dict[str, dict[str, tuple[float, float, float, int]]] = defaultdict(dict)
    curve: dict[str, dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    chosen: dict[str, dict[str, int]] = defaultdict(dict)
    for question_id, group in candidates.items():
        numbers = {  # method -> (candidates,)
            method: [by_candidate[question_id, c.sample_index] for c in group]
            for method, by_candidate in aggregated.items()
        }
        first_n = group[:n]
        best = {"first_sample": [first_sample(first_n)], "self_consistency": most_voted(first_n)}
        best |= {method: highest_scored(first_n, z[:n]) for method, z in numbers.items()}
        for method, equals in best.items():
            right = [float(bool(c.outcome)) for c in equals]
            share = sum(right) / len(right)
            outcomes[method][question_id] = (share, min(right), max(right), len(right))
            chosen[method][question_id] = equals[0].sample_index
        ceiling = float(any(c.outcome for c in first_n))
        outcomes["any_right"][question_id] = (ceiling, ceiling, ceiling, 1)

        rights = [bool(c.outcome) for c in group]
        rng = np.random.default_rng([seed, zlib.crc32(question_id.encode())])
        for point in ns:
            expected = {
                "first_sample": sum(rights) / len(rights),  # the same at every N
                "self_consistency": vote_expectation(group, point, rng),
                "any_right": any_right_expectation(rights, point),
            }
            for method, z in numbers.items():
                expected[method] = best_of_n_expectation(z, rights, point)
            for method in outcomes:
                curve[method][point][question_id] = expected[method]

    def arrays(by_question: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
        return {b: np.array([[by_question[q] for q in ids]]) for b, ids in benchmarks.items()}

    return Evaluation(
        n=n,
        question_ids=benchmarks,
        outcomes={method: arrays(by_question) for method, by_question in outcomes.items()},
        curve_values={
            method: {point: arrays(by_question) for point, by_question in points.items()}
            for method, points in curve.items()
        },
        chosen=dict(chosen),
        aggregated=aggregated,
        questions=questions,
        trajectories=trajectories,
        scores=scores,
    )


def combine_seeds(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Evaluations of repeated runs -> one whose intervals cover the chance in training too.

    All must hold the same benchmarks, methods and numbers of questions (the questions themselves
    may differ from seed to seed). All else is of the first.
    """
    first, *others = evaluations
    for other in others:
        shapes = [{b: len(ids) for b, ids in e.question_ids.items()} for e in (first, other)]
        if shapes[0] != shapes[1] or list(first.outcomes) != list(other.outcomes):
            raise DataError("cannot combine seeds that differ in benchmarks, questions or methods")
    curves = [e.curve_values for e in evaluations]
    points = set.intersection(*(set(points) for curve in curves for points in curve.values()))

    def stacked(parts: Sequence[Mapping[str, Values]]) -> dict[str, Values]:
        return {b: np.vstack([part[b] for part in parts]) for b in parts[0]}

    return replace(
        first,
        outcomes={m: stacked([e.outcomes[m] for e in evaluations]) for m in first.outcomes},
        curve_values={
            m: {p: stacked([curve[m][p] for curve in curves]) for p in sorted(points)}
            for m in first.curve_values
        },
    )


def group_candidates(
    questions: Sequence[Question], trajectories: Sequence[Trajectory], n: int = 1
) -> dict[str, list[Trajectory]]:
    """Question id -> its candidates in order of sample_index, checked; see `evaluate`."""
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
        if len(group) < n:
            raise DataError(
                f"question {question_id} has {len(group)} candidates, fewer than n = {n}; sample "
                "more, lower n or remove the question"
            )
        group.sort(key=lambda t: t.sample_index)
    return groups


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
            raise DataError(f"{method}: question '{at[0]}', candidate {at[1]} is scored twice")
        scored[at] = row
    try:
        return {
            (question_id, t.sample_index): score_of(t, scored, aggregation)
            for question_id, group in candidates.items()
            for t in group
        }
    except DataError as error:
        raise DataError(f"scores of {method}: {error.message}", field=error.field) from None


# ---- accuracy over N: the expectation over all subsets of N of the M candidates of a question


def best_of_n_expectation(scores: Sequence[float], outcomes: Sequence[bool], n: int) -> float:
    """Chance that the highest-scoring of n random candidates is right.

    Of the C(M, n) subsets, C(b + k, n) - C(b, n) have a score for their highest that k candidates
    share and b are below; each of the k is then the choice equally often.

    Args:
        scores: (M,).
        outcomes: (M,).

    >>> best_of_n_expectation([0.1, 0.9], [True, False], n=1)
    0.5
    >>> best_of_n_expectation([0.1, 0.9], [True, False], n=2)
    0.0
    """
    m = _check_subset(len(outcomes), n)
    equals: dict[float, list[bool]] = defaultdict(list)
    for score, outcome in zip(scores, outcomes, strict=True):
        equals[score].append(outcome)
    wins, below = 0.0, 0
    for score in sorted(equals):
        k = len(equals[score])
        subsets = comb(below + k, n) - comb(below, n)
        wins += subsets * sum(equals[score]) / k
        below += k
    return wins / comb(m, n)


def any_right_expectation(outcomes: Sequence[bool], n: int) -> float:
    """Chance that at least one of n random candidates is right (pass@n, arXiv 2107.03374)."""
    m = _check_subset(len(outcomes), n)
    return 1 - comb(m - sum(outcomes), n) / comb(m, n)


def vote_expectation(
    candidates: Sequence[Trajectory],
    n: int,
    rng: np.random.Generator,
    *,
    weights: Sequence[float] | None = None,
    subsets: int = 64,
) -> float:
    """Chance that the majority vote of n random candidates is right.

    Args:
        candidates: M candidates of one question, all with an outcome.
        rng: draws the subsets where there are more than `subsets`; not touched otherwise.
        weights: (M,) of their votes; by default 1 each.
        subsets: enumerate all subsets up to this many, else draw this many.
    """
    m = _check_subset(len(candidates), n)
    chosen: Iterable[Sequence[int]]
    if comb(m, n) <= subsets:
        chosen = itertools.combinations(range(m), n)
    else:
        chosen = [rng.choice(m, size=n, replace=False).tolist() for _ in range(subsets)]
    given = [1.0] * m if weights is None else weights
    right = []
    for subset in chosen:
        best = most_voted([candidates[i] for i in subset], [given[i] for i in subset])
        right.append(sum(bool(c.outcome) for c in best) / len(best))
    return sum(right) / len(right)


def _check_subset(m: int, n: int) -> int:
    if not 1 <= n <= m:
        raise DataError(f"cannot choose {n} of {m} candidates")
    return m


# ---- the validation split


def choose_aggregation(
    questions: Sequence[Question],
    trajectories: Sequence[Trajectory],
    scores: Sequence[StepScores],
    *,
    n: int = 8,
    default: str = DEFAULT_AGGREGATION,
) -> AggregationChoice:
    """The aggregation with the best best-of-N on validation questions, over all subsets of N.

    Args:
        questions: of the validation split.
        trajectories: their candidates, with outcomes.
        scores: step logits of these by the method.
        n: candidates that are chosen among.
        default: stays unless another is better; what the model was trained for.
    """
    methods = dict.fromkeys(AGGREGATIONS, scores)
    names = {name: name for name in AGGREGATIONS}
    curve = _evaluate(questions, trajectories, methods, names, n, (n,), seed=0).scaling
    # The expectation over all subsets of N: less noise than one choice per question.
    accuracy = {name: float(curve[name][n].mean) for name in AGGREGATIONS}
    best = max(AGGREGATIONS, key=lambda name: (accuracy[name], name == default))
    return AggregationChoice(best, accuracy, len(questions))


def split_questions(
    questions: Sequence[Question], share: float, seed: int = 0
) -> tuple[list[Question], list[Question]]:
    """Validation and test questions, drawn at random.

    What a question asks decides, not its place: the split stays when others are added, and copies
    of a question fall on one side.

    Args:
        share: of the questions for validation, in (0, 1).
        seed: of the split.
    """
    if not 0 < share < 1:
        raise DataError(f"validation_share is {share}; it must lie between 0 and 1")
    sides: tuple[list[Question], list[Question]] = ([], [])
    hashes = hash_images(image for question in questions for image in question.images)
    for question in questions:
        key = repr((seed, question_key(question, hashes))).encode()
        place = np.random.default_rng(zlib.crc32(key)).random()
        sides[int(place >= share)].append(question)
    if not sides[0] or not sides[1]:
        raise DataError(
            f"{len(questions)} questions leave none for "
            f"{'validation' if not sides[0] else 'the test'}; give validation files instead"
        )
    return sides


def check_apart(validation: Sequence[Question], test: Sequence[Question]) -> None:
    """Refuse a test question that the aggregation would be chosen on, under whatever id."""
    ids = {q.id for q in validation}
    both = [(q.id, q.id) for q in test if q.id in ids]
    overlap = find_overlap(test, validation, same_images=False)
    both += [(o.question_id, o.other_id) for o in overlap if o.counts]
    if both:
        raise DataError(
            f"question '{both[0][0]}' is in the test and, as '{both[0][1]}', in the validation "
            "set; an aggregation is not chosen on the questions that are reported: remove it from "
            "one"
        )
