"""The training file of the paper's code (arXiv 2505.20241), `train.json`, and back.

A row is a prefix: `add` holds the response up to and including step `sid`, and `score` of `times`
completions sampled from there were right. We merge the rows of a question whose texts continue one
another into one trajectory.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from dreamprm.data.as_read import (
    changes,
    fill,
    gaps_unless,
    layout_of,
    pieces_of,
    restored,
    with_extra,
)
from dreamprm.data.fields import Row, cannot_hold, whole_characters
from dreamprm.data.files import BadRow, refuse, write_json_rows
from dreamprm.data.row_files import each_row
from dreamprm.data.row_images import image_references, images_of, kept_images
from dreamprm.data.rows import (
    WithoutResponse,
    outside_id,
    question_of,
    question_of_row,
    required_text,
    row_text,
    same_question,
)
from dreamprm.data.text import parse_question, parse_response, render_question
from dreamprm.errors import DataError
from dreamprm.prompts import question_text
from dreamprm.records import UNKNOWN_ANSWER, Label, Question, Trajectory

_NAME = "dreamprm_train"
_Rows = list[tuple[int, Row, Label]]  # of one prefix: number, row, label


def read_train(
    path: str | Path,
    *,
    image_root: str | Path | None = None,
    allow_without_response: WithoutResponse | Literal["keep"] = "refuse",
    domain: str | None = None,
    bad_row: BadRow = refuse,
) -> tuple[list[Question], list[Trajectory]]:
    """Read the training file.

    Rows of one question are merged: the longest prefix gives the steps, the others label them. A
    prefix that several longer ones continue labels all of them. Where rows repeat a prefix, their
    counts are added. Rows without `score` and `times` (the paper's minimal form) get the fewest
    completions that explain their accuracy.

    Args:
        path: the file.
        image_root: folder that `image_path` starts from; the file's own by default.
        allow_without_response: "refuse" rows whose `add` is empty; "drop" them; or "keep" them as a
            fact about their question, in its `extra`, which `write_train` makes rows again.
        domain: domain of rows that have no `dataset`; by default such rows are refused.
        bad_row: told of each row that cannot be read, and once of all those without a response;
            when it returns, they are left out.

    Raises:
        DataError: names the row and field of what is wrong.
    """
    path = Path(path)
    root = path.parent if image_root is None else Path(image_root)
    questions: dict[str, Question] = {}
    prefixes: dict[str, dict[str, _Rows]] = defaultdict(dict)
    empty = []
    count = 0
    for number, row in each_row(path, bad_row):
        count = number
        try:
            add = whole_characters(row).get("add")
            prefix = "" if add is None else add
            if not isinstance(prefix, str):
                raise DataError(f"must be text, not {type(add).__name__}", field="add")
            if not prefix.strip() and allow_without_response != "keep":
                empty.append(number)
                continue
            required_text(row, "input")
            text = row["input"]
            if not isinstance(text, str):
                raise DataError(f"must be text, not {type(text).__name__}", field="input")
            question = same_question(
                question_of_row(
                    {"id": row.get("id"), "image_path": image_references(row, "image_path")},
                    text,
                    root,
                    (row_text(row, "dataset") or domain) or required_text(row, "dataset"),
                    answer=row_text(row, "ground_truth"),
                ),
                questions,
            )
            if prefix.strip():
                label = _label(row)
                prefixes[question.id].setdefault(prefix.strip(), []).append((number, row, label))
                continue
            note = _note(row, question, None, path.parent, image_root is not None)
            extra = _with_note(question, note)
            questions[question.id] = Question.parse({**dict(question), "extra": extra})
        except DataError as error:
            bad_row(error.at(file=path, row=number))
    if empty and allow_without_response == "refuse":
        bad_row(
            DataError(
                f"{len(empty)} of {count} rows without a response ('add' is empty); leave them "
                "out (`dreamprm convert --without_response drop`)",
                file=path,
                row=empty[0],
                field="add",
            )
        )
    trajectories = []
    for question_id, rows in prefixes.items():
        question = questions[question_id]
        for trajectory in _merge(question, rows, path.parent, image_root is not None):
            try:
                trajectories.append(with_extra(trajectory, trajectory.extra))
            except DataError as error:
                first = min(number for group in rows.values() for number, _, _ in group)
                bad_row(error.at(file=path, row=first))
    return list(questions.values()), trajectories


def write_train(
    path: str | Path, questions: Iterable[Question], trajectories: Iterable[Trajectory]
) -> None:
    """Write one row per labelled step. Outcomes, answers and policies are lost.

    Raises:
        DataError: a trajectory's last step has no label, or its text would be read back as other
            steps, or an image is held as bytes.
    """
    folder = Path(path).parent
    questions = list(questions)
    by_id = {question.id: question for question in questions}
    rows: list[Row] = []
    told: dict[tuple[str, str], Label] = {}  # what rows of this question and prefix tell
    for trajectory in trajectories:
        question = question_of(trajectory, by_id)
        labels = trajectory.labels or (None,)
        if labels[-1] is None:
            message = "has no label at its last step, so no row would hold that step"
            raise cannot_hold(trajectory, f"{message}; label it, or leave it out")
        steps = tuple(map(str.strip, trajectory.steps))
        told_of = [i for i, label in enumerate(labels, start=1) if label is not None]
        if any(parse_response(_prefix(trajectory, i)) != steps[:i] for i in told_of):
            message = (
                "would be read back as other steps; begin them with 'Step 1: ', 'Step 2: ', ..."
            )
            raise cannot_hold(trajectory, message, field="steps")
        noted = _notes_of(trajectory)
        for i, label in enumerate(labels, start=1):
            own = [note for note in noted if note.get("step") == i]
            key = (question.id, _prefix(trajectory, i).strip())
            if label is None or (told.get(key) == label and {"step": i, "shared": True} in own):
                continue
            told[key] = label
            own = [note for note in own if "shared" not in note]
            counts = [note.get("counts", list(label.counts())) for note in own]
            if [sum(column) for column in zip(*counts, strict=False)] != list(label.counts()):
                own, counts = own[:1] or [{}], [list(label.counts())]  # the label was changed
            for note, (correct, total) in zip(own, counts, strict=True):
                part = Label.of(correct, total)
                rows.append(_row(question, (trajectory, i, part), note, folder))
    for question in questions:
        rows += [_row(question, None, note, folder) for note in _notes_of(question)]
    write_json_rows(path, rows)


_Step = tuple[Trajectory, int, Label]  # of a trajectory, its 1-based number, its label


def _row(question: Question, step: _Step | None, note: Row, folder: Path) -> Row:
    """One row, as its note says it was read."""
    return restored(_plain_row(question, step, note, folder), note.get("changed"), note.get("rest"))


def _plain_row(question: Question, step: _Step | None, note: Row, folder: Path) -> Row:
    row: Row = {"id": outside_id(question.id)}
    row["input"] = fill(note.get("input"), pieces_of(question), _asked(question))
    if step is not None:
        trajectory, number, label = step
        steps = trajectory.steps[:number]
        row["sid"] = number
        row["add"] = fill(note.get("add"), steps, _prefix(trajectory, number))
        row |= {"score": label.correct, "times": label.total, "accuracy": label.value}
    if question.answer != UNKNOWN_ANSWER:
        row["ground_truth"] = question.answer
    someone = step[0] if step else Trajectory(question_id=question.id, steps=("-",))
    images = images_of(question, someone, "image_path", note, folder)
    row["image_path"] = images.get("image_path", [])
    row["dataset"] = question.domain
    return row


def _asked(question: Question) -> str:
    text = question_text(question)
    whole = parse_question(text) == (question.text, question.options)
    return text if whole else render_question(question)


def _prefix(trajectory: Trajectory, number: int | None = None) -> str:
    """The first steps as the paper's files have them: an empty line behind each."""
    return "".join(f"{step}\n\n" for step in trajectory.steps[:number])


def _note(row: Row, question: Question, step: _Step | None, folder: Path, moved: bool) -> Row:
    """What it takes to write `row` again, besides the records.

    Args:
        row: the row that was read.
        question: its question.
        step: what else it became; None for a row without a response.
        folder: folder of the file.
        moved: image paths start elsewhere, so they are kept as they are. Else they are only where
            the path from `folder` is written otherwise.
    """
    ours = _plain_row(question, step, {}, folder)
    note: Row = {"input": gaps_unless(ours["input"], row["input"], pieces_of(question))}
    if step is not None:
        note["add"] = gaps_unless(ours["add"], row["add"], step[0].steps[: step[1]])
    if question.images and (moved or ours["image_path"] != row.get("image_path")):
        note["images"] = kept_images(row, "image_path")
    note = {name: value for name, value in note.items() if value is not None}
    rendered = _plain_row(question, step, note, folder)
    note["changed"] = changes(row, rendered)
    note["rest"] = {field: value for field, value in row.items() if field not in rendered}
    return {name: value for name, value in note.items() if value or name == "images"}


def _with_note(record: Question, note: Row) -> Row:
    notes = [*layout_of(record, _NAME).get("rows", []), note]
    return {**record.extra, f"{_NAME}_as_read": {"rows": notes}}


def _notes_of(record: Question | Trajectory) -> list[Row]:
    notes = layout_of(record, _NAME).get("rows")
    return [note for note in notes if isinstance(note, dict)] if isinstance(notes, list) else []


def _merge(
    question: Question, prefixes: dict[str, _Rows], folder: Path, moved: bool
) -> list[Trajectory]:
    """One trajectory per prefix that no other prefix continues."""
    steps_of = {prefix: parse_response(prefix) for prefix in prefixes}

    def continues(text: str, prefix: str) -> bool:
        """By steps, not by characters: Step 1 is no beginning of Step 10."""
        steps = steps_of[prefix]
        return text.startswith(prefix) and steps_of[text][: len(steps)] == steps

    ends = [
        prefix
        for prefix in prefixes
        if not any(other != prefix and continues(other, prefix) for other in prefixes)
    ]
    trajectories: list[Trajectory] = []
    written: set[str] = set()
    for index, whole in enumerate(ends):
        steps = steps_of[whole]
        labels: list[Label | None] = [None] * len(steps)
        parts = [(prefix, rows) for prefix, rows in prefixes.items() if continues(whole, prefix)]
        for prefix, rows in parts:
            i = len(steps_of[prefix]) - 1
            old = labels[i] or Label(0.0)
            correct, total = (
                sum(column) for column in zip(*(x[2].counts() for x in rows), strict=True)
            )
            labels[i] = Label.of((old.correct or 0) + correct, (old.total or 0) + total)
        trajectory = Trajectory(
            question_id=question.id, steps=steps, labels=tuple(labels), sample_index=index
        )
        notes: list[Row] = []
        for prefix, rows in parts:
            number = len(steps_of[prefix])
            if prefix in written:
                notes.append({"step": number, "shared": True})
                continue
            written.add(prefix)
            for _, row, label in rows:
                note = _note(row, question, (trajectory, number, label), folder, moved)
                counts = {} if label == labels[number - 1] else {"counts": list(label.counts())}
                notes.append(note | {"step": number} | counts)
        if any(set(note) != {"step"} for note in notes):
            extra = {f"{_NAME}_as_read": {"rows": notes}}
            trajectory = trajectory.model_copy(update={"extra": extra})
        trajectories.append(trajectory)
    return trajectories


def _label(row: dict[str, Any]) -> Label:
    """Counts of a training row, checked against each other."""
    values: dict[str, float] = {}
    for field in ("score", "times", "accuracy"):
        value = row.get(field)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DataError(f"must be a number, not {value!r}", field=field)
        if not math.isfinite(value):
            raise DataError(f"must be a finite number, not {value!r}", field=field)
        values[field] = value
    accuracy = values.get("accuracy")
    if accuracy is not None and not 0 <= accuracy <= 1:
        message = f"label {accuracy} is outside 0-1; correct it or remove the row"
        raise DataError(message, field="accuracy")
    if "score" in values and "times" in values:
        correct, total = values["score"], values["times"]
        if correct != int(correct) or total != int(total) or not 0 <= correct <= total or total < 1:
            message = f"{correct} of {total} completions is outside 0-1; correct it"
            raise DataError(message, field="score")
        if accuracy is not None and abs(accuracy - correct / total) > 0.005:
            message = f"{accuracy} is not score / times = {correct} / {total}; correct one of them"
            raise DataError(message, field="accuracy")
        return Label.of(int(correct), int(total))
    if accuracy is None:
        raise DataError("is missing, and so are 'score' and 'times'", field="accuracy")
    fewest = next(
        fraction
        for limit in (16, 64, 256, 10**6)
        if abs((fraction := Fraction(accuracy).limit_denominator(limit)) - accuracy) < 1e-3
    )
    return Label.of(fewest.numerator, fewest.denominator)
