"""MMMU (arXiv 2311.16502), MMMU-Pro (arXiv 2409.02813) and MMStar (arXiv 2403.20330).

MMMU has 30 subjects in six disciplines. A choice is right if the letter is; an open question has
several accepted answers. The letter of MMMU-Pro belongs to the order of options in the row that was
asked: the same question has another letter with four options than with ten. Responses are therefore
judged against the question of the very file, and an answer that comes from another file must be
mapped by the option's text.

MMStar's options stand in the question's text. Its own evaluation (MMStar-Benchmark/MMStar) takes
the letter that a response begins with; a response that reasons first has to be cut down to its
answer before, as `dreamprm select` does.
"""

from __future__ import annotations

from pathlib import Path

from dreamprm.data import mmmu_pro
from dreamprm.evaluation.benchmarks.base import Benchmark, Groups, Response, groups_by
from dreamprm.evaluation.results import subject_of
from dreamprm.records import Question

DISCIPLINES = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        *("Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine"),
        *("Pharmacy", "Public_Health"),
    ),
    "Humanities and Social Science": ("History", "Literature", "Sociology", "Psychology"),
    "Tech and Engineering": (
        *("Agriculture", "Architecture_and_Engineering", "Computer_Science", "Electronics"),
        *("Energy_and_Power", "Materials", "Mechanical_Engineering"),
    ),
}
_OF_SUBJECT = {s: discipline for discipline, subjects in DISCIPLINES.items() for s in subjects}


def groups(question: Question) -> Groups:
    """Subject and discipline."""
    discipline = _OF_SUBJECT.get(question.subject or "")
    return subject_of(question) | ({"discipline": (discipline,)} if discipline else {})


def read_pro_responses(path: Path) -> list[Response]:
    """MMMU-Pro's output file: rows with the whole question and `response`."""
    trajectories = mmmu_pro.FORMAT.read(path).trajectories
    return [Response(t.question_id, answer=t.answer) for t in trajectories]


MMMU = Benchmark(
    name="mmmu",
    about="900 questions of validation, 30 subjects, six disciplines (arXiv 2311.16502)",
    count=900,
    groups=groups,
    rules="the letter; of open questions any accepted answer",
)
MMMU_PRO = Benchmark(
    name="mmmu_pro",
    about="1,730 questions with up to ten options (arXiv 2409.02813)",
    count=1730,
    groups=groups,
    read_responses=read_pro_responses,
    rules="the letter in the order of options that was asked",
)

_OPENINGS = ("(", "option ", "the answer is ")


def first_letter(question: Question, text: str) -> str | None:
    """The letter that the response begins with, bare or behind one of three openings.

    >>> q = Question(id="q", domain="d", text="?", answer="B")
    >>> [first_letter(q, said) for said in ("(B) a cat", "The answer is B.", "I see B")]
    ['B', 'B', 'I']
    """
    said = text.strip().casefold()
    for opening in _OPENINGS:
        if said.startswith(opening):
            said = said.removeprefix(opening)
            break
    return said[:1].upper() or None


def right(question: Question, answer: str | None) -> bool:
    """Does the answer begin with the gold letter, as a response has to?"""
    return answer is not None and first_letter(question, answer) == question.answer.strip().upper()


MMSTAR = Benchmark(
    name="mmstar",
    about="1,500 questions, six capabilities (arXiv 2403.20330)",
    count=1500,
    right=right,
    extract=first_letter,
    groups=groups_by("category", axis="l2_category"),
    rules="the letter that the response begins with",
)
