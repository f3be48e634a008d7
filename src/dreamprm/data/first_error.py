"""Benchmarks that ask for the first wrong step of a solution: ProcessBench and five like it.

The steps before the first wrong one are right; nothing is known of those behind it, so they have no
label. A solution that is wrong, though the row names no step of its text, has no labels at all.
`extra` keeps the benchmark's own id of the solution and the index of the first wrong step.

Fields and index bases are those of the files in the benchmarks' repositories, see each function.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from dreamprm.answers import extract_answer
from dreamprm.data.files import image_from_disk
from dreamprm.data.format import Format, Pair, Parse, Reading, has, pair
from dreamprm.data.rows import (
    RIGHT,
    WRONG,
    Row,
    exact_text,
    image_references,
    is_whole,
    required_text,
    row_text,
    text_list,
)
from dreamprm.data.text import parse_question
from dreamprm.errors import DataError
from dreamprm.records import UNKNOWN_ANSWER, Question

EXTRA = "first_error"
"""Where a trajectory keeps the `id` of its solution and the `index` of its first wrong step."""

NONE = -1  # index where no step is wrong
UNPLACED = -2  # index where the solution is wrong, and the row names no step of its text

_SUBSET = re.compile(r"(?P<subset>[A-Za-z]\w*)-\d+")
_STEP = re.compile(r"\W*step\s*(\d{1,4})\b", re.IGNORECASE)
_SOLUTION = re.compile(r"\W*solution\b", re.IGNORECASE)
_NUMBER = re.compile(r"(?:step\s*)?(\d{1,4})", re.IGNORECASE)
_MR_STEP = "model_output_solution_first_error_step"
_OPTION = re.compile(r"(?:^|\n)[ \t]*[A-Z]: ")


def _processbench(row: Row, reading: Reading) -> list[Pair]:
    """ProcessBench (arXiv 2412.06559, QwenLM/ProcessBench).

    `label` is the 0-based first wrong one of `steps`, -1 for none. `problem`, `generator`,
    `final_answer_correct`; the subset is `gsm8k` in the `id` `gsm8k-0`. No gold answers.
    """
    id, steps, outcome = exact_text(row, "id"), text_list(row, "steps"), "final_answer_correct"
    subset = _SUBSET.fullmatch(id)
    question = reading.text_question(
        exact_text(row, "problem"), subject=subset["subset"] if subset else None
    )
    if not isinstance(row.get(outcome), bool):
        raise DataError(f"must be true or false, not {row.get(outcome)!r}", field=outcome)
    first = _from_zero(row, "label", NONE, steps)
    policy = exact_text(row, "generator")
    return _pair(question, steps, first, id, outcome=row[outcome], policy=policy)


def _big_bench_mistake(row: Row, reading: Reading) -> list[Pair]:
    """BIG-Bench Mistake (arXiv 2311.08516, WHGTyen/BIG-Bench-Mistake), five tasks, a file each.

    `mistake_index` is the 0-based first wrong one of `steps`, null for none. `input`, in two tasks
    with options; `target` and `answer`, there in the form "(A)". No ids: ours are row numbers.
    """
    steps, answer, target = (
        text_list(row, "steps"),
        row_text(row, "answer"),
        row_text(row, "target"),
    )
    text, options = parse_question(exact_text(row, "input"))
    gold, said = (t.strip("()") if options else t for t in (target, answer))
    return _pair(
        reading.text_question(text, answer=gold or UNKNOWN_ANSWER, options=options),
        steps,
        _from_zero(row, "mistake_index", None, steps),
        str(reading.number),
        answer=said or None,
        outcome=answer == target,
        policy="PaLM 2-L",
    )


def _meta_reasoning(row: Row, reading: Reading) -> list[Pair]:
    """MR-GSM8K (arXiv 2312.17080, dvlab-research/MR-GSM8K) and MR-MATH (2404.05692).

    `model_output_solution_first_error_step` is the 1-based first wrong one of `model_output_steps`,
    "N/A" for none; `model_output_solution_correctness` and `model_output_answer_correctness` are
    "correct" or "wrong". `uuid`, `question`, `ground_truth_answer`, `question_type` (original, POT,
    reversed). MR-MATH (GAIR-NLP/ReasonEval, its file of invalid errors) has `id`, `generator`, and
    `model_output_step_format`, a list of lines for each step.
    """
    if "model_output_steps" in row:
        steps = text_list(row, "model_output_steps")
    else:
        listed, name = row.get("model_output_step_format"), "model_output_step_format"
        if not isinstance(listed, list) or not listed:
            raise DataError("must list the steps, each a list of texts", field=name)
        steps = ["\n".join(text_list({name: lines}, name)) for lines in listed]
    return _pair(
        reading.text_question(
            exact_text(row, "question"),
            answer=row_text(row, "ground_truth_answer") or UNKNOWN_ANSWER,
            subject=row_text(row, "question_type") or None,
        ),
        steps,
        _from_one(row, _MR_STEP, "model_output_solution_correctness", steps),
        row_text(row, "uuid") or required_text(row, "id"),
        outcome=_is_correct(row, "model_output_answer_correctness"),
        policy=row_text(row, "generator") or "unknown",
    )


def _mr_ben(row: Row, reading: Reading) -> list[Pair]:
    """Mr-Ben (arXiv 2406.13975, dvlab-research/Mr-Ben): a file per subject.

    An object of `Question_UUID` and its list of solutions, or these one by one.
    `Model_Solution_First_Error_Step` is text, the number of a "Step 1: ..." (1-based, "N/A" for
    none) in `Model_Solution_Steps`, which are lines: one step may have several. In `coding` these
    are one text, and the first error is a line of it. `Model_Solution_Correctness` is "correct" or
    "incorrect". `Question`, `Options` ("A: ..." by line), `Ground_Truth_Answer_Modified` (the
    corrected one), `Subject`, `Sampled_Model`. Nothing tells whether the answer is right.
    """
    if "Model_Solution_Steps" in row:
        return _mr_ben_solution(row, reading)
    pairs: list[Pair] = []
    for solutions in row.values():
        if not isinstance(solutions, list) or not all(isinstance(s, dict) for s in solutions):
            raise DataError("must hold solutions, or lists of them by question")
        for solution in solutions:
            pairs += _mr_ben_solution(solution, reading)
    return pairs


def _mr_ben_solution(row: Row, reading: Reading) -> list[Pair]:
    texts = row.get("Model_Solution_Steps")
    error = row.get("Model_Solution_First_Error_Step")
    if isinstance(texts, str):
        steps = [line for line in texts.split("\n") if line.strip()]
    else:
        steps = _numbered("\n".join(text_list(row, "Model_Solution_Steps")))
    first = _from_one(row, "Model_Solution_First_Error_Step", "Model_Solution_Correctness", steps)
    if isinstance(texts, str) and first == UNPLACED and error in steps:
        first = steps.index(error)
    options = _OPTION.split(row_text(row, "Options"))[1:]
    gold = row_text(row, "Ground_Truth_Answer_Modified") or row_text(row, "Ground_Truth_Answer")
    question = reading.text_question(
        exact_text(row, "Question"),
        answer=gold or UNKNOWN_ANSWER,
        subject=row_text(row, "Subject") or None,
        options=tuple(option.strip() for option in options),
    )
    model = required_text(row, "Sampled_Model")
    id = f"{required_text(row, 'Question_UUID')}/{model}"
    return _pair(question, steps, first, id, policy=model)


def _mathcheck(row: Row, reading: Reading) -> list[Pair]:
    """MathCheck-GSM and -GEO (arXiv 2407.08733, PremiLab-Math/MathCheck): the task process_judging.

    `answer` is "Step 3", the number of a step in the text `solution`: every solution is wrong, and
    steps are counted from 1. `id`, `question`, `question_type`, and in GEO `image`. Rows of the
    other `task_type`s are passed over: none tells of steps.
    """
    if row.get("task_type") != "process_judging":
        return []
    steps = _numbered(exact_text(row, "solution"))
    question = reading.text_question(
        exact_text(row, "question"),
        subject=row_text(row, "question_type") or None,
        images=tuple(image_from_disk(p, reading.root) for p in image_references(row, "image")),
    )
    first = _from_one(row, "answer", None, steps)
    return _pair(question, steps, first, row_text(row, "id") or str(reading.number), outcome=False)


def _pair(question: Question, steps: Sequence[str], first: int, id: str, **more: Any) -> list[Pair]:
    """A solution whose first wrong step has this 0-based index."""
    right = len(steps) if first == NONE else first
    labels = [*[RIGHT] * right, WRONG, *[None] * len(steps)][: len(steps)]
    fields = {
        "answer": extract_answer(steps[-1], question.options),
        "labels": None if first == UNPLACED else labels,
        "extra": {EXTRA: {"id": id, "index": first}},
    }
    return [pair(question, steps, **(fields | more))]


def _from_zero(row: Row, field: str, none: int | None, steps: Sequence[str]) -> int:
    """The index that a field gives, or `none`."""
    index = row.get(field, "")
    if index is None and none is None:
        return NONE
    if not is_whole(index) or not (0 <= index < len(steps) or index == none):
        told = "null" if none is None else none
        message = f"must be the 0-based first wrong step of {len(steps)}, or {told}, not {index!r}"
        raise DataError(message, field=field)
    return index


def _from_one(row: Row, field: str, verdict: str | None, steps: Sequence[str]) -> int:
    """The index of a step that a field names by its number, where the verdict is wrong."""
    if verdict is not None and _is_correct(row, verdict):
        return NONE
    number = _NUMBER.fullmatch(row_text(row, field))
    index = int(number[1]) - 1 if number else -1
    return index if 0 <= index < len(steps) else UNPLACED


def _is_correct(row: Row, field: str) -> bool:
    verdict = row_text(row, field).lower()
    if verdict not in ("correct", "wrong", "incorrect"):
        raise DataError(f"must be correct, wrong or incorrect, not '{verdict:.40}'", field=field)
    return verdict == "correct"


def _numbered(text: str) -> list[str]:
    """Steps of a text that are marked 'Step 1:', so that number n has the index n - 1.

    What stands before the first belongs to it. A last line 'Solution: ...' is one more step. In a
    text without marks each line is a step.
    """
    lines = [line for line in text.split("\n") if line.strip()]
    starts: list[int] = []
    for at, line in enumerate(lines):
        mark = _STEP.match(line)
        if mark and int(mark[1]) == len(starts) + 1:
            starts.append(at)
    if not starts:
        return lines
    behind = range(starts[-1] + 1, len(lines))
    starts += [at for at in behind if _SOLUTION.match(lines[at])][:1]
    return ["\n".join(lines[a:b]) for a, b in pairwise([0, *starts[1:], len(lines)])]


def _is_mr_ben(row: Row, suffix: str) -> bool:
    first = next(iter(row.values()), None)
    solution = first[0] if isinstance(first, list) and first else row
    return (
        suffix != ".parquet" and isinstance(solution, dict) and "Model_Solution_Steps" in solution
    )


_TABLE: dict[str, tuple[str, Callable[[Row, str], bool], Parse]] = {
    "processbench": ("ProcessBench", has("steps", "final_answer_correct", "label"), _processbench),
    "big_bench_mistake": (
        "BIG-Bench Mistake",
        has("input", "steps", "mistake_index"),
        _big_bench_mistake,
    ),
    "mr_gsm8k": ("MR-GSM8K", has("model_output_steps", _MR_STEP), _meta_reasoning),
    "mr_math": ("MR-MATH", has("model_output_step_format", _MR_STEP), _meta_reasoning),
    "mr_ben": ("Mr-Ben", _is_mr_ben, _mr_ben),
    "mathcheck": (
        "MathCheck, task process_judging",
        has("task_type", "question_type", "answer"),
        _mathcheck,
    ),
}
FORMATS = tuple(
    Format(name=name, about=f"{title}: solutions and first wrong steps", fits=fits, parse=parse)
    for name, (title, fits, parse) in _TABLE.items()
)
