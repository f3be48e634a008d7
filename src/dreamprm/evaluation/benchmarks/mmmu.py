"""MMMU (arXiv 2311.16502) and MMMU-Pro (arXiv 2409.02813): 30 subjects in six disciplines.

A choice is right if the letter is; an open question has several accepted answers. The letter of
MMMU-Pro belongs to the order of options in the row that was asked: the same question has another
letter with four options than with ten. Responses are therefore judged against the question of the
very file, and an answer that comes from another file must be mapped by the option's text.
"""

from __future__ import annotations

from pathlib import Path

from dreamprm.data.mmmu_pro import read_mmmu_pro
from dreamprm.evaluation.benchmarks.benchmark import Benchmark, Groups, Response, by_subject
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
    return by_subject(question) | ({"discipline": (discipline,)} if discipline else {})


def read_pro_questions(path: Path) -> list[Question]:
    """The questions that MMMU-Pro's output file holds in every row."""
    return read_mmmu_pro(path)[0]


def read_pro_responses(path: Path) -> list[Response]:
    """MMMU-Pro's output file: rows with the whole question and `response`."""
    return [Response(t.question_id, answer=t.answer) for t in read_mmmu_pro(path)[1]]


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
