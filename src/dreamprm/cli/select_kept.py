"""`dreamprm select`: candidates that were not chosen, for who wants to look further.

They are written before the choice of their question, so that a question with a choice has them all;
what a kill left of others is removed on going on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from dreamprm.cli.resume import appending, guard
from dreamprm.errors import DataError
from dreamprm.formats.files import atomic_write
from dreamprm.formats.jsonl import JsonlAppender, iterate_jsonl, to_line
from dreamprm.records import StepScores, Trajectory
from dreamprm.search.answer import Found


class Kept:
    """Writes the candidates of each answered question, and their step scores.

    Args:
        candidates, scores: where to; None writes nothing.
    """

    def __init__(self, candidates: JsonlAppender | None, scores: JsonlAppender | None) -> None:
        self._candidates, self._scores = candidates, scores

    def append(self, found: Found) -> None:
        """All finished candidates of one question."""
        for c in found.candidates:
            t = c.trajectory
            if self._candidates is not None:
                self._candidates.append(t)
            if self._scores is not None and c.logits:
                row = StepScores(
                    question_id=t.question_id,
                    sample_index=t.sample_index,
                    logits=c.logits,
                    cut=len(t.steps) - len(c.logits),
                )
                self._scores.append(row)


@contextmanager
def keeping(
    candidates: Path | None, scores: Path | None, settings: Mapping[str, Any], done: set[str]
) -> Iterator[Kept]:
    """Open the outputs.

    Args:
        settings: see `resume.resumable`.
        done: questions whose choice is written.

    Raises:
        DataError: an output was made with other settings, or begins too late.
    """
    with ExitStack() as stack:
        out: list[JsonlAppender | None] = []
        for path, kind in ((candidates, Trajectory), (scores, StepScores)):
            if path is not None and path.exists():
                guard(path, "select", settings)
                _keep_only(path, kind, done)
            elif path is not None and done:
                raise DataError(
                    f"is not there, and the output has answers to {len(done):,} questions already: "
                    "give another --output to have their candidates too (what is in the store "
                    "costs nothing)",
                    file=path,
                )
            out.append(
                None if path is None else stack.enter_context(appending(path, "select", settings))
            )
        yield Kept(*out)


def _keep_only(path: Path, kind: type[Trajectory] | type[StepScores], done: set[str]) -> None:
    with JsonlAppender(path):  # drops a last line that a kill cut off
        pass
    if all(row.question_id in done for row in iterate_jsonl(path, kind)):
        return
    with atomic_write(path) as file:
        for row in iterate_jsonl(path, kind):
            if row.question_id in done:
                file.write(to_line(row, path.parent))
