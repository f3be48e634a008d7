"""Answers: bare letters for responses, gold answers that fit nothing, outcomes of one class."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache

from dreamprm.answers import verdict_on
from dreamprm.answers.options import option_meant
from dreamprm.answers.text import clean
from dreamprm.data.audit.finding import Finding, Severity, place, share, shown
from dreamprm.data.audit.loaded import Loaded
from dreamprm.errors import DataError
from dreamprm.records import UNKNOWN_ANSWER, domain_of

_STATING = re.compile(
    r"\A[\s*#>(]*"
    r"(?:(?:the\s+)?(?:final\s+)?(?:answer|option)[*_\s]*(?:is\b|:)[*_\s:]*)?",
    re.IGNORECASE,
)


def check(loaded: Loaded) -> Iterator[Finding]:
    """All findings about answers and outcomes."""
    yield from _without_reasoning(loaded)
    yield from _one_class(loaded)
    yield from _gold(loaded)
    yield from _against_our_verdict(loaded)
    yield from _one_sided(loaded)


def _without_reasoning(loaded: Loaded) -> Iterator[Finding]:
    letters, answers = [], []
    for t in loaded.trajectories:
        if len(t.steps) > 1:
            continue
        text = _STATING.sub("", t.steps[0]).strip(" \t\n*.)")
        if re.fullmatch(r"[A-Z]", text):
            letters.append(t)
        elif t.answer is not None and text and text == _STATING.sub("", t.answer).strip(" \t\n*.)"):
            answers.append(t)
    total = len(loaded.trajectories)
    for kind, name, found in (
        ("a bare option letter", "bare_letter", letters),
        ("an answer and nothing else", "bare_answer", answers),
    ):
        if found:
            message = (
                f"{share(len(found), total)} responses are {kind}; there is no reasoning to score"
            )
            yield Finding("warning", name, len(found), message, shown([place(t) for t in found]))


def _one_class(loaded: Loaded) -> Iterator[Finding]:
    known = [t.outcome for t in loaded.trajectories if t.outcome is not None]
    if len(known) > 1 and len(set(known)) == 1:
        told = "right" if known[0] else "wrong"
        whole = len(known) == len(loaded.trajectories)
        severity: Severity = "error" if whole else "note"
        message = (
            f"all {len(known)} known outcomes are {told}; an upper level cannot be fitted on one "
            "class, nor a method be compared"
        )
        yield Finding(severity, "one_class", len(known), message)
        return
    by_id = {question.id: question for question in loaded.questions}
    outcomes: dict[str, list[bool]] = defaultdict(list)
    for t in loaded.trajectories:
        if t.outcome is not None and t.question_id in by_id:
            outcomes[domain_of(by_id[t.question_id], t)].append(t.outcome)
    single = [
        f"domain {domain}: all {len(found)} {'right' if found[0] else 'wrong'}"
        for domain, found in outcomes.items()
        if len(found) > 1 and len(set(found)) == 1
    ]
    if single:
        message = f"{share(len(single), len(outcomes))} domains have outcomes of one class only"
        yield Finding("warning", "one_class_in_domain", len(single), message, shown(single))


def _gold(loaded: Loaded) -> Iterator[Finding]:
    with_options = [q for q in loaded.questions if q.options and q.answer != UNKNOWN_ANSWER]
    bad = [q for q in with_options if option_meant(clean(q.answer), q.options) is None]
    if bad:
        message = (
            f"{share(len(bad), len(with_options))} gold answers of questions with options are none "
            "of these; correct the answer or the options"
        )
        where = shown([f"{place(q)}: '{q.answer:.40}' of {len(q.options)} options" for q in bad])
        yield Finding("error", "gold_not_an_option", len(bad), message, where)


def _against_our_verdict(loaded: Loaded) -> Iterator[Finding]:
    by_id = loaded.by_id()

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
    if other:
        message = (
            f"{share(len(other), compared)} outcomes are not what our own comparison of answer and "
            "gold answer gives; look at some"
        )
        yield Finding("warning", "outcome_not_ours", len(other), message, shown(other))


def _one_sided(loaded: Loaded) -> Iterator[Finding]:
    """Questions whose candidates are all right or all wrong: no choice among them matters."""
    outcomes: dict[str, list[bool]] = defaultdict(list)
    for t in loaded.trajectories:
        if t.outcome is not None:
            outcomes[t.question_id].append(t.outcome)
    several = {asked: found for asked, found in outcomes.items() if len(found) > 1}
    right = sum(all(found) for found in several.values())
    wrong = sum(not any(found) for found in several.values())
    if right or wrong:
        message = (
            f"of {len(several)} questions with several candidates, {right} have only right ones "
            f"and {wrong} only wrong ones; choosing among these changes nothing"
        )
        yield Finding("note", "one_sided_questions", right + wrong, message)
