"""Choosing one answer among the candidates of one question.

Each function takes the candidates of a single question, in any order, and returns the candidate it
chooses, so that the caller can look at its answer, its outcome or its steps. Ties are settled by
`sample_index` alone: the order in which a file happens to list candidates never matters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from dreamprm.errors import DataError
from dreamprm.records import Trajectory

AnswerKey = Callable[[str], str]
"""Maps answers that mean the same to one key, for example `str.strip`."""


def first_sample(candidates: Sequence[Trajectory]) -> Trajectory:
    """The candidate with the lowest sample_index: what one sample of the policy gives."""
    _need_candidates(candidates)
    return min(candidates, key=lambda candidate: candidate.sample_index)


def best_of_n(candidates: Sequence[Trajectory], scores: Sequence[float]) -> Trajectory:
    """The candidate with the highest score; among equals the lowest sample_index.

    Args:
        candidates: all of one question.
        scores: (candidates,) aggregated step scores, see `search.aggregation`.
    """
    _need_candidates(candidates)
    _check_numbers(candidates, scores, "score")
    best = max(range(len(candidates)), key=lambda i: (scores[i], -candidates[i].sample_index))
    return candidates[best]


def majority_vote(candidates: Sequence[Trajectory], key: AnswerKey | None = None) -> Trajectory:
    """Self-consistency (arXiv 2203.11171): the most frequent answer.

    Returns the first candidate, by sample_index, that gives the winning answer. Among equally
    frequent answers the one seen first wins. Candidates without an answer have no vote; they are
    chosen only where no candidate has an answer.
    """
    return weighted_vote(candidates, [1.0] * len(candidates), key)


def weighted_vote(
    candidates: Sequence[Trajectory],
    weights: Sequence[float],
    key: AnswerKey | None = None,
) -> Trajectory:
    """The answer with the largest sum of weights; otherwise as `majority_vote`.

    Args:
        candidates: all of one question.
        weights: (candidates,) at least 0; a probability, not a logit.
        key: tells which answers are the same; by default the same text.

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
    seen: dict[str, Trajectory] = {}  # in order of sample_index: dicts keep it
    order = sorted(range(len(candidates)), key=lambda i: candidates[i].sample_index)
    for i in order:
        answer = candidates[i].answer
        if answer is None:
            continue
        group = answer if key is None else key(answer)
        votes.setdefault(group, []).append(weights[i])
        seen.setdefault(group, candidates[i])
    if not votes:
        return first_sample(candidates)
    # fsum: equal votes must tie whatever order they are added in.
    winner = max(votes, key=lambda group: math.fsum(votes[group]))  # max keeps the first of equals
    return seen[winner]


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
