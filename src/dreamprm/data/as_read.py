"""What a record forgets of the row it came from, noted so that the row can be written again.

Records hold steps, labels and texts; rows hold them in some layout, with headers, spaces and fields
that no record has. A reader notes only the difference between the row and what its writer would
make of the record: text between the record's parts, and fields that are otherwise than ours. A
note applies only while the record still renders the same, so an edited record is written as edited.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from dreamprm.answers import extract_answer
from dreamprm.data.fields import Row, whole_characters
from dreamprm.data.files import BadRow, atomic_write, write_json_rows
from dreamprm.data.row_files import each_row
from dreamprm.data.rows import (
    add_question,
    question_of,
    rest_of,
)
from dreamprm.errors import DataError
from dreamprm.prompts import option_letter
from dreamprm.records import Question, Trajectory


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
    for number, row in each_row(path, bad_row):
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
