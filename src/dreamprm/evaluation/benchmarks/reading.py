"""A benchmark's questions and a model's responses, from the layouts that there are."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from dreamprm.data.files import refuse
from dreamprm.data.row_files import each_row
from dreamprm.data.sources.known import read_known
from dreamprm.errors import DataError, DataWarning
from dreamprm.evaluation.benchmarks import mmmu, mmvet, wemath
from dreamprm.evaluation.benchmarks.benchmark import Benchmark, Response, our_extraction
from dreamprm.prompts import option_letter
from dreamprm.records import Question

OWN_READERS = {"wemath": wemath.read_questions, "mmvet": mmvet.read_questions}


def read_benchmark(benchmark: Benchmark, data: Path | None) -> list[Question]:
    """Its questions, from a file in its published layout or from the hub.

    Warns where a whole file has another number of questions than the published one.

    Raises:
        DataError: a file of another layout or version, naming row and column.
    """
    reader = OWN_READERS.get(benchmark.name)
    if reader is not None:
        if data is None:
            raise DataError(f"{benchmark.name} is read from its published file; give --data")
        found = reader(data)
    elif benchmark.name == "mmmu_pro" and data is not None and data.suffix == ".jsonl":
        found = mmmu.read_pro_questions(data)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)  # of options that are there twice
            found = list(read_known(benchmark.name, path=data))
    if benchmark.count is not None and len(found) != benchmark.count:
        warnings.warn(
            f"{len(found):,} questions, and {benchmark.name} has {benchmark.count:,}: another "
            "split or version, whose figures do not compare with published ones",
            DataWarning,
            stacklevel=2,
        )
    return found


def read_responses(benchmark: Benchmark, path: Path) -> list[Response]:
    """Responses: rows of `dreamprm select` or `dreamprm sample`, or the benchmark's own layout.

    Of trajectories the text is the steps with the answer behind them.

    Raises:
        DataError: none of these, or no rows.
    """
    ours = path.suffix.lower() in (".jsonl", ".ndjson") and _is_ours(path)
    if ours:
        found = [
            Response(str(row["question_id"]), _text_of(row), row.get("answer"))
            for _, row in each_row(path, refuse)
        ]
    elif benchmark.read_responses is not None:
        found = benchmark.read_responses(path)
    else:
        raise DataError(
            "holds no rows with question_id and answer; give what `dreamprm select` or `dreamprm "
            f"sample` wrote ({benchmark.name} has no output layout of its own here)",
            file=path,
        )
    if not found:
        raise DataError("holds no responses", file=path)
    return found


def by_option_text(
    responses: Sequence[Response], asked: Sequence[Question], benchmark: Sequence[Question]
) -> list[Response]:
    """Responses whose letters are those of the benchmark's order of options.

    A letter of an option that the benchmark's question does not have becomes no answer.

    Args:
        asked: the questions as the model saw them.
        benchmark: the same, by id, as the benchmark has them.
    """
    seen, own = {q.id: q for q in asked}, {q.id: q for q in benchmark}
    found = []
    for r in responses:
        before, after = seen.get(r.question_id), own.get(r.question_id)
        if before is None:
            raise DataError(f"question '{r.question_id}' is not among those asked", field="id")
        answer = our_extraction(before, r.text) if r.answer is None and r.text else r.answer
        letters = [option_letter(i) for i in range(len(before.options))]
        if after is not None and answer in letters:
            answer = same_option(answer, before, after)
        found.append(Response(r.question_id, answer=answer))
    return found


def same_option(letter: str, asked: Question, other: Question) -> str | None:
    """The letter in `other` of the option that `letter` has in `asked`; None if it is not there.

    >>> four = Question(id="q", domain="d", text="?", options=("a", "b"), answer="A")
    >>> ten = Question(id="q", domain="d", text="?", options=("x", "b", "a"), answer="C")
    >>> same_option("A", four, ten)
    'C'
    """
    letters = [option_letter(i) for i in range(len(asked.options))]
    if letter not in letters:
        return None
    text = asked.options[letters.index(letter)].strip()
    found = [i for i, option in enumerate(other.options) if option.strip() == text]
    return option_letter(found[0]) if len(found) == 1 else None


def _is_ours(path: Path) -> bool:
    for _, row in each_row(path, refuse):
        return "question_id" in row
    raise DataError("holds no responses", file=path)


def _text_of(row: dict[str, object]) -> str | None:
    steps, answer = row.get("steps"), row.get("answer")
    if not isinstance(steps, list):
        return None
    lines = [str(step) for step in steps]
    return "\n".join(lines + ([f"Final answer: {answer}"] if answer is not None else []))
