"""The published sets that we know how to read, by name: the paper's fifteen, and benchmarks.

No set was downloaded to write this: the maps follow what is documented (docs/SOURCES.md says
where, with licences and the traps of each). `documented`: columns and the form of their values
could be looked up. `partly documented`: the columns could, and the form of the values only in
sister sets. A row of another form is a DataError, never a guess, and a column that is gone is named
by the error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from dreamprm.data import mathvision
from dreamprm.data.format import Format
from dreamprm.data.rows import Row, written_value
from dreamprm.data.sources.chat import cauldron_turns, conversation_turns
from dreamprm.data.sources.columns import ColumnMap, column
from dreamprm.data.sources.tables import FILES, choose, hub_like, read_source
from dreamprm.errors import DataError, DreamPRMError, offer
from dreamprm.records import Question

Family = Literal["science", "chart", "geometry", "commonsense", "benchmark"]
Status = Literal["documented", "partly documented"]


@dataclass(frozen=True)
class KnownSource:
    """A published set.

    Attributes:
        family: the paper's family of domains, or `benchmark`.
        hub: name on the hub; None for a set that is read from a file only.
        split: the one read by default.
        columns: where the fields are; None where there is a format.
        subset: configuration on the hub, or all that belong to the set.
        status: how well the schema is documented.
        file: what to give as path, of a set that is read from a file only.
        format: of such a file, where a column map does not do.
    """

    family: Family
    hub: str | None = None
    split: str | None = None
    columns: ColumnMap | None = None
    subset: str | tuple[str, ...] | None = None
    status: Status = "documented"
    file: str | None = None
    format: Format | None = None


_TURN = ColumnMap(text="text", options="options", answer="answer", images="images")
_LLAVA = replace(_TURN, turns=conversation_turns)
_LLAVA_LETTER = replace(_LLAVA, answer_is="letter")


def _cauldron(family: Family, subset: str, status: Status = "documented") -> KnownSource:
    columns = replace(_TURN, turns=cauldron_turns, answer_is="letter")
    return KnownSource(family, "HuggingFaceM4/the_cauldron", "train", columns, subset, status)


def _onevision(
    family: Family, subset: str, columns: ColumnMap = _LLAVA, status: Status = "partly documented"
) -> KnownSource:
    return KnownSource(family, "lmms-lab/LLaVA-OneVision-Data", "train", columns, subset, status)


MMMU_SUBJECTS = (
    *("Accounting", "Agriculture", "Architecture_and_Engineering", "Art", "Art_Theory"),
    *("Basic_Medical_Science", "Biology", "Chemistry", "Clinical_Medicine", "Computer_Science"),
    *("Design", "Diagnostics_and_Laboratory_Medicine", "Economics", "Electronics"),
    *("Energy_and_Power", "Finance", "Geography", "History", "Literature", "Manage"),
    *("Marketing", "Materials", "Math", "Mechanical_Engineering", "Music", "Pharmacy"),
    *("Physics", "Psychology", "Public_Health", "Sociology"),
)
"""The 30 subsets."""


def _with_before(question: str, context: str) -> Callable[[Row], str]:
    """The question, with another column, where it is not empty, on lines of its own before it."""

    def text(row: Row) -> str:
        before, asked = column(row, context), column(row, question)
        if not isinstance(asked, str):
            raise DataError(f"must be text, not {type(asked).__name__}", field=question)
        before = before.strip() if isinstance(before, str) else ""
        return f"{before}\n{asked}" if before and asked.strip() else asked

    return text


def mmmu_subject(row: Row) -> str | None:
    """'validation_Art_Theory_3' -> 'Art_Theory'."""
    parts = str(column(row, "id")).split("_")
    return "_".join(parts[1:-1]) or None


def _mmmu_answers(row: Row) -> list[Any]:
    """All accepted answers: of an open question they may be a Python list as text."""
    answer = column(row, "answer")
    if answer == "?":
        message = "is not published for this split; read dev or validation"
        raise DataError(message, field="answer")
    if isinstance(answer, str) and answer.startswith("[") and answer.endswith("]"):
        listed = written_value(answer)  # else an interval such as [0, 1) or a formula
        if isinstance(listed, list) and listed and all(isinstance(one, str) for one in listed):
            return listed
    return [answer]


def _of_metadata(name: str) -> Callable[[Row], Any]:
    def take(row: Row) -> Any:
        metadata = column(row, "metadata")
        return metadata.get(name) if isinstance(metadata, dict) else None

    return take


_MMMU_PRO = ColumnMap(
    id="id",
    text="question",
    images=tuple(f"image_{i}" for i in range(1, 8)),
    options="options",
    answer_is="letter",
    subject="subject",
)
_MMMU_PRO_VISION = replace(
    _MMMU_PRO,
    text=lambda row: "<image 1>" if column(row, "image") is not None else "",
    images="image",
)
_MMMU = replace(
    _MMMU_PRO,
    answer=lambda row: _mmmu_answers(row)[0],
    subject=mmmu_subject,
    extra={
        "answers": lambda row: ((answers := _mmmu_answers(row))[1:] and answers) or None,
        "subfield": "subfield",
    },
)
_MATHVISTA = ColumnMap(
    id="pid",
    images="image",
    options="choices",
    answer_is="text",
    subject=_of_metadata("task"),
    unit="unit",
    precision="precision",
    extra={name: name for name in ("question_type", "answer_type")}
    | {name: _of_metadata(name) for name in ("skills", "context", "grade")},
)
_MMSTAR = ColumnMap(
    id="index",
    images="image",
    answer_is="text",  # a letter, whose options are in the question's text
    subject="category",
    extra={"l2_category": "l2_category"},
)
_SCIENCEQA = ColumnMap(
    text=_with_before("question", "hint"),
    images="image",
    options="choices",
    answer_is="index",
    subject="topic",
)
_M3COT = replace(
    _SCIENCEQA,
    id="id",
    text=_with_before("question", "context"),
    answer_is="letter",
    extra={"field": lambda row: row.get("domain")},
)
_CHARTQA = ColumnMap(text="query", images="image", answer="label")
_GEOMETRY3K = ColumnMap(
    text="problem",
    images="images",
    options="choices",
    answer="ground_truth",
    answer_is="letter",
)
_AI2D_TEST = ColumnMap(images="image", options="options", answer_is="index")

KNOWN: dict[str, KnownSource] = {
    "scienceqa": KnownSource("science", "derek-thomas/ScienceQA", "train", _SCIENCEQA),
    "m3cot": KnownSource("science", "LightChen2333/M3CoT", "train", _M3COT),
    "ai2d": _cauldron("science", "ai2d"),
    "ai2d_test": KnownSource("benchmark", "lmms-lab/ai2d", "test", _AI2D_TEST),
    "chartqa": KnownSource("chart", "HuggingFaceM4/ChartQA", "train", _CHARTQA),
    "dvqa": _cauldron("chart", "dvqa", "partly documented"),
    "figureqa": _cauldron("chart", "figureqa"),
    "mapqa": _cauldron("chart", "mapqa"),
    "geo170k": _onevision("geometry", "geo170k(qa)", _LLAVA_LETTER, "documented"),
    "geo170k_original": KnownSource("geometry", "Luckyjhg/Geo170K", "qa_tuning", _LLAVA_LETTER),
    "geometry3k": KnownSource("geometry", "hiyouga/geometry3k", "train", _GEOMETRY3K),
    "unigeo": _onevision("geometry", "UniGeo(MathV360K)"),
    "geomverse": _cauldron("geometry", "geomverse", "partly documented"),
    "geos": _onevision("geometry", "GEOS(MathV360K)"),
    "iconqa": _cauldron("commonsense", "iconqa"),
    "infographicvqa": _cauldron("commonsense", "infographic_vqa"),
    "clevr_math": _onevision("commonsense", "CLEVR-Math(MathV360K)"),
    "mmmu": KnownSource("benchmark", "MMMU/MMMU", "validation", _MMMU, MMMU_SUBJECTS),
    "mmmu_pro": KnownSource(
        "benchmark", "MMMU/MMMU_Pro", "test", _MMMU_PRO, "standard (10 options)"
    ),
    "mmmu_pro_vision": KnownSource(
        "benchmark", "MMMU/MMMU_Pro", "test", _MMMU_PRO_VISION, "vision"
    ),
    "mathvista": KnownSource(
        "benchmark",
        columns=_MATHVISTA,
        file="testmini.json, with the folder images/ beside it,",
    ),
    "mathvision": KnownSource(
        "benchmark",
        file="test.jsonl or testmini.jsonl, with the folder images/ beside it,",
        format=mathvision.FORMAT,
    ),
    "mmstar": KnownSource("benchmark", "Lin-Chen/MMStar", "val", _MMSTAR),
}
"""Name -> set. The name is also the domain of its questions."""


def find_known(name: str) -> str | None:
    """The key of KNOWN that a name means, whatever its case, hyphens and blanks; else None."""
    return {_plain(key): key for key in KNOWN}.get(_plain(name))


def find_source(source: str, subset: str | None = None) -> str | None:
    """The key of KNOWN that a name or a place on the hub means; None for any other table.

    Raises:
        DreamPRMError: the source is neither a known set nor a table; offers the nearest names.
    """
    key = find_known(source)
    if key is not None or Path(source).exists():
        return key
    places = [key for key, known in KNOWN.items() if known.hub == source]
    same_subset = [key for key in places if subset == KNOWN[key].subset]
    fitting = same_subset or (places if subset is None else [])
    if len(fitting) == 1:
        return fitting[0]
    if not hub_like(source) and Path(source).suffix.lower() not in FILES:
        message = f"there is no file and no known source '{source}'; {offer(source, KNOWN)}"
        raise DreamPRMError(message)
    return None


def known_table() -> str:
    """The known sets, one per line, for printing."""
    rows = [("name", "family", "status", "hub (subset), or file")]
    for name, known in KNOWN.items():
        subset = f" ({known.subset})" if isinstance(known.subset, str) else ""
        rows.append(
            (name, known.family, known.status, (known.hub or "a file: give --path") + subset)
        )
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(
        "  ".join([*(row[i].ljust(widths[i]) for i in range(3)), row[3]]) for row in rows
    )


def read_known(
    name: str,
    *,
    path: str | Path | None = None,
    columns: ColumnMap | None = None,
    **options: Any,
) -> Iterator[Question]:
    """Yield the questions of a known set.

    Args:
        name: a key of KNOWN.
        path: a file or folder that holds the set, read instead of the hub.
        columns: instead of the set's own, where its schema has changed.
        options: of `read_source`; subset, split and domain are the set's own by default.

    Raises:
        DataError: names source, row and column.
        DreamPRMError: the name is not known, or the set needs a path.
    """
    key = find_known(name)
    if key is None:
        raise DreamPRMError(f"there is no known source '{name}'; {offer(name, KNOWN)}")
    known = KNOWN[key]
    source = known.hub if path is None else path
    if source is None:
        raise DreamPRMError(f"{key} is read from a file: give {known.file} as path")
    domain = options.pop("domain", None) or key
    columns = columns or known.columns
    if columns is None:
        assert known.format is not None
        questions = known.format.read(source, domain=domain).questions
        options.get("on_read", lambda _: None)(len(questions))
        return choose(questions, options.get("limit"), options.get("seed"))
    if path is None:
        options["subset"] = options.get("subset") or known.subset
        options["split"] = options.get("split") or known.split
    return read_source(source, columns, name=key, domain=domain, **options)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())
