"""TRL's stepwise supervision: a `prompt`, its `completions` (the steps), and their `labels`.

This is the plainest of the row formats, so what all of them share to lose nothing stands here, too.
A row is read into records; what the records have no field for lies in `extra[<format>]`; and where
our writer would write a row otherwise than it was (spaces, headers, a number as text), only that
difference is noted in `extra[<format>_as_read]`. A note says what stands around the parts that
records hold, or "where you would write X, there stood Y", so an edited record is written as edited.
"""

from __future__ import annotations

import base64
import json
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from dreamprm.answers import extract_answer
from dreamprm.errors import DataError
from dreamprm.formats.files import BadRow, atomic_write, load_json_rows, refuse, write_json_rows
from dreamprm.formats.rows import outside_image, question_of, question_of_row, remember, rest_of
from dreamprm.prompts import option_letter, question_text
from dreamprm.records import UNKNOWN_ANSWER, Question, StepLabel, Trajectory

Row = dict[str, Any]

_NAME = "trl_stepwise"


def read_trl_stepwise(
    path: str | Path,
    *,
    image_root: str | Path | None = None,
    domain: str = _NAME,
    bad_row: BadRow = refuse,
) -> tuple[list[Question], list[Trajectory]]:
    """Read a JSON list or JSONL file of stepwise supervision.

    A label is true, false, or a probability, which becomes the smallest fraction of the same value.
    Rows of one prompt and the same images are candidates of one question.

    Args:
        path: the file.
        image_root: folder that image paths start from; the file's own by default.
        domain: domain of all questions, because the file names none.
        bad_row: told of each row that cannot be read; when it returns, the row is left out.

    Raises:
        DataError: names the row and field of what is wrong.
    """
    return read_rows(path, image_root, domain, bad_row, _NAME, _parse, _row)


def _parse(row: Row, root: Path, domain: str) -> tuple[Question, Trajectory, Row]:
    if isinstance(row.get("prompt"), list):
        message = "is a conversation, which stepwise supervision has no form for; make it one text"
        raise DataError(message, field="prompt")
    text = whole_text(row, "prompt")
    steps = step_texts(row.get("completions"), "completions")
    labels = row.get("labels")
    if not isinstance(labels, list) or len(labels) != len(steps):
        raise DataError("must be a list with one label per completion", field="labels")
    images = {"image_path": image_references(row, "images")}
    question = question_of_row(images, text, root, domain)
    trajectory = Trajectory.parse(
        {
            "question_id": question.id,
            "steps": steps,
            "answer": extract_answer("\n\n".join(steps), question.options),
            "labels": [label_of_score(label, "labels") for label in labels],
        }
    )
    layout: Row = {
        "prompt": gaps_unless(question_text(question), text, pieces_of(question)),
        "labels": {int: "int", float: "float"}.get(type(labels[0])),
        "images": kept_images(row, "images"),
    }
    return question, trajectory, layout


def write_trl_stepwise(
    path: str | Path, questions: Iterable[Question], trajectories: Iterable[Trajectory]
) -> None:
    """Write one row per trajectory, as JSONL, or as a JSON list where `path` ends in `.json`.

    Labels are all true or false, or all probabilities, as `datasets` needs them; counts, ids,
    outcomes and gold answers have no place in this format.

    Raises:
        DataError: a step has no label, or an image is held as bytes.
    """
    write_rows(path, questions, trajectories, _NAME, _row)


def _row(question: Question, trajectory: Trajectory, folder: Path) -> Row:
    layout = layout_of(trajectory, _NAME)
    labels = [label for label in trajectory.labels or () if label is not None]
    if len(labels) != len(trajectory.steps):
        raise cannot_hold(
            trajectory, "has a step without a label; label every step, or leave it out"
        )
    values: list[float] = [label.value for label in labels]
    hard = set(values) <= {0.0, 1.0}
    form = layout.get("labels") if hard else "float"
    kind: Callable[[float], float] = {"int": int, "float": float}.get(str(form), bool)
    return {
        "prompt": fill(layout.get("prompt"), pieces_of(question), question_text(question)),
        "completions": list(trajectory.steps),
        "labels": [kind(value) for value in values],
        **images_of(question, trajectory, "images", layout, folder, as_list=True),
    }


# What the row formats share: reading a row without loss, and writing it back.


def whole_text(row: Row, field: str) -> str:
    """A field that must be text, unchanged."""
    text = row.get(field)
    if not isinstance(text, str) or not text.strip():
        raise DataError("must be text that is not empty; correct or remove the row", field=field)
    return text


def whole_characters(row: Row) -> Row:
    """A row without halves of characters (\\ud800 to \\udfff), which cannot be written."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        message = "holds half a character (\\ud800 to \\udfff); correct its text"
        raise DataError(message) from None
    return row


def step_texts(value: Any, field: str) -> tuple[str, ...]:
    """A field that must be a list of at least one step, unchanged."""
    if not isinstance(value, list) or not all(isinstance(step, str) for step in value):
        raise DataError("must be a list of texts, one per step", field=field)
    if not value:
        raise DataError("holds no step; remove the row", field=field)
    return tuple(value)


def label_of_score(score: Any, field: str) -> StepLabel:
    """Counts of a label that is true, false or a probability: the smallest with the same value."""
    if isinstance(score, bool) or (isinstance(score, int | float) and score in (0, 1)):
        return StepLabel(int(score), 1)
    if not isinstance(score, int | float) or not 0 <= score <= 1:
        message = f"label {score!r} must be true, false, or a number from 0 to 1; correct it"
        raise DataError(message, field=field)
    exact = Fraction(score)
    below, above = Fraction(math.nextafter(score, 0)), Fraction(math.nextafter(score, 1))
    fraction = _simplest((below + exact) / 2, (exact + above) / 2)
    return StepLabel(fraction.numerator, fraction.denominator)


def _simplest(low: Fraction, high: Fraction) -> Fraction:
    """The fraction of smallest denominator strictly between two that are not negative."""
    whole = math.floor(low)
    if whole + 1 < high:
        return Fraction(whole + 1)
    if low == whole:
        return whole + Fraction(1, math.floor(1 / (high - whole)) + 1)
    return whole + 1 / _simplest(1 / (high - whole), 1 / (low - whole))


def image_references(row: Row, field: str) -> list[str]:
    """The image paths of a row: a path, a list of them, or `datasets` images that name a path."""
    value = row.get(field)
    values = value if isinstance(value, list) else [] if value in (None, "") else [value]
    paths = [item.get("path") if isinstance(item, dict) else item for item in values]
    if not all(isinstance(path, str) and path.strip() and "\0" not in path for path in paths):
        raise DataError("must be a path or a list of paths", field=field)
    if any(isinstance(item, dict) and item.get("bytes") for item in values):
        raise DataError("holds bytes; name a path, or use a data URL", field=field)
    return [str(path) for path in paths]


def kept_images(row: Row, field: str) -> list[Any] | None:
    """How a row names its images, for `images_of`: [value], or None for no such field."""

    def short(value: Any) -> Any:  # the bytes of a data URL are in the question already
        if isinstance(value, list):
            return [short(item) for item in value]
        is_url = isinstance(value, str) and value.startswith("data:")
        return value.partition(",")[0] + "," if is_url else value

    return [short(row[field])] if field in row else None


def images_of(
    question: Question,
    trajectory: Trajectory,
    field: str,
    layout: Row,
    folder: Path,
    *,
    as_list: bool = False,
) -> Row:
    """The image field of a row: as it was read while it still names the question's images."""
    kept = layout.get("images")
    if isinstance(kept, list) and kept:
        value = kept[0]
        values = value if isinstance(value, list) else [value] if value else []
        if len(values) == len(question.images) and all(map(_names, values, question.images)):
            whole = [_url(item, image) for item, image in zip(values, question.images, strict=True)]
            return {field: whole if isinstance(value, list) else whole[0] if whole else value}
    if not question.images:
        return {}
    if any(isinstance(image, bytes) for image in question.images):
        message = "has a question with image bytes, and this format takes paths; save them as files"
        raise cannot_hold(trajectory, message)
    found = outside_image(question, folder)
    return {field: [found] if as_list and isinstance(found, str) else found}


def _names(reference: Any, image: str | bytes) -> bool:
    """Does a reference end like the path that it became, whatever folder it started from?"""
    path = reference.get("path") if isinstance(reference, dict) else reference
    if not isinstance(path, str) or isinstance(image, bytes):
        return isinstance(image, bytes) and str(path).startswith("data:")
    if "://" in path:
        return path == image
    tail = [part for part in Path(os.path.normpath(path)).parts if part != ".."]
    return list(Path(image).parts[len(Path(image).parts) - len(tail) :]) == tail


def _url(reference: Any, image: str | bytes) -> Any:
    return reference + base64.b64encode(image).decode() if isinstance(image, bytes) else reference


def pieces_of(question: Question) -> list[str]:
    """The parts of a question's text that its record holds, in order, and the options' letters."""
    pieces = [question.text]
    for i, option in enumerate(question.options):
        pieces += [f"({option_letter(i)})", option]
    return pieces


def gaps_of(text: str, pieces: Sequence[str]) -> list[str] | None:
    """What stands before, between and behind `pieces` in a text; None where they are not in it."""
    gaps, start = [], 0
    for piece in pieces:
        found = text.find(piece, start)
        if found < 0:
            return None
        gaps.append(text[start:found])
        start = found + len(piece)
    return [*gaps, text[start:]]


def gaps_unless(ours: str, text: str, pieces: Sequence[str]) -> list[str] | None:
    """`gaps_of`, or None where the text is just as we would write it."""
    return None if text == ours else gaps_of(text, pieces)


def fill(gaps: Any, pieces: Sequence[str], otherwise: str) -> str:
    """The text of `gaps` around `pieces`; `otherwise` where the gaps are not for so many."""
    if not isinstance(gaps, list) or len(gaps) != len(pieces) + 1:
        return otherwise
    return "".join(str(part) for pair in zip(gaps, [*pieces, ""], strict=True) for part in pair)


def response_gaps(text: str, pieces: Sequence[str], answer: str | None) -> list[str] | None:
    """`gaps_of` for pieces and behind them, if it stands there, a final answer."""
    gaps = gaps_of(text, pieces)
    if gaps is None or not answer or answer not in gaps[-1]:
        return gaps
    before, _, after = gaps[-1].rpartition(answer)
    return [*gaps[:-1], before, after]


def fill_response(gaps: Any, pieces: Sequence[str], answer: str | None, otherwise: str) -> str:
    """The text of `response_gaps`."""
    if answer and isinstance(gaps, list) and len(gaps) == len(pieces) + 2:
        pieces = [*pieces, answer]
    return fill(gaps, pieces, otherwise)


def stating(text: str, question: Question, trajectory: Trajectory) -> str:
    """A response that states the trajectory's answer: the text, with a last line if need be."""
    answer = trajectory.answer
    if answer is None or extract_answer(text, question.options) == answer:
        return text
    return f"{text}\nFinal answer: {answer}"


def same_question(question: Question, questions: dict[str, Question]) -> Question:
    """The first question of this id (`rows.remember`); other options are another question, too."""
    remember(question, questions)
    known = questions[question.id]
    if known.options != question.options:
        message = f"id '{question.id}' stands for two lists of options; make ids unique"
        raise DataError(message, field="id")
    return known


def add_question(question: Question, questions: dict[str, Question]) -> None:
    """`same_question`, and take its gold answer; another gold answer is refused."""
    known = same_question(question, questions)
    if known.answer == UNKNOWN_ANSWER:
        questions[question.id] = known.model_copy(update={"answer": question.answer})
    elif question.answer not in (known.answer, UNKNOWN_ANSWER):
        message = f"the same question has the answer '{known.answer}' above; correct one of them"
        raise DataError(message, field="answer")


def cannot_hold(trajectory: Trajectory, why: str) -> DataError:
    """What a writer says of a trajectory that its format has no form for."""
    return DataError(
        f"trajectory {trajectory.sample_index} of question '{trajectory.question_id}' {why}"
    )


def layout_of(record: Question | Trajectory, name: str) -> Row:
    """What `keep` noted for the writer of a format."""
    layout = record.extra.get(f"{name}_as_read")
    return layout if isinstance(layout, dict) else {}


Render = Callable[[Question, Trajectory, Path], Row]


def keep(
    row: Row, question: Question, trajectory: Trajectory, layout: Row, name: str, render: Render
) -> Trajectory:
    """The trajectory with all that `write_rows` needs to write `row` again.

    Args:
        row: the row that was read.
        question: its question.
        trajectory: what it became.
        layout: notes for `render`; None is no note.
        name: name of the format.
        render: the format's records -> row.
    """
    notes = {note: value for note, value in layout.items() if value is not None}
    noted = with_extra(trajectory, {f"{name}_as_read": notes})
    rendered = render(question, noted, Path())
    if changed := changes(row, rendered):
        notes["changed"] = changed
    extra = {f"{name}_as_read": notes} if notes else {}
    return with_extra(trajectory, extra | rest_of(row, rendered, name))


def with_extra(trajectory: Trajectory, extra: Row) -> Trajectory:
    """The trajectory with another `extra`, checked (NaN is no JSON)."""
    return Trajectory.parse({**dict(trajectory), "extra": extra})


def changes(row: Row, rendered: Row) -> Row:
    """Where a row is otherwise than we would write it: field -> [ours, its], or [ours] for none."""
    return {
        field: [value, row[field]] if field in row else [value]
        for field, value in rendered.items()
        if field not in row or _json(row[field]) != _json(value)
    }


def restored(rendered: Row, changed: Any, rest: Any) -> Row:
    """A row with the `changes` made that still apply, and the rest put back."""
    row = dict(rendered)
    for field, pair in changed.items() if isinstance(changed, dict) else ():
        if field in row and isinstance(pair, list) and _json(row[field]) == _json(pair[0]):
            row[field] = pair[-1]
            if len(pair) == 1:
                del row[field]
    return {**rest, **row} if isinstance(rest, dict) else row


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


Parse = Callable[[Row, Path, str], tuple[Question, Trajectory, Row]]


def read_rows(
    path: str | Path,
    image_root: str | Path | None,
    domain: str,
    bad_row: BadRow,
    name: str,
    parse: Parse,
    render: Render,
) -> tuple[list[Question], list[Trajectory]]:
    """Read rows that hold one trajectory each; `parse` gives it, its question, and the layout."""
    path = Path(path)
    root = path.parent if image_root is None else Path(image_root)
    questions: dict[str, Question] = {}
    found: list[tuple[int, Row, Trajectory, Row]] = []
    samples: dict[str, int] = defaultdict(int)
    for number, row in enumerate(load_json_rows(path), start=1):
        try:
            question, trajectory, layout = parse(whole_characters(row), root, domain)
            add_question(question, questions)
        except DataError as error:
            bad_row(error.at(file=path, row=number))
            continue
        index = samples[question.id]
        samples[question.id] += 1
        found.append((number, row, trajectory.model_copy(update={"sample_index": index}), layout))
    trajectories = keep_all(found, questions, path, bad_row, name, render)
    return list(questions.values()), trajectories


def keep_all(
    found: Iterable[tuple[int, Row, Trajectory, Row]],
    questions: dict[str, Question],
    path: Path,
    bad_row: BadRow,
    name: str,
    render: Render,
) -> list[Trajectory]:
    """`keep` for (row number, row, trajectory, layout), once all is known of the questions."""
    trajectories = []
    for number, row, trajectory, layout in found:
        question = questions[trajectory.question_id]
        try:
            trajectories.append(keep(row, question, trajectory, layout, name, render))
        except DataError as error:
            bad_row(error.at(file=path, row=number))
    return trajectories


def write_rows(
    path: str | Path,
    questions: Iterable[Question],
    trajectories: Iterable[Trajectory],
    name: str,
    render: Render,
    kept: Iterable[tuple[int, Row]] = (),
) -> None:
    """Write `render` of every trajectory, as it was read; JSONL, or a JSON list for `.json`.

    Rows that are no trajectory, `kept` in the order of their 1-based numbers, go between them.
    """
    path = Path(path)
    by_id = {question.id: question for question in questions}
    rows = []
    for trajectory in trajectories:
        rendered = render(question_of(trajectory, by_id), trajectory, path.parent)
        changed = layout_of(trajectory, name).get("changed")
        rows.append(restored(rendered, changed, trajectory.extra.get(name)))
    for number, row in kept:
        rows.insert(number - 1, row)
    if path.suffix.lower() == ".json":
        write_json_rows(path, rows)
        return
    with atomic_write(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
