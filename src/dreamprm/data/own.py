"""Files of our own records: JSON lines (`jsonl`) or Parquet (`parquet`), by the suffix.

They are read strictly by default; a validator reads on behind a bad line (`bad_row`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from dreamprm.data.files import BadRow, R, check_new_id, from_disk, refuse
from dreamprm.data.jsonl import iterate_jsonl, read_jsonl, write_jsonl
from dreamprm.data.rows import each_row
from dreamprm.errors import DataError
from dreamprm.records import Question

LINES = (".jsonl", ".ndjson")


def reader(kind: type[R]) -> Callable[..., list[R]]:
    """`read` for records of one class, as the table of formats needs it."""

    def read_kind(
        path: str | Path,
        *,
        image_root: str | Path | None = None,
        bad_row: BadRow = refuse,
    ) -> list[R]:
        return read(path, kind, image_root=image_root, bad_row=bad_row)

    return read_kind


def read(
    path: str | Path,
    kind: type[R],
    *,
    image_root: str | Path | None = None,
    bad_row: BadRow = refuse,
) -> list[R]:
    """Records of one class from a JSONL or Parquet file.

    Args:
        path: the file.
        kind: class of its records.
        image_root: folder that image paths start from; the file's own by default.
        bad_row: told of each line that is no such record; when it returns, the line is left out.

    Raises:
        DataError: names the row and field of what is wrong.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        from dreamprm.data.parquet import read_parquet

        return read_parquet(path, kind, image_root=image_root, bad_row=bad_row)
    if suffix not in LINES:
        raise DataError("holds our records as .jsonl or .parquet only; rename it", file=path)
    if bad_row is refuse and image_root is None:
        return read_jsonl(path, kind)
    root = path.parent if image_root is None else Path(image_root)
    found: list[R] = []
    seen: dict[str, int] = {}
    for number, row in each_row(path, bad_row):
        try:
            record = from_disk(kind.parse(row), root)
            if isinstance(record, Question):
                check_new_id(record.id, number, seen, path)
        except DataError as error:
            bad_row(error.at(file=path, row=number))
            continue
        found.append(record)
    return found


def iterate(path: str | Path, kind: type[R]) -> Iterator[R]:
    """Records of one class one by one, for files larger than the memory; see `read`."""
    path = Path(path)
    if path.suffix.lower() != ".parquet":
        return iterate_jsonl(path, kind)
    from dreamprm.data.parquet import iterate_parquet

    return iterate_parquet(path, kind)


def write(path: str | Path, records: Iterable[R], kind: type[R]) -> None:
    """Write records of one class as JSONL or Parquet, by the suffix of `path`."""
    suffix = Path(path).suffix.lower()
    if suffix in LINES:
        write_jsonl(path, records)
    elif suffix == ".parquet":
        from dreamprm.data.parquet import write_parquet

        write_parquet(path, records, kind)
    else:
        raise DataError("can be written as .jsonl or .parquet only; rename it", file=path)
