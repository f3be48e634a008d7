"""MMMU (arXiv 2311.16502), MMMU-Pro (arXiv 2409.02813) and MMStar (arXiv 2403.20330).

MMMU has 30 subjects in six disciplines. A choice is right if the letter is. The letter of MMMU-Pro
belongs to the order of options in the row that was asked: the same question has another letter with
four options than with ten. Rows of the benchmark's own output hold their question, and are judged
by it; other responses must be mapped by the option's text where they were asked in another order.

Letters are read as the scripts of both do (MMMU-Benchmark/MMMU), which take the last letter in
parentheses, a letter before a space (the "I" of "I think" too), or an option's text, and draw an
option where they read none. That is not done here: such responses, empty ones and errors of the
model's server are wrong. An open question is judged as the script does: the gold answer, or one of
several, stands in the last part of a line that says "so", "is", "answer" or the like, as text, or
as a number that agrees to two decimals. `--rules ours` reads letters as `dreamprm.answers` does.

MMStar's options stand in the question's text. Its own evaluation (MMStar-Benchmark/MMStar) takes
the letter that a response begins with; a response that reasons first has to be cut down to its
answer before, as `dreamprm select` does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dreamprm.data.mmmu_pro import asked_options
from dreamprm.data.rows import Row
from dreamprm.data.sources.published import mmmu_subject
from dreamprm.evaluation.benchmarks.base import (
    Benchmark,
    Groups,
    Response,
    by_letter,
    groups_by,
    our_verdict,
    with_question,
)
from dreamprm.evaluation.results import subject_of
from dreamprm.prompts import option_letter
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


_CHOICE = "multiple-choice"  # else "short-answer", or "open"


def response_of(row: Row) -> Response:
    """A row of the output of MMMU or MMMU-Pro; one of MMMU has its options in `index2ans`."""
    options: tuple[str, ...] = ()
    answers = row["answer"] if isinstance(row["answer"], list) else [row["answer"]]
    if row.get("question_type", _CHOICE) == _CHOICE:
        written = {"options": [*row["index2ans"].values()]} if "index2ans" in row else {}
        options, answers[0] = asked_options(row | written)
    return with_question(
        row,
        row["response"],
        "mmmu",
        options=options,
        answer=answers[0],
        subject=row.get("subject") or mmmu_subject(row),
        extra={"answers": answers} if len(answers) > 1 else {},
    )


_ENDS = ",.!?;:'"
_A_FEW_WORDS = 5  # up to which MMMU's scripts look for no option's text


def script_letter(text: str, options: Sequence[str], *, pro: bool) -> str | None:
    """The letter that the script of MMMU, or that of MMMU-Pro, reads; None where it guesses.

    MMMU-Pro's looks first behind the last "Answer:" for a capital that stands there anywhere.

    Example:
        >>> [script_letter("Answer:B", "xyz", pro=pro) for pro in (False, True)]
        [None, 'B']
    """
    letters = [option_letter(i) for i in range(len(options))]
    if pro and "Answer:" in text:
        tail = text.rpartition("Answer:")[2]
        if len(named := [x for x in letters if x in tail]) == 1:
            return named[0]
    for mark in _ENDS:
        text = text.strip(mark)
    text = f" {text} "
    forms = ["({})", "{} ", "{}."] if pro else ["({})", " {} "]
    for form in forms:
        if read := [x for x in letters if form.format(x) in text]:
            last = "({})" if form == "({})" else " {} "
            return _last(read, [text.rfind(last.format(x)) for x in read])
    if len(text.split()) > _A_FEW_WORDS:
        places = [text.lower().rfind(option.lower()) for option in options]
        read = [x for x, place in zip(letters, places, strict=True) if place >= 0]
        return _last(read, [place for place in places if place >= 0]) if read else None
    return None


def _last(letters: list[str], places: list[int]) -> str:
    return letters[places.index(max(places))]


_SAYS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_NUMBERS = re.compile(
    r"-?\b\d{1,3}(?:,\d{3})+\b|-?\d+(?:\.\d+)?[eE][+-]?\d+"
    r"|-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"
)


def extract(question: Question, text: str) -> str | None:
    """The letter; of an open question the parts of the text in which its answer may stand."""
    if question.options:
        return script_letter(text, question.options, pro=False)
    said = text.strip().strip(".").lower()
    parts = []
    *before, last = said.split("\n")
    for line, marks in [*((line, _SAYS) for line in before), (last, (*_SAYS, "="))]:
        tails = [line.rpartition(mark)[2].strip() for mark in marks if mark in line]
        if tails and (shortest := min(tails, key=len)) and shortest not in (*":,.!?;'",):
            parts.append(shortest)
    return "\n".join(parts) or said.replace("\n", " ") or None


def right(question: Question, answer: str | None) -> bool:
    """The right option; of an open question, is a gold answer in a part of the text?

    >>> q = Question(id="q", domain="d", text="?", answer="2.5", extra={"answers": ["5/2", "2.5"]})
    >>> [right(q, said) for said in ("2.501 m", "5/2 m", "25", None)]
    [True, True, False, False]
    """
    if answer in by_letter(question):
        return answer == question.answer
    if question.options or answer is None:
        return our_verdict(question, answer)
    several = question.extra.get("answers")
    golds = [str(gold) for gold in several] if isinstance(several, list) else [question.answer]
    parts = answer.lower().split("\n")
    said = {_number(number) for part in parts for number in [part, *_NUMBERS.findall(part)]}
    for gold in golds:
        number, text = _number(gold), gold.strip().lower()
        if number is not None and number in said:
            return True
        texts = [f" {text}", f"{text} "] if len(text) == 1 else [text]
        plain = (f" {p} " if len(p) == 1 else p for p in parts if _number(p) is None)
        if number is None and any(one in part for part in plain for one in texts):
            return True
    return False


def _number(text: str) -> float | None:
    try:
        return round(float(text.replace(",", "")), 2)
    except (ValueError, OverflowError):
        return None


_OUTPUT = (("id", "options", "answer", "response"), ("id", "question_type", "answer", "response"))
MMMU = Benchmark(
    name="mmmu",
    count=900,
    right=right,
    extract=extract,
    groups=groups,
    output=_OUTPUT,
    response_of=response_of,
    guesses=True,
)
MMMU_PRO = Benchmark(
    name="mmmu_pro",
    count=1730,
    right=right,
    extract=lambda question, text: script_letter(text, question.options, pro=True),
    groups=groups,
    output=_OUTPUT[:1],
    response_of=response_of,
    guesses=True,
)

_OPENING = re.compile(r"\(|option |the answer is ")


def first_letter(question: Question, text: str) -> str | None:
    """The letter that the response begins with, bare or behind one of three openings.

    >>> q = Question(id="q", domain="d", text="?", answer="B")
    >>> [first_letter(q, said) for said in ("(B) a cat", "The answer is B.", "I see B")]
    ['B', 'B', 'I']
    """
    said = text.strip().casefold()
    opening = _OPENING.match(said)
    place = opening.end() if opening else 0
    return said[place : place + 1].upper() or None


def begins_right(question: Question, answer: str | None) -> bool:
    """Does the answer begin with the gold letter, as a response has to?"""
    return answer is not None and first_letter(question, answer) == question.answer.strip().upper()


MMSTAR = Benchmark(
    name="mmstar",
    count=1500,
    right=begins_right,
    extract=first_letter,
    groups=groups_by("category", axis="l2_category"),
)
