"""Read and write records; outside files are converted at this edge.

The format is picked by suffix and, for JSON, by the fields of the first row. Files that hold
questions and trajectories together (the paper's) can be read for either; `read_pair` gives both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from dreamprm.errors import DataError
from dreamprm.formats.dreamprm_meta import read_meta
from dreamprm.formats.dreamprm_train import read_train
from dreamprm.formats.files import DataWarning, R, load_json_rows
from dreamprm.formats.jsonl import JsonlAppender, iterate_rows, read_jsonl, write_jsonl
from dreamprm.formats.mathvision import read_mathvision
from dreamprm.formats.rows import WithoutResponse
from dreamprm.formats.visualprm import read_visualprm
from dreamprm.images import load_image
from dreamprm.records import Question, StepScores, Trajectory

__all__ = [
    "DataWarning",
    "JsonlAppender",
    "check_images",
    "check_references",
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

KNOWN = (
    ".jsonl (one record per line, or MATH-Vision's questions), .parquet, or .json in the form of "
    "DreamPRM's train.json or meta.json or VisualPRM's conversations"
)


def read_questions(
    path: str | Path, *, allow_without_response: WithoutResponse = "refuse"
) -> list[Question]:
    """Questions of a JSONL, Parquet or outside file."""
    kind = _outside(path)
    if kind == "mathvision":
        return read_mathvision(path)
    if kind:
        return read_pair(path, allow_without_response=allow_without_response)[0]
    return read_records(path, Question)


def read_trajectories(
    path: str | Path, *, allow_without_response: WithoutResponse = "refuse"
) -> list[Trajectory]:
    """Trajectories of a JSONL, Parquet or outside JSON file."""
    if _outside(path):
        return read_pair(path, allow_without_response=allow_without_response)[1]
    return read_records(path, Trajectory)


def read_scores(path: str | Path) -> list[StepScores]:
    """Step scores of a JSONL or Parquet file."""
    return read_records(path, StepScores)


def read_pair(
    path: str | Path, *, allow_without_response: WithoutResponse = "refuse"
) -> tuple[list[Question], list[Trajectory]]:
    """Questions and trajectories of a file that holds both."""
    kind = _outside(path)
    if kind == "train":
        return read_train(path, allow_without_response=allow_without_response)
    if kind == "meta":
        return read_meta(path, allow_without_response=allow_without_response)
    if kind == "visualprm":
        return read_visualprm(path)
    if kind == "mathvision":
        raise DataError(
            "holds MATH-Vision's questions and no trajectories; `dreamprm sample` makes some",
            file=path,
        )
    raise DataError(
        "does not hold questions and trajectories together; read them from two files", file=path
    )


def read_records(path: str | Path, kind: type[R]) -> list[R]:
    """Records of one class from a JSONL or Parquet file."""
    suffix = Path(path).suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        return read_jsonl(path, kind)
    if suffix == ".parquet":
        from dreamprm.formats.parquet import read_parquet

        return read_parquet(path, kind)
    raise _unknown(path)


def write_records(path: str | Path, records: Iterable[R], kind: type[R]) -> None:
    """Write records of one class as JSONL or Parquet, by the suffix of `path`."""
    suffix = Path(path).suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        write_jsonl(path, records)
    elif suffix == ".parquet":
        from dreamprm.formats.parquet import write_parquet

        write_parquet(path, records, kind)
    else:
        raise DataError("can be written as .jsonl or .parquet only; rename it", file=path)


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
    known = {question.id for question in questions}
    for row, trajectory in enumerate(trajectories, start=1):
        if trajectory.question_id not in known:
            raise DataError(
                f"question '{trajectory.question_id}' is not in the questions file; add it or "
                "remove the row",
                file=file,
                row=row,
                field="question_id",
            )


def check_images(questions: Sequence[Question], file: str | Path, *, decode: bool = False) -> None:
    """Every image must be there.

    Args:
        questions: questions in the order of their file.
        file: where they come from, for the message.
        decode: also read each image to its end (slow; finds damaged files).

    Raises:
        DataError: naming the first row whose image is missing or damaged.
    """
    for row, question in enumerate(questions, start=1):
        for image in question.images:
            if decode:
                try:
                    load_image(image)
                except DataError as error:
                    raise error.at(file=file, row=row) from error
            elif isinstance(image, str) and not Path(image).is_file():
                raise DataError(
                    f"image {image} does not exist; restore the file or correct the path",
                    file=file,
                    row=row,
                    field="images",
                )


def _outside(path: str | Path) -> str | None:
    """Name of the outside format of a file; None for a file of our own records."""
    suffix = Path(path).suffix.lower()
    if suffix == ".json":
        first = next(iter(load_json_rows(path)), {})
    elif suffix in (".jsonl", ".ndjson"):
        _, first = next(iterate_rows(path), (1, {}))
    elif suffix == ".parquet":
        return None
    else:
        raise _unknown(path)
    fields = set(first) if isinstance(first, dict) else set()
    if "conversations" in fields:
        return "visualprm"
    if {"add", "input"} <= fields:
        return "train"
    if {"true_false", "input"} <= fields:
        return "meta"
    if {"question", "image"} <= fields and "text" not in fields and suffix != ".json":
        return "mathvision"
    if suffix == ".json":
        raise _unknown(path)
    return None


def _unknown(path: str | Path) -> DataError:
    return DataError(f"unknown format; known are {KNOWN}", file=path)
