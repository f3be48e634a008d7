"""Parquet files: every column in every type of Arrow, and files whose bytes are damaged."""

from __future__ import annotations

import datetime
import io
import random
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dreamprm.data.arrow import SCHEMAS
from dreamprm.records import Question, StepScores, Trajectory
from tests.attack import Case
from tests.attack._project import Project

TRIED = "Parquet files: columns of another type, damaged bytes, metadata that lies"
COUNT = 2000

KINDS = {"questions": Question, "trajectories": Trajectory, "scores": StepScores}


def cases(folder: Path, count: int, rng: random.Random) -> Iterator[Case]:
    project = Project(folder)
    for number, (name, holds, data) in zip(range(count), _files(project, rng), strict=False):
        path = folder / f"{number}.parquet"
        path.write_bytes(data)
        yield Case(f"{number}: {holds}, {name}", project.words(holds, path, number))


def _files(project: Project, rng: random.Random) -> Iterator[tuple[str, str, bytes]]:
    """(what was done, what the file holds, its bytes), without end; the types come first."""
    typed = [
        (f"{field} is {name}", holds, (holds, field, values))
        for holds, kind in KINDS.items()
        for field in kind.model_fields
        for name, values in _odd_columns(len(project.records(holds)))
    ]
    rng.shuffle(typed)
    tables = {holds: pq.read_table(project.path(holds, ".parquet")) for holds in KINDS}
    for done, holds, (_, field, values) in typed:
        table = tables[holds]
        changed = table.set_column(table.column_names.index(field), field, values)
        if data := _written(changed):
            yield done, holds, data
    for holds, table in tables.items():
        for done, data in _odd_files(table):
            yield done, holds, data
    while True:
        holds = rng.choice([*KINDS])
        yield "bytes", holds, _damaged(_written(tables[holds], rng), rng)


def _written(table: pa.Table, rng: random.Random | None = None) -> bytes:
    """The table as a file, of any encoding; empty where Parquet has no such type."""
    options: dict[str, Any] = {}
    if rng is not None:
        options["compression"] = rng.choice(["none", "snappy", "zstd", "gzip", "brotli"])
        options["data_page_version"] = rng.choice(["1.0", "2.0"])
        options["use_dictionary"] = rng.random() < 0.5
        options["write_page_checksum"] = rng.random() < 0.2
    buffer = io.BytesIO()
    try:
        pq.write_table(table, buffer, **options)
    except (pa.ArrowException, NotImplementedError):
        return b""
    return buffer.getvalue()


def _odd_columns(rows: int) -> Iterator[tuple[str, pa.Array]]:
    """A column of each type that a reader may not expect."""
    text, number = ["a", "b"], [1, 2]
    picture = {"bytes": b"x", "path": "y"}
    deep: Any = "leaf"
    for _ in range(300):
        deep = [deep]
    values: list[tuple[str, Any, pa.DataType]] = [
        ("null", None, pa.null()),
        ("bool", True, pa.bool_()),
        ("int8", 1, pa.int8()),
        ("uint64", 2**64 - 1, pa.uint64()),
        ("half", 0.5, pa.float16()),
        ("nan", float("nan"), pa.float64()),
        ("infinity", float("inf"), pa.float32()),
        ("decimal", Decimal("1.5"), pa.decimal128(38, 10)),
        ("decimal256", Decimal("1.5"), pa.decimal256(76, 10)),
        ("date", datetime.date(2020, 1, 1), pa.date32()),
        ("milliseconds", datetime.date(2020, 1, 1), pa.date64()),
        ("timestamp", datetime.datetime(2020, 1, 1), pa.timestamp("ns")),
        ("zoned timestamp", datetime.datetime(2020, 1, 1), pa.timestamp("us", "Europe/Paris")),
        ("timestamp of no zone", 1, pa.timestamp("us", "Nowhere/City")),
        ("time", datetime.time(1), pa.time32("s")),
        ("nanoseconds", 1, pa.time64("ns")),
        ("duration", datetime.timedelta(1), pa.duration("us")),
        ("duration in ns", 1, pa.duration("ns")),
        ("binary", b"\xff\xfe", pa.binary()),
        ("large binary", b"x", pa.large_binary()),
        ("fixed binary", b"abc", pa.binary(3)),
        ("large text", "a", pa.large_string()),
        ("text view", "a", pa.string_view()),
        ("binary view", b"a", pa.binary_view()),
        ("list of text", text, pa.list_(pa.string())),
        ("large list", text, pa.large_list(pa.string())),
        ("fixed list", text, pa.list_(pa.string(), 2)),
        ("list view", text, pa.list_view(pa.string())),
        ("large list view", text, pa.large_list_view(pa.string())),
        ("empty list", [], pa.list_(pa.null())),
        ("list of null", [None], pa.list_(pa.string())),
        ("list of numbers", number, pa.list_(pa.int64())),
        ("list of floats", [float("nan"), 1e308], pa.list_(pa.float64())),
        ("list of dates", [datetime.date(2020, 1, 1)], pa.list_(pa.date32())),
        ("list of decimals", [Decimal("0.5")] * 2, pa.list_(pa.decimal128(3, 1))),
        ("map", [("a", "b"), ("a", "c")], pa.map_(pa.string(), pa.string())),
        ("map of numbers", [(1, None)], pa.map_(pa.int32(), pa.int32())),
        ("list of maps", [[("bytes", b"x")]], pa.list_(pa.map_(pa.string(), pa.binary()))),
        ("struct", {"x": 1}, pa.struct([("x", pa.int64())])),
        ("picture", picture, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("picture of bytes", {"bytes": b"x"}, pa.struct([("bytes", pa.binary())])),
        ("picture of a path", {"path": "y"}, pa.struct([("path", pa.string())])),
        ("picture of paths", {"path": text}, pa.struct([("path", pa.list_(pa.string()))])),
        ("pictures", [picture], pa.list_(pa.struct([("bytes", pa.binary())]))),
        ("pictures of numbers", [{"bytes": 1}], pa.list_(pa.struct([("bytes", pa.int8())]))),
        ("pictures of text", [{"bytes": "x"}], pa.list_(pa.struct([("bytes", pa.string())]))),
        ("labels of a value", [{"value": 1.0}] * 2, pa.list_(pa.struct([("value", pa.float64())]))),
        ("labels of counts", [{"correct": 1}] * 2, pa.list_(pa.struct([("correct", pa.int64())]))),
        ("labels of dates", [{"value": 1}] * 2, pa.list_(pa.struct([("value", pa.date32())]))),
        ("labels of text", [{"value": "1"}] * 2, pa.list_(pa.struct([("value", pa.string())]))),
        ("nested", [[["a"]]], pa.list_(pa.list_(pa.list_(pa.string())))),
        ("JSON of depth", "[" * 100_000, pa.string()),
        ("JSON of a large number", '{"a": 1' + "0" * 5000 + "}", pa.string()),
        ("JSON of infinity", '{"a": 1e400, "b": NaN}', pa.string()),
        ("JSON twice", '{"a": 1, "a": 2}', pa.string()),
        ("JSON list", "[1]", pa.string()),
        ("half a character in JSON", '{"a": "\\ud800"}', pa.string()),
        ("NUL", "a\0b", pa.string()),
        ("megabytes", "x" * 5_000_000, pa.string()),
    ]
    for name, value, kind in values:
        yield name, pa.array([value] * rows, kind)
    kind = pa.string()
    for _ in range(300):
        kind = pa.list_(kind)
    yield "depth", pa.array([deep] * rows, kind)
    yield "words of a dictionary", pa.array(["a"] * rows).dictionary_encode()
    yield "numbers of a dictionary", pa.array([1] * rows).dictionary_encode()
    ends = pa.array([2**31 - 1] * rows, pa.int32())
    yield "a date beyond all calendars", ends.cast(pa.date32())
    yield "an instant beyond all calendars", pa.array([2**62] * rows).cast(pa.timestamp("us"))
    offsets = pa.array(range(0, 2 * rows + 1, 2), pa.int32()).buffers()[1]
    bad = pa.Array.from_buffers(
        pa.string(), rows, [None, offsets, pa.py_buffer(b"\xff\xfe" * rows)]
    )
    yield "no UTF-8", bad
    yield "list of no UTF-8", pa.ListArray.from_arrays(list(range(rows + 1)), bad)
    twice = pa.StructArray.from_arrays([pa.array(["a"] * rows)] * 2, names=["path", "path"])
    yield "a struct with a name twice", twice
    yield "a list of such", pa.ListArray.from_arrays(list(range(rows + 1)), twice)
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(
        __import__("numpy").zeros((rows, 2, 2), "float32")
    )
    yield "tensors", tensors
    yield "uuid", pa.array([b"0" * 16] * rows, pa.uuid())


def _odd_files(table: pa.Table) -> Iterator[tuple[str, bytes]]:
    """Files that are odd as a whole."""
    names = table.column_names
    whole = _written(table)
    yield "nothing", b""
    yield "no Parquet", b"PAR1"
    yield "its ends alone", b"PAR1PAR1"
    yield "encrypted", whole[:-4] + b"PARE"
    yield "JSON", b'{"id": "q"}\n'
    yield "a footer beyond the file", whole[:-8] + b"\xff\xff\xff\x7fPAR1"
    yield "a footer of a negative length", whole[:-8] + b"\xff\xff\xff\xffPAR1"
    yield "no columns", _written(table.select([]))
    yield "no rows", _written(table.slice(0, 0))
    yield "a column twice", _written(table.append_column(names[0], table[0]))
    yield "a column of no name", _written(table.append_column("", table[0]))
    yield "a column of a long name", _written(table.append_column("n" * 1_000_000, table[0]))
    yield "no UTF-8 in metadata", _written(table.replace_schema_metadata({b"\xff": b"\xfe"}))
    yield "metadata of megabytes", _written(table.replace_schema_metadata({"a": "x" * 50_000_000}))
    yield "metadata of pandas", _written(table.replace_schema_metadata({"pandas": "{"}))
    yield "metadata of datasets", _written(table.replace_schema_metadata({"huggingface": "["}))
    wide = {f"c{i}": pa.array([0] * len(table)) for i in range(5000)}
    yield "5,000 columns", _written(pa.table(wide))
    many = pa.table({name: pa.array([None] * 20_000) for name in names})
    yield "empty rows", _written(many)
    for name in names:
        yield f"without {name}", _written(table.drop_columns([name]))
        yield f"{name} alone", _written(table.select([name]))
    schema = next(iter(SCHEMAS.values()))
    yield "of the first kind's schema", _written(schema.empty_table())


def _damaged(data: bytes, rng: random.Random) -> bytes:
    """Bytes changed, left out, repeated, or all that is behind one cut off."""
    changed = bytearray(data)
    footer = int.from_bytes(data[-8:-4], "little") + 8
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        at = rng.randrange(4, len(changed))
        if rng.random() < 0.6:  # what describes the rest
            at = max(4, len(changed) - rng.randint(1, footer))
        how = rng.random()
        if how < 0.6:
            changed[at] ^= 1 << rng.randrange(8)
        elif how < 0.75:
            changed[at] = rng.choice([0, 0x7F, 0x80, 0xFF])
        elif how < 0.85:
            changed[at:at] = changed[at : at + rng.randint(1, 40)]
        elif how < 0.95:
            del changed[at : at + rng.randint(1, 40)]
        else:
            del changed[at:]
            changed += data[-8:] * (rng.random() < 0.5)
        if len(changed) < 12:
            break
    return bytes(changed)
