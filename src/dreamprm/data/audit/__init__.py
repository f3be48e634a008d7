"""The account of a data file: what it holds, and what is wrong with it.

`load` reads all that can be read, `facts` counts it, and `findings` looks for the defects that
published data of this field has. One kind of check is one file here.
"""

from __future__ import annotations

from collections.abc import Iterable

from dreamprm.data.audit import answers, labels, pictures, rows
from dreamprm.data.audit.facts import Facts, facts
from dreamprm.data.audit.finding import Finding
from dreamprm.data.audit.loaded import Loaded, load, load_ours

__all__ = ["Facts", "Finding", "Loaded", "facts", "findings", "gravest_first", "load", "load_ours"]

_GRAVEST = ("error", "warning", "note")


def findings(loaded: Loaded, *, decode_images: bool = False) -> list[Finding]:
    """All that is wrong or odd, the gravest first.

    Args:
        loaded: what a file holds.
        decode_images: read every image to its end; else it is only looked for on disk.
    """
    found = [
        *rows.check(loaded),
        *pictures.check(loaded, decode=decode_images),
        *labels.check(loaded),
        *answers.check(loaded),
    ]
    return gravest_first(found)


def gravest_first(found: Iterable[Finding]) -> list[Finding]:
    """Errors, then warnings, then notes; else in their order."""
    return sorted(found, key=lambda finding: _GRAVEST.index(finding.severity))
