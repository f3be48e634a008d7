"""What a data file holds, and what is wrong with it; `dreamprm validate` prints it.

`load` reads all that can be read, `facts` counts it, and `findings` looks for the defects that
published data of this field has; `overlap` compares with the questions of another file.
"""

from __future__ import annotations

from collections.abc import Iterable

from dreamprm.data.audit import pictures, rows, verdicts
from dreamprm.data.audit.account import Facts, Finding, LabelFacts, Loaded, facts, load, load_ours
from dreamprm.data.audit.pictures import overlap

__all__ = [
    "Facts",
    "Finding",
    "LabelFacts",
    "Loaded",
    "facts",
    "findings",
    "gravest_first",
    "load",
    "load_ours",
    "overlap",
]

_GRAVEST = ("error", "warning", "note")


def findings(loaded: Loaded, *, decode_images: bool = False) -> list[Finding]:
    """All that is wrong or odd, the gravest first.

    Args:
        loaded: what a file holds.
        decode_images: read every image to its end; else it is only looked for on disk.
    """
    return gravest_first(
        [
            *rows.check(loaded),
            *pictures.check(loaded, decode=decode_images),
            *verdicts.check_labels(loaded),
            *verdicts.check_answers(loaded),
        ]
    )


def gravest_first(found: Iterable[Finding]) -> list[Finding]:
    """Errors, then warnings, then notes; else in their order."""
    return sorted(found, key=lambda finding: _GRAVEST.index(finding.severity))
