"""Questions of a table, wherever it lies: a file, a folder of the `datasets` library, or its hub.

Every reader yields plain dicts of plain values, one row after the other, so that a table larger
than memory can be read. Images of `datasets` are left encoded: to decode a hundred thousand
pictures and encode them again would take hours and change them.
"""

from __future__ import annotations

import csv
import io
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from dreamprm.data.files import (
    BadRow,
    check_new_id,
    in_row,
    load_json,
    open_for_reading,
    refuse,
)
from dreamprm.data.rows import Row, each_row
from dreamprm.data.sources.columns import ColumnMap, question_of, save_picture
from dreamprm.errors import DataError, DreamPRMError
from dreamprm.records import Question

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
FILES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")

Table = str | Path | Iterable[Row]
"""A path, a name on the hub, or rows in memory (a `datasets.Dataset`, a list of dicts)."""


def read_source(
    source: Table,
    columns: ColumnMap,
    *,
    split: str | None = None,
    subset: str | Sequence[str] | None = None,
    name: str | None = None,
    domain: str | None = None,
    limit: int | None = None,
    seed: int | None = None,
    image_folder: str | Path | None = None,
    image_root: str | Path | None = None,
    only_with_images: bool = False,
    bad_row: BadRow = refuse,
    on_read: Callable[[int], None] = lambda _: None,
) -> Iterator[Question]:
    """Yield the questions of a table.

    Args:
        source: a .jsonl, .json, .csv or .parquet file, a folder written by `datasets.save_to_disk`,
            a data set's name on the hub, or rows in memory.
        columns: where the fields of a question are.
        split: part of a data set on the hub or in a folder.
        subset: configuration on the hub, or several that are read one after the other.
        name: of the source, in messages and in the ids of questions that have none.
        domain: of all questions; `name` by default.
        limit: at most so many questions. From the hub no more is fetched than they need.
        seed: take a random `limit` of all questions instead of the first; the whole split is read.
        image_folder: images given as bytes are written here, each once, and named by path; without
            it they stay bytes.
        image_root: folder that relative image paths start from; that of a source file by default.
        only_with_images: leave out questions without an image.
        bad_row: what to do with a row that cannot be read.
        on_read: told 1 for every question read.

    Raises:
        DataError: names source, row and column; or the file is of no form that is known.
        DreamPRMError: the hub cannot be reached, or has no such data set, subset or split.

    Example:
        >>> rows = [{"q": "2 + 2?", "choices": ["3", "4"], "label": 1}]
        >>> columns = ColumnMap(text="q", options="choices", answer="label", answer_is="index")
        >>> next(read_source(rows, columns, name="sums")).answer
        'B'
    """
    if limit is not None and limit < 1:
        raise DreamPRMError(f"limit is {limit}; it must be 1 or more")
    name = name or _table_name(source)
    if image_root is None and isinstance(source, str | Path) and Path(source).is_file():
        image_root = Path(source).parent
    root = None if image_root is None else Path(image_root)
    subsets = [subset] if subset is None or isinstance(subset, str) else subset
    stream = limit is not None and seed is None

    def of_row(row: Any, id: str) -> list[Question]:
        if not isinstance(row, dict):
            raise DataError("is no object; correct or remove it")
        rows = [(id, row)]
        if columns.turns is not None:
            rows = [(f"{id}-{i}", turn) for i, turn in enumerate(columns.turns(row), start=1)]
        of = domain or name
        return [question_of(r, columns, name=id, domain=of, image_root=root) for id, r in rows]

    def questions() -> Iterator[Question]:
        seen: dict[str, int] = {}
        for one in subsets:
            label = str(source) if isinstance(source, str | Path) else name
            label += f" ({one})" if one else ""
            start = "-".join(part for part in (name, len(subsets) > 1 and one, split) if part)
            with in_row(label, None):
                for number, row in _open(source, split, one, stream, bad_row):
                    with in_row(label, number, bad_row):
                        asked = of_row(row, f"{start}-{number}")
                        for question in asked:
                            check_new_id(question.id, number, seen, label)
                        for question in asked:
                            if question.images or not only_with_images:
                                on_read(1)
                                yield question

    return store_images(choose(questions(), limit, seed), image_folder)


def choose(
    questions: Iterable[Question], limit: int | None, seed: int | None
) -> Iterator[Question]:
    """The first `limit` questions, or with a seed a random `limit` of them, in their order."""
    if limit is None:
        yield from questions
    elif seed is None:
        yield from islice(questions, limit)
    else:  # a reservoir: every question has the same chance, and only `limit` are held
        kept: list[tuple[int, Question]] = []
        rng = random.Random(seed)
        for number, question in enumerate(questions):
            if number < limit:
                kept.append((number, question))
            elif (place := rng.randint(0, number)) < limit:
                kept[place] = (number, question)
        yield from (question for _, question in sorted(kept, key=lambda pair: pair[0]))


def store_images(questions: Iterable[Question], folder: str | Path | None) -> Iterator[Question]:
    """The questions, their images that are bytes written into `folder` (as they are if None)."""
    for question in questions:
        if folder is None or not any(isinstance(image, bytes) for image in question.images):
            yield question
            continue
        images = tuple(
            save_picture(image, Path(folder)) if isinstance(image, bytes) else image
            for image in question.images
        )
        yield question.model_copy(update={"images": images})


def _table_name(source: Table) -> str:
    """What a source is called in ids and messages where the caller gives no name."""
    if isinstance(source, str | Path):
        path = Path(source)
        return path.stem if path.suffix.lower() in FILES else path.name
    return "rows"


def _open(
    source: Table, split: str | None, subset: str | None, stream: bool, bad_row: BadRow
) -> Iterator[tuple[int, Any]]:
    """(1-based row, row) of every row of a table.

    With `stream` rows are fetched from the hub one by one, for when few are wanted; else the split
    is downloaded and kept, and an interrupted download goes on.
    """
    if not isinstance(source, str | Path):
        return enumerate(_stored(source), start=1)
    path = Path(source)
    if path.is_dir():
        return enumerate(_from_folder(path, split), start=1)
    if not path.is_file() and path.suffix.lower() not in FILES and hub_like(source):
        return enumerate(_from_hub(str(source), split, subset, stream), start=1)
    if split or subset:
        raise DataError("a file has no splits or subsets; leave them out", file=path)
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            return each_row(path, bad_row)
        case ".json":
            return enumerate(_json_rows(path), start=1)
        case ".csv":
            return _csv_rows(path)
        case ".parquet":
            from dreamprm.data.arrow import parquet_rows

            return parquet_rows(path, bad_row)
    message = f"is no table that can be read; known are {', '.join(FILES)}, a folder written by"
    message += " datasets.save_to_disk, and names on the hub such as owner/name"
    raise DataError(message, file=path)


def hub_like(source: str | Path) -> bool:
    """Could it be a data set's name on the hub?"""
    return isinstance(source, str) and HUB_NAME.fullmatch(source) is not None


def _json_rows(path: Path) -> list[Any]:
    """A list of objects, or an object of objects whose keys are ids (MathVista's form)."""
    rows = load_json(path)
    if isinstance(rows, dict) and rows and all(isinstance(row, dict) for row in rows.values()):
        rows = list(rows.values())
    if not isinstance(rows, list):
        raise DataError("must hold a list of objects, or an object of objects", file=path)
    return rows


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_for_reading(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        number = 0
        try:
            for number, row in enumerate(csv.DictReader(text), start=1):
                if None in row or None in row.values():
                    message = "has more or fewer cells than there are columns; quote its commas"
                    raise DataError(message, file=path, row=number)
                yield number, row
        except (csv.Error, UnicodeDecodeError) as error:
            message = f"not CSV in UTF-8 ({error}); correct the file"
            raise DataError(message, file=path, row=number + 1) from error


def _from_folder(folder: Path, split: str | None) -> Iterable[Any]:
    import datasets  # type: ignore[import-untyped]

    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:  # what `datasets` raises here is no one class
        message = f"is no folder written by datasets.save_to_disk ({_first_line(error)}); give a"
        message += " file, or the folder that holds dataset_info.json or dataset_dict.json"
        raise DataError(message, file=folder) from error
    if not isinstance(loaded, datasets.DatasetDict):
        if split is not None:
            raise DataError("has no splits; leave split out", file=folder, field="split")
        return _stored(loaded)
    splits = list(loaded)
    if split is None and len(splits) == 1:
        split = splits[0]
    if split not in splits:
        said = "several splits" if split is None else f"no split '{split}'"
        message = f"has {said}; give one of: {', '.join(splits)}"
        raise DataError(message, file=folder, field="split")
    return _stored(loaded[split])


def _from_hub(name: str, split: str | None, subset: str | None, stream: bool) -> Iterator[Any]:
    import datasets

    try:
        loaded = datasets.load_dataset(name, subset, split=split, streaming=stream)
        if isinstance(loaded, dict):  # no split was given
            if len(loaded) != 1:
                message = f"has several splits; give one of: {', '.join(map(str, loaded))}"
                raise DataError(message, file=name, field="split")
            (loaded,) = loaded.values()
        yield from _stored(loaded)
    except DreamPRMError:
        raise
    except Exception as error:  # of `datasets`, of the hub's client, and of three network packages
        parts = [f"subset {subset}"] if subset else []
        parts += [f"split {split}"] if split else []
        where = f" ({', '.join(parts)})" if parts else ""
        message = f"{name}{where}: cannot be read from the hub: {_first_line(error)}; check the"
        message += " name and the network, or download it and give the file or folder"
        raise DreamPRMError(message) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]


def _stored(rows: Iterable[Any]) -> Iterable[Any]:
    """The rows, with the images of a `datasets.Dataset` as they are stored."""
    if not hasattr(rows, "with_format"):
        return rows
    from dreamprm.data.arrow import stored_rows

    return stored_rows(rows)
