"""Find a published set by its name and read it, from the hub or from a file that holds it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dreamprm.data.sources import choose, read_source
from dreamprm.data.sources.columns import ColumnMap
from dreamprm.data.sources.published import KNOWN
from dreamprm.errors import DreamPRMError
from dreamprm.records import Question


def find_known(name: str) -> str | None:
    """The key of KNOWN that a name means, whatever its case, hyphens and blanks; else None."""
    return {_plain(key): key for key in KNOWN}.get(_plain(name))


def find_hub(hub: str, subset: str | None) -> str | None:
    """The key of the one known set that lies there on the hub; None if there is none or several."""
    there = [key for key, known in KNOWN.items() if known.hub == hub]
    fits = [key for key in there if subset == KNOWN[key].subset]
    found = fits or (there if subset is None else [])
    return found[0] if len(found) == 1 else None


def nearest(name: str) -> list[str]:
    """Known names that look like this one, best first."""
    plain = {_plain(key): key for key in KNOWN}
    return [plain[key] for key in difflib.get_close_matches(_plain(name), plain, n=3)]


def read_known(
    name: str,
    *,
    path: str | Path | None = None,
    columns: ColumnMap | None = None,
    **options: Any,
) -> Iterator[Question]:
    """Yield the questions of a known set.

    Args:
        name: a key of KNOWN.
        path: a file or folder that holds the set, read instead of the hub.
        columns: instead of the set's own, where its schema has changed.
        options: of `read_source`; subset, split and domain are the set's own by default.

    Raises:
        DataError: names source, row and column.
        DreamPRMError: the name is not known, or the set needs a path.
    """
    key = find_known(name)
    if key is None:
        raise DreamPRMError(f"there is no known source '{name}'; {offer(name)}")
    known = KNOWN[key]
    source = known.hub if path is None else path
    if source is None:
        raise DreamPRMError(f"{key} is read from a file: {known.notes}")
    domain = options.pop("domain", None) or key
    columns = columns or known.columns
    if columns is None:
        assert known.reader is not None
        questions = known.reader(source, domain=domain)
        options.get("on_read", lambda _: None)(len(questions))
        return choose(questions, options.get("limit"), options.get("seed"))
    if path is None:
        options["subset"] = options.get("subset") or known.subset
        options["split"] = options.get("split") or known.split
    return read_source(source, columns, name=key, domain=domain, **options)


def offer(name: str) -> str:
    """What to say to somebody who gave a name that is not known."""
    near = nearest(name)
    return f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(KNOWN)}"


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())
