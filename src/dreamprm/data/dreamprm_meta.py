"""The meta file of the paper's code (arXiv 2505.20241), `meta.json`, read and written.

A row is a question and a whole response in one text, `input`, and whether the response's answer is
right, `true_false`. The released file has rows without any response, hence the checks. The file
names neither domains nor gold answers; that of a question is the answer of a right response.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from dreamprm.answers import extract_answer
from dreamprm.data.claims import meta_claim
from dreamprm.data.files import DataWarning
from dreamprm.data.format import (
    Format,
    Pair,
    Reading,
    cannot_hold,
    has,
    one_or_list,
    outside_id,
    outside_images,
    pairs_of,
    write_rows,
)
from dreamprm.data.rows import Row, each_row, exact_text, true_or_false
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


def _parse(row: Row, reading: Reading) -> list[Pair]:
    outcome = true_or_false(row, "true_false", required=True)
    text, response = split_response(exact_text(row, "input"))
    question = reading.question(row, text, "image_path")
    if not response:
        return [(question, None)] if reading.without_response == "keep" else []
    trajectory = Trajectory.parse(
        {
            "question_id": question.id,
            "steps": parse_response(response),
            "answer": extract_answer(response, question.options),
            "outcome": outcome,
        }
    )
    return [(question, trajectory)]


def _finish(reading: Reading) -> None:
    """Learn gold answers; refuse rows without a response; warn of what spoils a meta set."""
    reading.learn_answers()
    rows = [
        (number, row)
        for number, row in each_row(reading.path, lambda error: None)
        if row.get("true_false") in (True, False) and isinstance(row.get("input"), str)
    ]
    for message in _contradictions(rows):
        warnings.warn(f"{reading.path}: {message}", DataWarning, stacklevel=4)
    if reading.without_response == "refuse":
        _check_responses(rows, reading)
    outcomes = {trajectory.outcome for trajectory in reading.trajectories}
    if len(outcomes) == 1:
        warnings.warn(
            f"{reading.path}: all {len(reading.trajectories)} trajectories have the outcome "
            f"{str(outcomes.pop()).lower()}; an upper level cannot be fitted on one class",
            DataWarning,
            stacklevel=4,
        )


def _check_responses(rows: list[tuple[int, Row]], reading: Reading) -> None:
    empty = [(number, row) for number, row in rows if not split_response(row["input"])[1]]
    if not empty:
        return
    message = f"{len(empty)} rows without a response"
    for label in (False, True):
        name = str(label).lower()
        among = sum(row["true_false"] == label for _, row in rows)
        missing = sum(row["true_false"] == label for _, row in empty)
        if missing == among:
            message += f", including all {missing} of {among} {name} rows"
        else:
            message += f", {missing} of {among} {name} rows"
    reading.bad_row(
        DataError(
            f"{message}: a model could tell the classes apart by the absence of steps; add the "
            "missing responses, or leave the rows out (`dreamprm convert --without_response drop`)",
            file=reading.path,
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


def _write(
    path: str | Path, questions: Iterable[Question], trajectories: Iterable[Trajectory]
) -> None:
    """Write one row per trajectory.

    Raises:
        DataError: a trajectory has no outcome, or its text would be read back as other steps, or an
            image is held as bytes.
    """
    folder = Path(path).parent
    write_rows(path, [_row(q, t, folder) for q, t in pairs_of(questions, trajectories)])


def _row(question: Question, trajectory: Trajectory, folder: Path) -> Row:
    if trajectory.outcome is None:
        message = "has no outcome, and this format needs one; verify its answer, or leave it out"
        raise cannot_hold(trajectory, message, field="outcome")
    return {
        "id": outside_id(question.id),
        "true_false": trajectory.outcome,
        "input": _text(question, trajectory),
        "image_path": one_or_list(outside_images(question, trajectory, folder)),
    }


def _text(question: Question, trajectory: Trajectory) -> str:
    """Question and response as one text from which the same records are read."""
    steps, answer = trajectory.steps, trajectory.answer
    ours = f"{render_question(question)}\n\n{render_response(steps, answer)}"
    plain = f"{render_question(question)}\n\n{join_steps(steps, answer)}"
    same = False
    for candidate in (ours, plain):
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


FORMAT = Format(
    name="dreamprm_meta",
    about="meta.json of DreamPRM: whole responses, right or wrong",
    fits=has("true_false", "input"),
    parse=_parse,
    finish=_finish,
    write=_write,
    loses="domains, subjects, gold answers, labels and policies",
    default_domain="meta",
    rows_without_response=True,
    claim=meta_claim,
)
