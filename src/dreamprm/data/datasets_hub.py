"""Records as a Hugging Face `datasets.Dataset`, and back, to share them and to train elsewhere.

Columns are the fields of the records. Images are the `Image` feature of `datasets`, so that its
viewers show them; `extra` is JSON text, because its fields differ from row to row.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dreamprm.data.files import R, check_new_id
from dreamprm.errors import DataError
from dreamprm.records import Question, Record, StepScores, Trajectory

if TYPE_CHECKING:
    from datasets import Dataset, Features  # type: ignore[import-untyped]

_INTEGERS = range(-(2**63), 2**63)


def to_dataset(records: Iterable[R], kind: type[R]) -> Dataset:
    """Records of one class as a `Dataset`.

    Args:
        records: the records; image paths are stored as they are, so they should be absolute, or
            bytes, when the set is to be opened elsewhere.
        kind: their class (a set without rows has columns, too).

    Raises:
        DataError: a count is too large for 64 bits, or a question id comes twice.

    Example:
        >>> from dreamprm.records import StepScores
        >>> scores = [StepScores(question_id="q", sample_index=0, logits=(0.5,))]
        >>> to_dataset(scores, StepScores).column_names
        ['question_id', 'sample_index', 'logits', 'cut', 'steps_digest']
    """
    import pyarrow as pa
    from datasets import Dataset, DatasetInfo

    features = _features(kind)
    rows = []
    seen: dict[str, int] = {}
    for number, record in enumerate(records, start=1):
        if isinstance(record, Question):
            check_new_id(record.id, number, seen, _SOURCE)
        try:
            rows.append(_to_row(record))
        except DataError as error:
            raise error.at(file=_SOURCE, row=number) from None
    table = pa.Table.from_pylist(rows, schema=features.arrow_schema)
    return Dataset(table, info=DatasetInfo(features=features))


def from_dataset(dataset: Dataset, kind: type[R]) -> list[R]:
    """The records of a `Dataset` whose columns are the fields of `kind`.

    An image may be stored as bytes or as a path, or be a PIL image, which becomes PNG bytes. A
    single `Image` column `images` is one image per question.

    Args:
        dataset: the data set; one split, not a dictionary of splits.
        kind: the class of the records.

    Raises:
        DataError: a column is unknown, or a row is no valid record; names column or row and field.
    """
    columns = getattr(dataset, "column_names", None)
    if not isinstance(columns, list):
        raise DataError("must be a single split; choose one, such as data['train']", file=_SOURCE)
    for column in columns:
        if column not in kind.model_fields:
            known = ", ".join(kind.model_fields)
            message = (
                f"unknown column '{column}'; remove or rename it, a {kind.__name__} has {known}"
            )
            raise DataError(message, file=_SOURCE, field=column)
    records: list[R] = []
    seen: dict[str, int] = {}
    for number, row in enumerate(_undecoded(dataset), start=1):
        try:
            record = kind.parse(_from_row(row, kind))
        except DataError as error:
            raise error.at(file=_SOURCE, row=number) from error
        if isinstance(record, Question):
            check_new_id(record.id, number, seen, _SOURCE)
        records.append(record)
    return records


_SOURCE = "dataset"  # stands for the file in messages


def _features(kind: type[Record]) -> Features:
    from datasets import Features, Image, List, Value

    text = Value("string")
    extra = {"extra": text}
    if kind is Question:
        first = {"id": text, "domain": text, "text": text, "images": List(Image())}
        more = {"options": List(text), "answer": text, "subject": text}
        return Features(first | more | extra)
    if kind is Trajectory:
        whole = Value("int64")
        label = {"value": Value("float64"), "correct": whole, "total": whole}
        first = {"question_id": text, "steps": List(text), "answer": text, "outcome": Value("bool")}
        more = {"labels": List(label), "domain": text, "policy": text, "sample_index": whole}
        return Features(first | more | extra)
    if kind is StepScores:
        whole = Value("int64")
        logits = List(Value("float64"))
        return Features(
            {
                "question_id": text,
                "sample_index": whole,
                "logits": logits,
                "cut": whole,
                "steps_digest": text,
            }
        )
    raise DataError(f"has no form for {kind.__name__}; give Question, Trajectory or StepScores")


def _to_row(record: Record) -> dict[str, Any]:
    row = record.model_dump()
    if "extra" in row:
        row["extra"] = json.dumps(row["extra"], ensure_ascii=False) if row["extra"] else None
    if isinstance(record, Question):
        row["images"] = [
            {"bytes": image, "path": None}
            if isinstance(image, bytes)
            else {"bytes": None, "path": image}
            for image in record.images
        ]
    if isinstance(record, Trajectory):
        numbers = [record.sample_index]
        if record.labels is not None:
            row["labels"] = [label and asdict(label) for label in record.labels]
            numbers += [label.total for label in record.labels if label and label.total]
        if not all(number in _INTEGERS for number in numbers):
            field = "labels" if record.sample_index in _INTEGERS else "sample_index"
            raise DataError("is too large for 64 bits; correct it", field=field)
    return row


def _undecoded(dataset: Dataset) -> Iterable[dict[str, Any]]:
    """The rows, with stored images as they are: decoding them to encode them again loses detail."""
    from datasets import Image, List

    if "images" in dataset.column_names:
        feature = dataset.features["images"]
        if isinstance(feature, Image):
            dataset = dataset.cast_column("images", Image(decode=False))
        elif isinstance(feature, List) and isinstance(feature.feature, Image):
            dataset = dataset.cast_column("images", List(Image(decode=False)))
    rows: Iterable[dict[str, Any]] = dataset.with_format(None)
    return rows


def _from_row(row: dict[str, Any], kind: type[Record]) -> dict[str, Any]:
    row = dict(row)
    if kind is Question:
        images = row.get("images")
        several = images if isinstance(images, list) else [] if images is None else [images]
        row["images"] = [_image(image) for image in several]
        if row.get("options", ()) is None:
            row["options"] = ()
    if "extra" in kind.model_fields and not isinstance(extra := row.get("extra"), dict):
        try:
            row["extra"] = json.loads(extra) if extra else {}
        except (ValueError, TypeError) as error:
            message = f"not JSON ({error}); correct it or leave it empty"
            raise DataError(message, field="extra") from None
    return row


def _image(image: Any) -> Any:
    """A stored image as a record holds it: bytes, else the path."""
    from PIL.Image import Image

    if isinstance(image, Image):
        buffer = io.BytesIO()
        try:
            image.save(buffer, "PNG")
        except OSError as error:
            message = f"a PIL image cannot become PNG ({error}); convert it to RGB"
            raise DataError(message, field="images") from None
        return buffer.getvalue()
    if isinstance(image, dict):
        data = image.get("bytes")
        return image.get("path") if data is None else data
    return image
