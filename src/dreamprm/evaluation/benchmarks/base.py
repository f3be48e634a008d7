"""What an answer benchmark is: where its questions come from, what it calls right, how it groups.

Published figures follow from published rules, which differ from benchmark to benchmark and are not
always good ones. So each benchmark has its own, one per file, and figures that are compared with
published ones use them; `rules="ours"` gives the verdict of `dreamprm.answers` instead.
"""

from __future__ import annotations

import csv
import io
import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dreamprm.answers import extract_answer, verdict_on
from dreamprm.answers.text import same_text
from dreamprm.data.files import atomic_write
from dreamprm.data.mathvision import IN_THE_IMAGE
from dreamprm.data.rows import Row
from dreamprm.errors import DataError, DataWarning
from dreamprm.evaluation.results import (
    Metric,
    QuestionResult,
    Result,
    metric,
    new_result,
    subject_of,
)
from dreamprm.evaluation.statistics import estimate
from dreamprm.prompts import option_letter
from dreamprm.records import Question
from dreamprm.unread import Unread, why_unread

Rules = Literal["published", "ours"]


@dataclass(frozen=True)
class Response:
    """What a model said to a question.

    Attributes:
        text: the whole response, empty where the model gave none; None where only the answer is
            kept.
        answer: as it was extracted by whoever made the file; None: to be extracted.
        question: as the row holds it, with the order of options that was asked: its letters are
            those of the response, and it is judged by them. None: as the benchmark has it.
    """

    question_id: str
    text: str | None = None
    answer: str | None = None
    question: Question | None = None


def our_verdict(question: Question, answer: str | None) -> bool:
    """By the rules of `dreamprm.answers`."""
    return verdict_on(question, answer).correct


def our_extraction(question: Question, text: str) -> str | None:
    """The final answer that a response states."""
    return extract_answer(text, question.options)


Groups = dict[str, tuple[str, ...]]
"""Name of a grouping -> the groups of it that a question is in."""


def groups_by(subject: str, **extra: str) -> Callable[[Question], Groups]:
    """Groups by the question's subject, and by values of `extra`.

    Args:
        subject: name of the grouping by subject.
        extra: name of a grouping -> the field of a question's `extra` that tells its groups.
    """

    def groups(question: Question) -> Groups:
        of_question: Groups = {} if question.subject is None else {subject: (question.subject,)}
        for name, key in extra.items():
            if value := question.extra.get(key):
                of_question[name] = tuple(map(str, value if isinstance(value, list) else [value]))
        return of_question

    return groups


def by_letter(question: Question) -> dict[str, str]:
    """Its options by their letters."""
    return {option_letter(i): option for i, option in enumerate(question.options)}


def letter_or_text(question: Question) -> str:
    """The gold answer, as the text of its option where it is a letter."""
    return by_letter(question).get(question.answer, question.answer)


def with_question(row: Row, said: object, domain: str, **fields: object) -> Response:
    """A response whose row holds its question; one that is no text tells of an error.

    Args:
        fields: of the question, besides `id` and `text`.
    """
    text = row.get("question") or IN_THE_IMAGE
    question = Question.parse({"id": str(row["id"]), "domain": domain, "text": text, **fields})
    return Response(question.id, said if isinstance(said, str) else "", question=question)


@dataclass(frozen=True)
class Benchmark:
    """An answer benchmark.

    Attributes:
        name: as users write it; its main metric bears it.
        count: questions of the published split; None where it varies. Another number is told.
        right: by the benchmark's own rules, is an answer right?
        extract: by its rules, a response's final answer.
        groups: that a question is in; tables are made of them.
        read_questions: its published file; None where it is a source on the hub.
        split: of that source, where it is not the one that is read by default.
        output: columns of its own output layout, in one or more variants; none where it has no
            layout that we know.
        response_of: reads a row of that layout.
        refusals: what `extract` returns where a response states no answer, besides None.
        guesses: its own script draws an option where it reads none. We do not, and tell what that
            would add.
        interprets: its own score takes an answer that is no choice for one; such rows are counted.
        summary: further metrics, from all rows.
    """

    name: str
    count: int | None
    right: Callable[[Question, str | None], bool] = our_verdict
    extract: Callable[[Question, str], str | None] = our_extraction
    groups: Callable[[Question], Groups] = subject_of
    read_questions: Callable[[Path], list[Question]] | None = None
    split: str | None = None
    output: tuple[tuple[str, ...], ...] = ()
    response_of: Callable[[Row], Response] | None = None
    refusals: tuple[str, ...] = ()
    guesses: bool = False
    interprets: Callable[[Question, str | None], bool] | None = None
    summary: Callable[[Sequence[QuestionResult]], Mapping[str, Metric]] | None = None


def score_answers(
    benchmark: Benchmark,
    questions: Iterable[Question],
    responses: Iterable[Response],
    *,
    name: str,
    rules: Rules = "published",
    use_stored: bool = True,
    allow_missing: bool = False,
    settings: Mapping[str, object] | None = None,
) -> Result:
    """Verdicts on one response per question.

    Args:
        name: of the run.
        rules: the benchmark's own or ours.
        use_stored: take the extraction that a file holds; otherwise extract from the text.
        allow_missing: questions without a response count as wrong; by default they are refused.

    Raises:
        DataError: a response to no question, two to one, none to some.
    """
    asked = {q.id: q for q in questions}
    if not asked:
        raise DataError("there are no questions in the benchmark's file")
    given: dict[str, Response] = {}
    for response in responses:
        if response.question_id not in asked:
            raise DataError(
                f"response to question '{response.question_id}', which {benchmark.name} does not "
                "have; is it of another split or version?",
                field="question_id",
            )
        if response.question_id in given:
            raise DataError(
                f"question '{response.question_id}' has two responses; choose one per question "
                "first (`dreamprm select`)",
                field="question_id",
            )
        given[response.question_id] = response
    missing = [q for q in asked if q not in given]
    if missing and not allow_missing:
        raise DataError(
            f"{len(missing):,} of {len(asked):,} questions of {benchmark.name} have no response, "
            f"'{missing[0]}' first; answer them, or set allow_missing to count them as wrong"
        )
    _compare_golds(asked, given.values())
    published = rules == "published"
    extract = benchmark.extract if published else our_extraction
    right = benchmark.right if published else our_verdict
    interprets = benchmark.interprets if published else None
    rows, unread, choices, interpreted = [], Unread(), [], 0
    for question in asked.values():
        response = given.get(question.id, Response(question.id))
        judged, answer = response.question or question, response.answer
        if response.text is not None and not (use_stored and answer is not None):
            answer = extract(judged, response.text)
        rows.append(
            QuestionResult(
                question_id=question.id,
                benchmark=benchmark.name,
                value=float(right(judged, answer)),
                groups=benchmark.groups(question),
                answer=answer,
            )
        )
        interpreted += interprets is not None and interprets(judged, answer)
        if question.id in given:
            text, why = response.text or "", None
            if answer is None or answer in benchmark.refusals:
                why = why_unread(text, judged.options) or "not read by its script"
                choices.append(len(judged.options))
            unread.add(question.id, text, why)
    unread.warn()
    details: dict[str, object] = {"benchmark": benchmark.name, "missing": len(missing)}
    details["unread"] = dict(unread.reasons)
    if benchmark.guesses:
        details["guessing_would_add"] = sum(1 / n for n in choices if n) / len(asked)
    if interprets is not None:
        details["interpreted"] = interpreted
    return new_result(
        name=name,
        kind="answers",
        settings={"rules": rules} | dict(settings or {}),
        metrics={name: answer_metrics(benchmark, rows)},
        questions={name: rows},
        details=details,
    )


def _compare_golds(asked: Mapping[str, Question], responses: Iterable[Response]) -> None:
    """Tell of rows whose gold option is not the one that the benchmark's question has."""
    other = [
        r.question_id
        for r in responses
        if r.question is not None
        and not same_text(letter_or_text(r.question), letter_or_text(asked[r.question_id]))
    ]
    if other:
        warnings.warn(
            f"{len(other):,} rows of the responses have another gold answer than the benchmark's "
            f"questions, '{other[0]}' first; they are judged by their own",
            DataWarning,
            stacklevel=3,
        )


def answer_metrics(benchmark: Benchmark, rows: Sequence[QuestionResult]) -> dict[str, Metric]:
    """Accuracy of the whole and of every group, with 95% intervals, and what else there is."""
    parts: dict[str, list[float]] = {benchmark.name: []}
    for row in rows:
        parts[benchmark.name].append(row.value)
        for grouping, groups in row.groups.items():
            for group in groups:
                parts.setdefault(f"{benchmark.name}/{grouping}/{group}", []).append(row.value)
    names = sorted(parts, key=lambda name: (name != benchmark.name, name))
    more = benchmark.summary(rows) if benchmark.summary else {}
    return {name: metric(estimate(parts[name])) for name in names} | dict(more)


def export(path: Path, result: Result, questions: Mapping[str, Question], layout: str) -> None:
    """Write the rows of a result of answers for another tool, to compare question by question.

    Args:
        layout: `vlmevalkit`, a tab-separated table as its result tables have; or `lmms_eval`, one
            JSON object per line as its sample logs have.
    """
    [rows] = result.questions.values()
    asked = [(row, questions[row.question_id]) for row in rows]
    text = io.StringIO()
    if layout == "vlmevalkit":
        table = csv.writer(text, delimiter="\t", lineterminator="\n")
        table.writerow(["index", "category", "question", "answer", "prediction", "hit"])
        for row, q in asked:
            told = row.answer or ""
            table.writerow([q.id, q.subject or "", q.text, q.answer, told, f"{row.value:g}"])
    else:
        for row, q in asked:
            line = {"doc_id": q.id, "target": q.answer, "filtered_resps": [row.answer or ""]}
            text.write(json.dumps(line | {row.benchmark: row.value}, ensure_ascii=False) + "\n")
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())
