"""The counts of an account."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from dreamprm.data.audit.loaded import Loaded
from dreamprm.records import UNKNOWN_ANSWER, domain_of

_TOP = 8  # domains, subjects, policies and label totals that are named


@dataclass(frozen=True)
class Facts:
    """What a file holds; ready to be written as JSON.

    Attributes:
        rows: of the file; `unread` are those that could not be read.
        domains: the most frequent, by questions; so are subjects and policies (by trajectories).
        number_of_domains: how many there are in all.
        with_images: questions with an image; `images` are counted each time they are named.
        steps: fewest, median and most steps of a trajectory; None without trajectories.
        outcomes: trajectories that are right, wrong, or not verified.
        outcomes_of_rows: what rows say, those without a response included; None where trajectories
            tell all.
        labels: None where no step is labelled.
    """

    name: str
    format: str
    rows: int | None
    unread: int
    questions: int
    trajectories: int
    scores: int
    domains: dict[str, int]
    number_of_domains: int
    subjects: dict[str, int]
    number_of_subjects: int
    with_images: int
    images: int
    with_options: int
    gold_known: int
    steps: tuple[int, float, int] | None
    outcomes: dict[str, int]
    outcomes_of_rows: dict[str, int] | None
    labels: LabelFacts | None
    policies: dict[str, int]


@dataclass(frozen=True)
class LabelFacts:
    """What the labels are.

    Attributes:
        steps: labelled, of `of_steps` in all.
        mean: of the labels' values; `zeros` and `ones` are the shares that are exactly 0 and 1.
        totals: completions behind a label -> labels, the most frequent.
        with_wrong_step: trajectories with a step labelled 0.
    """

    steps: int
    of_steps: int
    mean: float
    zeros: float
    ones: float
    totals: dict[int, int]
    with_wrong_step: int


def facts(loaded: Loaded) -> Facts:
    """Count what was loaded."""
    questions, trajectories = loaded.questions, loaded.trajectories
    by_id = {question.id: question for question in questions}
    pairs = [(by_id[t.question_id], t) for t in trajectories if t.question_id in by_id]
    domain_questions = {(question.id, domain_of(question, t)) for question, t in pairs}
    tried = {t.question_id for t in trajectories}
    domain_questions |= {(q.id, q.domain) for q in questions if q.id not in tried}
    domains = Counter(domain for _, domain in domain_questions)
    subjects = Counter(q.subject for q in questions if q.subject is not None)
    lengths = [len(trajectory.steps) for trajectory in trajectories]
    claimed = [claim.outcome for _, claim in loaded.claims if claim.outcome is not None]
    return Facts(
        name=loaded.name,
        format=loaded.format,
        rows=loaded.rows,
        unread=len(loaded.bad),
        questions=len(questions),
        trajectories=len(trajectories),
        scores=len(loaded.scores),
        domains=_top(domains),
        number_of_domains=len(domains),
        subjects=_top(subjects),
        number_of_subjects=len(subjects),
        with_images=sum(bool(question.images) for question in questions),
        images=sum(len(question.images) for question in questions),
        with_options=sum(bool(question.options) for question in questions),
        gold_known=sum(question.answer != UNKNOWN_ANSWER for question in questions),
        steps=(min(lengths), statistics.median(lengths), max(lengths)) if lengths else None,
        outcomes=_tally([trajectory.outcome for trajectory in trajectories]),
        outcomes_of_rows=_tally(claimed) if len(claimed) > len(trajectories) else None,
        labels=_labels(loaded),
        policies=_top(Counter(trajectory.policy for trajectory in trajectories)),
    )


def _labels(loaded: Loaded) -> LabelFacts | None:
    labelled = [
        [label for label in trajectory.labels or () if label] for trajectory in loaded.trajectories
    ]
    labels = [label for one in labelled for label in one]
    if not labels:
        return None
    values = [label.value for label in labels]
    return LabelFacts(
        steps=len(labels),
        of_steps=sum(len(trajectory.steps) for trajectory in loaded.trajectories),
        mean=statistics.fmean(values),
        zeros=values.count(0.0) / len(values),
        ones=values.count(1.0) / len(values),
        totals=_top(Counter(label.total for label in labels if label.total)),
        with_wrong_step=sum(any(label.value == 0 for label in one) for one in labelled),
    )


def _tally(outcomes: Sequence[bool | None]) -> dict[str, int]:
    names = {True: "right", False: "wrong", None: "unknown"}
    return {name: outcomes.count(outcome) for outcome, name in names.items()}


K = TypeVar("K")


def _top(counts: Counter[K]) -> dict[K, int]:
    return dict(counts.most_common(_TOP))
