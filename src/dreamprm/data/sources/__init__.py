"""Questions from anywhere: other people's tables, and the published sets of the paper, by name.

A table becomes questions by a column map (`columns`). Its rows come from a file, a folder or the
hub (`tables`), rows of chat turns are split first (`chat`), and images stay encoded as they are
(`pictures`). `published` lists the sets whose schema could be looked up; `known` reads them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from dreamprm.data.files import BadRow, check_new_id, refuse
from dreamprm.data.sources.columns import ColumnMap, Row, question_of
from dreamprm.data.sources.pictures import save_picture
from dreamprm.data.sources.tables import Table, open_table, table_name
from dreamprm.errors import DataError, DreamPRMError
from dreamprm.records import Question

__all__ = ["ColumnMap", "choose", "read_source", "store_images"]


def read_source(
    source: Table,
    columns: ColumnMap,
    *,
    split: str | None = None,
    subset: str | Sequence[str] | None = None,
    name: str | None = None,
    domain: str | None = None,
    limit: int | None = None,
    seed: int | None = None,
    image_folder: str | Path | None = None,
    image_root: str | Path | None = None,
    only_with_images: bool = False,
    bad_row: BadRow = refuse,
    on_read: Callable[[int], None] = lambda _: None,
) -> Iterator[Question]:
    """Yield the questions of a table.

    Args:
        source: a .jsonl, .json, .csv or .parquet file, a folder written by `datasets.save_to_disk`,
            a data set's name on the hub, or rows in memory.
        columns: where the fields of a question are.
        split: part of a data set on the hub or in a folder.
        subset: configuration on the hub, or several that are read one after the other.
        name: of the source, in messages and in the ids of questions that have none.
        domain: of all questions; `name` by default.
        limit: at most so many questions. From the hub no more is fetched than they need.
        seed: take a random `limit` of all questions instead of the first; the whole split is read.
        image_folder: images given as bytes are written here, each once, and named by path; without
            it they stay bytes.
        image_root: folder that relative image paths start from; that of a source file by default.
        only_with_images: leave out questions without an image.
        bad_row: what to do with a row that cannot be read.
        on_read: told 1 for every question read.

    Raises:
        DataError: names source, row and column.

    Example:
        >>> rows = [{"q": "2 + 2?", "choices": ["3", "4"], "label": 1}]
        >>> columns = ColumnMap(text="q", options="choices", answer="label", answer_is="index")
        >>> next(read_source(rows, columns, name="sums")).answer
        'B'
    """
    if limit is not None and limit < 1:
        raise DreamPRMError(f"limit is {limit}; it must be 1 or more")
    if image_root is None and isinstance(source, str | Path) and Path(source).is_file():
        image_root = Path(source).parent
    questions = _questions(
        source,
        columns,
        split=split,
        subsets=subset
        if isinstance(subset, Sequence) and not isinstance(subset, str)
        else [subset],
        name=name or table_name(source),
        domain=domain or name or table_name(source),
        image_root=None if image_root is None else Path(image_root),
        stream=limit is not None and seed is None,
        bad_row=bad_row,
    )
    if only_with_images:
        questions = (question for question in questions if question.images)
    return store_images(choose(_told(questions, on_read), limit, seed), image_folder)


def choose(
    questions: Iterable[Question], limit: int | None, seed: int | None
) -> Iterator[Question]:
    """The first `limit` questions, or with a seed a random `limit` of them, in their order."""
    if limit is None:
        yield from questions
    elif seed is None:
        yield from islice(questions, limit)
    else:  # a reservoir: every question has the same chance, and only `limit` are held
        kept: list[tuple[int, Question]] = []
        rng = random.Random(seed)
        for number, question in enumerate(questions):
            if number < limit:
                kept.append((number, question))
            elif (place := rng.randint(0, number)) < limit:
                kept[place] = (number, question)
        yield from (question for _, question in sorted(kept, key=lambda pair: pair[0]))


def store_images(questions: Iterable[Question], folder: str | Path | None) -> Iterator[Question]:
    """The questions, their images that are bytes written into `folder` (as they are if None)."""
    for question in questions:
        if folder is None or not any(isinstance(image, bytes) for image in question.images):
            yield question
            continue
        images = tuple(
            save_picture(image, Path(folder)) if isinstance(image, bytes) else image
            for image in question.images
        )
        yield question.model_copy(update={"images": images})


def _questions(
    source: Table,
    columns: ColumnMap,
    *,
    split: str | None,
    subsets: Sequence[str | None],
    name: str,
    domain: str,
    image_root: Path | None,
    stream: bool,
    bad_row: BadRow,
) -> Iterator[Question]:
    seen: dict[str, int] = {}
    for subset in subsets:
        label = str(source) if isinstance(source, str | Path) else name
        label += f" ({subset})" if subset else ""
        several = subset if len(subsets) > 1 else None
        start = "-".join(part for part in (name, several, split) if part)
        number = 0
        try:
            for number, row in open_table(source, split=split, subset=subset, stream=stream):
                try:
                    if not isinstance(row, dict):
                        raise DataError("is no object; correct or remove it")
                    asked = _of_row(row, columns, f"{start}-{number}", domain, image_root)
                    for question in asked:
                        check_new_id(question.id, number, seen, label)
                except DataError as error:
                    bad_row(error.at(file=label, row=number))
                    continue
                yield from asked
        except DataError as error:
            raise error.at(file=label) from error


def _of_row(
    row: Row, columns: ColumnMap, name: str, domain: str, image_root: Path | None
) -> list[Question]:
    if columns.turns is None:
        return [question_of(row, columns, name=name, domain=domain, image_root=image_root)]
    return [
        question_of(turn, columns, name=f"{name}-{i}", domain=domain, image_root=image_root)
        for i, turn in enumerate(columns.turns(row), start=1)
    ]


def _told(questions: Iterable[Question], on_read: Callable[[int], None]) -> Iterator[Question]:
    for question in questions:
        on_read(1)
        yield question
