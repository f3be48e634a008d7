"""What a data format is: how its rows are recognised, and what a row says.

A format that is read is a declaration with a function `parse`, which gives the trajectories of a
row, each with its question. All else is done here once: going through the file, naming file, row
and field of an error, telling questions apart, counting candidates, and rows without a response.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dreamprm.data import own
from dreamprm.data.files import (
    BadRow,
    DataWarning,
    atomic_write,
    image_from_disk,
    image_to_disk,
    in_row,
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


class Claim(NamedTuple):
    """What a row says that records cannot, for `dreamprm validate`.

    A row without a response becomes no trajectory, and labels that carry nothing are left out on
    reading; both are defects that a user must be told.

    Attributes:
        row: its number, from 1.
        place: the same with its id, in words.
        has_response: does it hold a response?
        outcome: is its answer right? None where the row does not say.
        text: question and response, by which rows are compared; None where records do that.
        images: those of the question, as text.
        labels: was each step called right? None where records hold the labels.
    """

    row: int
    place: str
    has_response: bool = True
    outcome: bool | None = None
    text: str | None = None
    images: str = ""
    labels: tuple[bool, ...] | None = None


@dataclass(frozen=True)
class Records:
    """What one or several files hold.

    Attributes:
        questions: all questions, each once.
        trajectories: in the order of the files.
        scores: step scores, where the file holds such.
        source: the file that messages about the trajectories name.
        claims: what the rows say besides.
    """

    questions: list[Question] = field(default_factory=list)
    trajectories: list[Trajectory] = field(default_factory=list)
    scores: list[StepScores] = field(default_factory=list)
    source: str = ""
    claims: list[Claim] = field(default_factory=list)

    @property
    def by_id(self) -> dict[str, Question]:
        """Questions by their ids."""
        return {question.id: question for question in self.questions}

    @property
    def pairs(self) -> list[tuple[Question, Trajectory]]:
        """Every trajectory with its question."""
        by_id = self.by_id
        return [(by_id[trajectory.question_id], trajectory) for trajectory in self.trajectories]


@dataclass
class Reading:
    """One file while it is read: where, with what options, and what was read so far."""

    path: Path
    root: Path
    domain: str | None
    without_response: WithoutResponse
    bad_row: BadRow
    number: int = 0  # of the row that is read, 1-based
    questions: dict[str, Question] = field(default_factory=dict)
    trajectories: list[Trajectory] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    rows_of_ids: dict[str, int] = field(default_factory=dict)  # where each id must be the only one
    _samples: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def claim(self, row: Row, **told: Any) -> None:
        """Note what the row that is read says."""
        self.claims.append(Claim(self.number, row_place(self.number, row), **told))

    def warn(self, message: str) -> None:
        """Tell a user what is odd about the file."""
        warnings.warn(f"{self.path}: {message}", DataWarning, stacklevel=5)

    def refuse_without_response(self, field: str, why: str) -> None:
        """Refuse the file where rows hold no response, unless such are dropped or kept."""
        empty = [claim.row for claim in self.claims if not claim.has_response]
        if empty and self.without_response == "refuse":
            message = f"{len(empty)} of {len(self.claims)} rows without a response{why}; add the "
            message += (
                "responses, or leave the rows out (`dreamprm convert --without_response drop`)"
            )
            self.bad_row(DataError(message, file=self.path, row=empty[0], field=field))

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
        if known.answer == UNKNOWN_ANSWER != question.answer:
            known = self.questions[known.id] = known.model_copy(update={"answer": question.answer})
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
        name = row_text(row, "id")
        return Question.parse(
            {
                "id": _digest(domain, text, tuple(paths)) if name in ("", "-1") else name,
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
        options: tuple[str, ...] = (),
        images: tuple[str | bytes, ...] = (),
    ) -> Question:
        """A question whose text is taken as it is; its id is a hash of what is told of it."""
        more = {"options": options, "images": images} if options or images else {}
        asked = {"domain": self.domain, "text": text, "answer": answer, "subject": subject, **more}
        name = _digest(self.domain, subject, text, answer, *more.values())
        return Question.parse({"id": name, **asked})


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def pair(question: Question, steps: Sequence[str], **fields: Any) -> Pair:
    """A question with a trajectory of these steps and fields."""
    return question, Trajectory.parse({"question_id": question.id, "steps": steps, **fields})


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
        to_rows: the rows of a file in a folder, from trajectories with their questions; None where
            the format is only read.
        loses: what it has no place for, in words.
        default_domain: of questions whose row names none; by default the format's name, and where
            it is None, such rows are refused.
        rows_without_response: may rows hold no response?
    """

    name: str
    about: str
    fits: Callable[[Row, str], bool]
    holds: Literal["pair", "questions", "trajectories", "scores"] = "pair"
    parse: Parse | None = None
    finish: Callable[[Reading], None] | None = None
    own: type[Any] | None = None
    to_rows: Callable[[Iterator[tuple[Question, Trajectory]], Path], Iterable[Row]] | None = None
    loses: str = ""
    default_domain: str | None = ""
    rows_without_response: bool = False

    @property
    def is_written(self) -> bool:
        """Can files of this format be written?"""
        return self.to_rows is not None or (self.own is not None and self.holds != "scores")

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
        for reading.number, row in each_row(path, bad_row):
            with in_row(path, reading.number, bad_row):
                for question, trajectory in self.parse(row, reading):
                    reading.add(question, trajectory)
        if self.finish is not None:
            self.finish(reading)
        questions = list(reading.questions.values())
        return Records(questions, reading.trajectories, source=str(path), claims=reading.claims)

    def write(
        self, path: str | Path, questions: Sequence[Question], trajectories: Iterable[Trajectory]
    ) -> None:
        """Write a file in one step: JSONL, or a JSON list where the path ends in .json.

        Raises:
            DataError: a trajectory's question is missing, or the format cannot hold what it says.
        """
        if self.own is not None:
            own.write(path, questions if self.own is Question else trajectories, self.own)
            return
        assert self.to_rows is not None  # see `is_written`
        by_id = {question.id: question for question in questions}
        pairs = ((question_of(trajectory, by_id), trajectory) for trajectory in trajectories)
        rows = self.to_rows(pairs, Path(path).parent)
        with atomic_write(path) as file:
            if Path(path).suffix.lower() == ".json":
                file.write(json.dumps(list(rows), ensure_ascii=False, indent=1).encode() + b"\n")
                return
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def has(
    *fields: str, suffixes: Sequence[str] = (".json", *own.LINES)
) -> Callable[[Row, str], bool]:
    """Is a row told by these fields, in files of these suffixes?"""
    return lambda row, suffix: suffix in suffixes and set(fields) <= set(row)


def holds(name: str, kind: type, *fields: str) -> Callable[[Row, str], bool]:
    """`has`, where the first field must be of a type."""
    known = has(name, *fields)
    return lambda row, suffix: known(row, suffix) and isinstance(row[name], kind)


def question_of(trajectory: Trajectory, by_id: Mapping[str, Question]) -> Question:
    """The question of a trajectory, which must be there."""
    if trajectory.question_id not in by_id:
        raise DataError(
            f"a trajectory belongs to question '{trajectory.question_id}', which is not among the "
            "questions; add the question or remove the trajectory",
            field="question_id",
        )
    return by_id[trajectory.question_id]


def row_place(number: int, row: Mapping[str, Any]) -> str:
    """How messages name a row: by its number, and its id if it has one."""
    identity = row.get("id")
    told = f" (id {identity})" if isinstance(identity, str | int) else ""
    return f"row {number}{told}"


def contradictions(
    told: Iterable[tuple[Hashable, Hashable, bool | None, str]],
) -> Iterator[tuple[bool, list[tuple[str, bool]]]]:
    """Texts that are called both right and wrong.

    Args:
        told: text, images, outcome and place of each row or trajectory.

    Yields:
        For each such text: is it so with the same images? And its places with their outcomes.
    """
    groups: dict[Hashable, list[tuple[Hashable, str, bool]]] = defaultdict(list)
    for text, images, outcome, where in told:
        if outcome is not None:
            groups[text].append((images, where, outcome))
    for members in groups.values():
        if len({outcome for *_, outcome in members}) > 1:
            by_images = {(images, outcome) for images, _, outcome in members}
            same = len(by_images) > len({images for images, _ in by_images})
            yield same, [(where, outcome) for _, where, outcome in members]


def outside_id(question_id: str) -> int | str:
    """Ids of the paper's files are numbers; ours are text."""
    is_number = (
        question_id.isascii() and question_id.isdigit() and str(int(question_id)) == question_id
    )
    return int(question_id) if is_number else question_id


def outside_images(
    question: Question, trajectory: Trajectory, folder: Path, *, listed: bool = False
) -> str | list[str]:
    """The image paths for a file in `folder`: a list, or (unless `listed`) a path alone."""
    paths = []
    for image in question.images:
        if isinstance(image, bytes):
            message = "has a question with image bytes, and this format takes paths; save them as"
            raise cannot_hold(trajectory, f"{message} files", field="images")
        paths.append(image_to_disk(image, folder))
    return paths[0] if len(paths) == 1 and not listed else paths


def cannot_hold(trajectory: Trajectory, message: str, field: str = "labels") -> DataError:
    """The error of a writer whose format has no place for what a trajectory holds."""
    index, question = trajectory.sample_index, trajectory.question_id
    return DataError(f"trajectory {index} of question '{question}' {message}", field=field)
