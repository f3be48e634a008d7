"""Rows of a table, wherever it lies: a file, a folder of the `datasets` library, or its hub.

Every reader yields plain dicts of plain values, one row after the other, so that a table larger
than memory can be read. Images of `datasets` are left encoded: to decode a hundred thousand
pictures and encode them again would take hours and change them.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dreamprm.data.files import open_for_reading
from dreamprm.data.jsonl import iterate_rows
from dreamprm.data.sources.columns import Row
from dreamprm.errors import DataError, DreamPRMError

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
FILES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")

Table = str | Path | Iterable[Row]
"""A path, a name on the hub, or rows in memory (a `datasets.Dataset`, a list of dicts)."""


def table_name(source: Table) -> str:
    """What a source is called in ids and messages where the caller gives no name."""
    if isinstance(source, str | Path):
        path = Path(source)
        return path.stem if path.suffix.lower() in FILES else path.name
    return "rows"


def open_table(
    source: Table, *, split: str | None, subset: str | None, stream: bool
) -> Iterator[tuple[int, Any]]:
    """(1-based row, row) of every row of a table.

    Args:
        source: see `Table`.
        split: part of a data set on the hub or in a folder; needed where there are several.
        subset: configuration of a data set on the hub.
        stream: fetch rows from the hub one by one, for when few are wanted; else the split is
            downloaded and kept, and an interrupted download goes on.

    Raises:
        DataError: the file cannot be read, or is of a form that is not known.
        DreamPRMError: the hub cannot be reached, or has no such data set, subset or split.
    """
    if not isinstance(source, str | Path):
        return enumerate(_undecoded(source), start=1)
    path = Path(source)
    if path.is_dir():
        return enumerate(_from_folder(path, split), start=1)
    if path.is_file() or path.suffix.lower() in FILES or not hub_like(source):
        if split or subset:
            raise DataError("a file has no splits or subsets; leave them out", file=path)
        return _from_file(path)
    return enumerate(_from_hub(str(source), split, subset, stream), start=1)


def hub_like(source: str | Path) -> bool:
    """Could it be a data set's name on the hub?"""
    return isinstance(source, str) and HUB_NAME.fullmatch(source) is not None


def _from_file(path: Path) -> Iterator[tuple[int, Any]]:
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        return iterate_rows(path)
    if suffix == ".json":
        return enumerate(_json_rows(path), start=1)
    if suffix == ".csv":
        return _csv_rows(path)
    if suffix == ".parquet":
        return enumerate(_parquet_rows(path), start=1)
    raise DataError(
        f"is no table that can be read; known are {', '.join(FILES)}, a folder written by "
        "datasets.save_to_disk, and names on the hub such as owner/name",
        file=path,
    )


def _json_rows(path: Path) -> list[Any]:
    """A list of objects, or an object of objects whose keys are ids (MathVista's form)."""
    with open_for_reading(path) as file:
        content = file.read()
    try:
        rows = json.loads(content)
    except (ValueError, RecursionError) as error:
        message = f"not JSON ({error}); the file may be cut off, so fetch or make it again"
        raise DataError(message, file=path) from error
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


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_for_reading(path) as file:
        try:
            for batch in pq.ParquetFile(file).iter_batches(100):  # rows with images are large
                yield from batch.to_pylist()
        except (pa.ArrowException, OSError, ValueError) as error:
            message = f"not Parquet, or cut off ({error}); make the file again"
            raise DataError(message, file=path) from error


def _from_folder(folder: Path, split: str | None) -> Iterable[Any]:
    import datasets  # type: ignore[import-untyped]

    try:
        found = datasets.load_from_disk(str(folder))
    except Exception as error:  # what `datasets` raises here is no one class
        raise DataError(
            f"is no folder written by datasets.save_to_disk ({_first_line(error)}); give a file, "
            "or the folder that holds dataset_info.json or dataset_dict.json",
            file=folder,
        ) from error
    if not isinstance(found, datasets.DatasetDict):
        if split is not None:
            raise DataError("has no splits; leave split out", file=folder, field="split")
        return _undecoded(found)
    splits = list(found)
    if split is None and len(splits) == 1:
        split = splits[0]
    if split not in splits:
        said = "several splits" if split is None else f"no split '{split}'"
        message = f"has {said}; give one of: {', '.join(splits)}"
        raise DataError(message, file=folder, field="split")
    return _undecoded(found[split])


def _from_hub(name: str, split: str | None, subset: str | None, stream: bool) -> Iterator[Any]:
    import datasets

    try:
        found = datasets.load_dataset(name, subset, split=split, streaming=stream)
        if isinstance(found, dict):  # no split was given
            if len(found) != 1:
                message = f"has several splits; give one of: {', '.join(map(str, found))}"
                raise DataError(message, file=name, field="split")
            (found,) = found.values()
        rows = iter(_undecoded(found))
    except DreamPRMError:
        raise
    except Exception as error:  # of `datasets`, of the hub's client, and of three network packages
        raise _no_hub(name, subset, split, error) from error
    while True:
        try:
            row = next(rows, None)
        except Exception as error:  # the network may also fail in the midst
            raise _no_hub(name, subset, split, error) from error
        if row is None:
            return
        yield row


def _no_hub(name: str, subset: str | None, split: str | None, error: Exception) -> DreamPRMError:
    parts = [f"subset {subset}"] if subset else []
    parts += [f"split {split}"] if split else []
    where = f" ({', '.join(parts)})" if parts else ""
    return DreamPRMError(
        f"{name}{where}: cannot be read from the hub: {_first_line(error)}; check the name and the "
        "network, or download it and give the file or folder"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]


def _undecoded(rows: Iterable[Any]) -> Iterable[Any]:
    """The rows, with the images of a `datasets.Dataset` as they are stored.

    Batches of Arrow hold them so. `cast_column` to `Image(decode=False)` would do, too, but writes
    a copy of the whole table where a column holds lists of images.
    """
    if not hasattr(rows, "with_format"):
        return rows
    batches = rows.with_format("arrow").iter(batch_size=100)
    return (row for batch in batches for row in batch.to_pylist())
