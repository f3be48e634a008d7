"""MMStar (arXiv 2403.20330): 1,500 questions that cannot be answered without the image.

The options stand in the question's text, the gold answer is a letter; six core capabilities. Its
own evaluation (MMStar-Benchmark/MMStar) takes the letter that a response begins with; a response
that reasons first has to be cut down to its answer before, as `dreamprm select` does.
"""

from __future__ import annotations

from dreamprm.evaluation.benchmarks.benchmark import Benchmark, Groups
from dreamprm.records import Question

_BEFORE = ("(", "option ", "the answer is ")


def extract(question: Question, text: str) -> str | None:
    """The letter that the response begins with, bare or behind one of three openings.

    >>> q = Question(id="q", domain="d", text="?", answer="B")
    >>> extract(q, "(B) a cat"), extract(q, "The answer is B."), extract(q, "I see B")
    ('B', 'B', 'I')
    """
    said = text.strip().casefold()
    for opening in _BEFORE:
        if said.startswith(opening):
            said = said.removeprefix(opening)
            break
    return said[:1].upper() or None


def right(question: Question, answer: str | None) -> bool:
    """Does the answer begin with the gold letter, as a response has to?"""
    return answer is not None and extract(question, answer) == question.answer.strip().upper()


def groups(question: Question) -> Groups:
    """Core capability and, below it, the finer axis."""
    found: Groups = {"category": (question.subject,)} if question.subject else {}
    finer = question.extra.get("l2_category")
    return found | ({"axis": (str(finer),)} if finer else {})


MMSTAR = Benchmark(
    name="mmstar",
    about="1,500 questions, six capabilities (arXiv 2403.20330)",
    count=1500,
    right=right,
    extract=extract,
    groups=groups,
    rules="the letter that the response begins with",
)
