"""Which column of somebody's table holds which field of a question, and the one place that checks.

A `ColumnMap` is data: names of columns, and plain functions where a published schema needs code
(two columns that make one text, say). `question_of` turns one row into one `Question`, and names
the column of everything that would later look like a wrong model: an answer that is none of the
options, an index out of range, options that cannot be read. Images that are bytes keep their
encoding: a JPEG that is decoded and written again is another image.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from dreamprm.data.files import DataWarning, atomic_write, image_from_disk
from dreamprm.data.mathvision import IN_THE_IMAGE, without_marks
from dreamprm.data.rows import Row, written_value
from dreamprm.errors import DataError
from dreamprm.images import as_png, image_format, is_data_url
from dreamprm.prompts import option_letter
from dreamprm.records import Question

Take = Callable[[Row], Any]
"""A function from a row to the value of a field, for what a column name cannot say."""

AnswerIs = Literal["letter_or_text", "letter", "text", "index", "index_from_1"]
MOST_OPTIONS = 26

_NUMBERED = re.compile(r"<image\s*(\d+)>")
_BARE = re.compile(r"<image>\s*")
_LETTER = re.compile(r"\(?([A-Za-z])\)?[.:]?")


@dataclass(frozen=True, kw_only=True)
class ColumnMap:
    """Where the fields of a question are. A field is a column's name or a function of the row.

    Attributes:
        text: the question, without options. Marks such as `<image 1>` become `[image 1]`; a bare
            `<image>` is dropped.
        answer: the gold answer. A list of one value counts as the value.
        answer_is: how `answer` names one of the options: its letter, its text, its 0-based or
            1-based index, or (default) letter or text, whichever fits. Without options the answer
            is taken as it stands.
        id: unique; without it questions are named by source, split and row.
        images: a column of an image or of a list of images, or several columns; an image is a path,
            encoded bytes, a `{"bytes", "path"}` struct, or a PIL image. Empty ones are skipped.
        options: a column with a list, or with a text that holds a Python or JSON list; or several
            columns with one option each. Empty for an open question.
        subject: finer grouping.
        unit: unit of a number.
        precision: decimals of a number that count.
        extra: name -> column or function of what else to keep.
        turns: splits a row that holds several questions into rows of one question each, before
            the columns are looked up.
    """

    text: str | Take = "question"
    answer: str | Take = "answer"
    answer_is: AnswerIs = "letter_or_text"
    id: str | Take | None = None
    images: str | tuple[str, ...] | Take = ()
    options: str | tuple[str, ...] | Take = ()
    subject: str | Take | None = None
    unit: str | Take | None = None
    precision: str | Take | None = None
    extra: Mapping[str, str | Take] = field(default_factory=dict)
    turns: Callable[[Row], list[dict[str, Any]]] | None = None


def changed_columns(names: Mapping[str, str | None], base: ColumnMap | None) -> ColumnMap | None:
    """The columns that a user names, over those of a known set.

    Args:
        names: field of ColumnMap -> column; several columns as "a,b,c". None: not given.
        base: columns of the known set.

    Returns:
        None where there is no base and text or answer is not named.
    """
    given = {field: name for field, name in names.items() if name is not None}
    if base is None and not {"text", "answer"} <= given.keys():
        return None
    changes: dict[str, Any] = dict(given)
    for several in given.keys() & {"images", "options", "extra"}:
        parts = tuple(part.strip() for part in given[several].split(","))
        if several == "extra":
            changes["extra"] = {part: part for part in parts}
        else:
            changes[several] = parts if len(parts) > 1 else parts[0]
    return replace(base or ColumnMap(), **changes)


def question_of(
    row: Row, columns: ColumnMap, *, name: str, domain: str, image_root: Path | None
) -> Question:
    """The question of a row.

    Args:
        row: column -> value.
        columns: where the fields are.
        name: the question's id where the map has none.
        domain: the question's domain.
        image_root: folder that relative image paths start from.

    Raises:
        DataError: names the column; the reader adds source and row.
    """
    marked = _required(row, columns.text, "text")
    text = _BARE.sub("", without_marks(_NUMBERED.sub(r"<image\1>", marked))).strip()
    options = tuple(_NUMBERED.sub(r"[image \1]", text) for text in _options(row, columns.options))
    precision = _taken(row, columns.precision, "precision")
    extra = {key: _taken(row, where, f"extra.{key}") for key, where in columns.extra.items()}
    extra |= {
        "unit": _text(_taken(row, columns.unit, "unit"), "unit") or None,
        "precision": None if _missing(precision) else _whole(precision, "precision"),
    }
    return Question.parse(
        {
            "id": name if columns.id is None else _required(row, columns.id, "id"),
            "domain": domain,
            "text": text or IN_THE_IMAGE,
            "images": _images(row, columns.images, image_root),
            "options": options,
            "answer": _answer(row, columns, options, name),
            "subject": _text(_taken(row, columns.subject, "subject"), "subject") or None,
            "extra": {key: value for key, value in extra.items() if not _missing(value)},
        }
    )


def column(row: Row, name: str) -> Any:
    """The value of a column; where there is none, a DataError names the nearest, and all."""
    if name in row:
        return row[name]
    near = difflib.get_close_matches(name, [str(key) for key in row], n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    there = ", ".join(map(str, row)) or "none"
    raise DataError(f"there is no such column; {hint}there are: {there}", field=name)


def _taken(row: Row, where: str | Take | None, what: str) -> Any:
    if where is None:
        return None
    if isinstance(where, str):
        return column(row, where)
    try:
        return where(row)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        message = f"its function failed on this row ({type(error).__name__}: {error})"
        raise DataError(f"{message}; correct the row or the function", field=what) from error


def _named(where: Any, what: str) -> str:
    """What an error calls a field: the column where there is one."""
    return where if isinstance(where, str) else what


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _text(value: Any, what: str) -> str:
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if _missing(value):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        message = f"must be text or a number, not {type(value).__name__}; name another column or"
        raise DataError(f"{message} give a function that makes it text", field=what)
    return str(value).strip()


def _required(row: Row, where: str | Take, what: str) -> str:
    text = _text(_taken(row, where, what), _named(where, what))
    if not text:
        raise DataError("is empty; give it a value or remove the row", field=_named(where, what))
    return text


def _whole(value: Any, what: str) -> int:
    try:
        number = float(value)
        if isinstance(value, bool) or not number.is_integer():
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{value!r:.40} is no whole number; correct it", field=what) from None
    return int(number)


def _images(
    row: Row, where: str | tuple[str, ...] | Take, root: Path | None
) -> tuple[str | bytes, ...]:
    if isinstance(where, tuple):
        return tuple(i for one in where for i in pictures(column(row, one), root, one))
    return pictures(_taken(row, where, "images"), root, _named(where, "images"))


def _options(row: Row, where: str | tuple[str, ...] | Take) -> tuple[str, ...]:
    what = _named(where, "options")
    if isinstance(where, tuple):
        values: Any = [column(row, one) for one in where]
        while values and (_missing(values[-1]) or values[-1] == ""):
            values.pop()  # a question with fewer options than the table has columns
    else:
        values = _taken(row, where, "options")
    if isinstance(values, str) and values.strip():
        text, values = values, written_value(values)
        if values is None:
            message = f"'{text[:60]}' holds no Python or JSON list; correct it or give a function"
            raise DataError(f"{message} that makes a list", field=what)
    if _missing(values) or values == "":
        return ()
    if not isinstance(values, list | tuple):
        message = f"must be a list of options, not {type(values).__name__}; give a function that"
        raise DataError(f"{message} makes a list", field=what)
    if len(values) > MOST_OPTIONS:
        raise DataError(f"{len(values)} options are more than there are letters", field=what)
    options = tuple(_text(value, what) for value in values)
    if "" in options:
        letter = option_letter(options.index(""))
        raise DataError(f"option {letter} is empty; correct or remove the row", field=what)
    return options


def _answer(row: Row, columns: ColumnMap, options: tuple[str, ...], name: str) -> str:
    answer = _required(row, columns.answer, "answer")
    if not options:
        return answer
    what = _named(columns.answer, "answer")
    letters = [option_letter(i) for i in range(len(options))]
    if columns.answer_is in ("index", "index_from_1"):
        first = 1 if columns.answer_is == "index_from_1" else 0
        index = _whole(answer, what) - first
        if not 0 <= index < len(options):
            last = first + len(options) - 1
            message = f"index {answer} is outside {first} to {last}; correct it or answer_is"
            raise DataError(message, field=what)
        return letters[index]
    match = None if columns.answer_is == "text" else _LETTER.fullmatch(answer)
    letter = match[1] if match else ""
    letter = letter.upper() if columns.answer_is == "letter" else letter
    by_text = [] if columns.answer_is == "letter" else _by_text(answer, options)
    meant = {letters[i] for i in by_text[:1]} | ({letter} & set(letters))
    if not meant:
        message = f"'{answer[:60]}' is none of the {len(options)} options {letters[0]} to"
        message += f" {letters[-1]}; correct the answer or the options, or say by answer_is how the"
        raise DataError(f"{message} answer is written", field=what)
    if len(meant) == 2:
        message = f"'{answer}' is the letter of one option and the text of another; say by"
        raise DataError(f"{message} answer_is which is meant", field=what)
    if len(by_text) > 1 and letter not in letters:
        same = " and ".join(letters[i] for i in by_text)
        message = f"{name}: options {same} are both '{answer[:40]}'; {min(meant)} is gold"
        warnings.warn(DataWarning(message), stacklevel=2)
    return meant.pop()


def _by_text(answer: str, options: tuple[str, ...]) -> list[int]:
    """Options with this very text, else with this text but for case and spaces."""
    exact = [i for i, option in enumerate(options) if option == answer]
    folded = " ".join(answer.casefold().split())
    return exact or [i for i, o in enumerate(options) if " ".join(o.casefold().split()) == folded]


def pictures(value: Any, root: Path | None, field: str) -> tuple[str | bytes, ...]:
    """The images of one value of a table: none, one, or a list.

    Args:
        value: None, a path, encoded bytes, a `{"bytes", "path"}` struct, a PIL image, or a list of
            these.
        root: folder that relative paths start from; None where the table lies in no folder.
        field: the column, for the message.

    Raises:
        DataError: it is nothing of that, or no image.
    """
    if isinstance(value, list | tuple):
        return tuple(image for one in value for image in pictures(one, root, field))
    if isinstance(value, dict):
        data = value.get("bytes")
        value = value.get("path") if data is None else data
    if _missing(value) or value in ("", b""):
        return ()
    if isinstance(value, str):
        if root is None and not (Path(value).is_absolute() or is_data_url(value)):
            message = f"'{value[:60]}' names a file and the source lies in no folder; download the"
            message += " images and give their folder as image_root"
            raise DataError(message, field=field)
        return (image_from_disk(value, root or Path()),)
    if isinstance(value, Image.Image):
        try:  # a decoded image no longer knows what it was
            return (as_png(value),)
        except (OSError, ValueError) as error:
            raise DataError(f"the image cannot be written as PNG: {error}", field=field) from error
    if isinstance(value, bytes):
        try:
            image_format(value)
        except DataError as error:
            raise DataError(error.message, field=field) from None
        return (value,)
    message = f"must be an image (path, bytes, struct of both, or PIL), not {type(value).__name__}"
    raise DataError(message, field=field)


def save_picture(data: bytes, folder: Path) -> str:
    """Write an image into a folder unless it is there, and give its path.

    The file is named by its content, so that an image of twenty questions is written once.
    """
    path = folder / f"{hashlib.sha256(data).hexdigest()[:32]}.{image_format(data)}"
    if not path.exists():
        with atomic_write(path) as file:
            file.write(data)
    return str(path)
