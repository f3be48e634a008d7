"""Records as Arrow tables: Parquet, for sets too large for JSON lines, and `datasets.Dataset`.

Columns are the fields of the records. Images are structs of `bytes` and `path`, the `Image` feature
of `datasets`, so that its viewers show them; `extra` is JSON text, because its fields differ from
row to row.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from dreamprm.data.files import (
    BadRow,
    R,
    atomic_write,
    image_to_disk,
    in_row,
    open_for_reading,
    parse_json,
    refuse,
    unique,
)
from dreamprm.errors import DataError, DataWarning
from dreamprm.records import Question, Record, StepScores, Trajectory

if TYPE_CHECKING:
    from datasets import Dataset  # type: ignore[import-untyped]

_DATASET = "dataset"  # stands for the file in messages
_ROWS_AT_ONCE = 1000
_BYTES_AT_ONCE = 2**25
_LARGE_GROUP = 2**27
_INTEGERS = range(-(2**63), 2**63)

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_LABEL = pa.struct([("value", pa.float64()), ("correct", pa.int64()), ("total", pa.int64())])
_TYPES = {  # of the fields that are no text
    "images": pa.list_(_IMAGE),
    "options": pa.list_(pa.string()),
    "steps": pa.list_(pa.string()),
    "outcome": pa.bool_(),
    "labels": pa.list_(_LABEL),
    "sample_index": pa.int64(),
    "logits": pa.list_(pa.float64()),
    "cut": pa.int64(),
}
SCHEMAS: dict[type[Record], pa.Schema] = {
    kind: pa.schema([(name, _TYPES.get(name, pa.string())) for name in kind.model_fields])
    for kind in (Question, Trajectory, StepScores)
}


def each_row(
    path: Path, bad_row: BadRow, *, large_pictures: bool = True
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (1-based row, fields of a record) of a Parquet file.

    Args:
        large_pictures: read them too where a row group holds more of them than `_LARGE_GROUP`;
            otherwise some bytes stand for each, and that is told.
    """
    for number, values in parquet_rows(path, bad_row, large_pictures=large_pictures):
        with in_row(path, number, bad_row):
            yield number, _from_arrow(values)


def parquet_rows(
    path: Path, bad_row: BadRow = refuse, *, large_pictures: bool = True
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (1-based row, values by column) of a Parquet file.

    A row group is read in pieces of some `_BYTES_AT_ONCE`, but no less than a page of it, and
    pyarrow writes up to 1,024 pictures into a page.

    Raises:
        DataError: it is no such file, or it is damaged.
    """
    number = 0
    for batch in _batches(path, large_pictures):
        for i in range(batch.num_rows):
            number += 1
            with in_row(path, number, bad_row):
                yield number, _values(batch, i)


def _batches(path: Path, large_pictures: bool) -> Iterator[pa.RecordBatch]:
    with open_for_reading(path), pa.OSFile(str(path)) as file:
        try:
            # What is not read ahead, and through a buffer, is not held as a whole.
            parquet = pq.ParquetFile(
                file, pre_buffer=False, buffer_size=2**20, page_checksum_verification=True
            )
            names = parquet.schema_arrow.names
            name, times = Counter(names).most_common(1)[0] if names else ("", 0)
            if times > 1:
                raise DataError("there are two such columns; rename one", file=path, field=name)
            for group in range(parquet.num_row_groups):
                facts = parquet.metadata.row_group(group)
                columns = None if large_pictures else _without_large_pictures(facts, path)
                each = facts.total_byte_size // max(1, facts.num_rows)
                rows = min(_ROWS_AT_ONCE, max(1, _BYTES_AT_ONCE // max(1, each)))
                yield from parquet.iter_batches(rows, [group], columns, use_threads=False)
        except DataError:
            raise
        except Exception as error:  # what pyarrow raises about damage is of no one class
            message = f"not Parquet, or cut off ({error}); make the file again"
            raise DataError(message, file=path) from error


def _without_large_pictures(facts: Any, path: Path) -> list[str] | None:
    """The other columns of a row group; None where its pictures are not large."""
    parts = [facts.column(i) for i in range(facts.num_columns)]
    sizes = {part.path_in_schema: part.total_uncompressed_size for part in parts}
    pictures = [  # whose paths tell how many there are
        name
        for name in sizes
        if name.startswith("images.") and f"{name.removesuffix('.bytes')}.path" in sizes
    ]
    size = sum(sizes[name] for name in pictures)
    if size < _LARGE_GROUP:
        return None
    message = f"{path}: a row group holds {size >> 20} MiB of pictures, and is read as a whole, so"
    message += " they are left out; `--images true` reads them, and `dreamprm convert` writes small"
    warnings.warn(f"{message} row groups", DataWarning, stacklevel=2)
    return [name for name in sizes if name not in pictures]


def _values(batch: pa.RecordBatch, row: int) -> dict[str, Any]:
    values = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            values[name] = column[row].as_py()
        except Exception as error:  # text that is no UTF-8, a date of no calendar: of no one class
            message = f"holds a {column.type} that cannot be read ({error}); correct or remove it"
            raise DataError(message, field=name) from error
    return values


def parquet_columns(path: Path) -> list[str]:
    """The columns of a Parquet file; none where it is no such file."""
    with open_for_reading(path) as file:
        try:
            return list(pq.read_schema(file).names)
        except Exception:  # as above; reading says what is wrong
            return []


def write_parquet(path: Path, records: Iterable[R], kind: type[R]) -> None:
    """Write records of one class in small row groups, replacing the file in one step."""
    rows = _to_arrow(records, path, path.parent)
    schema = SCHEMAS[kind]
    with (
        atomic_write(path) as file,
        pq.ParquetWriter(file, schema, write_page_checksum=True) as writer,
    ):
        for batch in _small_batches(rows, schema):
            writer.write_batch(batch)


def _small_batches(rows: Iterator[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Batches of at most `_ROWS_AT_ONCE` rows and not much more than `_BYTES_AT_ONCE`."""
    batch: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(len(image["bytes"] or b"") for image in row.get("images", ()))
        if len(batch) == _ROWS_AT_ONCE or size > _BYTES_AT_ONCE:
            yield pa.RecordBatch.from_pylist(batch, schema=schema)
            batch, size = [], 0
    if batch:
        yield pa.RecordBatch.from_pylist(batch, schema=schema)


def to_dataset(records: Iterable[R], kind: type[R]) -> Dataset:
    """Records of one class as a `Dataset`.

    Args:
        records: the records; image paths are stored as they are, so they should be absolute, or
            bytes, when the set is to be opened elsewhere.
        kind: their class (a set without rows has columns, too).

    Raises:
        DataError: a count is too large for 64 bits, or a question id comes twice.

    Example:
        >>> scores = [StepScores(question_id="q", sample_index=0, logits=(0.5,))]
        >>> to_dataset(scores, StepScores).column_names
        ['question_id', 'sample_index', 'logits', 'cut', 'steps_digest']
    """
    from datasets import Dataset, DatasetInfo, Features, Image, List

    features = Features.from_arrow_schema(SCHEMAS[kind])
    if kind is Question:
        features["images"] = List(Image())
    rows = list(_to_arrow(records, _DATASET, None))
    table = pa.Table.from_pylist(rows, schema=features.arrow_schema)
    return Dataset(table, info=DatasetInfo(features=features))


def from_dataset(dataset: Dataset, kind: type[R]) -> list[R]:
    """The records of a `Dataset` whose columns are the fields of `kind`.

    An image may be stored as bytes or as a path. A single `Image` column `images` is one image per
    question.

    Args:
        dataset: the data set; one split, not a dictionary of splits.
        kind: the class of the records.

    Raises:
        DataError: a column is unknown, or a row is no valid record; names column or row and field.
    """
    columns = getattr(dataset, "column_names", None)
    if not isinstance(columns, list):
        raise DataError("must be a single split; choose one, such as data['train']", file=_DATASET)
    for column in columns:
        if column not in kind.model_fields:
            known = ", ".join(kind.model_fields)
            message = f"unknown column '{column}'; remove or rename it"
            raise DataError(
                f"{message}, a {kind.__name__} has {known}", file=_DATASET, field=column
            )

    def records() -> Iterator[R]:
        for number, row in enumerate(stored_rows(dataset), start=1):
            with in_row(_DATASET, number):
                yield kind.parse(_from_arrow(row))

    return list(unique(records(), _DATASET))


def stored_rows(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """The rows of a data set, with images as they are stored.

    Batches of Arrow hold them so: to decode images and encode them again takes hours and changes
    them. `cast_column` to `Image(decode=False)` would do, too, but writes a copy of the whole table
    where a column holds lists of images.
    """
    for batch in dataset.with_format("arrow").iter(batch_size=100):
        yield from batch.to_pylist()


def _to_arrow(
    records: Iterable[Record], path: str | Path, folder: Path | None
) -> Iterator[dict[str, Any]]:
    """Values of the columns; image paths as a file in `folder` should say them."""
    for number, record in enumerate(unique(records, path), start=1):
        values = record.model_dump()
        if "extra" in values:
            extra = values["extra"]
            values["extra"] = json.dumps(extra, ensure_ascii=False) if extra else None
        if isinstance(record, Question):
            values["images"] = [
                {"bytes": image, "path": None}
                if isinstance(image, bytes)
                else {"bytes": None, "path": image_to_disk(image, folder) if folder else image}
                for image in record.images
            ]
        if isinstance(record, Trajectory):
            labels = record.labels or ()
            counts = {"labels": [label.total for label in labels if label and label.total]}
            for field, numbers in (counts | {"sample_index": [record.sample_index]}).items():
                if not all(number in _INTEGERS for number in numbers):
                    message = "is too large for 64 bits; correct it"
                    raise DataError(message, file=path, row=number, field=field)
            if record.labels is not None:
                values["labels"] = [label and asdict(label) for label in labels]
        yield values


def _from_arrow(values: dict[str, Any]) -> dict[str, Any]:
    """The fields of a record from the values of a row."""
    for field, content in values.items():
        if field in ("images", "options") and content is None:
            values[field] = ()
        elif field == "images":
            several = content if isinstance(content, list) else [content]
            values[field] = [_image(image) for image in several]
        elif field == "extra" and not isinstance(content, dict):
            try:
                values[field] = parse_json(content)[0] if content else {}
                json.dumps(values[field], ensure_ascii=False).encode()  # no half characters
            except (ValueError, TypeError) as error:
                message = f"not JSON ({error}); correct it or leave it empty"
                raise DataError(message, field="extra") from None
    return values


def _image(image: Any) -> Any:
    """A stored image as a record holds it: bytes, else the path."""
    if not isinstance(image, dict):
        return image
    data, path = image.get("bytes"), image.get("path")
    if "bytes" not in image and path is None:  # it was left out
        return uuid4().bytes
    return path if data is None else data
