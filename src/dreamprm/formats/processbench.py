"""ProcessBench (arXiv 2412.06559): text solutions with their first wrong step, and back.

It is the plainest of the text-only formats, so what all of them share (Math-Shepherd, PRM800K,
MATH-APS, PRMBench) stands here too: rows, exact texts, questions, hard labels. None of them strips
a text, because a file that is read and written again must come out as it was.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from dreamprm.answers import extract_answer
from dreamprm.errors import DataError
from dreamprm.formats.files import (
    BadRow,
    atomic_write,
    open_for_reading,
    refuse,
    write_json_rows,
)
from dreamprm.formats.rows import question_of, rest_of
from dreamprm.prompts import question_text
from dreamprm.records import UNKNOWN_ANSWER, Question, StepLabel, Trajectory

RIGHT, WRONG = StepLabel(1, 1), StepLabel(0, 1)
"""Labels of a judge that says right or wrong, as counts: one completion, right or not."""

_NAME = "processbench"
_USED = ("generator", "problem", "steps", "final_answer_correct", "label")
_HALF = re.compile(r"[\ud800-\udfff]")
_SUBSET = re.compile(r"(?P<subset>[A-Za-z]\w*)-\d+")


def read_processbench(
    path: str | Path,
    *,
    image_root: str | Path | None = None,
    domain: str = _NAME,
    bad_row: BadRow = refuse,
) -> tuple[list[Question], list[Trajectory]]:
    """Read a JSON list or JSONL file of ProcessBench.

    `label` is the 0-based first wrong step, -1 for none. The steps before it are right; nothing is
    known of those after it, so they have no label. Gold answers are not in the file.

    Args:
        path: the file.
        image_root: not used, the format has no images; all readers take it.
        domain: domain of all questions; the subset (`gsm8k` in the id `gsm8k-0`) is the subject.
        bad_row: told each row that cannot be read; by default the first one ends the reading.

    Raises:
        DataError: names the row and field of what is wrong.
    """

    def parse(row: dict[str, Any], number: int) -> list[tuple[Question, Trajectory]]:
        subset = _SUBSET.fullmatch(exact_text(row, "id"))
        question = text_question(
            exact_text(row, "problem"), domain, subject=subset["subset"] if subset else None
        )
        steps = text_list(row, "steps")
        outcome = row.get("final_answer_correct")
        if not isinstance(outcome, bool):
            message = f"must be true or false, not {outcome!r}"
            raise DataError(message, field="final_answer_correct")
        first = row.get("label")
        if not is_whole(first) or not -1 <= first < len(steps):
            message = f"must be the 0-based first wrong step of {len(steps)}, or -1, not {first!r}"
            raise DataError(message, field="label")
        right = len(steps) if first < 0 else first
        labels = [*[RIGHT] * right, WRONG, *[None] * len(steps)][: len(steps)]
        trajectory = {
            "question_id": question.id,
            "steps": steps,
            "answer": extract_answer(steps[-1]),
            "outcome": outcome,
            "labels": labels,
            "policy": exact_text(row, "generator"),
            "extra": rest_of(row, _USED, _NAME),
        }
        return [(question, Trajectory.parse(trajectory))]

    return read_pairs(path, parse, bad_row)


def write_processbench(
    path: str | Path, questions: Iterable[Question], trajectories: Iterable[Trajectory]
) -> None:
    """Write one row per trajectory, as a JSON list. Gold answers are lost.

    Raises:
        DataError: a trajectory has no outcome, a soft label, a step without label before the first
            wrong one or with a label after it; a question has images.
    """
    by_id = {question.id: question for question in questions}
    rows = []
    for trajectory in trajectories:
        question = question_of(trajectory, by_id)
        if trajectory.outcome is None:
            raise cannot_hold(
                trajectory, "has no outcome; verify its final answer first", field="outcome"
            )
        row = {
            "id": f"{question.id}-{trajectory.sample_index}",
            **own_extra(trajectory, _NAME),
            "generator": trajectory.policy,
            "problem": plain_text(question),
            "steps": steps_with_answer(trajectory, _NAME),
            "final_answer_correct": trajectory.outcome,
            "label": _first_wrong(trajectory),
        }
        rows.append(row)
    write_json_rows(path, rows)


def _first_wrong(trajectory: Trajectory) -> int:
    """0-based index of the first wrong step, -1 for none."""
    labels = trajectory.labels or (None,) * len(trajectory.steps)
    for i in range(len(labels)):
        if not is_right(trajectory, i):
            for later, label in enumerate(labels[i + 1 :], start=i + 2):
                if label is not None:
                    message = f"has a label on step {later}, behind the first wrong step {i + 1}"
                    message += "; this format marks only the first, so set later labels to None"
                    raise cannot_hold(trajectory, message)
            return i
    return -1


# What the text-only formats share.


def each_row(path: str | Path, bad_row: BadRow) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (1-based row, object) of a JSON list or of a JSONL file, which is read line by line."""
    with open_for_reading(path) as file:
        is_list = file.read(64).lstrip().startswith(b"[")
        file.seek(0)
        for number, part in enumerate([file.read()] if is_list else file, start=1):
            if not part.strip():
                continue
            try:
                found = json.loads(part)
            except (ValueError, RecursionError) as error:
                row = None if is_list else number
                message = f"not JSON ({error}); correct it, or make the file again if it is cut off"
                bad_row(DataError(message, file=path, row=row))
                continue
            halves = b"\\ud" in part.lower()  # of a surrogate pair; alone it is no character
            for place, row in enumerate(found if is_list else [found], start=number):
                if not isinstance(row, dict):
                    message = "is no object; correct or remove it"
                    bad_row(DataError(message, file=path, row=place))
                elif halves and _HALF.search(json.dumps(row, ensure_ascii=False)):
                    message = "holds half a character (\\ud800 to \\udfff); correct its text"
                    bad_row(DataError(message, file=path, row=place))
                else:
                    yield place, row


def read_pairs(
    path: str | Path,
    parse: Callable[[dict[str, Any], int], list[tuple[Question, Trajectory]]],
    bad_row: BadRow,
) -> tuple[list[Question], list[Trajectory]]:
    """Records of all rows; trajectories of one question get consecutive sample indices.

    Args:
        path: the file.
        parse: from a row and its number to the trajectories in it, each with its question.
        bad_row: told each row on which `parse` raises a DataError.
    """
    questions: dict[str, Question] = {}
    trajectories: list[Trajectory] = []
    samples: dict[str, int] = defaultdict(int)
    for number, row in each_row(path, bad_row):
        try:
            found = parse(row, number)
        except DataError as error:
            bad_row(error.at(file=path, row=number))
            continue
        for question, trajectory in found:
            questions.setdefault(question.id, question)
            index = {"sample_index": samples[question.id]}
            trajectories.append(trajectory.model_copy(update=index))
            samples[question.id] += 1
    return list(questions.values()), trajectories


def write_rows(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSONL file, replacing it in one step."""
    with atomic_write(path) as file:
        for number, row in enumerate(rows, start=1):
            try:
                file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            except RecursionError as error:
                message = "is nested too deeply for JSON; write fewer steps"
                raise DataError(message, file=path, row=number) from error


def text_question(
    text: str,
    domain: str,
    *,
    answer: str = UNKNOWN_ANSWER,
    subject: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Question:
    """A question whose id is a hash of what the source tells of it; its text is taken as it is."""
    digest = hashlib.sha256(repr((domain, subject, text, answer)).encode()).hexdigest()
    return Question.parse(
        {
            "id": digest[:16],
            "domain": domain,
            "text": text,
            "answer": answer,
            "subject": subject,
            "extra": extra or {},
        }
    )


def exact_text(row: Mapping[str, Any], field: str) -> str:
    """A field that must hold text, with its spaces."""
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        told = "is missing or empty" if not value else f"must be text, not {value!r:.40}"
        raise DataError(f"{told}; give it a value or remove the row", field=field)
    return value


def text_list(row: Mapping[str, Any], field: str) -> list[str]:
    """A field that must hold a list of texts, at least one."""
    value = row.get(field)
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise DataError("must be a list of texts, at least one; remove the row", field=field)
    return value


def is_whole(value: object) -> TypeGuard[int]:
    """Is it a whole number? (For Python, true is one; for JSON it is not.)"""
    return isinstance(value, int) and not isinstance(value, bool)


def own_extra(record: Question | Trajectory, name: str) -> dict[str, Any]:
    """What the reader of a format has kept in a record for the writer of the same format."""
    own = record.extra.get(name)
    return dict(own) if isinstance(own, dict) else {}


def plain_text(question: Question) -> str:
    """Question and options as one text; images have no place in it."""
    if question.images:
        raise DataError(
            f"question '{question.id}' has images, and this format holds text only; leave the "
            "question out or write another format",
            field="images",
        )
    return question_text(question)


def cannot_hold(trajectory: Trajectory, message: str, field: str = "labels") -> DataError:
    """The error of a writer whose format has no place for what a trajectory holds."""
    index, question = trajectory.sample_index, trajectory.question_id
    return DataError(f"trajectory {index} of question '{question}' {message}", field=field)


def is_right(trajectory: Trajectory, i: int) -> bool:
    """The hard label of step `i` (0-based), which must have one."""
    label = trajectory.labels[i] if trajectory.labels else None
    if label is None:
        message = f"has no label on step {i + 1}, and this format needs one; label it or leave it"
        raise cannot_hold(trajectory, f"{message} out")
    if 0 < label.correct < label.total:
        raise cannot_hold(
            trajectory,
            f"has the soft label {label.correct} of {label.total} on step {i + 1}, and this format "
            "holds right or wrong only; turn labels into (1, 1) and (0, 1) by a threshold",
        )
    return label.correct > 0


def steps_with_answer(
    trajectory: Trajectory,
    name: str,
    read: Callable[[str], str | None] = extract_answer,
    mark: str = "\nFinal answer: ",
) -> list[str]:
    """The steps, with the answer in the last one.

    Steps that were read from this format hold their answer as they are. Those from elsewhere come
    without their final-answer line, so it is added where the last step does not state it.

    Args:
        trajectory: its steps and its answer.
        name: the format's name, under which its reader keeps extras.
        read: finds the answer in a last step, as the format's reader does.
        mark: what stands before an answer in this format.
    """
    *before, last = trajectory.steps
    if trajectory.answer is None or name in trajectory.extra or read(last) == trajectory.answer:
        return [*before, last]
    return [*before, f"{last}{mark}{trajectory.answer}"]
