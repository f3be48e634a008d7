"""Checks of answers, outcomes and labels: what carries nothing, and what contradicts the rest."""

from __future__ import annotations

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterator
from functools import cache

from dreamprm.answers import verdict_on
from dreamprm.answers.options import option_meant
from dreamprm.answers.text import clean
from dreamprm.data.audit.account import (
    SHOWN,
    Finding,
    Loaded,
    Severity,
    finding,
    has_wrong_step,
    labels_of,
    place,
    share,
)
from dreamprm.errors import DataError
from dreamprm.records import UNKNOWN_ANSWER, Trajectory, domain_of

_ENOUGH = 20  # trajectories of each class, to say that their labels do not differ
_STATING = re.compile(
    r"\A[\s*#>(]*"
    r"(?:(?:the\s+)?(?:final\s+)?(?:answer|option)[*_\s]*(?:is\b|:)[*_\s:]*)?",
    re.IGNORECASE,
)


def check_labels(loaded: Loaded) -> Iterator[Finding]:
    """All findings about labels."""
    labelled = [t for t in loaded.trajectories if labels_of(t)]
    constant = [*_constant_claims(loaded)] or [*_constant(labelled)]
    yield from constant
    if not labelled:
        return
    if not constant:
        yield from _indifferent(labelled)
    labels = [label for t in labelled for label in labels_of(t)]
    if all(label.total in (None, 1) and label.value in (0, 1) for label in labels):
        message = f"all {len(labels)} labels are right or wrong and nothing between; none tells how"
        yield Finding("note", "hard_labels", len(labels), f"{message} sure it is")
    yield from _against_outcome(labelled)


def _constant_claims(loaded: Loaded) -> Iterator[Finding]:
    """Rows that call every step right, also where the answer is wrong."""
    told = [claim for claim in loaded.claims if claim.labels]
    wrong = [claim.place for claim in told if claim.outcome is False]
    if wrong and all(all(claim.labels or ()) for claim in told):
        message = f"every step of all {len(told)} rows is labelled right, also in all {len(wrong)}"
        message += " whose answer is wrong; the labels carry nothing and are left out on reading"
        yield Finding("error", "constant_labels", len(told), message, tuple(wrong[:SHOWN]))


def _constant(labelled: list[Trajectory]) -> Iterator[Finding]:
    values = [label.value for t in labelled for label in labels_of(t)]
    if len(set(values)) != 1 or len(values) == 1:
        return
    wrong = sum(t.outcome is False for t in labelled)
    right = sum(t.outcome is True for t in labelled)
    message = f"all {len(values)} labels are {values[0]:g}; there is nothing to learn from them"
    if right and wrong:
        message += f" ({right} trajectories are right, {wrong} wrong)"
    severity: Severity = "error" if right and wrong else "warning"
    yield Finding(severity, "constant_labels", len(values), message)


def _indifferent(labelled: list[Trajectory]) -> Iterator[Finding]:
    """Labels of right answers should be higher than those of wrong ones."""
    means: dict[bool, list[float]] = {True: [], False: []}
    for trajectory in labelled:
        if trajectory.outcome is not None:
            values = [label.value for label in labels_of(trajectory)]
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
    right = [t for t in labelled if t.outcome is True]
    misled = [place(t) for t in right if has_wrong_step(t)]
    message = f"{share(len(misled), len(right))} trajectories with a right answer have a step that"
    message += " is labelled wrong (0): the answer is right, the process is not"
    yield from finding("warning", "right_answer_wrong_step", misled, message)
    wrong = [t for t in labelled if t.outcome is False]
    ones = [place(t) for t in wrong if all(x and x.value == 1 for x in t.labels or ())]
    message = f"{share(len(ones), len(wrong))} trajectories with a wrong answer have every step"
    yield from finding("warning", "wrong_answer_right_steps", ones, f"{message} labelled right (1)")


def check_answers(loaded: Loaded) -> Iterator[Finding]:
    """All findings about answers and outcomes."""
    yield from _unread(loaded)
    yield from _without_reasoning(loaded)
    yield from _one_class(loaded)
    yield from _gold(loaded)
    yield from _against_our_verdict(loaded)
    yield from _one_sided(loaded)


def _unread(loaded: Loaded) -> Iterator[Finding]:
    unread = loaded.unread
    if count := unread.reasons.total():
        severity: Severity = "warning" if unread.is_much else "note"
        line = unread.line("trajectories")
        yield Finding(severity, "no_answer", count, line, tuple(unread.examples))


def _without_reasoning(loaded: Loaded) -> Iterator[Finding]:
    letters, answers = [], []
    for t in loaded.trajectories:
        if len(t.steps) > 1:
            continue
        text = _STATING.sub("", t.steps[0]).strip(" \t\n*.)")
        if re.fullmatch(r"[A-Z]", text):
            letters.append(place(t))
        elif t.answer is not None and text and text == _STATING.sub("", t.answer).strip(" \t\n*.)"):
            answers.append(place(t))
    for kind, name, places in (
        ("a bare option letter", "bare_letter", letters),
        ("an answer and nothing else", "bare_answer", answers),
    ):
        message = (
            f"{share(len(places), len(loaded.trajectories))} responses are {kind}; there is no"
        )
        yield from finding("warning", name, places, f"{message} reasoning to score")


def _one_class(loaded: Loaded) -> Iterator[Finding]:
    known = [t.outcome for t in loaded.trajectories if t.outcome is not None]
    if len(known) > 1 and len(set(known)) == 1:
        told = "right" if known[0] else "wrong"
        severity: Severity = "error" if len(known) == len(loaded.trajectories) else "note"
        message = f"all {len(known)} known outcomes are {told}; an upper level cannot be fitted on"
        message += " one class, nor a method be compared"
        yield Finding(severity, "one_class", len(known), message)
        return
    by_id = loaded.by_id
    outcomes: dict[str, list[bool]] = defaultdict(list)
    for t in loaded.trajectories:
        if t.outcome is not None and t.question_id in by_id:
            outcomes[domain_of(by_id[t.question_id], t)].append(t.outcome)
    single = [
        f"domain {domain}: all {len(of)} {'right' if of[0] else 'wrong'}"
        for domain, of in outcomes.items()
        if len(of) > 1 and len(set(of)) == 1
    ]
    message = f"{share(len(single), len(outcomes))} domains have outcomes of one class only"
    yield from finding("warning", "one_class_in_domain", single, message)


def _gold(loaded: Loaded) -> Iterator[Finding]:
    with_options = [q for q in loaded.questions if q.options and q.answer != UNKNOWN_ANSWER]
    bad = [
        f"{place(q)}: '{q.answer:.40}' of {len(q.options)} options"
        for q in with_options
        if option_meant(clean(q.answer), q.options) is None
    ]
    message = (
        f"{share(len(bad), len(with_options))} gold answers of questions with options are none"
    )
    message += " of these; correct the answer or the options"
    yield from finding("error", "gold_not_an_option", bad, message)


def _against_our_verdict(loaded: Loaded) -> Iterator[Finding]:
    by_id = loaded.by_id

    @cache
    def ours(question_id: str, answer: str) -> bool | None:
        try:
            return verdict_on(by_id[question_id], answer).correct
        except DataError:  # told by `_gold`, or there is no gold answer
            return None

    compared = 0
    other = []
    for t in loaded.trajectories:
        if t.outcome is None or t.answer is None or t.question_id not in by_id:
            continue
        said = ours(t.question_id, t.answer)
        compared += said is not None
        if said is not None and said != t.outcome:
            gold = by_id[t.question_id].answer
            called = "right" if t.outcome else "wrong"
            other.append(f"{place(t)}: '{t.answer:.40}' called {called}, gold '{gold:.40}'")
    message = (
        f"{share(len(other), compared)} outcomes are not what our own comparison of answer and"
    )
    yield from finding(
        "warning", "outcome_not_ours", other, f"{message} gold answer gives; look at some"
    )


def _one_sided(loaded: Loaded) -> Iterator[Finding]:
    """Questions whose candidates are all right or all wrong: no choice among them matters."""
    outcomes: dict[str, list[bool]] = defaultdict(list)
    for t in loaded.trajectories:
        if t.outcome is not None:
            outcomes[t.question_id].append(t.outcome)
    several = [candidates for candidates in outcomes.values() if len(candidates) > 1]
    right = sum(map(all, several))
    wrong = sum(not any(candidates) for candidates in several)
    if right or wrong:
        message = (
            f"of {len(several)} questions with several candidates, {right} have only right ones "
            f"and {wrong} only wrong ones; choosing among these changes nothing"
        )
        yield Finding("note", "one_sided_questions", right + wrong, message)
