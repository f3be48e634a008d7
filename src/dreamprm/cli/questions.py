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
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dreamprm.answers.options import shuffle_options
from dreamprm.cli.parsing import UsageError
from dreamprm.cli.terminal import LOG_EVERY_S, progress
from dreamprm.data import DataWarning, write_questions
from dreamprm.errors import DataError, DreamPRMError, offer

if TYPE_CHECKING:
    from dreamprm.data.sources import ColumnMap
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
    with _counted(config.limit if config.seed is None else None) as advance:
        questions = _read(config, config.source, advance, skipped)
        if (seed := config.shuffle_options) is not None:
            questions = (shuffle_options(question, seed) for question in questions)
        counts: Counter[str] = Counter()
        write_questions(config.output, _tallied(questions, counts))
    if skipped:
        print(f"{len(skipped)} rows left out, the first: {skipped[0]}", file=sys.stderr)
    found = ", ".join(f"{counts[what]} {what}" for what in ("with options", "images"))
    print(f"{config.output}: {counts['questions']} questions, {found}")


def known_table() -> str:
    """The known sets, one per line."""
    from dreamprm.data.sources import KNOWN

    rows = [("name", "family", "status", "hub (subset), or file")]
    for name, known in KNOWN.items():
        subset = known.subset if isinstance(known.subset, str) else None
        place = known.hub or "a file: give --path"
        where = f"{place} ({subset})" if subset else place
        rows.append((name, known.family, known.status, where))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(
        "  ".join([*(row[i].ljust(widths[i]) for i in range(3)), row[3]]) for row in rows
    )


def _read(
    config: Config, source: str, advance: Callable[[int], None], skipped: list[DataError]
) -> Iterator[Question]:
    from dreamprm.data.sources import KNOWN, find_known, read_known, read_source
    from dreamprm.data.sources.published import find_hub

    options: dict[str, Any] = {
        "domain": config.domain,
        "split": config.split,
        "subset": config.subset,
        "limit": config.limit,
        "seed": config.seed,
        "image_folder": _image_folder(config),
        "image_root": config.image_root,
        "only_with_images": config.only_with_images,
        "on_read": advance,
    }
    if config.on_bad_row == "skip":
        options["bad_row"] = skipped.append
    name = find_known(source)
    if name is None and not Path(source).exists():
        name = find_hub(source, config.subset)
    if name is not None:
        columns = _column_map(config.columns, KNOWN[name].columns)
        if columns is None and config.columns != Columns():
            raise UsageError(
                f"questions: {name} needs --columns.text and --columns.answer, or none"
            )
        return read_known(name, path=config.path, columns=columns, **options)
    if not Path(source).exists() and not _could_be_a_table(source):
        raise DreamPRMError(
            f"there is no file and no known source '{source}'; {offer(source, KNOWN)}"
        )
    if config.path is not None:
        raise UsageError("questions: --path goes with a known source; give the file as --source")
    columns = _column_map(config.columns, None)
    if columns is None:
        raise UsageError(
            f"questions: {source} is no known source; say by --columns.text and --columns.answer "
            "(and --columns.images, --columns.options, ...) which column is which"
        )
    return read_source(source, columns, **options)


def _could_be_a_table(source: str) -> bool:
    from dreamprm.data.sources.tables import FILES, hub_like

    return hub_like(source) or Path(source).suffix.lower() in FILES


def _column_map(given: Columns, base: ColumnMap | None) -> ColumnMap | None:
    """The columns that were given, over those of a known set; None if that is not enough."""
    from dreamprm.data.sources import ColumnMap

    if base is None and (given.text is None or given.answer is None):
        return None
    changes: dict[str, Any] = {
        name: value
        for name in ("text", "answer", "answer_is", "id", "subject", "unit", "precision")
        if (value := getattr(given, name)) is not None
    }
    for name in ("images", "options"):
        if (value := getattr(given, name)) is not None:
            several = tuple(part.strip() for part in value.split(","))
            changes[name] = several if len(several) > 1 else several[0]
    if given.extra is not None:
        changes["extra"] = {part.strip(): part.strip() for part in given.extra.split(",")}
    return replace(base or ColumnMap(), **changes)


def _image_folder(config: Config) -> Path | None:
    if config.inline_images or config.output is None:
        return None
    return config.image_folder or config.output.with_name(f"{config.output.stem}_images")


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


@contextmanager
def _counted(limit: int | None) -> Iterator[Callable[[int], None]]:
    """Progress towards `limit`; where no end is known, now and then how many there are."""
    if limit is not None:
        with progress("questions read", limit) as advance:
            yield advance
        return
    count, last = 0, time.monotonic()

    def tell(done: int) -> None:
        nonlocal count, last
        count += done
        if time.monotonic() - last >= LOG_EVERY_S:
            last = time.monotonic()
            print(f"questions read: {count}", file=sys.stderr, flush=True)

    yield tell
