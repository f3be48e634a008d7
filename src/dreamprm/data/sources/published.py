"""The published sets that we know how to read, by name: the paper's fifteen, and benchmarks.

Each entry says where its schema is documented and how sure we are of it. `documented`: columns and
the form of their values could be looked up. `partly documented`: the columns could, and the form of
the values only in sister sets; a row of another form is a DataError, never a guess. No set was
downloaded to write this: schemas change, and a column that is gone is named by the error.
The paper drew its pool from other people's collections, whose wording differs from these versions;
docs/SOURCES.md tells the traps of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from dreamprm.data.mathvision import read_mathvision
from dreamprm.data.sources.benchmarks import (
    MATHVISTA,
    MMMU,
    MMMU_PRO,
    MMMU_PRO_VISION,
    MMMU_SUBJECTS,
    MMSTAR,
    with_before,
)
from dreamprm.data.sources.chat import cauldron_turns, conversation_turns
from dreamprm.data.sources.columns import ColumnMap
from dreamprm.records import Question

Family = Literal["science", "chart", "geometry", "commonsense", "benchmark"]
Status = Literal["documented", "partly documented"]

CAULDRON = "HuggingFaceM4/the_cauldron"
ONEVISION = "lmms-lab/LLaVA-OneVision-Data"


@dataclass(frozen=True, kw_only=True)
class KnownSource:
    """A published set.

    Attributes:
        title: as its authors write it.
        family: the paper's family of domains, or `benchmark`.
        hub: name on the hub; None for a set that is read from a file only.
        subset: configuration there, or all that belong to the set.
        split: the one read by default.
        columns: where the fields are; None where there is a reader.
        reader: reads a file of the set where a column map does not do.
        status: how well the schema is documented.
        documented: where.
        license: as the data card has it; '' when it has none.
        notes: traps.
    """

    title: str
    family: Family
    hub: str | None = None
    subset: str | tuple[str, ...] | None = None
    split: str | None = None
    columns: ColumnMap | None = None
    reader: Callable[..., list[Question]] | None = None
    status: Status = "documented"
    documented: str
    license: str = ""
    notes: str = ""


_TURN = ColumnMap(text="text", options="options", answer="answer", images="images")
_LLAVA = replace(_TURN, turns=conversation_turns)


def _cauldron(title: str, family: Family, subset: str, **more: Any) -> KnownSource:
    known: dict[str, Any] = {
        "hub": CAULDRON,
        "subset": subset,
        "split": "train",
        "columns": replace(_TURN, turns=cauldron_turns, answer_is="letter"),
        "documented": "data card (columns) and the script that built the set (form of the turns)",
        "license": "that of the original set; prompts CC-BY-4.0",
    }
    return KnownSource(title=title, family=family, **(known | more))


def _onevision(title: str, family: Family, subset: str, **more: Any) -> KnownSource:
    known: dict[str, Any] = {
        "hub": ONEVISION,
        "subset": subset,
        "split": "train",
        "columns": _LLAVA,
        "status": "partly documented",
        "documented": "data card (columns); turns as in published rows of MathV360K's other parts",
        "license": "apache-2.0 (card of the collection)",
        "notes": "synthetic questions of MathV360K among the original ones",
    }
    return KnownSource(title=title, family=family, **(known | more))


KNOWN: dict[str, KnownSource] = {
    "scienceqa": KnownSource(
        title="ScienceQA",
        family="science",
        hub="derek-thomas/ScienceQA",
        split="train",
        columns=ColumnMap(
            text=with_before("question", "hint"),
            images="image",
            options="choices",
            answer="answer",
            answer_is="index",
            subject="topic",
        ),
        documented="data card",
        license="cc-by-sa-4.0",
        notes="half of the rows have no image (only_with_images); answer is a 0-based index; the "
        "hint stands before the question",
    ),
    "m3cot": KnownSource(
        title="M3CoT",
        family="science",
        hub="LightChen2333/M3CoT",
        split="train",
        columns=ColumnMap(
            id="id",
            text=with_before("question", "context"),
            images="image",
            options="choices",
            answer="answer",
            answer_is="letter",
            subject="topic",
        ),
        documented="data card (columns); public evaluation code (letters)",
        license="cc-by-sa-4.0",
        notes="a few rows have no image; the card's `domain` column is not our domain",
    ),
    "ai2d": _cauldron("AI2D", "science", "ai2d", notes="several questions per diagram"),
    "ai2d_test": KnownSource(
        title="AI2D (test)",
        family="benchmark",
        hub="lmms-lab/ai2d",
        split="test",
        columns=ColumnMap(images="image", options="options", answer_is="index"),
        documented="data card (columns); lmms-eval (answer is a 0-based index, as text)",
        notes="test only: never train on it",
    ),
    "chartqa": KnownSource(
        title="ChartQA",
        family="chart",
        hub="HuggingFaceM4/ChartQA",
        split="train",
        columns=ColumnMap(text="query", images="image", answer="label"),
        documented="data card",
        license="gpl-3.0",
        notes="label is a list of one text; splits train, val, test; the benchmark counts a number "
        "within 5% as right, our verifier does not",
    ),
    "dvqa": _cauldron(
        "DVQA",
        "chart",
        "dvqa",
        status="partly documented",
        documented="data card (columns); turns as in the collection's other parts",
        notes="200,000 charts with several questions each: use limit or seed",
    ),
    "figureqa": _cauldron(
        "FigureQA",
        "chart",
        "figureqa",
        notes="yes or no; 100,000 figures with several questions each: use limit or seed",
    ),
    "mapqa": _cauldron("MapQA", "chart", "mapqa", notes="lists of states are joined by commas"),
    "geo170k": _onevision(
        "Geo170K",
        "geometry",
        "geo170k(qa)",
        status="documented",
        columns=replace(_LLAVA, answer_is="letter"),
        documented="data card (columns); rows in public repositories (form of the turns)",
        notes="many rewordings of one problem: ids differ, images repeat",
    ),
    "geo170k_original": KnownSource(
        title="Geo170K (authors')",
        family="geometry",
        hub="Luckyjhg/Geo170K",
        split="qa_tuning",
        columns=replace(_LLAVA, answer_is="letter"),
        documented="data card (columns); rows in public repositories (form of the turns)",
        notes="images are paths into images.zip of the same repository: unpack it and give its "
        "folder as image_root",
    ),
    "geometry3k": KnownSource(
        title="Geometry3K",
        family="geometry",
        hub="hiyouga/geometry3k",
        split="train",
        columns=ColumnMap(
            text="problem",
            images="images",
            options="choices",
            answer="ground_truth",
            answer_is="letter",
        ),
        documented="data card, with the script that built the set",
        license="mit",
        notes="`answer` is the option's text, `ground_truth` the letter; copies of the set without "
        "choices exist",
    ),
    "unigeo": _onevision("UniGeo", "geometry", "UniGeo(MathV360K)"),
    "geomverse": _cauldron(
        "GeomVerse",
        "geometry",
        "geomverse",
        status="partly documented",
        notes="the answer is what the solution states as final; a solution without is refused",
    ),
    "geos": _onevision("GeoS", "geometry", "GEOS(MathV360K)"),
    "iconqa": _cauldron(
        "IconQA",
        "commonsense",
        "iconqa",
        notes="choose_txt and fill_in_blank; questions whose choices are images are not in it",
    ),
    "infographicvqa": _cauldron(
        "InfographicVQA",
        "commonsense",
        "infographic_vqa",
        notes="only questions with one accepted answer, and no very large images",
    ),
    "clevr_math": _onevision(
        "CLEVR-Math",
        "commonsense",
        "CLEVR-Math(MathV360K)",
        notes="dali-does/clevr-math itself is a loading script, which datasets 4 and later refuse",
    ),
    "mmmu": KnownSource(
        title="MMMU",
        family="benchmark",
        hub="MMMU/MMMU",
        subset=MMMU_SUBJECTS,
        split="validation",
        columns=MMMU,
        documented="data card; the benchmark's own utilities (options are a Python list as text)",
        license="apache-2.0",
        notes="30 subsets, all by default; splits dev, validation, test (answers of test are '?'); "
        "open questions keep all accepted answers in extra.answers",
    ),
    "mmmu_pro": KnownSource(
        title="MMMU-Pro",
        family="benchmark",
        hub="MMMU/MMMU_Pro",
        subset="standard (10 options)",
        split="test",
        columns=MMMU_PRO,
        documented="data card; public conversion scripts",
        license="apache-2.0",
        notes="the letter belongs to this subset's order of options; 'standard (4 options)' has "
        "others, so compare by option text",
    ),
    "mmmu_pro_vision": KnownSource(
        title="MMMU-Pro (vision)",
        family="benchmark",
        hub="MMMU/MMMU_Pro",
        subset="vision",
        split="test",
        columns=MMMU_PRO_VISION,
        documented="data card; public conversion scripts",
        license="apache-2.0",
        notes="question and options stand in the image; the options are kept as text, too",
    ),
    "mathvista": KnownSource(
        title="MathVista",
        family="benchmark",
        columns=MATHVISTA,
        documented="testmini.json of the authors' repository",
        license="cc-by-sa-4.0",
        notes="give testmini.json as path, with the folder images/ beside it; the answer is the "
        "option's text; test use only",
    ),
    "mathvision": KnownSource(
        title="MATH-Vision",
        family="benchmark",
        reader=read_mathvision,
        documented="test.jsonl and testmini.jsonl of the authors' repository",
        license="mit",
        notes="give the .jsonl as path, with the folder images/ beside it",
    ),
    "mmstar": KnownSource(
        title="MMStar",
        family="benchmark",
        hub="Lin-Chen/MMStar",
        split="val",
        columns=MMSTAR,
        documented="data card",
        license="apache-2.0",
        notes="options stand in the question's text, the answer is a letter; test use only",
    ),
}
"""Name -> set. The name is also the domain of its questions."""
