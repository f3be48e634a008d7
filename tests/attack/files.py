"""JSON, JSON lines and tables of every format: bytes, fields, types, numbers, nesting changed."""

from __future__ import annotations

import json
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dreamprm.data import known
from dreamprm.data.format import Format
from tests.attack import Case
from tests.attack._project import Project
from tests.format_rows import LISTS, mutated, sample_rows

TRIED = "JSON, JSONL and CSV files of every format: changed rows and bytes, numbers, depth, pipes"
COUNT = 2500

OURS = ("questions", "trajectories", "scores")
HUGE = "1" + "0" * 400
VALUES = [  # as they stand in a file
    *("1e400", "-1e400", "NaN", "Infinity", HUGE, HUGE * 20, "1e-400", "1E+0999"),
    *("-0", "01", "1.", "+1"),
    *('"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"\x01"', '"\\x"', "'a'", "True", ""),
    *("[" * 90 + "]" * 90, "[" * 900 + "]" * 900, "[" * 100_000, '{"a":' * 900 + "1" + "}" * 900),
    *('{"a": 1, "a": 2}', "[[1], {}]", '"' + "x" * 3_000_000 + '"', "9" * 18, "9" * 19, "1.5e308"),
    *('"2020-01-01T00:00:00Z"', '"data:image/png;base64,AAAA"', '"/dev/zero"', '"\\ud83d\\ude00"'),
]


def cases(folder: Path, count: int, rng: random.Random) -> Iterator[Case]:
    project = Project(folder)
    made = _made(project, folder, rng)
    for number, (name, suffix, data, holds) in zip(range(count), made, strict=False):
        path = folder / f"{number}{suffix}"
        if isinstance(data, bytes):
            path.write_bytes(data)
        else:
            data(path)
        yield Case(f"{number}: {name}", _words(project, holds, path, number))


def _words(project: Project, holds: str, path: Path, number: int) -> list[str]:
    if holds in OURS:
        return project.words(holds, path, number)
    if holds == "table":
        columns = ("--columns.text", "text", "--columns.answer", "answer", "--domain", "d")
        return ["questions", str(path), *columns, "--output", str(project.folder / "out.jsonl")]
    if number % 3:
        return ["validate", str(path)]
    convert = ["convert", str(path), "--output_questions", str(project.folder / "out.jsonl")]
    return [*convert, "--skip_bad_rows", "true"] if number % 2 else convert


def _made(project: Project, folder: Path, rng: random.Random) -> Iterator[tuple[Any, ...]]:
    """(what was done, suffix, bytes or what makes the file, what it holds), without end."""
    good = project.path("questions").read_bytes()
    yield from _whole_files(good)
    for holds in OURS:
        row = json.loads(project.path(holds).read_bytes().splitlines()[0])
        for field in row:
            for value in VALUES:
                yield f"{holds}, {field} is {value:.20}", ".jsonl", _with(row, field, value), holds
    formats = [one for one in known.FORMATS.values() if one.name not in OURS]
    samples = {one.name: sample_rows(one, folder) for one in formats}
    for name, rows in samples.items():
        for value in VALUES:
            field = rng.choice([*rows[0]])
            yield f"{name}, {field} is {value:.20}", ".json", _with(rows[0], field, value), name
    while True:
        yield from (_random(project, one, samples[one.name], rng) for one in formats)
        for holds in OURS:
            rows = [*map(json.loads, project.path(holds).read_bytes().splitlines())]
            yield _random(project, known.FORMATS[holds], rows, rng)
        data = b"text,answer,options\nWhat?,3,\n" + b'"a, ""b""",4,"[\'x\']"\n' * 2
        yield "table, bytes", ".csv", damaged(data, rng), "table"


def _with(row: dict[str, Any], field: str, value: str) -> bytes:
    """A row whose field is this text."""
    return json.dumps(row | {field: "@"}).replace('"@"', value, 1).encode() + b"\n"


def _random(project: Project, one: Format, rows: list[Any], rng: random.Random) -> tuple[Any, ...]:
    suffix = ".json" if one.name in LISTS else ".jsonl"
    how = rng.choice(["rows", "rows", "bytes"])
    if how == "rows":
        rows = [mutated(row, rng) if rng.random() < 0.7 else row for row in rows]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    data = (json.dumps(rows) if suffix == ".json" else lines).encode()
    if how == "bytes":
        data = damaged(data, rng)
    return f"{one.name}, {how}", suffix, data, one.name


def damaged(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 3, 10])):
        at = rng.randrange(len(changed))
        how = rng.random()
        if how < 0.6:
            changed[at] = (
                rng.choice(b'{}[]",:\\\n\r\0 09eE-.\xff\xc3\x80') if how < 0.3 else at % 256
            )
        elif how < 0.75:
            changed[at:at] = changed[at : at + rng.randint(1, 60)]
        elif how < 0.9:
            del changed[at : at + rng.randint(1, 60)]
        else:
            del changed[at:]
        if not changed:
            break
    return bytes(changed)


def _whole_files(good: bytes) -> Iterator[tuple[Any, ...]]:
    def fifo(path: Path) -> None:
        os.mkfifo(path)

    def device(path: Path) -> None:
        path.symlink_to("/dev/zero")

    def unix_socket(path: Path) -> None:
        here = os.open(".", os.O_RDONLY)
        os.chdir(path.parent)  # the address of a socket is short
        try:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(path.name)
        finally:
            os.fchdir(here)
            os.close(here)

    def loop(path: Path) -> None:
        path.symlink_to(path)

    for suffix in (".jsonl", ".json", ".csv", ".parquet"):
        for name, make in [("pipe", fifo), ("folder", Path.mkdir), ("/dev/zero", device)]:
            for holds in ("questions", "trajectories", "table"):
                yield f"a {name} named {suffix}", suffix, make, holds
        yield f"a socket named {suffix}", suffix, unix_socket, "questions"
        yield f"a link to itself {suffix}", suffix, loop, "questions"
        yield f"a long line named {suffix}", suffix, b'{"id": "' + b"x" * 2**28, "questions"
        yield f"no line's end named {suffix}", suffix, b"\0" * 2**28, "questions"
    row = good.splitlines()[0]
    text = good.decode()
    for name, data in {
        "nothing": b"",
        "empty lines": b"\n" * 1000,
        "one NUL": b"\0",
        "a BOM": b"\xef\xbb\xbf" + good,
        "a BOM alone": b"\xef\xbb\xbf",
        "two BOMs": b"\xef\xbb\xbf" * 2 + good,
        "a BOM inside": row + b"\n\xef\xbb\xbf" + row,
        "UTF-16": text.encode("utf-16"),
        "UTF-16 without a BOM": text.encode("utf-16-le"),
        "UTF-32": text.encode("utf-32"),
        "Latin-1": good.replace(b"What", b"\xe4\xf6"),
        "lines of Windows": good.replace(b"\n", b"\r\n"),
        "lines of an old Mac": good.replace(b"\n", b"\r"),
        "gzip": b"\x1f\x8b\x08\0\0\0\0\0",
        "a field twice": row[:-1] + b', "id": "other"}\n' + row[:-1] + b', "text": "b"}\n',
        "a long field's name": b'{"' + b"n" * 1_000_000 + b'": 1}\n',
        "many fields": b'{"id": "q", ' + b", ".join(b'"f%d": 1' % i for i in range(100_000)) + b"}",
        "many rows": b"{}\n" * 100_000,
        "brackets": b"[" * 1_000_000,
        "a list of brackets": b"[" + b"[" * 1_000_000,
        "braces": b'{"a":' * 200_000,
        "many small lists": b'{"id": [' + b"[],[]," * 500_000 + b"[]]}",
        "a number alone": b"1" * 1_000_000,
        "null": b"null\n",
    }.items():
        for holds, suffix in (("questions", ".jsonl"), ("table", ".json"), ("outside", ".json")):
            yield f"{name}, {suffix}", suffix, data, holds
    cells = b"text,answer\n"
    for name, data in {
        "a long cell": cells + b"x" * 1_000_000 + b",1\n",
        "an open quote": cells + b'"' + b"x\n" * 1_000_000,
        "a NUL": cells + b"a\0b,1\n",
        "more cells": cells + b"a,b,c\n",
        "a name twice": b"text,text,answer\na,b,c\n",
        "no names": b"\n\n\n",
        "UTF-16": "text,answer\na,b\n".encode("utf-16"),
        "carriage returns": cells + b"a\rb,1\r\r\n",
        "many columns": b",".join(b"c%d" % i for i in range(50_000)) + b"\n1\n",
    }.items():
        yield f"CSV, {name}", ".csv", data, "table"
