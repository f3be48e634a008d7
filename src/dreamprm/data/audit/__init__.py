"""What a data file holds, and what is wrong with it; `dreamprm validate` prints it.

`load` reads all that can be read, `facts` counts it, and `findings` looks for the defects that
published data of this field has, and for questions that other files ask, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from dreamprm.data.audit import pictures, rows, verdicts
from dreamprm.data.audit.account import (
    Facts,
    Finding,
    LabelFacts,
    Loaded,
    facts,
    lines,
    load,
    load_ours,
)
from dreamprm.data.format import Records
from dreamprm.errors import DataError

__all__ = [
    "Facts",
    "Finding",
    "LabelFacts",
    "Loaded",
    "errors_in_training",
    "facts",
    "findings",
    "lines",
    "load",
    "load_other",
    "load_ours",
]


def load_other(path: str | Path) -> Loaded:
    """Read a file whose questions others are compared with.

    Raises:
        DataError: the file cannot be read, or holds no questions.
    """
    other = load(path, decode=True)
    if not other.questions:
        raise DataError("holds no questions to compare with", file=path)
    return other


def findings(
    loaded: Loaded, *, decode_images: bool = False, others: Mapping[str, Loaded] | None = None
) -> list[Finding]:
    """All that is wrong or odd: errors first, then warnings, then notes.

    Args:
        loaded: what a file holds.
        decode_images: read every image to its end; else it is only looked for on disk. Those that
            lie in the file are decoded when it is loaded.
        others: name -> file whose questions must not be among these, such as a benchmark.

    Raises:
        DataError: there are others to compare with, but the file holds no questions.
    """
    if others and not loaded.questions:
        raise DataError("holds no questions to look for in other files", file=loaded.source)
    told = [
        *rows.check(loaded),
        *pictures.check(loaded, decode=decode_images),
        *verdicts.check_labels(loaded),
        *verdicts.check_answers(loaded),
    ]
    for name, other in (others or {}).items():
        told += pictures.overlap(loaded, name, other)
    return sorted(told, key=lambda finding: ("error", "warning", "note").index(finding.severity))


def errors_in_training(train: Records, meta: Records | None = None) -> Iterator[DataError]:
    """What `findings` calls an error, as far as training uses the data.

    That is rows and labels of the training set, rows of the meta set, and questions with outcomes
    in the meta set that are also training questions, whatever their ids. Pictures are opened only
    where texts are the same.
    """
    loaded = Loaded(**vars(train))
    told = [(train, one) for one in (*rows.check(loaded), *verdicts.check_labels(loaded))]
    if meta is not None:
        judged = {t.question_id for t in meta.trajectories if t.outcome is not None}
        asked = [question for question in meta.questions if question.id in judged]
        shared = pictures.shared(asked, "the training set", train.questions)
        told += [(meta, one) for one in (*rows.check(Loaded(**vars(meta))), *shared)]
    for records, one in told:
        if one.severity == "error":
            more = f" and {one.count - 1} more" if one.count > 1 else ""
            where = f" ({one.where[0]}{more})" if one.where else ""
            yield DataError(f"{one.message}{where}", file=records.source or None)
