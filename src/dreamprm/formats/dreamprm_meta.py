"""The meta file of the paper's code (arXiv 2505.20241), `meta.json`, and back.

A row is a question and a whole response in one text, `input`, and whether the response's answer is
right, `true_false`. The released file has rows without any response, hence the checks.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dreamprm.answers import extract_answer
from dreamprm.errors import DataError
from dreamprm.formats.files import DataWarning, load_json_rows, write_json_rows
from dreamprm.formats.rows import (
    WithoutResponse,
    learn_answer,
    outside_id,
    outside_image,
    question_of,
    question_of_row,
    remember,
    row_text,
)
from dreamprm.formats.text import (
    parse_response,
    render_question,
    render_response,
    split_response,
)
from dreamprm.records import Question, Trajectory


def read_meta(
    path: str | Path,
    *,
    image_root: str | Path | None = None,
    allow_without_response: WithoutResponse = "refuse",
    domain: str = "meta",
) -> tuple[list[Question], list[Trajectory]]:
    """Read the meta file. A question's gold answer is that of a right response, if it has one.

    Warns (`DataWarning`) when the same text carries both labels, and when only one class is left.

    Args:
        path: the file.
        image_root: folder that `image_path` starts from; the file's own by default.
        allow_without_response: "refuse" rows without a response, or "drop" them.
        domain: domain of all questions, because the file names none.

    Raises:
        DataError: names the row and field of what is wrong.
    """
    path = Path(path)
    root = path.parent if image_root is None else Path(image_root)
    rows = load_json_rows(path)
    for number, row in enumerate(rows, start=1):
        if row.get("true_false") not in (True, False):
            message = f"must be true or false, not {row.get('true_false')!r}"
            raise DataError(message, file=path, row=number, field="true_false")
        if not row_text(row, "input"):
            raise DataError("is empty", file=path, row=number, field="input")
    for message in _contradictions(rows):
        warnings.warn(f"{path}: {message}", DataWarning, stacklevel=2)
    parts = [split_response(row["input"]) for row in rows]
    _check_responses([response for _, response in parts], rows, path, allow_without_response)

    questions: dict[str, Question] = {}
    trajectories: list[Trajectory] = []
    samples: dict[str, int] = defaultdict(int)
    for number, (row, (text, response)) in enumerate(zip(rows, parts, strict=True), start=1):
        if not response:
            continue
        try:
            question = question_of_row(row, text, root, domain)
            answer = extract_answer(response, question.options)
            remember(question, questions)
            if row["true_false"]:
                learn_answer(question.id, answer, questions)
            trajectories.append(
                Trajectory(
                    question_id=question.id,
                    steps=parse_response(response),
                    answer=answer,
                    outcome=bool(row["true_false"]),
                    sample_index=samples[question.id],
                )
            )
        except DataError as error:
            raise error.at(file=path, row=number) from error
        samples[question.id] += 1
    if trajectories and len({trajectory.outcome for trajectory in trajectories}) == 1:
        warnings.warn(
            f"{path}: all {len(trajectories)} trajectories have the outcome "
            f"{str(trajectories[0].outcome).lower()}; an upper level cannot be fitted on one class",
            DataWarning,
            stacklevel=2,
        )
    return list(questions.values()), trajectories


def write_meta(
    path: str | Path, questions: Iterable[Question], trajectories: Iterable[Trajectory]
) -> None:
    """Write one row per trajectory with an outcome. Labels, gold answers and policies are lost."""
    path = Path(path)
    by_id = {question.id: question for question in questions}
    rows = []
    for trajectory in trajectories:
        question = question_of(trajectory, by_id)
        if trajectory.outcome is None:
            continue
        response = render_response(trajectory.steps, trajectory.answer)
        rows.append(
            {
                "id": outside_id(question.id),
                "true_false": trajectory.outcome,
                "input": f"{render_question(question)}\n\n{response}",
                "image_path": outside_image(question, path.parent),
            }
        )
    write_json_rows(path, rows)


def _check_responses(
    responses: list[str], rows: list[dict[str, Any]], path: Path, allow: WithoutResponse
) -> None:
    empty = [i for i, response in enumerate(responses) if not response]
    if not empty or allow == "drop":
        return
    message = f"{len(empty)} rows without a response"
    for label in (False, True):
        name = str(label).lower()
        among = sum(row["true_false"] == label for row in rows)
        missing = sum(rows[i]["true_false"] == label for i in empty)
        if missing == among:
            message += f", including all {missing} of {among} {name} rows"
        else:
            message += f", {missing} of {among} {name} rows"
    raise DataError(
        f"{message}: a model could tell the classes apart by the absence of steps; add the missing "
        "responses, or read with allow_without_response='drop'",
        file=path,
        row=empty[0] + 1,
        field="input",
    )


def _contradictions(rows: list[dict[str, Any]]) -> list[str]:
    """One line for every text that carries both labels."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        groups[" ".join(row["input"].split())].append(i)
    messages = []
    for members in groups.values():
        if len({bool(rows[i]["true_false"]) for i in members}) == 1:
            continue
        told = ", ".join(
            f"row {i + 1} (id {rows[i].get('id')}) {str(rows[i]['true_false']).lower()}"
            for i in members
        )
        images = len({str(rows[i].get("image_path")) for i in members})
        only = "the images differ" if images > 1 else "and the same image"
        messages.append(f"contradiction: the same text carries both labels ({only}): {told}")
    return messages
