r"""Convert one data format into another.

Reads a file of any format, which is told from its first rows, or our questions and trajectories;
writes one file of another format, or our questions and trajectories. What the target has no place
for is told. A record that it cannot hold is an error, and then nothing is written.

  dreamprm convert --input train.json \
    --output_questions questions.jsonl --output_trajectories trajectories.jsonl
  dreamprm convert --questions questions.jsonl --trajectories trajectories.jsonl \
    --output steps.jsonl --output_format trl_stepwise

Formats that are read and written: questions, trajectories (ours), dreamprm_train, dreamprm_meta,
visualprm, trl_stepwise. Only read: visualprm_raw, visualprocessbench, math_shepherd, prm800k,
math_aps, math_aps_tree, processbench, big_bench_mistake, mr_gsm8k, mr_math, mr_ben, mathcheck,
prmbench, mathvision, mmmu_pro.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dreamprm.cli.parsing import UsageError
from dreamprm.cli.terminal import held_warnings
from dreamprm.data import check_references, known
from dreamprm.data.files import refuse
from dreamprm.data.format import Format, Records
from dreamprm.errors import DataError, DreamPRMError

_SHOWN = 5  # bad rows that are named


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of convert.

    Attributes:
        input: file of any format.
        input_format: its format; by default told from its first rows.
        questions: file of our questions, instead of `input`.
        trajectories: file of our trajectories, with `questions`.
        output: file of another format.
        output_format: the format of `output`.
        output_questions: file of our questions, .jsonl or .parquet.
        output_trajectories: file of our trajectories, .jsonl or .parquet.
        image_root: folder that image paths of the input start from; by default the input's own.
        domain: of questions whose row names none; by default the name of the input's format.
        skip_bad_rows: leave out rows that cannot be read, and say how many and which; by default
            the first one is an error.
        without_response: what to do with rows that hold no response: `refuse` the file, `drop` the
            rows, or `keep` their questions. For dreamprm_train and dreamprm_meta.
    """

    input: Path | None = None
    input_format: str | None = None
    questions: Path | None = None
    trajectories: Path | None = None
    output: Path | None = None
    output_format: str | None = None
    output_questions: Path | None = None
    output_trajectories: Path | None = None
    image_root: Path | None = None
    domain: str | None = None
    skip_bad_rows: bool = False
    without_response: Literal["refuse", "drop", "keep"] = "refuse"


def run(config: Config) -> None:
    """Read, write, and say what was left out."""
    _check(config)
    target = known.find(config.output_format) if config.output_format else None
    if target is not None and not target.is_written:
        written = ", ".join(known.WRITTEN)
        raise DataError(f"'{target.name}' is only read; these are written: {written}")
    bad: list[DataError] = []
    with held_warnings():
        records = _read(config, bad)
    if bad:
        rows = "1 row" if len(bad) == 1 else f"{len(bad)} rows"
        told = [f"{rows} left out that cannot be read:"]
        told += [f"  {error}" for error in bad[:_SHOWN]]
        told += [f"  and {len(bad) - _SHOWN} more"] if len(bad) > _SHOWN else []
        print("\n".join(told), file=sys.stderr)
    questions, trajectories = records.questions, records.trajectories
    source = config.input or config.questions
    if not questions and not trajectories:
        raise DataError("no row could be read, so nothing is written", file=source)
    if not trajectories and (config.output_trajectories or config.output):
        raise DataError("holds no trajectory to write", file=source)
    if not questions and config.output_questions:
        raise DataError("holds no question to write", file=source)
    outputs = [
        (config.output, target),
        (config.output_questions, known.FORMATS["questions"]),
        (config.output_trajectories, known.FORMATS["trajectories"]),
    ]
    given = [(path, format) for path, format in outputs if path and format]
    with _together([path for path, _ in given]) as drafts:
        for draft, (path, format) in zip(drafts, given, strict=True):
            try:
                format.write(draft, questions, trajectories)
            except DreamPRMError as error:  # name the file that the user knows
                raise DreamPRMError(str(error).replace(str(draft), str(path))) from error
    for line in _account(config, target, records):
        print(line)


def _check(config: Config) -> None:
    if (config.input is None) == (config.questions is None):
        raise UsageError("convert: give --input, or --questions and --trajectories")
    if config.input and config.trajectories:
        raise UsageError("convert: --trajectories goes with --questions, not with --input")
    if config.input_format and not config.input:
        raise UsageError("convert: --input_format is the format of --input")
    if (config.output is None) != (config.output_format is None):
        raise UsageError("convert: --output and --output_format go together")
    outputs = [config.output, config.output_questions, config.output_trajectories]
    if not any(outputs):
        raise UsageError(
            "convert: give --output and --output_format, or --output_questions and "
            "--output_trajectories"
        )
    paths = {path.absolute() for path in outputs if path}
    inputs = {p.absolute() for p in (config.input, config.questions, config.trajectories) if p}
    if both := inputs & paths:
        raise UsageError(f"convert: {min(both)} is an input; give the output another name")


def _read(config: Config, bad: list[DataError]) -> Records:
    bad_row = bad.append if config.skip_bad_rows else refuse
    if config.input is None:
        assert config.questions is not None  # `_check`
        questions = known.FORMATS["questions"].read(
            config.questions, image_root=config.image_root, bad_row=bad_row
        )
        if config.trajectories is None:
            return questions
        answers = known.FORMATS["trajectories"].read(config.trajectories, bad_row=bad_row)
        check_references(questions.questions, answers.trajectories, config.trajectories)
        return Records(questions.questions, answers.trajectories)
    source = known.choose(config.input, config.input_format)
    if source.holds == "scores":
        raise DataError("holds step scores, which no other format has", file=config.input)
    if config.without_response != "refuse" and not source.rows_without_response:
        raise DataError(
            f"without_response is for dreamprm_train and dreamprm_meta, not for {source.name}; "
            "leave the option out",
            file=config.input,
        )
    return source.read(
        config.input,
        image_root=config.image_root,
        domain=config.domain,
        without_response=config.without_response,
        bad_row=bad_row,
    )


@contextmanager
def _together(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Drafts beside the outputs, which take their places once all are written, or none."""
    drafts = [path.with_name(f".{path.stem}.draft{path.suffix}") for path in paths]
    try:
        yield drafts
        for draft, path in zip(drafts, paths, strict=True):
            draft.replace(path)
    finally:
        for draft in drafts:
            draft.unlink(missing_ok=True)


def _account(config: Config, target: Format | None, records: Records) -> Iterator[str]:
    """What was written, and what was left out."""
    trajectories = records.trajectories
    if config.output and target:
        what = f"{len(trajectories)} trajectories"
        if target.holds == "questions":
            what = f"{len(records.questions)} questions"
        elif target.holds == "pair":
            what += f" of {len({trajectory.question_id for trajectory in trajectories})} questions"
        yield f"{config.output}: {what} as {target.name}"
        if target.loses:
            yield f"{target.name} has no place for {target.loses}"
    if config.output_questions:
        yield f"{config.output_questions}: {len(records.questions)} questions"
    if config.output_trajectories:
        yield f"{config.output_trajectories}: {len(trajectories)} trajectories"
    if target:
        return
    if trajectories and not config.output_trajectories:
        yield f"left out: {len(trajectories)} trajectories"
    if records.questions and not config.output_questions:
        yield f"left out: {len(records.questions)} questions"
