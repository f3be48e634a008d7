"""Rows of other people's files: reading them one by one, and checking their fields.

A bad row is told to `bad_row` with file, row and field; where that returns, the row is left out.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeGuard

from dreamprm.data.files import (
    BadRow,
    open_for_reading,
    parse_json,
    refuse,
    warn_of_a_name_twice,
)
from dreamprm.errors import DataError
from dreamprm.records import Label, Question, Trajectory

Row = dict[str, Any]

RIGHT, WRONG = Label(1.0), Label(0.0)
"""Labels of a judge that says right or wrong."""

_BOM = b"\xef\xbb\xbf"
_LONGEST = 2**27  # bytes of a line
_ROUNDED = 0.005  # how far a score may be from correct / total
_HALF = re.compile(r"[\ud800-\udfff]")


def each_row(path: str | Path, bad_row: BadRow = refuse) -> Iterator[tuple[int, Row]]:
    """Yield (1-based row, object) of a JSON list or of a JSONL file, which is read line by line."""
    with open_for_reading(path) as file:
        start = file.read(64)
        begin = len(_BOM) if start.startswith(_BOM) else 0
        is_list = start[begin:].lstrip().startswith(b"[")
        whole = is_list or start[begin:].split(b"\n")[0].strip() == b"{"  # written over many lines
        if b"\0" in start or start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise DataError("is UTF-16 or no text; save it as UTF-8", file=path)
        file.seek(begin)
        told = False  # of a name that comes twice
        for number, part in enumerate([file.read()] if whole else _lines(file), start=1):
            if not part.strip():
                continue
            try:
                value, twice = _parsed(part, whole)
            except DataError as error:
                bad_row(error.at(file=path, row=None if whole else number))
                continue
            if twice is not None and not told:
                warn_of_a_name_twice(twice, path, None if whole else number)
                told = True
            halves = b"\\ud" in part.lower()  # of a surrogate pair; alone it is no character
            for place, row in enumerate(value if is_list else [value], start=number):
                if not isinstance(row, dict):
                    message = "is no object; correct or remove it"
                    bad_row(DataError(message, file=path, row=place))
                elif halves and _HALF.search(json.dumps(row, ensure_ascii=False)):
                    message = "holds half a character (\\ud800 to \\udfff); correct its text"
                    bad_row(DataError(message, file=path, row=place))
                else:
                    yield place, row


def _parsed(part: bytes, whole: bool) -> tuple[Any, str | None]:
    """The value of a line, or of a whole file, and a name that comes twice in an object of it."""
    if len(part) == _LONGEST and not whole:
        raise DataError(f"is longer than {_LONGEST >> 20} MiB; remove it or cut it in two")
    try:
        return parse_json(part)
    except ValueError as error:
        if whole:
            message = f"not JSON ({error}); the file may be cut off, so make it again"
        elif part.endswith(b"\n"):
            message = f"not JSON ({error}); correct or remove the line"
        else:
            message = f"the last line is cut off ({error}); remove it or make the file again"
        raise DataError(message) from error


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Lines with their ends; of one that is too long only the beginning."""
    while line := file.readline(_LONGEST):
        yield line
        while len(line) == _LONGEST and not line.endswith(b"\n"):
            line = file.readline(_LONGEST)


def load_json_rows(path: str | Path) -> list[Row]:
    """All objects of a JSON list, as most published sets are stored, or of a JSONL file."""
    return [row for _, row in each_row(path)]


def row_text(row: Mapping[str, Any], field: str) -> str:
    """A field as stripped text; '' when it is missing or null."""
    value = row.get(field)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"must be text, not {type(value).__name__}", field=field)
    return str(value).strip()


def required_text(row: Mapping[str, Any], field: str) -> str:
    """A field that must hold text, stripped; a number is taken for its text."""
    text = row_text(row, field)
    if not text:
        raise DataError("is missing or empty; give it a value or remove the row", field=field)
    return text


def exact_text(row: Mapping[str, Any], field: str) -> str:
    """A field that must hold text, with its spaces."""
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        told = "is missing or empty" if not value else f"must be text, not {value!r:.40}"
        raise DataError(f"{told}; give it a value or remove the row", field=field)
    return value


def optional_text(row: Mapping[str, Any], field: str) -> str:
    """A field that holds text or nothing, with its spaces."""
    value = row.get(field)
    if value is not None and not isinstance(value, str):
        raise DataError(f"must be text, not {type(value).__name__}", field=field)
    return value or ""


def text_list(row: Mapping[str, Any], field: str, name: str | None = None) -> list[str]:
    """A field that must hold a list of texts, at least one.

    Args:
        row: the row, or an object in it.
        field: the field.
        name: what the message calls the field, where it lies in an object of the row.
    """
    value = row.get(field)
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        message = "must be a list of texts, at least one; remove the row"
        raise DataError(message, field=name or field)
    return value


def true_or_false(row: Mapping[str, Any], field: str, *, required: bool = False) -> bool | None:
    """A field that holds true or false (or 1 or 0); None where it is missing and may be."""
    value = row.get(field)
    if value not in (True, False) and (required or value is not None):
        raise DataError(f"must be true or false, not {value!r:.40}", field=field)
    return None if value is None else bool(value)


def written_value(text: str) -> Any:
    """What a text writes as JSON or as Python; None where it is neither."""
    for read in (lambda text: parse_json(text)[0], ast.literal_eval):
        try:
            return read(text.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return None


def is_whole(value: object) -> TypeGuard[int]:
    """Is it a whole number? (For Python, true is one; for JSON it is not.)"""
    return isinstance(value, int) and not isinstance(value, bool)


def label_of_score(score: Any, field: str) -> Label:
    """The label that true, false or a probability stands for."""
    if not isinstance(score, bool | int | float) or not 0 <= score <= 1:
        message = f"label {score!r} must be true, false, or a number from 0 to 1; correct it"
        raise DataError(message, field=field)
    return Label(float(score))


def counted_label(
    row: Mapping[str, Any], score: str, correct: str, total: str, within: str = ""
) -> Label | None:
    """The label that a row tells by its counts, checked against its score, or by the score alone.

    Args:
        row: the row, or an object in it.
        score: field of the share of right completions.
        correct: field of their number.
        total: field of the number of all.
        within: what messages put before a field, where the row is an object in a row.

    Returns:
        None for 0 of 0 completions, of which nothing is known.
    """
    value, counts = row.get(score), [row.get(correct), row.get(total)]
    label = None if value is None else label_of_score(value, within + score)
    if counts == [None, None]:
        if label is None:
            message = f"is missing, and so are '{correct}' and '{total}'; add one"
            raise DataError(message, field=within + score)
        return label
    if counts == [0, 0]:
        return None
    try:
        counted = Label.parse(counts)
    except ValueError as error:
        message = f"label {error}; correct '{correct}' and '{total}'"
        raise DataError(message, field=within + correct) from None
    if label is not None and abs(label.value - counted.value) > _ROUNDED:
        message = f"{value} is not {counts[0]} of {counts[1]} completions; correct one of them"
        raise DataError(message, field=within + score)
    return counted


def image_references(row: Mapping[str, Any], field: str) -> list[str]:
    """The image paths of a row: a path, a list of them, or `datasets` images that name a path."""
    value = row.get(field)
    values = value if isinstance(value, list) else [] if value in (None, "") else [value]
    paths = [item.get("path") if isinstance(item, dict) else item for item in values]
    if not all(isinstance(path, str) and path.strip() and "\0" not in path for path in paths):
        raise DataError("must be a path or a list of paths", field=field)
    if any(isinstance(item, dict) and item.get("bytes") for item in values):
        raise DataError("holds bytes; name a path, or use a data URL", field=field)
    return [str(path) for path in paths]


def own_extra(record: Question | Trajectory, name: str) -> Row:
    """What the reader of a format has kept in a record under the format's name."""
    own = record.extra.get(name)
    return dict(own) if isinstance(own, dict) else {}
