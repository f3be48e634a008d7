"""Read and write records; outside files are converted at this edge.

`load` reads what belongs together: questions and trajectories. The format of a file is told from
its first rows (`known.detect`) or given by name.
"""

from __future__ import annotations

import warnings
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from dreamprm.answers import check_gold
from dreamprm.data import known, own
from dreamprm.data.files import BadRow, DataWarning, R, in_row, refuse
from dreamprm.data.format import Format, Records, WithoutResponse
from dreamprm.data.own import JsonlAppender
from dreamprm.errors import DataError
from dreamprm.images import Checked, Reference, check_image, fitted_images, in_threads
from dreamprm.records import Question, StepScores, Trajectory

__all__ = [
    "DataWarning",
    "JsonlAppender",
    "Records",
    "check_golds",
    "check_images",
    "check_references",
    "checked_references",
    "iterate_trajectories",
    "load",
    "read_pair",
    "read_questions",
    "read_records",
    "read_scores",
    "read_trajectories",
    "write_questions",
    "write_records",
    "write_scores",
    "write_trajectories",
]


def load(
    *paths: str | Path,
    format: str | None = None,
    image_root: str | Path | None = None,
    bad_image: BadRow = refuse,
) -> Records:
    """Questions and their trajectories, from files of any format.

    Args:
        paths: a file of questions, with files of their trajectories or without; or files of another
            format that hold both. The order does not matter.
        format: name of the format of all files; by default told from the first rows of each.
        image_root: folder that image paths start from; each file's own by default.
        bad_image: see `check_images`; the trajectories of what it leaves out are left out too.

    Raises:
        DataError: names the file, row and field of what is wrong: a bad row, a trajectory of an
            unknown question, an id of two questions, an image that cannot be used.

    Example:
        >>> import tempfile
        >>> from dreamprm.records import Question, Trajectory
        >>> folder = Path(tempfile.mkdtemp())
        >>> question = Question(id="q1", domain="charts", text="How many bars?", answer="3")
        >>> write_questions(folder / "questions.jsonl", [question])
        >>> answered = Trajectory(question_id="q1", steps=("I count 3.",), answer="3", outcome=True)
        >>> write_trajectories(folder / "trajectories.jsonl", [answered])
        >>> data = load(folder / "questions.jsonl", folder / "trajectories.jsonl")
        >>> [(question.text, trajectory.outcome) for question, trajectory in data.pairs]
        [('How many bars?', True)]
    """
    if not paths:
        raise DataError("give at least one file of questions or trajectories")
    parts: list[tuple[str | Path, Records]] = []
    for path in paths:
        one = _outside(path, format) or known.choose(path, format)
        if one.holds == "scores":
            raise DataError("holds step scores; give questions and trajectories", file=path)
        parts.append((path, one.read(path, image_root=image_root)))
    questions: dict[str, Question] = {}
    ids: set[str] = set()
    for path, part in parts:
        ids.update(question.id for question in part.questions)
        for question in check_images(part.questions, path, bad_image):
            if questions.setdefault(question.id, question) != question:
                message = f"question id '{question.id}' stands for another question in another file"
                raise DataError(f"{message}; make ids unique", file=path, field="id")
    trajectories: list[Trajectory] = []
    for path, part in parts:
        checked = checked_references(ids, part.trajectories, path)
        trajectories += [t for t in checked if t.question_id in questions]
    source = next((path for path, part in parts if part.trajectories), paths[0])
    return Records(list(questions.values()), trajectories, source=str(source))


def read_questions(
    path: str | Path,
    *,
    allow_without_response: WithoutResponse = "refuse",
    image_root: str | Path | None = None,
    format: str | None = None,
) -> list[Question]:
    """Questions of a file of any format.

    Args:
        path: the file.
        allow_without_response: "refuse" or "drop" rows that hold no response.
        image_root: folder that image paths start from; the file's own by default.
        format: name of the format; by default told from the first rows.
    """
    outside = _outside(path, format)
    if outside is None:
        return own.read(path, Question, image_root=image_root)
    return outside.read(
        path, image_root=image_root, without_response=allow_without_response
    ).questions


def read_trajectories(
    path: str | Path,
    *,
    allow_without_response: WithoutResponse = "refuse",
    image_root: str | Path | None = None,
    format: str | None = None,
) -> list[Trajectory]:
    """Trajectories of a file of any format; for the arguments see `read_questions`."""
    if _outside(path, format) is None:
        return own.read(path, Trajectory)
    how: dict[str, Any] = {"allow_without_response": allow_without_response, "format": format}
    return read_pair(path, image_root=image_root, **how)[1]


def iterate_trajectories(path: str | Path) -> Iterator[Trajectory]:
    """Trajectories one by one, where the file holds our own records; others are read whole."""
    if _outside(path, None) is None:
        return own.iterate(path, Trajectory)
    return iter(read_trajectories(path))


def read_scores(path: str | Path) -> list[StepScores]:
    """Step scores of a JSONL or Parquet file."""
    return read_records(path, StepScores)


def read_pair(
    path: str | Path,
    *,
    allow_without_response: WithoutResponse = "refuse",
    image_root: str | Path | None = None,
    format: str | None = None,
) -> tuple[list[Question], list[Trajectory]]:
    """Questions and trajectories of a file that holds both; see `read_questions`."""
    outside = _outside(path, format)
    if outside is None:
        message = "does not hold questions and trajectories together; read them from two files"
        raise DataError(message, file=path)
    if outside.holds == "questions":
        message = (
            f"holds {outside.name} questions and no trajectories; `dreamprm sample` makes some"
        )
        raise DataError(message, file=path)
    records = outside.read(path, image_root=image_root, without_response=allow_without_response)
    return records.questions, records.trajectories


def read_records(path: str | Path, kind: type[R]) -> list[R]:
    """Records of one class from a JSONL or Parquet file."""
    if Path(path).suffix.lower() not in (*own.LINES, ".parquet"):
        raise _unknown(path)
    return own.read(path, kind)


write_records = own.write
write_questions = partial(write_records, kind=Question)
write_trajectories = partial(write_records, kind=Trajectory)
write_scores = partial(write_records, kind=StepScores)


def check_references(
    questions: Iterable[Question], trajectories: Iterable[Trajectory], file: str | Path
) -> None:
    """Every trajectory must belong to one of the questions.

    Args:
        questions: the questions.
        trajectories: trajectories in the order of their file.
        file: where the trajectories come from, for the message.

    Raises:
        DataError: naming the first row whose question is missing.
    """
    for _ in checked_references({question.id for question in questions}, trajectories, file):
        pass


def checked_references(
    known: Container[str], trajectories: Iterable[Trajectory], file: str | Path
) -> Iterator[Trajectory]:
    """Trajectories as they come, each checked; see `check_references`.

    Args:
        known: ids of the questions.
    """
    for row, trajectory in enumerate(trajectories, start=1):
        if trajectory.question_id not in known:
            message = f"question '{trajectory.question_id}' is not in the questions file; add it or"
            raise DataError(f"{message} remove the row", file=file, row=row, field="question_id")
        yield trajectory


def check_images(
    questions: Sequence[Question], file: str | Path | None, bad_image: BadRow = refuse
) -> list[Question]:
    """Read every image to its end, each once.

    Args:
        questions: questions in the order of their file.
        file: where they come from, for the message; None where they are some of several.
        bad_image: told of each question with an image that cannot be used, by its row; when it
            returns, the question is left out.

    Returns:
        The questions whose images can be used. What was fetched takes the place of addresses.

    Raises:
        DataError: names the first row and question with an image that cannot be used.
    """
    references = dict.fromkeys(image for question in questions for image in question.images)
    checked: dict[Reference, Checked] = {}
    usable = []
    with closing(in_threads(check_image, references)) as results:
        reading = zip(references, results, strict=True)
        for row, question in enumerate(questions, start=1):
            with in_row(file, row if file else None, bad_image):
                for image in question.images:
                    while image not in checked:  # no further than to the first that is bad
                        reference, checked[reference] = next(reading)
                    if error := checked[image].error:
                        message = f"question '{question.id}': {error.message}"
                        raise DataError(message, field="images")
                images = tuple(checked[image].reference for image in question.images)
                same = images == question.images
                usable.append(question if same else question.model_copy(update={"images": images}))
    if fitted := [one.was for one in checked.values() if one.was]:
        warnings.warn(DataWarning(f"{fitted_images(len(fitted))}, first {fitted[0]}"), stacklevel=2)
    return usable


def check_golds(questions: Sequence[Question], file: str | Path) -> None:
    """Every gold answer must be one that can be met.

    Raises:
        DataError: naming the first row whose gold answer is none of its options.
    """
    for row, question in enumerate(questions, start=1):
        with in_row(file, row):
            check_gold(question)


def _outside(path: str | Path, name: str | None) -> Format | None:
    """The outside format of a file; None for a file of our own records.

    Raises:
        DataError: no format has this name, or a file that cannot be ours fits none.
    """
    format = known.detect(path) if name is None else known.find(name)
    if format is not None and format.own is None:
        return format
    if Path(path).suffix.lower() in (*own.LINES, ".parquet"):
        return None
    raise _unknown(path)


def _unknown(path: str | Path) -> DataError:
    outside = ", ".join(n for n, one in known.FORMATS.items() if one.holds != "scores")
    message = "unknown format; known are .jsonl or .parquet with our records, and .json or .jsonl"
    return DataError(f"{message} with {outside}", file=path)
