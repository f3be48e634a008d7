"""Choosing one answer among the candidates of one question.

Each rule takes the candidates of a single question, in any order, and returns the candidate it
chooses. Ties are settled by `sample_index` alone: the order in which a file lists candidates never
matters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from dreamprm.errors import DataError, DreamPRMError
from dreamprm.records import Question, Record, StepScores, Trajectory
from dreamprm.search.aggregation import DEFAULT_AGGREGATION, aggregate, step_scores

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
) -> Trajectory:
    """The candidate whose answer is given.

    Args:
        scores: (candidates,) aggregated step scores (logits); not needed by `VOTES`.
    """
    if method == "first_sample":
        return first_sample(candidates)
    if method == "self_consistency":
        return majority_vote(candidates)
    if scores is None:
        raise DreamPRMError(f"method {method} needs scores of a reward model")
    if method == "weighted_vote":
        return heaviest_vote(candidates, step_scores(scores))
    return highest_score(candidates, scores)


def first_sample(candidates: Sequence[Trajectory]) -> Trajectory:
    """The candidate with the lowest sample_index: what one sample of the policy gives."""
    _need_candidates(candidates)
    return min(candidates, key=lambda candidate: candidate.sample_index)


def highest_score(candidates: Sequence[Trajectory], scores: Sequence[float]) -> Trajectory:
    """The candidate with the highest score (best-of-N); among equals the lowest sample_index."""
    _need_candidates(candidates)
    _check_numbers(candidates, scores, "score")
    best = max(range(len(candidates)), key=lambda i: (scores[i], -candidates[i].sample_index))
    return candidates[best]


def majority_vote(candidates: Sequence[Trajectory]) -> Trajectory:
    """Self-consistency (arXiv 2203.11171): the most frequent answer.

    Returns the first candidate, by sample_index, that gives the winning answer. Among equally
    frequent answers the one seen first wins. Candidates without an answer have no vote; they are
    chosen only where no candidate has an answer.
    """
    return heaviest_vote(candidates, [1.0] * len(candidates))


def heaviest_vote(candidates: Sequence[Trajectory], weights: Sequence[float]) -> Trajectory:
    """The answer with the largest sum of weights (weighted vote); otherwise as `majority_vote`.

    Args:
        weights: (candidates,) at least 0; a probability, not a logit.

    Raises:
        DataError: a negative weight (with logits an answer would lose by being given more often).
    """
    _need_candidates(candidates)
    _check_numbers(candidates, weights, "weight")
    if min(weights) < 0:
        raise DataError(
            f"question {candidates[0].question_id}: a vote has weight {min(weights)}; give "
            "probabilities, not logits"
        )
    votes: dict[str, list[float]] = {}
    first: dict[str, Trajectory] = {}  # in order of sample_index: dicts keep it
    for i in sorted(range(len(candidates)), key=lambda i: candidates[i].sample_index):
        answer = candidates[i].answer
        if answer is not None:
            votes.setdefault(answer, []).append(weights[i])
            first.setdefault(answer, candidates[i])
    if not votes:
        return first_sample(candidates)
    # fsum: equal votes must tie whatever order they are added in.
    winner = max(votes, key=lambda answer: math.fsum(votes[answer]))  # the first of equals
    return first[winner]


def any_right(candidates: Sequence[Trajectory]) -> bool:
    """Is any candidate right? The ceiling that no way of choosing can pass.

    Raises:
        DataError: a candidate was never verified.
    """
    _need_candidates(candidates)
    for candidate in candidates:
        if candidate.outcome is None:
            raise DataError(
                f"question {candidate.question_id}, candidate {candidate.sample_index} has no "
                "outcome; verify its answer first",
                field="outcome",
            )
    return any(candidate.outcome for candidate in candidates)


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
        if scored is None:
            chosen, score, steps = choose(method, first_n), None, None
        else:
            numbers = [score_of(t, scored, aggregation) for t in first_n]
            chosen = choose(method, first_n, numbers)
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
    what = f"question '{t.question_id}', candidate {t.sample_index}"
    row = scored.get((t.question_id, t.sample_index))
    if row is None:
        raise DataError(f"{what} has no scores: {OF_OTHERS}")
    # Steps beyond the context were not judged; `dreamprm score` has told how many.
    if len(row.logits) + row.cut != len(t.steps) and aggregation != "last":
        raise DataError(
            f"{what} has {len(row.logits) + row.cut} scores for {len(t.steps)} steps: {OF_OTHERS}"
        )
    if not row.are_of(t):
        raise DataError(f"{what} has other steps than were judged: {OF_OTHERS}")
    try:
        return aggregate(row.logits, aggregation)
    except DataError as error:
        raise DataError(f"{what}: {error.message}", field=error.field) from None


def _need_candidates(candidates: Sequence[Trajectory]) -> None:
    if not candidates:
        raise DataError("a question has no candidates; there is nothing to choose from")


def _check_numbers(candidates: Sequence[Trajectory], numbers: Sequence[float], what: str) -> None:
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
