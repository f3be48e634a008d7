"""We-Math (arXiv 2407.01284): does a model solve a problem because it knows each piece of it?

A problem of two or three steps comes with its steps as problems of their own. Four cases:

    IK  insufficient knowledge      the problem wrong, some step wrong
    IG  inadequate generalisation   the problem wrong, every step right
    CM  complete mastery            the problem right, every step right (loose: some step)
    RM  rote memorisation           the problem right, some step wrong (loose: every step)

Score = (IG / 2 + CM) / problems, strict and loose; IK, IG and CM are shares of all problems, RM of
those that are right, RM / (CM + RM). `key` in the published file tells what a row is: `2steps_1`,
`2steps_2`, `2steps_multi`; rows of one problem share their `ID`. Checked against the benchmark's
own evaluation scripts and the first rows of its testmini.json (We-Math/We-Math).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from dreamprm.data.files import image_from_disk, in_row
from dreamprm.data.rows import Row, load_json_rows, required_text
from dreamprm.errors import DataError
from dreamprm.evaluation.benchmarks.base import Benchmark, Groups, Response, our_verdict
from dreamprm.evaluation.results import Metric, QuestionResult, metric
from dreamprm.evaluation.statistics import estimate
from dreamprm.records import Question

_KEY = re.compile(r"(?P<steps>[1-9])steps?_(?P<part>\d+|multi)")
_LETTERS = "ABCDEFGH"
_PUNCTUATION = str.maketrans("", "", "<>:.")


def read_questions(path: Path) -> list[Question]:
    """Its testmini.json: a list of {ID, key, question, option, answer, image_path, ...}."""
    questions: dict[str, Question] = {}
    for number, row in enumerate(load_json_rows(path), start=1):
        with in_row(path, number):
            name, key = required_text(row, "ID"), required_text(row, "key")
            if _KEY.fullmatch(key) is None:
                raise DataError(f"{key!r} is none of 1steps_1, 2steps_multi, ...", field="key")
            if f"{name}/{key}" in questions:
                raise DataError(f"ID {name} has two rows {key}", field="ID")
            image = row.get("image_path")
            question = {
                "id": f"{name}/{key}",
                "domain": "wemath",
                "text": required_text(row, "question"),
                "images": (image_from_disk(image, path.parent),) if image else (),
                "options": _options(str(row.get("option") or "")),
                "answer": required_text(row, "answer"),
                "subject": row.get("knowledge concept") or None,
                "extra": {"key": key},
            }
            questions[f"{name}/{key}"] = Question.parse(question)
    return list(questions.values())


def _options(text: str) -> list[str]:
    """The options of one text, by their letters in order.

    A semicolon stands between two, except where it was forgotten; letters are options too.

    >>> _options("A. 6 cm B. 1 cm ;C. F; D. A: 2; E. No correct answer")
    ['6 cm', '1 cm', 'F', 'A: 2', 'No correct answer']
    """
    before: list[str] = []
    for letter in _LETTERS:
        mark = re.search(rf"(?:^|;)\s*{letter}\s*[.:]", text)
        mark = mark or re.search(rf"\s{letter}\s*[.:]", text)
        if mark is None:
            break
        before.append(text[: mark.start()])
        text = text[mark.end() :]
    return [option.strip(" ;") for option in [*before, text][1:]]


def extract(question: Question, text: str) -> str | None:
    """The first letter behind the last "Answer", as the benchmark takes it; None if none of A-H."""
    said = text.rpartition("Answer")[2].strip().translate(_PUNCTUATION).strip()
    return said[0] if said[:1] and said[0] in _LETTERS else None


def right(question: Question, answer: str | None) -> bool:
    """A letter is the letter of an option, also where the texts of options are letters."""
    if answer and answer in _LETTERS:
        return answer == question.answer
    return our_verdict(question, answer)


def response_of(row: Row) -> Response:
    """A row of the benchmark's own output: of its file, with `response` added."""
    name = f"{required_text(row, 'ID')}/{required_text(row, 'key')}"
    return Response(name, text=str(row.get("response") or ""))


def groups(question: Question) -> Groups:
    """One-step problems (each part of a larger one too) by knowledge concept; several steps."""
    match = _KEY.fullmatch(str(question.extra.get("key", "")))
    if match is None:
        return {}
    if match["part"] == "multi":
        return {"steps": (match["steps"],)}
    parts: Groups = {"steps": ("1",)}
    return parts | ({"concept": (question.subject,)} if question.subject else {})


def summary(rows: Sequence[QuestionResult]) -> dict[str, Metric]:
    """Shares of the four cases and the score, strict and loose, over problems of several steps."""
    problems: dict[str, dict[str, bool]] = {}
    for row in rows:
        name, _, key = row.question_id.rpartition("/")
        problems.setdefault(name, {})[key] = row.value > 0
    whole_ones: list[tuple[bool, list[bool]]] = []  # a problem, its steps
    for parts in problems.values():
        whole = [right for key, right in parts.items() if key.endswith("_multi")]
        steps = [right for key, right in parts.items() if not key.endswith("_multi")]
        if whole and len(steps) == _steps_of(parts):
            whole_ones.append((whole[0], steps))
    metrics: dict[str, Metric] = {}
    for kind in ("strict", "loose"):
        cases = [case(whole, steps, strict=kind == "strict") for whole, steps in whole_ones]
        values = {"score": [{"CM": 1.0, "IG": 0.5}.get(c, 0.0) for c in cases]}
        values |= {name: [float(c == name) for c in cases] for name in ("IK", "IG", "CM")}
        values["RM"] = [float(c == "RM") for c in cases if c in ("CM", "RM")]
        for name, numbers in values.items():
            if numbers:
                metrics[f"wemath/{kind}/{name}"] = metric(estimate(numbers))
    return metrics


def _steps_of(parts: Iterable[str]) -> int:
    """How many steps a problem has by its keys; 0 where they disagree."""
    counts = {int(match["steps"]) for key in parts if (match := _KEY.fullmatch(key))}
    return counts.pop() if len(counts) == 1 else 0


def case(whole: bool, steps: Sequence[bool], *, strict: bool) -> str:
    """IK, IG, CM or RM.

    >>> case(True, [True, False], strict=True), case(True, [True, False], strict=False)
    ('RM', 'CM')
    """
    if not whole:
        return "IG" if all(steps) else "IK"
    return "CM" if (all(steps) if strict else any(steps)) else "RM"


WEMATH = Benchmark(
    name="wemath",
    count=1740,
    right=right,
    extract=extract,
    groups=groups,
    read_questions=read_questions,
    output=(("ID", "key", "response"),),
    response_of=response_of,
    summary=summary,
)
