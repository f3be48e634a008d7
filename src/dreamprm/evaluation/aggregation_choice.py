"""Choosing how step scores become one number: on a validation split, never on the test.

The best of seven aggregations on the very questions that are reported is better than any of them by
luck alone. So the choice is made on other questions, and a question that is in both sets is refused
whether it bears the same id or is found under another (`formats.overlap`).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dreamprm.data.overlap import find_overlap, hash_images, question_key
from dreamprm.errors import DataError
from dreamprm.evaluation.evaluate import evaluate_methods
from dreamprm.records import Question, StepScores, Trajectory
from dreamprm.search.aggregation import AGGREGATIONS, DEFAULT_AGGREGATION


@dataclass(frozen=True)
class AggregationChoice:
    """What was chosen for one method, and what all gave.

    Attributes:
        name: of the chosen aggregation.
        accuracy: aggregation -> accuracy of best-of-N on the validation questions.
        questions: how many these were.
    """

    name: str
    accuracy: dict[str, float]
    questions: int


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
    methods = {name: list(scores) for name in AGGREGATIONS}
    found = evaluate_methods(
        questions,
        trajectories,
        methods,
        aggregations={name: name for name in AGGREGATIONS},
        n=n,
        ns=(n,),
    )
    # The expectation over all subsets of N: less noise than one choice per question.
    accuracy = {name: float(found.scaling[name][n].mean) for name in AGGREGATIONS}
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
    """Refuse a test question that the aggregation would be chosen on.

    Raises:
        DataError: names the first one.
    """
    ids = {q.id for q in validation}
    both = [(q.id, q.id) for q in test if q.id in ids]
    found = find_overlap(test, validation, same_images=False)
    both += [(o.question_id, o.other_id) for o in found if o.counts]
    if both:
        raise DataError(
            f"question '{both[0][0]}' is in the test and, as '{both[0][1]}', in the validation "
            "set; an aggregation is not chosen on the questions that are reported: remove it from "
            "one"
        )


def candidates_of(
    questions: Sequence[Question], trajectories: Sequence[Trajectory]
) -> list[Trajectory]:
    """The candidates of these questions."""
    known = {q.id for q in questions}
    return [t for t in trajectories if t.question_id in known]


def scores_of(
    questions: Sequence[Question], scores: Mapping[str, Sequence[StepScores]]
) -> dict[str, list[StepScores]]:
    """The scores of these questions' candidates, by method."""
    known = {q.id for q in questions}
    return {m: [s for s in rows if s.question_id in known] for m, rows in scores.items()}
