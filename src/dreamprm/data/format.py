"""What a data format is: how its rows are recognised, and what a row says.

A format that is read is a declaration with a function `parse`, which gives the trajectories of a
row, each with its question. All else is done here once: going through the file, naming file, row
and field of an error, telling questions apart, counting candidates, and rows without a response.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dreamprm.data import own
from dreamprm.data.claims import Claim
from dreamprm.data.files import (
    BadRow,
    atomic_write,
    image_from_disk,
    image_to_disk,
    refuse,
)
from dreamprm.data.rows import Row, each_row, image_references, row_text
from dreamprm.data.text import parse_question
from dreamprm.errors import DataError
from dreamprm.records import UNKNOWN_ANSWER, Question, StepScores, Trajectory

WithoutResponse = Literal["refuse", "drop", "keep"]
"""What to do with rows that hold no response; "keep" keeps their questions."""

Pair = tuple[Question, Trajectory | None]
"""A question with a trajectory, or without one."""


@dataclass(frozen=True)
class Records:
    """What one or several files hold.

    Attributes:
        questions: all questions, each once.
        trajectories: in the order of the files.
        scores: step scores, where the file holds such.
        source: the file that messages about the trajectories name.
    """

    questions: list[Question] = field(default_factory=list)
    trajectories: list[Trajectory] = field(default_factory=list)
    scores: list[StepScores] = field(default_factory=list)
    source: str = ""

    @property
    def by_id(self) -> dict[str, Question]:
        """Questions by their ids."""
        return {question.id: question for question in self.questions}

    @property
    def pairs(self) -> list[tuple[Question, Trajectory]]:
        """Every trajectory with its question."""
        by_id = self.by_id
        return [(by_id[trajectory.question_id], trajectory) for trajectory in self.trajectories]


class Reading:
    """One file while it is read: where, with what options, and what was read so far."""

    def __init__(
        self,
        path: Path,
        root: Path,
        domain: str | None,
        without_response: WithoutResponse,
        bad_row: BadRow,
    ) -> None:
        self.path, self.root, self.bad_row = path, root, bad_row
        self.domain = domain
        self.without_response = without_response
        self.number = 0  # of the row that is read, 1-based
        self.questions: dict[str, Question] = {}
        self.trajectories: list[Trajectory] = []
        self.empty_rows: list[int] = []  # rows without a response, where the format has such
        self.rows_of_ids: dict[str, int] = {}  # where each id must be the only one
        self._samples: dict[str, int] = defaultdict(int)

    def rows(self) -> Iterator[Row]:
        """The rows of the file that are objects."""
        for number, row in each_row(self.path, self.bad_row):
            self.number = number
            yield row

    def refuse(self, error: DataError) -> None:
        """Tell of an error in the row that is read, or in that which the error names."""
        self.bad_row(error.at(file=self.path, row=self.number))

    def add_question(self, question: Question) -> Question:
        """Add a question, and return the one that has its id.

        Raises:
            DataError: the id stands for another question already, or it has another gold answer.
        """
        known = self.questions.setdefault(question.id, question)
        if (known.text, known.images) != (question.text, question.images):
            message = f"id '{question.id}' stands for two different questions; make ids unique"
            raise DataError(message, field="id")
        if known.options != question.options:
            message = f"id '{question.id}' stands for two lists of options; make ids unique"
            raise DataError(message, field="id")
        if known.answer == UNKNOWN_ANSWER and question.answer != UNKNOWN_ANSWER:
            known = known.model_copy(update={"answer": question.answer})
            self.questions[known.id] = known
        elif question.answer not in (known.answer, UNKNOWN_ANSWER):
            message = f"the same question has the answer '{known.answer}' above; correct one of"
            raise DataError(f"{message} them", field="answer")
        return known

    def add(self, question: Question, trajectory: Trajectory | None) -> None:
        """Add a question and a trajectory, which becomes the next candidate of its question.

        A trajectory whose row names another domain than an earlier row did gets it for its own.
        """
        known = self.add_question(question)
        if trajectory is None:
            return
        changes: Row = {"sample_index": self._samples[known.id]}
        if question.domain != known.domain:
            changes["domain"] = question.domain
        self.trajectories.append(trajectory.model_copy(update=changes))
        self._samples[known.id] += 1

    def learn_answers(self) -> None:
        """Take the first answer of a right response for gold where the source gives none."""
        for trajectory in self.trajectories:
            question = self.questions[trajectory.question_id]
            if trajectory.outcome and trajectory.answer and question.answer == UNKNOWN_ANSWER:
                known = question.model_copy(update={"answer": trajectory.answer})
                self.questions[known.id] = known

    def question(
        self,
        row: Mapping[str, Any],
        text: str,
        images: str,
        *,
        domain: str | None = None,
        answer: str = "",
        subject: str | None = None,
    ) -> Question:
        """The question that a row asks.

        Args:
            row: its `id` is used (-1 is none); if it has none, a hash of text and images.
            text: the question, with options in the form '(A) ... (B) ...' behind 'Options:'.
            images: the field that names an image, or a list of them; may be missing.
            domain: where the row names one.
            answer: gold answer, '' when the source gives none.
            subject: finer grouping.
        """
        paths = image_references(row, images)
        domain = domain or self.domain
        content, options = parse_question(text)
        digest = hashlib.sha256(repr((domain, text, tuple(paths))).encode()).hexdigest()
        name = row_text(row, "id")
        return Question.parse(
            {
                "id": digest[:16] if name in ("", "-1") else name,
                "domain": domain,
                "text": content,
                "images": tuple(image_from_disk(path, self.root) for path in paths),
                "options": options,
                "answer": answer or UNKNOWN_ANSWER,
                "subject": subject,
            }
        )

    def text_question(
        self,
        text: str,
        *,
        answer: str = UNKNOWN_ANSWER,
        subject: str | None = None,
    ) -> Question:
        """A question of text alone, taken as it is; its id is a hash of what is told of it."""
        domain = self.domain
        digest = hashlib.sha256(repr((domain, subject, text, answer)).encode()).hexdigest()
        return Question.parse(
            {
                "id": digest[:16],
                "domain": domain,
                "text": text,
                "answer": answer,
                "subject": subject,
            }
        )


Parse = Callable[[Row, Reading], Iterable[Pair]]


@dataclass(frozen=True, kw_only=True)
class Format:
    """A data format.

    Attributes:
        name: as users write it.
        about: one line.
        holds: what a file of it gives.
        fits: is this row, the first of a file with this suffix, of the format?
        parse: from a row to its trajectories, each with its question.
        finish: looks at the whole once all rows are read.
        own: class of our own records that a file holds, in place of `parse`.
        write: path, questions, trajectories; None where the format is only read.
        loses: what it has no place for, in words.
        default_domain: of questions whose row names none; by default the format's name, and where
            it is None, such rows are refused.
        rows_without_response: may rows hold no response?
        claim: what a row says that its records cannot, see `claims`; None where there is nothing.
    """

    name: str
    about: str
    fits: Callable[[Row, str], bool]
    holds: Literal["pair", "questions", "trajectories", "scores"] = "pair"
    parse: Parse | None = None
    finish: Callable[[Reading], None] | None = None
    own: type[Any] | None = None
    write: Callable[[str | Path, Sequence[Question], Iterable[Trajectory]], None] | None = None
    loses: str = ""
    default_domain: str | None = ""
    rows_without_response: bool = False
    claim: Callable[[Mapping[str, Any]], Claim] | None = None

    @property
    def is_ours(self) -> bool:
        """Is it one of our own kinds of record?"""
        return self.own is not None

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
        path = Path(path)
        if self.own is not None:
            records = own.read(path, self.own, image_root=image_root, bad_row=bad_row)
            return Records(**{self.holds: records}, source=str(path))
        root = path.parent if image_root is None else Path(image_root)
        default = self.name if self.default_domain == "" else self.default_domain
        reading = Reading(path, root, domain or default, without_response, bad_row)
        assert self.parse is not None  # a format is ours or has a parser
        for row in reading.rows():
            try:
                for question, trajectory in self.parse(row, reading):
                    reading.add(question, trajectory)
            except DataError as error:
                reading.refuse(error)
        if self.finish is not None:
            self.finish(reading)
        return Records(list(reading.questions.values()), reading.trajectories, source=str(path))


def has(*fields: str) -> Callable[[Row, str], bool]:
    """Is a row of JSON told by these fields?"""
    return lambda row, suffix: suffix != ".parquet" and set(fields) <= set(row)


def holds(name: str, kind: type, *fields: str) -> Callable[[Row, str], bool]:
    """`has`, where the first field must be of a type."""
    known = has(name, *fields)
    return lambda row, suffix: known(row, suffix) and isinstance(row[name], kind)


def write_rows(path: str | Path, rows: Iterable[Row]) -> None:
    """Write rows as JSONL, or as a JSON list where the path ends in .json, in one step."""
    with atomic_write(path) as file:
        if Path(path).suffix.lower() == ".json":
            file.write(json.dumps(list(rows), ensure_ascii=False, indent=1).encode() + b"\n")
            return
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def question_of(trajectory: Trajectory, by_id: Mapping[str, Question]) -> Question:
    """The question of a trajectory, which must be there."""
    if trajectory.question_id not in by_id:
        raise DataError(
            f"a trajectory belongs to question '{trajectory.question_id}', which is not among the "
            "questions; add the question or remove the trajectory",
            field="question_id",
        )
    return by_id[trajectory.question_id]


def pairs_of(
    questions: Iterable[Question], trajectories: Iterable[Trajectory]
) -> Iterator[tuple[Question, Trajectory]]:
    """Every trajectory with its question, for a writer."""
    by_id = {question.id: question for question in questions}
    for trajectory in trajectories:
        yield question_of(trajectory, by_id), trajectory


def outside_id(question_id: str) -> int | str:
    """Ids of the paper's files are numbers; ours are text."""
    is_number = (
        question_id.isascii() and question_id.isdigit() and str(int(question_id)) == question_id
    )
    return int(question_id) if is_number else question_id


def outside_images(question: Question, trajectory: Trajectory, folder: Path) -> list[str]:
    """The image paths for a file in `folder`."""
    paths = []
    for image in question.images:
        if isinstance(image, bytes):
            message = "has a question with image bytes, and this format takes paths; save them as"
            raise cannot_hold(trajectory, f"{message} files", field="images")
        paths.append(image_to_disk(image, folder))
    return paths


def one_or_list(paths: list[str]) -> str | list[str]:
    """A path alone where there is exactly one."""
    return paths[0] if len(paths) == 1 else paths


def cannot_hold(trajectory: Trajectory, message: str, field: str = "labels") -> DataError:
    """The error of a writer whose format has no place for what a trajectory holds."""
    index, question = trajectory.sample_index, trajectory.question_id
    return DataError(f"trajectory {index} of question '{question}' {message}", field=field)
