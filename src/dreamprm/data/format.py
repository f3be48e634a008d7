"""What a data format is, for the table of formats in `known`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dreamprm.data.claims import Claim
from dreamprm.data.files import BadRow, refuse
from dreamprm.records import Question, StepScores, Trajectory

Row = Mapping[str, Any]
WithoutResponse = Literal["refuse", "drop", "keep"]
Write = Callable[[str | Path, Iterable[Question], Iterable[Trajectory]], None]


class Records(NamedTuple):
    """What a file holds; most formats hold the first two."""

    questions: list[Question]
    trajectories: list[Trajectory]
    scores: list[StepScores]


@dataclass(frozen=True, kw_only=True)
class Format:
    """A data format.

    Attributes:
        name: as users write it.
        about: one line.
        holds: what a file of it gives.
        fits: is this row, the first of a file with this suffix, of the format?
        reader: path, and by keyword `image_root`, `bad_row` and where it is known `domain` and
            `allow_without_response` -> (questions, trajectories).
        write: None where the format is only read.
        loses: what the format has no place for; keys of `losses.LOSSES`.
        rows_without_response: may rows hold no response, so that `allow_without_response` is known?
        claim: what a row says that its records cannot, see `claims`; None where there is nothing.
    """

    name: str
    about: str
    holds: Literal["pair", "questions", "trajectories", "scores"]
    fits: Callable[[Row, str], bool]
    reader: Callable[..., Any]
    write: Write | None = None
    loses: tuple[str, ...] = ()
    rows_without_response: bool = False
    claim: Callable[[Row], Claim] | None = None

    @property
    def is_ours(self) -> bool:
        """Is it one of our own kinds of record?"""
        return self.name in ("questions", "trajectories", "scores")

    def read(
        self,
        path: str | Path,
        *,
        image_root: str | Path | None = None,
        domain: str | None = None,
        without_response: WithoutResponse = "refuse",
        bad_row: BadRow = refuse,
    ) -> Records:
        """Read a file.

        Args:
            path: the file.
            image_root: folder that image paths start from; by default the file's own.
            domain: of questions whose row names none; by default the format's name.
            without_response: what to do with rows that hold no response, where the format has such.
            bad_row: told of each row that cannot be read; when it returns, the row is left out.

        Raises:
            DataError: names the row and field of what is wrong.
        """
        more: dict[str, Any] = {"image_root": image_root, "bad_row": bad_row}
        if self.rows_without_response:
            more["allow_without_response"] = without_response
        if domain is not None and self.holds in ("pair", "questions"):
            more["domain"] = domain
        found = self.reader(path, **more)
        if self.name == "scores":
            return Records([], [], found)
        if self.name == "trajectories":
            return Records([], found, [])
        if self.holds == "questions":
            return Records(found, [], [])
        questions, trajectories = found
        return Records(questions, trajectories, [])
