"""Labels that carry nothing, or that contradict the outcome."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

from dreamprm.data.audit.finding import Finding, Severity, place, share, shown
from dreamprm.data.audit.loaded import Loaded
from dreamprm.records import Trajectory

_ENOUGH = 20  # trajectories of each class, to say that their labels do not differ


def check(loaded: Loaded) -> Iterator[Finding]:
    """All findings about labels."""
    constant = _constant_claims(loaded)
    if constant is not None:
        yield constant
    labelled = [t for t in loaded.trajectories if any(t.labels or ())]
    if not labelled:
        return
    if constant is None:
        constant = _constant(labelled)
        if constant is not None:
            yield constant
    if constant is None:
        yield from _indifferent(labelled)
    labels = [label for t in labelled for label in t.labels or () if label]
    if all(label.total in (None, 1) and label.value in (0, 1) for label in labels):
        message = (
            f"all {len(labels)} labels are right or wrong and nothing between; none tells how sure "
            "it is"
        )
        yield Finding("note", "hard_labels", len(labels), message)
    yield from _against_outcome(labelled)


def _constant_claims(loaded: Loaded) -> Finding | None:
    """Rows that call every step right, also where the answer is wrong."""
    told = [(where, c) for where, c in loaded.claims if c.labels]
    wrong = [where for where, claim in told if claim.outcome is False]
    if not wrong or not all(all(claim.labels or ()) for _, claim in told):
        return None
    message = (
        f"every step of all {len(told)} rows is labelled right, also in all {len(wrong)} whose "
        "answer is wrong; the labels carry nothing and are left out on reading"
    )
    return Finding("error", "constant_labels", len(told), message, shown(wrong))


def _constant(labelled: list[Trajectory]) -> Finding | None:
    values = {label.value for t in labelled for label in t.labels or () if label}
    count = sum(bool(label) for t in labelled for label in t.labels or ())
    if len(values) > 1 or count == 1:
        return None
    wrong = sum(t.outcome is False for t in labelled)
    right = sum(t.outcome is True for t in labelled)
    message = f"all {count} labels are {values.pop():g}; there is nothing to learn from them"
    if right and wrong:
        message += f" ({right} trajectories are right, {wrong} wrong)"
    severity: Severity = "error" if right and wrong else "warning"
    return Finding(severity, "constant_labels", count, message)


def _indifferent(labelled: list[Trajectory]) -> Iterator[Finding]:
    """Labels of right answers should be higher than those of wrong ones."""
    means: dict[bool, list[float]] = {True: [], False: []}
    for trajectory in labelled:
        if trajectory.outcome is not None:
            values = [label.value for label in trajectory.labels or () if label]
            means[trajectory.outcome].append(statistics.fmean(values))
    right, wrong = means[True], means[False]
    if min(len(right), len(wrong)) < _ENOUGH:
        return
    difference = statistics.fmean(right) - statistics.fmean(wrong)
    error = math.sqrt(
        statistics.variance(right) / len(right) + statistics.variance(wrong) / len(wrong)
    )
    if difference > 2 * error:
        return
    message = (
        f"labels do not tell right answers from wrong ones: their mean is "
        f"{statistics.fmean(right):.3f} in {len(right)} right trajectories and "
        f"{statistics.fmean(wrong):.3f} in {len(wrong)} wrong ones"
    )
    yield Finding("warning", "indifferent_labels", len(right) + len(wrong), message)


def _against_outcome(labelled: list[Trajectory]) -> Iterator[Finding]:
    """A right answer behind a step that is labelled 0, and the other way round."""
    judged = [t for t in labelled if t.outcome is not None]

    def has_zero(trajectory: Trajectory) -> bool:
        return any(label and label.value == 0 for label in trajectory.labels or ())

    right = [t for t in judged if t.outcome and has_zero(t)]
    if right:
        among = sum(bool(t.outcome) for t in judged)
        message = (
            f"{share(len(right), among)} trajectories with a right answer have a step that is "
            "labelled wrong (0): the answer is right, the process is not"
        )
        where = shown([place(t) for t in right])
        yield Finding("warning", "right_answer_wrong_step", len(right), message, where)
    wrong = [t for t in judged if t.outcome is False]
    ones = [
        t
        for t in wrong
        if t.labels and all(label is not None and label.value == 1 for label in t.labels)
    ]
    if ones:
        message = (
            f"{share(len(ones), len(wrong))} trajectories with a wrong answer have every step "
            "labelled right (1)"
        )
        where = shown([place(t) for t in ones])
        yield Finding("warning", "wrong_answer_right_steps", len(ones), message, where)
