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

from dreamprm.data import JsonlAppender
from dreamprm.data.files import atomic_write, load_json_object
from dreamprm.data.own import LINES, iterate, to_line
from dreamprm.errors import DataError
from dreamprm.records import StepScores, Trajectory


@contextmanager
def appending(output: Path, command: str, settings: Mapping[str, Any]) -> Iterator[JsonlAppender]:
    """Open an output to append to.

    Args:
        output: a .jsonl file; need not exist.
        command: verb that writes it.
        settings: those that must be the same for the whole file; JSON values.

    Raises:
        DataError: the file was made with other settings (names the first that differs).
    """
    if output.suffix.lower() not in LINES:
        raise DataError("the output must be a .jsonl file, which can be appended to", file=output)
    guard(output, command, settings)
    with JsonlAppender(output) as appender:
        yield appender


@contextmanager
def companion(
    path: Path,
    kind: type[Trajectory] | type[StepScores],
    output: Path,
    done: set[str],
    command: str,
    settings: Mapping[str, Any],
) -> Iterator[JsonlAppender]:
    """Open a file that holds more about the questions of an output, to append to.

    The rows of a question are written before its row in the output, so that a question with a row
    there has them all. What a kill left of other questions is removed.

    Args:
        done: questions that the output has a row of.

    Raises:
        DataError: the file is of another output or of other settings, or lacks questions.
    """
    settings = {**settings, "choices": output.name}
    present: set[str] = set()
    if path.exists():
        guard(path, command, settings)
        JsonlAppender(path).close()  # drops a last line that a kill cut off
        present = {row.question_id for row in iterate(path, kind)}
    if missing := sorted(done - present):
        raise DataError(
            f"lacks the candidates of {len(missing):,} questions that the output has answers to, "
            f"'{missing[0]}' first: give another --output to have them too (what is in the store "
            "costs nothing)",
            file=path,
        )
    if present - done:
        with atomic_write(path) as file:
            for row in iterate(path, kind):
                if row.question_id in done:
                    file.write(to_line(row, path.parent))
    with appending(path, command, settings) as appender:
        yield appender


def guard(output: Path, command: str, settings: Mapping[str, Any]) -> None:
    """Note beside an output how it is made; refuse one that was made in another way.

    Raises:
        DataError: names the first setting that differs.
    """
    sidecar = _sidecar(output)
    facts = {"command": command, **settings}
    if not output.exists() or output.stat().st_size == 0:
        with atomic_write(sidecar) as file:
            file.write((json.dumps(facts, indent=2) + "\n").encode())
        return
    if not sidecar.exists():
        raise DataError(
            f"has records, but {sidecar.name}, which tells how they were made, is missing; move "
            "the file away or give another output",
            file=output,
        )
    before = load_json_object(sidecar)
    for field, value in facts.items():
        if before.get(field) != value:
            raise DataError(
                f"was made with {field} {before.get(field)!r}, now it is {value!r}; set it back or "
                "give another output",
                file=output,
                field=field,
            )


def recorded_aggregation(scores: Path) -> str:
    """What the model behind a scores file was trained for; mean_logit if it is not recorded."""
    sidecar = _sidecar(scores)
    facts = load_json_object(sidecar) if sidecar.exists() else {}
    return str(facts.get("aggregation", "mean_logit"))


def _sidecar(output: Path) -> Path:
    return output.with_name(output.name + ".settings.json")
