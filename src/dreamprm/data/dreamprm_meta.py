"""The meta file of the paper's code (arXiv 2505.20241), `meta.json`, and back.

A row is a question and a whole response in one text, `input`, and whether the response's answer is
right, `true_false`. The released file has rows without any response, hence the checks.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

from dreamprm.answers import extract_answer
from dreamprm.data.as_read import (
    changes,
    fill,
    fill_response,
    gaps_unless,
    keep_all,
    layout_of,
    pieces_of,
    response_gaps,
    restored,
    write_rows,
)
from dreamprm.data.fields import Row, cannot_hold, exact_text, whole_characters
from dreamprm.data.files import BadRow, DataWarning, refuse
from dreamprm.data.row_files import each_row
from dreamprm.data.row_images import image_references, images_of, kept_images
from dreamprm.data.rows import (
    WithoutResponse,
    learn_answer,
    outside_id,
    question_of_row,
    same_question,
)
from dreamprm.data.text import (
    parse_question,
    parse_response,
    render_question,
    render_response,
    split_response,
)
from dreamprm.errors import DataError
from dreamprm.prompts import join_steps
from dreamprm.records import Question, Trajectory

_NAME = "dreamprm_meta"
_WITHOUT = "without_response"


def read_meta(
    path: str | Path,
    *,
    image_root: str | Path | None = None,
    allow_without_response: WithoutResponse | Literal["keep"] = "refuse",
    domain: str = "meta",
    bad_row: BadRow = refuse,
) -> tuple[list[Question], list[Trajectory]]:
    """Read the meta file. A question's gold answer is that of a right response, if it has one.

    Warns (`DataWarning`) when the same text carries both labels, and when only one class is left.

    Args:
        path: the file.
        image_root: folder that `image_path` starts from; the file's own by default.
        allow_without_response: "refuse" rows without a response; "drop" them; or "keep" them as a
            fact about their question, in its `extra`, which `write_meta` makes rows again. A
            trajectory must have steps, so they become none.
        domain: domain of all questions, because the file names none.
        bad_row: told of each row that cannot be read, and once of all those without a response;
            when it returns, they are left out.

    Raises:
        DataError: names the row and field of what is wrong.
    """
    path = Path(path)
    root = path.parent if image_root is None else Path(image_root)
    rows: list[tuple[int, Row]] = []
    for number, row in each_row(path, bad_row):
        try:
            if row.get("true_false") not in (True, False):
                message = f"must be true or false, not {row.get('true_false')!r}"
                raise DataError(message, field="true_false")
            exact_text(whole_characters(row), "input")
        except DataError as error:
            bad_row(error.at(file=path, row=number))
            continue
        rows.append((number, row))
    for message in _contradictions(rows):
        warnings.warn(f"{path}: {message}", DataWarning, stacklevel=2)
    parts = [(number, row, *split_response(row["input"])) for number, row in rows]
    if allow_without_response == "refuse":
        _check_responses(parts, path, bad_row)

    questions: dict[str, Question] = {}
    found: list[tuple[int, Row, Trajectory, Row]] = []
    samples: dict[str, int] = defaultdict(int)
    for number, row, text, response in parts:
        if not response and allow_without_response != "keep":
            continue
        try:
            images = {"image_path": image_references(row, "image_path")}
            question = question_of_row(images | {"id": row.get("id")}, text, root, domain)
            question = same_question(question, questions)
            if not response:
                questions[question.id] = _keep_row(row, number, question)
                continue
            answer = extract_answer(response, question.options)
            steps = parse_response(response)
            trajectory = Trajectory.parse(
                {
                    "question_id": question.id,
                    "steps": steps,
                    "answer": answer,
                    "outcome": bool(row["true_false"]),
                    "sample_index": samples[question.id],
                }
            )
        except DataError as error:
            bad_row(error.at(file=path, row=number))
            continue
        if trajectory.outcome:
            learn_answer(question.id, answer, questions)
        samples[question.id] += 1
        layout: Row = {"images": kept_images(row, "image_path") if question.images else None}
        if row["input"] != _input(question, trajectory):
            layout["input"] = response_gaps(row["input"], [*pieces_of(question), *steps], answer)
        found.append((number, row, trajectory, layout))
    trajectories = keep_all(found, questions, path, bad_row, _NAME, _row)
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
    """Write one row per trajectory, and those without a response that `read_meta` kept.

    Labels, gold answers and policies are lost.

    Raises:
        DataError: a trajectory has no outcome, or its text would be read back as other steps, or an
            image is held as bytes.
    """
    questions = list(questions)
    kept = [row for question in questions for row in _kept_rows(question, Path(path).parent)]
    write_rows(path, questions, trajectories, _NAME, _row, sorted(kept, key=itemgetter(0)))


def _row(question: Question, trajectory: Trajectory, folder: Path) -> Row:
    if trajectory.outcome is None:
        message = "has no outcome, and this format needs one; verify its answer, or leave it out"
        raise cannot_hold(trajectory, message, field="outcome")
    layout = layout_of(trajectory, _NAME)
    images = images_of(question, trajectory, "image_path", layout, folder)
    return {
        "id": outside_id(question.id),
        "true_false": trajectory.outcome,
        "input": _text(question, trajectory, layout.get("input")),
        "image_path": images.get("image_path", []),
    }


def _input(question: Question, trajectory: Trajectory) -> str:
    """Question and response as one text, in our way to write it."""
    response = render_response(trajectory.steps, trajectory.answer)
    return f"{render_question(question)}\n\n{response}"


def _text(question: Question, trajectory: Trajectory, gaps: Any) -> str:
    """Question and response as one text: as it was read, if that still says what the records do."""
    steps, answer, ours = trajectory.steps, trajectory.answer, _input(question, trajectory)
    text = fill_response(gaps, [*pieces_of(question), *steps], answer, ours)
    plain = f"{render_question(question)}\n\n{join_steps(steps, answer)}"
    for candidate in (text, ours, plain):
        asked, response = split_response(candidate)
        same = parse_question(asked) == (question.text.strip(), _stripped(question.options))
        same = same and bool(response) and parse_response(response) == _stripped(steps)
        if same and (answer is None or extract_answer(response, question.options) == answer):
            return candidate
    if same:  # its answer is a text that cannot be found again as it stands, such as "**B**"
        return ours
    raise cannot_hold(
        trajectory,
        "would be read back otherwise from this format's one text; begin its steps with "
        "'Step 1: ', 'Step 2: ', ..., and take empty lines out of the question",
        field="steps",
    )


def _stripped(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(text.strip() for text in texts)


def _keep_row(row: Row, number: int, question: Question) -> Question:
    """The question, told of a row that has no response to it."""
    ours = _asked(question, {})
    text: Any = gaps_unless(ours["input"], row["input"], pieces_of(question))
    note: Row = {"images": kept_images(row, "image_path") if question.images else None}
    note |= {"row": number, "input": text}
    rendered = _asked(question, note)
    rest = {field: value for field, value in row.items() if field not in rendered}
    note |= {"changed": changes(row, rendered), "rest": rest}
    layout = layout_of(question, _NAME)
    note = {name: value for name, value in note.items() if value}
    notes = {**layout, _WITHOUT: [*layout.get(_WITHOUT, []), note]}
    extra = {**question.extra, f"{_NAME}_as_read": notes}
    return Question.parse({**dict(question), "extra": extra})


def _kept_rows(question: Question, folder: Path) -> list[tuple[int, Row]]:
    """The rows without a response to a question, and where they stood."""
    notes = layout_of(question, _NAME).get(_WITHOUT)
    rows = []
    for note in notes if isinstance(notes, list) else ():
        if isinstance(note, dict) and isinstance(note.get("row"), int):
            rendered = _asked(question, note, folder)
            row = restored(rendered, note.get("changed"), note.get("rest"))
            rows.append((note["row"], row))
    return rows


def _asked(question: Question, note: Row, folder: Path = Path()) -> Row:
    """A row that only asks."""
    nobody = Trajectory(question_id=question.id, steps=("-",))  # to name in an error
    images = images_of(question, nobody, "image_path", note, folder)
    return {
        "id": outside_id(question.id),
        "input": fill(note.get("input"), pieces_of(question), render_question(question)),
        "image_path": images.get("image_path", []),
    }


def _check_responses(parts: list[tuple[int, Row, str, str]], path: Path, bad_row: BadRow) -> None:
    empty = [(number, row) for number, row, _, response in parts if not response]
    if not empty:
        return
    message = f"{len(empty)} rows without a response"
    for label in (False, True):
        name = str(label).lower()
        among = sum(row["true_false"] == label for _, row, _, _ in parts)
        missing = sum(row["true_false"] == label for _, row in empty)
        if missing == among:
            message += f", including all {missing} of {among} {name} rows"
        else:
            message += f", {missing} of {among} {name} rows"
    bad_row(
        DataError(
            f"{message}: a model could tell the classes apart by the absence of steps; add the "
            "missing responses, or leave the rows out (`dreamprm convert --without_response drop`)",
            file=path,
            row=empty[0][0],
            field="input",
        )
    )


def _contradictions(rows: list[tuple[int, Row]]) -> list[str]:
    """One line for every text that carries both labels."""
    groups: dict[str, list[tuple[int, Row]]] = defaultdict(list)
    for number, row in rows:
        groups[" ".join(row["input"].split())].append((number, row))
    messages = []
    for members in groups.values():
        if len({bool(row["true_false"]) for _, row in members}) == 1:
            continue
        told = ", ".join(
            f"row {number} (id {row.get('id')}) {str(bool(row['true_false'])).lower()}"
            for number, row in members
        )
        images = len({str(row.get("image_path")) for _, row in members})
        only = "the images differ" if images > 1 else "and the same image"
        messages.append(f"contradiction: the same text carries both labels ({only}): {told}")
    return messages
