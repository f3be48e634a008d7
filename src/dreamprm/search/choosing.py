"""Choosing one answer among the candidates of one question.

Each rule takes the candidates of a single question, in any order, and returns the best one, or all
that tie for it, by `sample_index`: the order in which a file lists candidates never matters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from dreamprm.errors import DataError, DreamPRMError
from dreamprm.records import Question, Record, StepScores, Trajectory
from dreamprm.search.aggregation import DEFAULT_AGGREGATION, aggregate, step_scores
from dreamprm.unread import why_unanswered

VOTES = ("first_sample", "self_consistency")
"""Methods that need no scores."""
PARALLEL = (*VOTES, "best_of_n", "weighted_vote")
"""Methods that choose among independent candidates."""
TREES = ("step_best_of_n", "beam_search", "diverse_tree_search")
"""Methods that search over steps; of what they finished, the highest score is chosen."""
METHODS = (*PARALLEL, *TREES)

OF_OTHERS = "the scores are of other candidates; score these into a new file"


def choose(
    method: str, candidates: Sequence[Trajectory], scores: Sequence[float] | None = None
) -> list[Trajectory]:
    """The candidates that are best, by sample_index: the first is chosen, others tie with it.

    Args:
        scores: (candidates,) aggregated step scores (logits); not needed by `VOTES`.
    """
    if method == "first_sample":
        return [first_sample(candidates)]
    if method == "self_consistency":
        return most_voted(candidates)
    if scores is None:
        raise DreamPRMError(f"method {method} needs scores of a reward model")
    if method == "weighted_vote":
        return most_voted(candidates, step_scores(scores))
    return highest_scored(candidates, scores)


def first_sample(candidates: Sequence[Trajectory]) -> Trajectory:
    """The candidate with the lowest sample_index: what one sample of the policy gives."""
    _need_candidates(candidates)
    return min(candidates, key=lambda candidate: candidate.sample_index)


def highest_scored(candidates: Sequence[Trajectory], scores: Sequence[float]) -> list[Trajectory]:
    """The candidates with the highest score (best-of-N), by sample_index."""
    _check_numbers(candidates, scores, "score")
    highest = max(scores)
    best = [c for c, score in zip(candidates, scores, strict=True) if score == highest]
    return sorted(best, key=lambda c: c.sample_index)


def most_voted(
    candidates: Sequence[Trajectory], weights: Sequence[float] | None = None
) -> list[Trajectory]:
    """The answer with the most votes (self-consistency, arXiv 2203.11171), or with the most weight.

    Candidates without an answer have no vote; one is chosen only where no candidate has an answer.

    Args:
        weights: (candidates,) at least 0; probabilities, not logits. By default 1 each.

    Returns:
        The first candidate, by sample_index, of each answer that nothing exceeds.

    Raises:
        DataError: a negative weight (with logits an answer would lose by being given more often).
    """
    weights = [1.0] * len(candidates) if weights is None else weights
    _check_numbers(candidates, weights, "weight")
    if min(weights) < 0:
        raise DataError(
            f"question {candidates[0].question_id}: a vote has weight {min(weights)}; give "
            "probabilities, not logits"
        )
    votes: dict[str, list[float]] = {}
    first: dict[str, Trajectory] = {}
    for i in sorted(range(len(candidates)), key=lambda i: candidates[i].sample_index):
        answer = candidates[i].answer
        if answer is not None:
            votes.setdefault(answer, []).append(weights[i])
            first.setdefault(answer, candidates[i])
    if not votes:
        return [first_sample(candidates)]
    # fsum: equal votes must tie whatever order they are added in.
    totals = {answer: math.fsum(given) for answer, given in votes.items()}
    most = max(totals.values())
    return [first[answer] for answer, total in totals.items() if total == most]


class Change(Record):
    """From here on, until the next one, this was the answer.

    Attributes:
        tokens: that had been sampled for the question.
        sample_index: of the candidate.
    """

    tokens: int
    sample_index: int
    outcome: bool | None = None


class Choice(Record):
    """What was chosen for a question: a row of what `dreamprm select` writes.

    Attributes:
        score: aggregated score of the candidate, a logit; None without scores.
        step_scores: of its steps, each in 0-1; None without scores.
        tokens: sampled for this question, by the reward model's tokenizer; None without one, or
            where candidates were given.
        completions: sampled for it, single steps included.
        outcome: is the answer right; None where that is not known.
        changes: the answer as the search went on; none where tokens were not counted.
        tied: candidates (or answers, where they vote) that were as good, this one included.
        unread: why it states no answer, see `dreamprm.unread`.
    """

    question_id: str
    answer: str | None
    sample_index: int
    score: float | None
    step_scores: tuple[float, ...] | None
    tokens: int | None = None
    completions: int | None = None
    outcome: bool | None = None
    steps: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    tied: int = 1
    unread: str | None = None


def choose_stored(
    questions: Sequence[Question],
    trajectories: Sequence[Trajectory],
    scores: Sequence[StepScores] | None = None,
    *,
    method: str = "best_of_n",
    aggregation: str = DEFAULT_AGGREGATION,
    n: int | None = None,
) -> list[Choice]:
    """Choose among candidates that are there, for every question.

    Args:
        method: one of `PARALLEL`.
        n: candidates of a question that are chosen among, the first by sample_index; by default
            all.

    Raises:
        DataError: a question with fewer candidates, or scores that are not of these candidates.
    """
    scored = None if scores is None else {(s.question_id, s.sample_index): s for s in scores}
    groups: dict[str, list[Trajectory]] = {question.id: [] for question in questions}
    options = {question.id: question.options for question in questions}
    for t in trajectories:
        groups[t.question_id].append(t)
    choices = []
    for question_id, group in groups.items():
        first_n = sorted(group, key=lambda t: t.sample_index)[:n]
        if len(first_n) < (n or 1):
            raise DataError(
                f"question '{question_id}' has {len(group)} candidates, fewer than {n or 1}; "
                "sample more or lower n"
            )
        numbers = None if scored is None else [score_of(t, scored, aggregation) for t in first_n]
        best = choose(method, first_n, numbers)
        chosen, score, steps = best[0], None, None
        if scored is not None and numbers is not None:
            score = numbers[first_n.index(chosen)]
            steps = tuple(step_scores(scored[question_id, chosen.sample_index].logits))
        choices.append(
            Choice(
                question_id=question_id,
                answer=chosen.answer,
                sample_index=chosen.sample_index,
                score=score,
                step_scores=steps,
                outcome=chosen.outcome,
                steps=chosen.steps,
                tied=len(best),
                unread=why_unanswered(chosen, options[question_id]),
            )
        )
    return choices


def score_of(
    t: Trajectory, scored: Mapping[tuple[str, int], StepScores], aggregation: str
) -> float:
    """A candidate's aggregated score, if the scores are of this very candidate.

    Raises:
        DataError: it has no scores, too few, or other steps were judged.
    """
    row = scores_of(t, scored)
    # Steps beyond the context were not judged; `dreamprm score` has told how many.
    if len(row.logits) + row.cut != len(t.steps) and aggregation != "last":
        given = len(row.logits) + row.cut
        raise DataError(f"{name_of(t)} has {given} scores for {len(t.steps)} steps: {OF_OTHERS}")
    try:
        return aggregate(row.logits, aggregation)
    except DataError as error:
        raise DataError(f"{name_of(t)}: {error.message}", field=error.field) from None


def scores_of(t: Trajectory, scored: Mapping[tuple[str, int], StepScores]) -> StepScores:
    """The scores of this very candidate.

    Raises:
        DataError: there are none, or other steps were judged.
    """
    row = scored.get((t.question_id, t.sample_index))
    if row is None:
        raise DataError(f"{name_of(t)} has no scores: {OF_OTHERS}")
    if not row.are_of(t):
        raise DataError(f"{name_of(t)} has other steps than were judged: {OF_OTHERS}")
    return row


def name_of(t: Trajectory) -> str:
    """How messages name a candidate."""
    return f"question '{t.question_id}', candidate {t.sample_index}"


def _need_candidates(candidates: Sequence[Trajectory]) -> None:
    if not candidates:
        raise DataError("a question has no candidates; there is nothing to choose from")


def _check_numbers(candidates: Sequence[Trajectory], numbers: Sequence[float], what: str) -> None:
    _need_candidates(candidates)
    question = candidates[0].question_id
    if len(numbers) != len(candidates):
        raise DataError(
            f"question {question}: {len(numbers)} {what}s, {len(candidates)} candidates"
        )
    for candidate, number in zip(candidates, numbers, strict=True):
        if not math.isfinite(number):
            raise DataError(
                f"question {question}, candidate {candidate.sample_index}: {what} {number} is not "
                "finite"
            )
