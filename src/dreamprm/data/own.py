"""Files of our own records: JSON lines, one record per line, or Parquet (`parquet`), by the suffix.

JSON lines can be read with any tool and are safe to append to; image bytes are data URLs in them.
`JsonlAppender` is for work that takes hours: every record is on disk once `append` returns to the
caller, and a line cut off by a kill is dropped on reopening.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from dreamprm.data.files import (
    BadRow,
    R,
    atomic_write,
    cannot_write,
    check_new_id,
    from_disk,
    image_to_disk,
    in_row,
    parse_json,
    refuse,
    unique,
)
from dreamprm.data.rows import each_row
from dreamprm.errors import DataError
from dreamprm.images import encode_image
from dreamprm.records import Question, Record

LINES = (".jsonl", ".ndjson")


def read(
    path: str | Path,
    kind: type[R],
    *,
    image_root: str | Path | None = None,
    bad_row: BadRow = refuse,
) -> list[R]:
    """Records of one class from a JSONL or Parquet file; for the arguments see `iterate`."""
    if Path(path).suffix.lower() not in (*LINES, ".parquet"):
        raise DataError("holds our records as .jsonl or .parquet only; rename it", file=path)
    return list(iterate(path, kind, image_root=image_root, bad_row=bad_row))


def iterate(
    path: str | Path,
    kind: type[R],
    *,
    image_root: str | Path | None = None,
    bad_row: BadRow = refuse,
    large_pictures: bool = True,
) -> Iterator[R]:
    """Yield the records of a file one by one, for files larger than the memory.

    Args:
        path: Parquet by its suffix, else JSON lines, where empty lines are skipped.
        kind: class of its records.
        image_root: folder that image paths start from; the file's own by default.
        bad_row: told of each row that is no such record; when it returns, the row is left out.
        large_pictures: see `arrow.each_row`.

    Raises:
        DataError: names the row and field of what is wrong: a line that is cut off, no JSON or no
            valid record, or a question id that comes twice.
    """
    path = Path(path)
    root = path.parent if image_root is None else Path(image_root)
    if path.suffix.lower() == ".parquet":
        from dreamprm.data import arrow

        rows = arrow.each_row(path, bad_row, large_pictures=large_pictures)
    else:
        rows = each_row(path, bad_row)
    seen: dict[str, int] = {}
    for number, row in rows:
        with in_row(path, number, bad_row):
            record = from_disk(kind.parse(row), root)
            if isinstance(record, Question):
                check_new_id(record.id, number, seen, path)
            yield record


def write(path: str | Path, records: Iterable[R], kind: type[R]) -> None:
    """Write records of one class as JSONL or Parquet, by the suffix, in one step.

    Args:
        path: the file.
        records: may be a generator.
        kind: class of the records (a Parquet file without rows has columns, too).
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in LINES:
        with atomic_write(path) as file:
            for record in unique(records, path):
                file.write(to_line(record, path.parent))
    elif suffix == ".parquet":
        from dreamprm.data.arrow import write_parquet

        write_parquet(path, unique(records, path), kind)
    else:
        raise DataError("can be written as .jsonl or .parquet only; rename it", file=path)


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
        >>> len(read(path, StepScores))
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
        end = size = self._file.seek(0, 2)
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
            parse_json(tail)
            self._file.write(b"\n")
        except ValueError:
            self._file.truncate(size - len(tail))
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

    def __exit__(self, *_: object) -> None:
        self.close()
