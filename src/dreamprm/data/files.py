"""What all readers and writers share: atomic files, locks, image references, duplicate ids.

On disk an image path is relative to the folder of the file that names it, so that a folder of data
can be moved as a whole; in memory it is a path that can be opened from the working directory.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import platform
import stat
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic_core import from_json

from dreamprm.errors import DataError, DreamPRMError
from dreamprm.errors import DataWarning as DataWarning  # noqa: PLC0414  readers look for it here
from dreamprm.images import decode_image, is_data_url, is_remote
from dreamprm.records import Question, Record

try:
    import fcntl
except ImportError:  # Windows: temporary files of killed processes stay
    fcntl = None  # type: ignore[assignment]

R = TypeVar("R", bound=Record)
_PART = ".part"
DEEPEST = 200
"""Lists and objects within each other in JSON: what goes deeper exhausts the stack of others."""


BadRow = Callable[[DataError], None]
"""What a reader does with a row that it cannot read: told the error, which names file and row."""


def refuse(error: DataError) -> None:
    """The usual `BadRow`: the first bad row ends the reading."""
    raise error


@contextmanager
def in_row(path: str | Path | None, row: int | None, bad_row: BadRow = refuse) -> Iterator[None]:
    """Name file and row in an error of the block, and tell it to `bad_row`."""
    try:
        yield
    except DataError as error:
        bad_row(error.at(file=path, row=row))


@contextmanager
def atomic_write(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that takes the place of `path` once the block ends without an error.

    A kill, a full disk or an exception leaves the old file as it was. What a killed process has
    left of its temporary file is removed by the next one that writes the same file.

    Raises:
        DreamPRMError: the file cannot be written; names it and the cause.
    """
    path = Path(path)
    temporary: Path | None = None
    if path.exists() and not path.is_file():
        raise DreamPRMError(f"{path} is no file, and would be replaced by one; give another output")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_orphans(path)
        file, temporary = _open_temporary(path)
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)  # mkstemp gives 0600, which colleagues could not read
            if os.name == "nt":
                file.close()  # nothing that is open can be renamed there
            temporary.replace(path)  # still locked: nobody takes it for an orphan
            temporary = None
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _open_temporary(path: Path) -> tuple[IO[bytes], Path]:
    """A new file beside the path, locked for as long as it is open."""
    while True:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_PART, dir=path.parent)
        file = os.fdopen(descriptor, "wb")
        _lock(file, wait=True)
        if os.fstat(descriptor).st_nlink:  # else somebody took it for an orphan before the lock
            return file, Path(name)
        file.close()


def _remove_orphans(path: Path) -> None:
    """Temporary files that nobody holds open: the kernel unlocks those of a killed process."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{_PART}"):
        with contextlib.suppress(OSError), left.open("rb") as file:
            if _lock(file, wait=False):
                left.unlink(missing_ok=True)


def _lock(file: IO[bytes], *, wait: bool) -> bool:
    """False where another process holds it and is not waited for, or where there are no locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


@contextmanager
def locked(
    path: str | Path, *, instead: str = "give another output", wait_s: float = 0.0
) -> Iterator[None]:
    """Keep other runs from writing an output, a file or a folder, until the block ends.

    The lock is on a hidden file beside the output, which says who holds it and is removed in the
    end. A killed process leaves the file and loses the lock, so that the next run takes it over. Of
    the processes of one training run, the first holds the lock for all.

    Where no file can be made beside the output there is no lock: the output cannot be made either,
    and its own error says why. Where the file system has no locks, a warning says so.

    Args:
        path: the output; its lock is the same by whatever path or link it is named.
        instead: what the message offers besides waiting.
        wait_s: how long to wait for the lock.

    Raises:
        DreamPRMError: another run writes the output; says which, and since when.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    from filelock import FileLock, Timeout  # takes a while

    file = lock_file(path)
    made = [folder for folder in file.parents if not folder.exists()]
    lock = FileLock(
        file,
        timeout=wait_s,
        mode=0o666,  # a colleague must be able to take over the lock of a killed run
        thread_local=False,
        fallback_to_soft=False,  # a soft lock outlives its process
        on_acquired=_sign,
    )
    try:
        lock.acquire()
    except Timeout:
        raise DreamPRMError(
            f"{path}: is being written by {_holder(file)}; wait for its end, or {instead}"
        ) from None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            message = f"{path}: cannot be locked ({error.strerror}); start no other run that"
            warnings.warn(DataWarning(f"{message} writes it"), stacklevel=4)
    try:
        yield
    finally:
        if lock.is_locked:
            with contextlib.suppress(OSError):
                file.unlink()  # still locked: whoever waits for it sees that, and makes a new one
            lock.release()
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def lock_file(path: str | Path) -> Path:
    """The file that carries the lock of an output."""
    output = Path(os.path.realpath(path))
    return output.with_name(f".{output.name}.lock")


def _sign(descriptor: int) -> None:
    """Write into a lock's file who holds it."""
    program = Path(sys.argv[0])
    name = program.parent.name if program.stem == "__main__" else program.name
    command = " ".join([name, *sys.argv[1:2]])
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    told = f"process {os.getpid()} on {platform.node()} ({command}), since {since}"
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, told.encode())


def _holder(file: Path) -> str:
    with contextlib.suppress(OSError):
        return file.read_text(errors="replace") or "another process"
    return "another process"


def cannot_write(path: str | Path, error: OSError) -> DreamPRMError:
    """The one line told when the system refuses a write."""
    cause = error.strerror or str(error)
    return DreamPRMError(f"{path}: cannot write: {cause}; free space or choose another place")


@contextmanager
def open_for_reading(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a data file; a missing or unreadable one is a DataError that names it."""
    try:
        mode = Path(path).stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            message = "is a pipe or a device, and files are read more than once; save it as a file"
            raise DataError(message, file=path)
        file = Path(path).open("rb")  # noqa: SIM115 (only a failure to open is our error)
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise DataError(f"cannot be read: {cause}; correct the path", file=path) from error
    with file:
        yield file


def image_from_disk(reference: str | bytes, folder: Path) -> str | bytes:
    """Turn an image reference as stored in a file of `folder` into one that can be opened."""
    if isinstance(reference, bytes):
        return reference
    if is_data_url(reference):
        return decode_image(reference)
    if is_remote(reference):
        return reference
    return os.path.normpath(folder / reference)


def image_to_disk(reference: str, folder: Path) -> str:
    """Turn a path into what a file in `folder` should say.

    Relative when the image lies below the folder or below its parent (`images/` beside `data/`),
    so that the whole can be moved; else absolute.
    """
    if is_remote(reference) or is_data_url(reference):
        return reference
    image, base = Path(os.path.abspath(reference)), Path(os.path.abspath(folder))
    near = image.is_relative_to(base) or (
        base.parent != base.parent.parent and image.is_relative_to(base.parent)
    )
    return Path(os.path.relpath(image, base)).as_posix() if near else str(image)


def from_disk(record: R, folder: Path) -> R:
    """Make the images of a record that was just read resolvable; other records pass unchanged."""
    if not isinstance(record, Question) or not record.images:
        return record
    images = tuple(image_from_disk(image, folder) for image in record.images)
    return record.model_copy(update={"images": images})


def check_new_id(question_id: str, row: int, seen: dict[str, int], path: str | Path) -> None:
    """Note a question id in `seen` (id -> row); one seen before is a DataError."""
    if question_id in seen:
        message = f"question id '{question_id}' is already used in row {seen[question_id]}; ids"
        message += " must be unique, so rename or remove one of the two"
        raise DataError(message, file=path, row=row, field="id")
    seen[question_id] = row


def unique(records: Iterable[R], path: str | Path) -> Iterator[R]:
    """Records as they come; a question id that comes twice is an error."""
    seen: dict[str, int] = {}
    for row, record in enumerate(records, start=1):
        if isinstance(record, Question):
            check_new_id(record.id, row, seen, path)
        yield record


def parse_json(text: bytes | str) -> tuple[Any, str | None]:
    """The value of a JSON text, and a name that comes twice in an object (the last one counts).

    Args:
        text: UTF-8 where it is bytes.

    Raises:
        ValueError: it is no JSON, or lists and objects lie more than `DEEPEST` within each other.
    """
    try:
        value = from_json(text)  # in half the time of `json`
    except ValueError:  # `json` says better why, and lets half characters in texts pass
        text = text if isinstance(text, str) else text.decode("utf-8-sig")
        try:
            value = json.loads(text)
        except RecursionError:
            raise ValueError("lists and objects lie too deep within each other") from None
        _names([value])  # are they?
    data = text if isinstance(text, bytes) else text.encode()
    ends = data.count(b'":') + data.count(b'" :')
    names = _names([value]) if ends else 0
    if names != ends:  # there are quotes in texts
        ends -= data.count(b'\\":') + data.count(b'\\" :')
    if names == ends:
        return value, None
    twice: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> None:
        if len(dict(pairs)) < len(pairs):
            twice.append(Counter(name for name, _ in pairs).most_common(1)[0][0])

    json.loads(data, object_pairs_hook=look)
    return value, twice[0] if twice else None


def _names(value: Any, depth: int = 0) -> int:
    """How many names its objects have; a ValueError where they lie too deep within each other."""
    if depth > DEEPEST:
        raise ValueError(f"lists and objects lie more than {DEEPEST} deep within each other")
    names, parts = (len(value), value.values()) if type(value) is dict else (0, value)
    for part in parts:
        if type(part) in (dict, list):
            names += _names(part, depth + 1)
    return names


def warn_of_a_name_twice(name: str | None, path: str | Path, row: int | None = None) -> None:
    """Tell what `parse_json` has seen."""
    if name is not None:
        place = f"{path}" if row is None else f"{path}, row {row}"
        message = f"{place}: '{name:.80}' comes twice in one object, and the last one counts"
        warnings.warn(message, DataWarning, stacklevel=3)


def load_json(path: str | Path) -> Any:
    """What a file of JSON holds; a DataError where it cannot be read or is no JSON."""
    with open_for_reading(path) as file:
        text = file.read()
        try:
            value, twice = parse_json(text)
            if b"\\ud" in text.lower():  # halves of characters cannot be written again
                json.dumps(value, ensure_ascii=False).encode()
        except ValueError as error:
            message = f"not JSON ({error}); the file may be cut off, so fetch or make it again"
            raise DataError(message, file=path) from error
    warn_of_a_name_twice(twice, path)
    return value


def load_json_object(path: str | Path) -> dict[str, Any]:
    """A file that holds one JSON object; a DataError where it does not."""
    value = load_json(path)
    if not isinstance(value, dict):
        raise DataError("must hold a JSON object", file=path)
    return value
