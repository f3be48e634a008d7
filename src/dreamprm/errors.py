"""The one exception that means "your input is wrong", as opposed to "our code is wrong".

The command line prints a `DreamPRMError` as one line and exits with a code that is not 0; every
other exception keeps its traceback, because it is a bug. A `DataWarning` is printed as one line,
and work goes on.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

LONGEST = 500
"""Characters of a message; data may put a megabyte into one."""


def shortened(text: str, longest: int = LONGEST) -> str:
    r"""One line of printable characters; of a longer one the beginning and the end.

    >>> print(shortened("the field\n\x1b[2J is no number", 22))
    the field \ ... number
    """
    line = " ".join(text.split())
    if len(line) > longest:
        head = (longest - 5) * 2 // 3
        line = f"{line[:head]} ... {line[head + 5 - longest :]}"
    if line.isprintable():
        return line
    plain = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    return shortened("".join(plain), longest)


class DreamPRMError(Exception):
    """Bad input or a failed environment. The message says what, where, and how to mend it."""

    def __init__(self, message: str = "") -> None:
        super().__init__(shortened(message))


class DataWarning(UserWarning):
    """A fact about the data that a user should know, though the data can be used."""

    def __init__(self, message: str = "") -> None:
        super().__init__(shortened(message))


class DataError(DreamPRMError):
    """A fact about a data file.

    Args:
        message: what is wrong, and how to mend it.
        file: the file it is wrong in.
        row: 1-based row (line of a JSONL file, element of a JSON list).
        field: the record's field.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | Path | None = None,
        row: int | None = None,
        field: str | None = None,
    ) -> None:
        self.message, self.file, self.row = shortened(message), file, row
        self.field = field if field is None else shortened(field, 100)
        where = [str(file)] if file is not None else []
        if row is not None:
            where.append(f"row {row}")
        if self.field is not None:
            where.append(f"field '{self.field}'")
        super().__init__(": ".join([", ".join(where), self.message]) if where else message)

    def at(self, *, file: str | Path | None = None, row: int | None = None) -> DataError:
        """The same error, told where it happened (what is already known is kept)."""
        return DataError(
            self.message,
            file=self.file if self.file is not None else file,
            row=self.row if self.row is not None else row,
            field=self.field,
        )


def offer(name: str, known: Iterable[str]) -> str:
    """What to say to somebody who gave a name that is not known.

    >>> offer("bset_of_n", ["best_of_n", "vote"])
    'did you mean best_of_n?'
    >>> offer("zzz", ["best_of_n", "vote"])
    'there are: best_of_n, vote'
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    return f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(names)}"


def require_positive(config: object, *names: str) -> None:
    """Refuse fields that are not above 0."""
    for name in names:
        if not getattr(config, name) > 0:
            raise DreamPRMError(f"{name} is {getattr(config, name)}; it must be above 0")
