"""`dreamprm select`: candidates that were not chosen, for who wants to look further.

They are written before the choice of their question, so that a question with a choice has them all;
what a kill left of others is removed on going on. A file belongs to one output: its settings name
it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from dreamprm.cli.resume import appending, guard
from dreamprm.data.files import atomic_write
from dreamprm.data.jsonl import JsonlAppender, iterate_jsonl, to_line
from dreamprm.errors import DataError
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
            if self._scores is not None:
                self._scores.append(StepScores.of(t, c.logits))


@contextmanager
def keeping(
    output: Path,
    candidates: Path | None,
    scores: Path | None,
    settings: Mapping[str, Any],
    done: set[str],
) -> Iterator[Kept]:
    """Open the files.

    Args:
        output: of the choices that they belong to.
        settings: see `resume.resumable`.
        done: questions whose choice is written.

    Raises:
        DataError: one of the files is of another output or of other settings, or lacks questions
            whose choice is written.
    """
    paths = [path for path in (output, candidates, scores) if path is not None]
    if len({path.resolve() for path in paths}) < len(paths):
        raise DataError("output, candidates_output and scores_output must be different files")
    settings = {**settings, "choices": output.name}
    with ExitStack() as stack:
        out: list[JsonlAppender | None] = []
        for path, kind in ((candidates, Trajectory), (scores, StepScores)):
            if path is None:
                out.append(None)
                continue
            if path.exists():
                guard(path, "select", settings)
            _tidy(path, kind, done)
            out.append(stack.enter_context(appending(path, "select", settings)))
        yield Kept(*out)


def _tidy(path: Path, kind: type[Trajectory] | type[StepScores], done: set[str]) -> None:
    """Remove rows of questions without a choice; refuse a file that lacks one with a choice."""
    there: set[str] = set()
    if path.exists():
        with JsonlAppender(path):  # drops a last line that a kill cut off
            pass
        there = {row.question_id for row in iterate_jsonl(path, kind)}
    if missing := sorted(done - there):
        raise DataError(
            f"lacks the candidates of {len(missing):,} questions that the output has answers to, "
            f"'{missing[0]}' first: give another --output to have them too (what is in the store "
            "costs nothing)",
            file=path,
        )
    if there - done:
        with atomic_write(path) as file:
            for row in iterate_jsonl(path, kind):
                if row.question_id in done:
                    file.write(to_line(row, path.parent))
