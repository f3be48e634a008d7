"""All data formats by name: one table for reading, writing, converting and validating.

A format is told from the first rows of a file (`detect`), or named by the user (`find`). What its
writer has no place for is listed in `loses`, so that `dreamprm convert` can say what was left out,
and the property tests can hold the writer to everything else.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

from dreamprm.data import own
from dreamprm.data.claims import meta_claim, train_claim, visualprm_claim
from dreamprm.data.dreamprm_meta import read_meta, write_meta
from dreamprm.data.dreamprm_train import read_train, write_train
from dreamprm.data.first_rows import first_rows
from dreamprm.data.format import Format, Row
from dreamprm.data.math_aps import (
    read_math_aps,
    read_math_aps_tree,
    write_math_aps,
    write_math_aps_tree,
)
from dreamprm.data.math_shepherd import read_math_shepherd, write_math_shepherd
from dreamprm.data.mathvision import read_mathvision
from dreamprm.data.mmmu_pro import read_mmmu_pro
from dreamprm.data.prm800k import read_prm800k, write_prm800k
from dreamprm.data.prmbench import read_prmbench, write_prmbench
from dreamprm.data.processbench import read_processbench, write_processbench
from dreamprm.data.row_files import each_row
from dreamprm.data.trl_stepwise import read_trl_stepwise, write_trl_stepwise
from dreamprm.data.visualprm import read_visualprm, write_visualprm
from dreamprm.data.visualprm_raw import read_visualprm_raw, write_visualprm_raw
from dreamprm.data.visualprocessbench import (
    read_visualprocessbench,
    write_visualprocessbench,
)
from dreamprm.errors import DataError, offer
from dreamprm.records import Question, StepScores, Trajectory


def _has(*fields: str) -> Callable[[Row, str], bool]:
    return lambda row, suffix: suffix != ".parquet" and set(fields) <= set(row)


def _holds(field: str, kind: type, *fields: str) -> Callable[[Row, str], bool]:
    """`_has`, where one of the fields must be of a type."""
    has = _has(field, *fields)
    return lambda row, suffix: has(row, suffix) and isinstance(row[field], kind)


def _ours(*fields: str) -> Callable[[Row, str], bool]:
    return lambda row, suffix: suffix != ".json" and set(fields) <= set(row)


def _is_mathvision(row: Row, suffix: str) -> bool:
    return suffix in (".jsonl", ".ndjson") and {"question", "image", "options"} <= set(row)


_TEXT_ONLY = ("ids", "domains", "subjects", "options", "counts", "extra")
_FORMATS = (
    Format(
        name="questions",
        about="our questions, .jsonl or .parquet",
        holds="questions",
        fits=_ours("id", "domain", "text"),
        reader=own.reader(Question),
        write=lambda path, questions, trajectories: own.write(path, questions, Question),
        loses=("trajectories",),
    ),
    Format(
        name="trajectories",
        about="our trajectories, .jsonl or .parquet",
        holds="trajectories",
        fits=_ours("question_id", "steps"),
        reader=own.reader(Trajectory),
        write=lambda path, questions, trajectories: own.write(path, trajectories, Trajectory),
        loses=("questions",),
    ),
    Format(
        name="scores",
        about="our step scores, .jsonl or .parquet",
        holds="scores",
        fits=_ours("question_id", "logits"),
        reader=own.reader(StepScores),
    ),
    Format(
        name="dreamprm_train",
        about="train.json of DreamPRM: one row per prefix, with its Monte Carlo label",
        holds="pair",
        fits=_has("add", "input"),
        reader=read_train,
        write=write_train,
        loses=("subjects", "answers", "outcomes", "policies", "extra", "unanswered", "repeats"),
        rows_without_response=True,
        claim=train_claim,
    ),
    Format(
        name="dreamprm_meta",
        about="meta.json of DreamPRM: whole responses, right or wrong",
        holds="pair",
        fits=_has("true_false", "input"),
        reader=read_meta,
        write=write_meta,
        loses=("domains", "subjects", "gold", "labels", "policies", "extra", "unanswered"),
        rows_without_response=True,
        claim=meta_claim,
    ),
    Format(
        name="visualprm",
        about="conversations of VisualPRM400K and DreamPRM-1.5: + or - after every step",
        holds="pair",
        fits=_has("conversations"),
        reader=read_visualprm,
        write=write_visualprm,
        loses=("subjects", "counts", "policies", "extra", "unanswered"),
        claim=visualprm_claim,
    ),
    Format(
        name="visualprm_raw",
        about="VisualPRM400K-Raw: steps with their Monte Carlo counts",
        holds="pair",
        fits=_has("steps_with_score"),
        reader=read_visualprm_raw,
        write=write_visualprm_raw,
        loses=("domains", "subjects", "outcomes", "policies", "extra", "unanswered"),
    ),
    Format(
        name="visualprocessbench",
        about="VisualProcessBench: steps judged by people",
        holds="pair",
        fits=_holds("response", dict, "question"),
        reader=read_visualprocessbench,
        write=write_visualprocessbench,
        loses=("ids", "subjects", "answers", "outcomes", "counts", "extra", "unanswered"),
    ),
    Format(
        name="trl_stepwise",
        about="TRL's stepwise supervision: prompt, completions, labels",
        holds="pair",
        fits=_has("prompt", "completions", "labels"),
        reader=read_trl_stepwise,
        write=write_trl_stepwise,
        loses=(
            *("ids", "domains", "subjects", "gold", "answers", "outcomes", "counts", "policies"),
            *("extra", "unanswered"),
        ),
    ),
    Format(
        name="math_shepherd",
        about="Math-Shepherd: text with + or - in place of every step tag",
        holds="pair",
        fits=_has("input", "label", "task"),
        reader=read_math_shepherd,
        write=write_math_shepherd,
        loses=(*_TEXT_ONLY, "gold", "outcomes", "policies", "unanswered"),
    ),
    Format(
        name="prm800k",
        about="PRM800K: completions per step, rated by people",
        holds="pair",
        fits=_holds("question", dict, "label"),
        reader=read_prm800k,
        write=write_prm800k,
        loses=(*_TEXT_ONLY, "wrong_outcomes", "policies", "unanswered"),
    ),
    Format(
        name="math_aps",
        about="MATH-APS, the flat list of solution prefixes",
        holds="pair",
        fits=_holds("reasoning_steps", list, "question"),
        reader=read_math_aps,
        write=write_math_aps,
        loses=(*_TEXT_ONLY, "outcomes", "policies", "unanswered"),
    ),
    Format(
        name="math_aps_tree",
        about="MATH-APS, the tree of solution steps",
        holds="pair",
        fits=_holds("reasoning_steps", dict, "question"),
        reader=read_math_aps_tree,
        write=write_math_aps_tree,
        loses=(*_TEXT_ONLY, "outcomes", "policies", "unanswered"),
    ),
    Format(
        name="processbench",
        about="ProcessBench: text solutions with their first wrong step",
        holds="pair",
        fits=_has("steps", "final_answer_correct", "label"),
        reader=read_processbench,
        write=write_processbench,
        loses=(*_TEXT_ONLY, "gold", "unanswered"),
    ),
    Format(
        name="prmbench",
        about="PRMBench: a solution with planted errors beside its original",
        holds="pair",
        fits=_has("modified_process", "original_process"),
        reader=read_prmbench,
        write=write_prmbench,
        loses=(*_TEXT_ONLY, "gold", "answers", "outcomes", "policies", "unanswered"),
    ),
    Format(
        name="mathvision",
        about="questions of MATH-Vision",
        holds="questions",
        fits=_is_mathvision,
        reader=read_mathvision,
    ),
    Format(
        name="mmmu_pro",
        about="stored predictions on MMMU-Pro",
        holds="pair",
        fits=_holds("options", str, "question", "answer", "response"),
        reader=read_mmmu_pro,
    ),
)
FORMATS = {known.name: known for known in _FORMATS}
"""Name -> format. At most one of them fits a row."""


def find(name: str) -> Format:
    """The format of a name.

    Raises:
        DataError: there is none; names the nearest.
    """
    if name in FORMATS:
        return FORMATS[name]
    raise DataError(f"unknown format '{name}'; {offer(name, FORMATS)}")


def detect(path: str | Path) -> Format | None:
    """The format of a file, told from its first rows; None where they fit none.

    Raises:
        DataError: the file cannot be opened.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".json", ".jsonl", ".ndjson", ".parquet"):
        return None
    for row in islice(first_rows(path, suffix), 20):  # the very first one may be the bad one
        for known in _FORMATS:
            if known.fits(row, suffix):
                return known
    return None


def choose(path: str | Path, name: str | None) -> Format:
    """The format of a name; without one, that which the first rows of a file show.

    Raises:
        DataError: there is no such name, or the rows fit no format; tells the first bad row.
    """
    found = detect(path) if name is None else find(name)
    if found is not None:
        return found
    unread: list[DataError] = []
    if Path(path).suffix.lower() in (".json", *own.LINES):
        for _ in each_row(path, unread.append):
            pass
    hint = f"; the first bad row: {unread[0]}" if unread else ""
    message = f"the first rows fit no format; name it, known are {', '.join(FORMATS)}{hint}"
    raise DataError(message, file=path)
