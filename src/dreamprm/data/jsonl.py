"""Records as JSON lines: one record per line, readable with any tool, and safe to append to.

Image bytes are written as data URLs. `JsonlAppender` is for work that takes hours: every record is
on disk once `append` returns to the caller, and a line cut off by a kill is dropped on reopening.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dreamprm.data.files import (
    R,
    atomic_write,
    cannot_write,
    check_new_id,
    encode_image,
    from_disk,
    image_to_disk,
    open_for_reading,
)
from dreamprm.errors import DataError
from dreamprm.records import Question, Record


def iterate_jsonl(path: str | Path, kind: type[R]) -> Iterator[R]:
    """Yield the records of a JSONL file one by one; empty lines are skipped.

    Args:
        path: the file.
        kind: the record class, e.g. `Question`.

    Raises:
        DataError: a line is cut off, is no JSON, or is no valid record; a question id comes twice.
    """
    path = Path(path)
    seen: dict[str, int] = {}
    for row, line in iterate_rows(path):
        try:
            record = from_disk(kind.parse(line), path.parent)
        except DataError as error:
            raise error.at(file=path, row=row) from error
        if isinstance(record, Question):
            check_new_id(record.id, row, seen, path)
        yield record


def read_jsonl(path: str | Path, kind: type[R]) -> list[R]:
    """All records of a JSONL file; see `iterate_jsonl`."""
    return list(iterate_jsonl(path, kind))


def iterate_rows(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Yield (1-based line number, decoded JSON) of every line that is not empty."""
    with open_for_reading(path) as file:
        for row, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield row, json.loads(line)
            except ValueError as error:  # also a line cut inside a UTF-8 character
                if not line.endswith(b"\n"):
                    message = (
                        "the last line is cut off, the file was not written to its end; remove "
                        "that line or make the file again"
                    )
                else:
                    message = f"not JSON ({error}); correct or remove the line"
                raise DataError(message, file=path, row=row) from error


def write_jsonl(path: str | Path, records: Iterable[Record]) -> None:
    """Write records, replacing the file in one step (see `atomic_write`)."""
    path = Path(path)
    seen: dict[str, int] = {}
    with atomic_write(path) as file:
        for row, record in enumerate(records, start=1):
            if isinstance(record, Question):
                check_new_id(record.id, row, seen, path)
            file.write(to_line(record, path.parent))


def to_line(record: Record, folder: Path) -> bytes:
    """One record as a line of a JSONL file that lies in `folder`."""
    row = record.model_dump()
    for rare in ("extra", "domain", "cut", "steps_digest"):  # nearly always empty
        if not row.get(rare, True):
            del row[rare]
    if isinstance(record, Question):
        row["images"] = [
            encode_image(image) if isinstance(image, bytes) else image_to_disk(image, folder)
            for image in record.images
        ]
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"


class JsonlAppender:
    """Append records to a JSONL file, each on disk before the next, for work that may be killed.

    On opening, a last line that a kill cut off is removed, so the caller can read what is there,
    skip it, and go on.

    Example:
        >>> import tempfile
        >>> from dreamprm.records import StepScores
        >>> path = Path(tempfile.mkdtemp()) / "scores.jsonl"
        >>> with JsonlAppender(path) as out:
        ...     out.append(StepScores(question_id="q", sample_index=0, logits=(0.5,)))
        >>> len(read_jsonl(path, StepScores))
        1
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
            self._drop_cut_line()
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _drop_cut_line(self) -> None:
        """Remove bytes behind the last newline, unless they are a whole record lacking only it."""
        end = self._file.seek(0, 2)
        tail = b""
        while end and b"\n" not in tail:
            start = max(0, end - 65536)
            self._file.seek(start)
            tail = self._file.read(end - start) + tail
            end = start
        tail = tail[tail.rfind(b"\n") + 1 :]
        if not tail:
            return
        try:
            json.loads(tail)
            self._file.write(b"\n")
        except ValueError:
            self._file.truncate(self._file.seek(0, 2) - len(tail))
        self._file.flush()

    def append(self, record: Record) -> None:
        """Write one record and hand it to the system before returning."""
        try:
            self._file.write(to_line(record, self.path.parent))
            self._file.flush()
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
