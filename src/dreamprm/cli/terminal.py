"""What a user sees on the terminal: progress, warnings, and the one line of a failure."""

from __future__ import annotations

import errno
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from dreamprm.data.files import DataWarning
from dreamprm.errors import DataError, DreamPRMError, shortened

if TYPE_CHECKING:
    from dreamprm.unread import Unread

LOG_EVERY_S = 15.0
AT_ONCE_S = 0.5  # what is counted so soon was done before
TOLD = 5  # questions that were left out and are named
TELLING = 0.03  # share of the work after which its rate says something
_ENVIRONMENT = {
    errno.ENOSPC: "free space or choose another place",
    errno.EDQUOT: "free space or choose another place",
    errno.EFBIG: "raise the limit on file sizes or choose another place",
    errno.EROFS: "choose another place",
    errno.EACCES: "correct the permissions or choose another place",
    errno.EPERM: "correct the permissions or choose another place",
    errno.EISDIR: "give a file instead of a folder",
    errno.ENOTDIR: "a part of the path is a file; correct the path",
    errno.ENOENT: "correct the path",
    errno.EIO: "the device failed; choose another place",
    errno.EPIPE: "the program that read the output has ended",
}
# What torch and safetensors say, which raise their own classes for a disk that is full.
_NATIVE = ("os error 28", "os error 27", "os error 122", "PytorchStreamWriter failed writing")


class LeftOut(DataWarning):
    """What was left out; the first are told at once, and all are counted when the command ends."""


def left_out(error: DataError) -> None:
    """Tell of a question that is left out because of its images."""
    warnings.warn(LeftOut(str(error)), stacklevel=2)


def is_main_process() -> bool:
    """Of several that `accelerate launch` started, the one that talks to the user."""
    return os.environ.get("RANK", "0") == "0"


def print_table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table of texts: the first column to the left, figures to the right."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a log has no width to fit
    table = Table(title=Text(title))  # a Text is not read as markup
    for i, name in enumerate(head):
        table.add_column(Text(name), justify="right" if i else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show how far long work is: a bar on a terminal, now and then a line in a log.

    Args:
        what: what is counted, for example "questions sampled".
        total: how many there are in all; None where nobody knows.

    Yields:
        A function to be called with the number done since the last call.
    """
    if not is_main_process():
        yield lambda done: None
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _log_lines(what, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, advance=done)


def _log_lines(what: str, total: int | None) -> Callable[[int], None]:
    start = last = time.monotonic()
    finished = before = 0  # `before`: what an earlier run had done, told at once

    def advance(done: int) -> None:
        nonlocal finished, last, before
        finished += done
        now = time.monotonic()
        if now - start < AT_ONCE_S:
            before = finished
        ends = total is not None and finished >= total and done and now - start >= LOG_EVERY_S
        if now - last < LOG_EVERY_S and not ends:
            return
        last = now
        line = f"{what}: {finished}" if total is None else f"{what}: {finished} of {total}"
        if ends:
            line += f", after {duration(now - start)}"
        elif total and finished - before >= TELLING * (total - before):
            # The mean rate: work comes in batches, so that of the last seconds swings wildly.
            rate = (finished - before) / (now - start)
            line += f", about {duration((total - finished) / rate)} left"
        print(line, file=sys.stderr, flush=True)

    return advance


def duration(seconds: float) -> str:
    """Seconds for people: '8 s', '2 min 5 s', '3 h 10 min'."""
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {s} s" if minutes else f"{s} s"


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Show our warnings about data in one line each, and those of other packages not at all."""
    told: set[str] = set()  # a file may be read twice
    left = 0

    def show(message: Warning | str, *_: object, **__: object) -> None:
        nonlocal left
        is_left_out = isinstance(message, LeftOut)
        left += is_left_out
        line = f"{'left out' if is_left_out else 'warning'}: {shortened(str(message))}"
        if is_main_process() and line not in told and not (is_left_out and left > TOLD):
            told.add(line)
            print(f"dreamprm: {line}", file=sys.stderr)

    with warnings.catch_warnings():
        if not sys.warnoptions:  # python -W was not given
            warnings.simplefilter("ignore")
        warnings.simplefilter("always", DataWarning)
        warnings.showwarning = show
        try:
            yield
        finally:
            if left and is_main_process():
                line = f"dreamprm: {left} questions were left out because of their images"
                print(line, file=sys.stderr)


@contextmanager
def held_warnings() -> Iterator[None]:
    """Hold warnings back until a file is read; if it is refused, the one error is enough."""
    with warnings.catch_warnings(record=True) as held:
        yield
    for warning in held:
        warnings.warn(warning.message, stacklevel=3)


def refusal(error: BaseException) -> str | None:
    """One line for what the system refused (a full disk, a missing right); None for a bug."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DreamPRMError):
            return str(cause)
        if isinstance(cause, OSError) and cause.errno in _ENVIRONMENT:
            if isinstance(cause.__context__, DreamPRMError):  # closing a file failed once more
                return str(cause.__context__)
            where = f"{cause.filename}: " if cause.filename else ""
            return f"{where}{cause.strerror or cause}; {_ENVIRONMENT[cause.errno]}"
        if any(sign in str(cause) for sign in _NATIVE):
            return f"{cause}; the disk is full: free space or choose another place"
        cause = cause.__cause__
    return None


def tell_unread(unread: Unread, what: str = "responses") -> None:
    """Say how many responses state no answer; a warning with examples where they are many."""
    if unread.reasons:
        print(unread.line(what))
        unread.warn(what)


def quiet_transformers() -> None:
    """Silence what transformers says while it loads a model; errors are still told."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
