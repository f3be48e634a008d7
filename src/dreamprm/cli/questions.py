r"""Questions from a published set, from the hub, or from a table of your own.

Writes questions (.jsonl or .parquet), each checked: its answer is one of its options, its images
are images. --list shows the sets that are known by name; for others say which column is which.
Images that the source holds as bytes are written once each into a folder beside the output.

  dreamprm questions --source scienceqa --limit 1000 --seed 0 --output scienceqa.jsonl
  dreamprm questions --source mathvista --path testmini.json --output mathvista.jsonl
  dreamprm questions --source mine.csv --columns.text question --columns.options A,B,C,D \
    --columns.answer key --columns.images file --domain mine --output mine.jsonl
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dreamprm.cli.parsing import UsageError
from dreamprm.cli.terminal import progress
from dreamprm.data import DataWarning, write_questions
from dreamprm.data.shuffle import shuffle_options
from dreamprm.errors import DataError

if TYPE_CHECKING:
    from dreamprm.records import Question


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which column is which; several columns are given as a,b,c.

    Attributes:
        text: the question.
        answer: the gold answer.
        answer_is: how the answer names an option: letter_or_text, letter, text, index (from 0) or
            index_from_1.
        id: unique name; by default source and row.
        images: one column (an image or a list), or several.
        options: a column that holds a list, or one column per option.
        subject: finer grouping.
        unit: unit of a number.
        precision: decimals of a number that count.
        extra: other columns to keep.
    """

    text: str | None = None
    answer: str | None = None
    answer_is: Literal["letter_or_text", "letter", "text", "index", "index_from_1"] | None = None
    id: str | None = None
    images: str | None = None
    options: str | None = None
    subject: str | None = None
    unit: str | None = None
    precision: str | None = None
    extra: str | None = None


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of questions.

    Attributes:
        source: name of a known set, a file or folder, or a data set's name on the hub.
        output: .jsonl or .parquet file of questions.
        list: print the known sets and do nothing else.
        path: file or folder that holds the known set, read instead of the hub.
        columns: which column is which; of a known set only what differs.
        domain: of the questions; by default the source's name.
        split: part of a data set on the hub or in a folder.
        subset: configuration of a data set on the hub.
        limit: at most so many questions.
        seed: take a random `limit` of all questions instead of the first.
        image_folder: where images are written; by default OUTPUT_images beside the output.
        inline_images: keep images inside the output file instead.
        image_root: folder that relative image paths of the source start from.
        only_with_images: leave out questions without an image.
        shuffle_options: seed of another order of each question's options, the gold letter moved
            along; against policies that prefer a letter.
        on_bad_row: `refuse` ends with the first row that cannot be read; `skip` leaves such rows
            out and says how many.
    """

    source: str | None = None
    output: Path | None = None
    list: bool = False
    path: Path | None = None
    columns: Columns = field(default_factory=Columns)
    domain: str | None = None
    split: str | None = None
    subset: str | None = None
    limit: int | None = None
    seed: int | None = None
    image_folder: Path | None = None
    inline_images: bool = False
    image_root: Path | None = None
    only_with_images: bool = False
    shuffle_options: int | None = None
    on_bad_row: Literal["refuse", "skip"] = "refuse"


def run(config: Config) -> None:
    """Read and write the questions."""
    if config.list:
        from dreamprm.data.sources import known_table

        print(known_table())
        return
    if config.source is None or config.output is None:
        raise UsageError("questions: --source and --output are needed, or --list")
    if config.seed is not None and config.limit is None:
        raise UsageError("questions: --seed takes a random subset; say by --limit how large")
    read = {Path(given).absolute() for given in (config.source, config.path) if given}
    if config.output.absolute() in read:
        raise UsageError(f"questions: {config.output} is the source; give another output")
    skipped: list[DataError] = []
    counts: Counter[str] = Counter()
    with progress("questions read", config.limit if config.seed is None else None) as advance:
        questions = _read(config, config.source, config.output, advance, skipped)
        if (seed := config.shuffle_options) is not None:
            questions = (shuffle_options(question, seed) for question in questions)
        write_questions(config.output, _tallied(questions, counts))
    if skipped:
        print(f"{len(skipped)} rows left out, the first: {skipped[0]}", file=sys.stderr)
    parts = ", ".join(f"{counts[what]} {what}" for what in ("with options", "images"))
    print(f"{config.output}: {counts['questions']} questions, {parts}")


def _read(
    config: Config,
    source: str,
    output: Path,
    advance: Callable[[int], None],
    skipped: list[DataError],
) -> Iterator[Question]:
    from dreamprm.data.sources import KNOWN, changed_columns, find_source, read_known, read_source

    image_folder = config.image_folder or output.with_name(f"{output.stem}_images")
    names = ("domain", "split", "subset", "limit", "seed", "image_root", "only_with_images")
    options: dict[str, Any] = {name: getattr(config, name) for name in names}
    options |= {"on_read": advance, "image_folder": None if config.inline_images else image_folder}
    if config.on_bad_row == "skip":
        options["bad_row"] = skipped.append
    known = find_source(source, config.subset)
    columns = changed_columns(asdict(config.columns), KNOWN[known].columns if known else None)
    if known is not None:
        if columns is None and config.columns != Columns():
            raise UsageError(
                f"questions: {known} needs --columns.text and --columns.answer, or none"
            )
        return read_known(known, path=config.path, columns=columns, **options)
    if config.path is not None:
        raise UsageError("questions: --path goes with a known source; give the file as --source")
    if columns is None:
        raise UsageError(
            f"questions: {source} is no known source; say by --columns.text and --columns.answer "
            "(and --columns.images, --columns.options, ...) which column is which"
        )
    return read_source(source, columns, **options)


def _tallied(questions: Iterator[Question], counts: Counter[str]) -> Iterator[Question]:
    """The questions as they pass. None at all is an error, which leaves an old output as it was."""
    missing: list[str] = []
    for question in questions:
        counts["questions"] += 1
        counts["with options"] += bool(question.options)
        counts["images"] += len(question.images)
        paths = [image for image in question.images if isinstance(image, str)]
        missing += [path for path in paths if not Path(path).is_file()]
        yield question
    if missing:
        warnings.warn(
            DataWarning(f"{len(missing)} images are not there, the first: {missing[0]}"),
            stacklevel=2,
        )
    if not counts["questions"]:
        raise DataError("the source gave no question; check split, subset and what was left out")
