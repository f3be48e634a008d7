"""Outputs that grow record by record, so that a run that was killed can go on.

Beside `x.jsonl` lies `x.jsonl.settings.json` with the settings that decide what is in it. Going on
with others would mix two runs in one file, and is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dreamprm.data import JsonlAppender, read_records
from dreamprm.data.files import R, atomic_write, open_for_reading
from dreamprm.errors import DataError


@contextmanager
def resumable(
    output: Path, command: str, settings: Mapping[str, Any], kind: type[R]
) -> Iterator[tuple[JsonlAppender, list[R]]]:
    """Open an output to append to.

    Args:
        output: a .jsonl file; need not exist.
        command: verb that writes it.
        settings: those that must be the same for the whole file; JSON values.
        kind: class of its records.

    Yields:
        Where to append, and the records that an earlier run has written.

    Raises:
        DataError: the file was made with other settings (names the first that differs).
    """
    with appending(output, command, settings) as appender:
        yield appender, read_records(output, kind)


@contextmanager
def appending(output: Path, command: str, settings: Mapping[str, Any]) -> Iterator[JsonlAppender]:
    """`resumable` without reading what is there, for outputs larger than the memory."""
    if output.suffix.lower() not in (".jsonl", ".ndjson"):
        raise DataError("the output must be a .jsonl file, which can be appended to", file=output)
    guard(output, command, settings)
    with JsonlAppender(output) as appender:
        yield appender


def guard(output: Path, command: str, settings: Mapping[str, Any]) -> None:
    """Note beside an output how it is made; refuse one that was made in another way.

    Raises:
        DataError: names the first setting that differs.
    """
    sidecar = output.with_name(output.name + ".settings.json")
    facts = {"command": command, **settings}
    if output.exists() and output.stat().st_size > 0:
        _refuse_others(output, sidecar, facts)
    else:
        with atomic_write(sidecar) as file:
            file.write((json.dumps(facts, indent=2) + "\n").encode())


def recorded_aggregation(scores: Path) -> str:
    """What the model behind a scores file was trained for; mean_logit if it is not recorded."""
    sidecar = scores.with_name(scores.name + ".settings.json")
    if not sidecar.exists():
        return "mean_logit"
    with open_for_reading(sidecar) as file:
        try:
            return str(json.loads(file.read()).get("aggregation", "mean_logit"))
        except ValueError as error:
            raise DataError(f"not JSON ({error}); restore it", file=sidecar) from error


def _refuse_others(output: Path, sidecar: Path, facts: Mapping[str, Any]) -> None:
    if not sidecar.exists():
        raise DataError(
            f"has records, but {sidecar.name}, which tells how they were made, is missing; move "
            "the file away or give another output",
            file=output,
        )
    with open_for_reading(sidecar) as file:
        try:
            before: dict[str, Any] = json.loads(file.read())
        except ValueError as error:
            raise DataError(f"not JSON ({error}); restore it", file=sidecar) from error
    for field in facts:
        if before.get(field) != facts[field]:
            raise DataError(
                f"was made with {field} {before.get(field)!r}, now it is {facts[field]!r}; set it "
                "back or give another output",
                file=output,
                field=field,
            )
