"""Answer benchmarks by name, each with its own rules; their questions and a model's responses."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from dreamprm.data.sources import read_known
from dreamprm.errors import DataError, DataWarning, DreamPRMError, offer
from dreamprm.evaluation.benchmarks.base import (
    Benchmark,
    Response,
    by_letter,
    export,
    our_extraction,
    score_answers,
)
from dreamprm.evaluation.benchmarks.m3cot import M3COT
from dreamprm.evaluation.benchmarks.mathvision import MATHVISION
from dreamprm.evaluation.benchmarks.mathvista import MATHVISTA
from dreamprm.evaluation.benchmarks.mmmu import MMMU, MMMU_PRO, MMSTAR
from dreamprm.evaluation.benchmarks.mmvet import MMVET
from dreamprm.evaluation.benchmarks.responses import check_form, questions_in, read_responses
from dreamprm.evaluation.benchmarks.wemath import WEMATH
from dreamprm.records import Question

__all__ = [
    "ANSWERS",
    "STEPS",
    "Benchmark",
    "Response",
    "check_form",
    "export",
    "find_benchmark",
    "questions_in",
    "read_responses",
    "score_answers",
]

ANSWERS: Mapping[str, Benchmark] = {
    b.name: b for b in (MATHVISTA, WEMATH, MATHVISION, MMVET, MMSTAR, MMMU, MMMU_PRO, M3COT)
}
STEPS = (
    *("processbench", "big_bench_mistake", "mr_gsm8k", "mr_math", "mr_ben", "mathcheck"),
    *("visualprocessbench", "prmbench", "rewardmath"),
)
"""Benchmarks of the scores themselves."""


def find_benchmark(name: str) -> str:
    """The benchmark that a name means, whatever its case, hyphens and blanks.

    Raises:
        DreamPRMError: there is none; the message gives the nearest ones.
    """
    known = {_plain(key): key for key in (*ANSWERS, *STEPS)}
    if _plain(name) in known:
        return known[_plain(name)]
    raise DreamPRMError(f"there is no benchmark '{name}'; {offer(_plain(name), known)}")


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def read_benchmark(benchmark: Benchmark, data: Path | None) -> list[Question]:
    """Its questions, from a file in its published layout, of questions or of output, or the hub.

    Warns where a whole file has another number of questions than the published one.

    Raises:
        DataError: a file of another layout or version, naming row and column.
    """
    if benchmark.read_questions is not None:
        if data is None:
            raise DataError(f"{benchmark.name} is read from its published file; give --data")
        questions = benchmark.read_questions(data)
    elif data is not None and (asked := questions_in(benchmark, data)):
        questions = asked
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)  # of options that are there twice
            split = benchmark.split if data is None else None
            questions = list(read_known(benchmark.name, path=data, split=split))
    if benchmark.count is not None and len(questions) != benchmark.count:
        warnings.warn(
            f"{len(questions):,} questions, and {benchmark.name} has {benchmark.count:,}: another "
            "split or version, whose figures do not compare with published ones",
            DataWarning,
            stacklevel=2,
        )
    return questions


def by_option_text(
    responses: Sequence[Response], asked: Sequence[Question], benchmark: Sequence[Question]
) -> list[Response]:
    """Responses whose letters are those of the benchmark's order of options.

    A letter of an option that the benchmark's question does not have becomes no answer. A response
    whose row holds its question stays as it is.

    Args:
        asked: the questions as the model saw them.
        benchmark: the same, by id, as the benchmark has them.
    """
    seen, own = {q.id: q for q in asked}, {q.id: q for q in benchmark}
    mapped = []
    for r in responses:
        if r.question is not None:
            mapped.append(r)
            continue
        before, after = seen.get(r.question_id), own.get(r.question_id)
        if before is None:
            raise DataError(f"question '{r.question_id}' is not among those asked", field="id")
        answer = our_extraction(before, r.text) if r.answer is None and r.text else r.answer
        if after is not None and answer in by_letter(before):
            answer = same_option(answer, before, after)
        mapped.append(Response(r.question_id, answer=answer))
    return mapped


def same_option(letter: str, asked: Question, other: Question) -> str | None:
    """The letter in `other` of the option that `letter` has in `asked`; None if it is not there.

    >>> four = Question(id="q", domain="d", text="?", options=("a", "b"), answer="A")
    >>> ten = Question(id="q", domain="d", text="?", options=("x", "b", "a"), answer="C")
    >>> same_option("A", four, ten)
    'C'
    """
    text = by_letter(asked).get(letter)
    same = [x for x, o in by_letter(other).items() if text and o.strip() == text.strip()]
    return same[0] if len(same) == 1 else None
