"""The first rows of a data file, read without the rest, by which its format is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from dreamprm.data import own
from dreamprm.data.files import open_for_reading
from dreamprm.data.format import Row

_HEAD = 1 << 20  # bytes of a file that are enough to see its first rows


def first_rows(path: str | Path, suffix: str) -> Iterator[Row]:
    """The first rows that can be read; of Parquet one row that has its columns and no values."""
    with open_for_reading(path) as file:
        if suffix == ".parquet":
            yield from own.parquet_columns(file)
            return
        head = file.read(_HEAD)
        for content in (head, head + file.read()):
            rows = _objects(content.decode("utf-8", "replace").lstrip("\ufeff \t\r\n"))
            if first := next(rows, None):
                yield first
                yield from rows
                return


def _objects(text: str) -> Iterator[Row]:
    """Objects of a JSON list or of JSON lines, up to where the text is cut off."""
    decoder = json.JSONDecoder()
    at = len(text) - len(text.removeprefix("[").lstrip())
    while at < len(text):
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            if text[0] == "[" or (line := text.find("\n", at)) < 0:
                return
            value, end = None, line
        if isinstance(value, dict):
            yield value
        at = end
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
