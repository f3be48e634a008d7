"""Records as Parquet, for sets too large for JSON lines.

Images are structs of `bytes` and `path`, as the `datasets` library stores them, so
`cast_column("images", List(Image()))` shows them there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dreamprm.data.files import R, atomic_write, image_to_disk, open_for_reading
from dreamprm.errors import DataError
from dreamprm.records import Question, Record, StepScores, Trajectory

_ROWS_AT_ONCE = 1000

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_LABEL = pa.struct([("value", pa.float64()), ("correct", pa.int64()), ("total", pa.int64())])

SCHEMAS: dict[type[Record], pa.Schema] = {
    Question: pa.schema(
        [
            ("id", pa.string()),
            ("domain", pa.string()),
            ("text", pa.string()),
            ("images", pa.list_(_IMAGE)),
            ("options", pa.list_(pa.string())),
            ("answer", pa.string()),
            ("subject", pa.string()),
            ("extra", pa.string()),  # JSON
        ]
    ),
    Trajectory: pa.schema(
        [
            ("question_id", pa.string()),
            ("steps", pa.list_(pa.string())),
            ("answer", pa.string()),
            ("outcome", pa.bool_()),
            ("labels", pa.list_(_LABEL)),
            ("domain", pa.string()),
            ("policy", pa.string()),
            ("sample_index", pa.int64()),
            ("extra", pa.string()),  # JSON
        ]
    ),
    StepScores: pa.schema(
        [
            ("question_id", pa.string()),
            ("sample_index", pa.int64()),
            ("logits", pa.list_(pa.float64())),
            ("cut", pa.int64()),
            ("steps_digest", pa.string()),
        ]
    ),
}


def iterate_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (1-based row, its values) of a Parquet file.

    Raises:
        DataError: no Parquet file.
    """
    row = 0
    with open_for_reading(path) as file:
        try:
            for batch in pq.ParquetFile(file).iter_batches(_ROWS_AT_ONCE):
                for values in batch.to_pylist():
                    row += 1
                    yield row, values
        except (pa.ArrowInvalid, OSError) as error:
            message = f"not Parquet, or cut off ({error}); make the file again"
            raise DataError(message, file=path) from error


def write_parquet(path: Path, records: Iterable[R], kind: type[R]) -> None:
    """Write records of one class, 1,000 rows at a time, replacing the file in one step."""
    source = iter(records)
    schema = SCHEMAS[kind]
    with atomic_write(path) as file, pq.ParquetWriter(file, schema) as writer:
        while batch := list(islice(source, _ROWS_AT_ONCE)):
            values = [_to_arrow(record, path.parent) for record in batch]
            writer.write_table(pa.Table.from_pylist(values, schema=schema))


def _to_arrow(record: Record, folder: Path) -> dict[str, Any]:
    values = record.model_dump()
    if "extra" in values:
        extra = values["extra"]
        values["extra"] = json.dumps(extra, ensure_ascii=False) if extra else None
    if isinstance(record, Question):
        values["images"] = [
            {"bytes": image, "path": None}
            if isinstance(image, bytes)
            else {"bytes": None, "path": image_to_disk(image, folder)}
            for image in record.images
        ]
    if isinstance(record, Trajectory) and record.labels is not None:
        values["labels"] = [label and asdict(label) for label in record.labels]
    return values


def from_arrow(values: dict[str, Any]) -> dict[str, Any]:
    """The fields of a record from the values of a row."""
    for field, content in values.items():
        if field in ("images", "options") and content is None:
            values[field] = ()
        elif field == "extra":
            values[field] = _extra(content)
        elif field == "images":
            values[field] = [_image(image) for image in content]
    return values


def _extra(content: Any) -> Any:
    if not isinstance(content, str):
        return content or {}
    try:
        return json.loads(content)
    except ValueError as error:
        message = f"not JSON ({error}); correct it or leave it empty"
        raise DataError(message, field="extra") from None


def _image(image: Any) -> Any:
    if not isinstance(image, dict):
        return image
    return image["path"] if image["bytes"] is None else image["bytes"]
