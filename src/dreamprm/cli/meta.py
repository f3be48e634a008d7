r"""Choose the meta set that domain weights are learned on, from candidates with outcomes.

Reads questions and candidates; writes those chosen: right and wrong candidates of one question
first, as many right as wrong, over all subjects alike. Questions that are also among the training
questions or in a benchmark are left out, whatever their ids.

  dreamprm meta --questions questions.jsonl --trajectories candidates.jsonl \
    --output_questions meta.questions.jsonl --output_trajectories meta.jsonl --size 1000 \
    --train_questions train.jsonl --benchmarks.mathvision mathvision/test.jsonl
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dreamprm.cli.inputs import candidates_of, read_candidates
from dreamprm.cli.pictures import UsedImages
from dreamprm.cli.terminal import held_warnings, tell_unread
from dreamprm.data import read_questions, write_questions, write_trajectories
from dreamprm.data.overlap import ImageHash, Overlap, find_overlap
from dreamprm.errors import DataError, require_positive
from dreamprm.images import Reference
from dreamprm.records import Question
from dreamprm.rollouts.meta_set import Account, MetaSet, choose_meta_set
from dreamprm.unread import unanswered

MOST_SUBJECTS = 40  # lines of the table


@dataclass(frozen=True, kw_only=True)
class Config(UsedImages):
    """Options of meta.

    Attributes:
        questions: file of questions to choose from.
        trajectories: file of their candidates, with outcomes (of `dreamprm sample`).
        output_questions: .jsonl or .parquet file of the chosen questions.
        output_trajectories: .jsonl or .parquet file of the chosen candidates.
        size: candidates to choose; fewer where there are not enough, which is said.
        per_question: right candidates of a question at most, and wrong ones.
        seed: of the choice among equals.
        train_questions: files of training questions, which must stay out.
        benchmarks: name -> file of questions that are tested on later, which must stay out too.
        on_overlap: `drop` the questions that must stay out, or `refuse` to go on.
        strict: fail, and write nothing, if there are fewer candidates than `size`.
    """

    questions: Path
    trajectories: Path
    output_questions: Path
    output_trajectories: Path
    size: int = 1000
    per_question: int = 2
    seed: int = 0
    train_questions: list[Path] = field(default_factory=list)
    benchmarks: dict[str, Path] = field(default_factory=dict)
    on_overlap: Literal["drop", "refuse"] = "drop"
    strict: bool = False


def run(config: Config) -> None:
    """Leave out what is tested or trained on, choose, write, and give account."""
    require_positive(config, "per_question")
    if config.size < 2:
        raise DataError(f"size is {config.size}; it must be 2 or more, a right and a wrong one")
    _check_outputs(config)
    questions, trajectories = read_candidates(
        [config.questions], [config.trajectories], config.image_root
    )
    if all(t.outcome is None for t in trajectories):
        raise DataError(
            "no candidate has an outcome to choose by; `dreamprm sample` gives outcomes where "
            "questions have gold answers",
            file=config.trajectories,
        )
    questions = config.usable(questions, config.questions)
    trajectories = candidates_of(questions, trajectories)
    with held_warnings():
        trained = [(str(path), read_questions(path)) for path in config.train_questions]
        tested = [(f"{name} ({p})", read_questions(p)) for name, p in config.benchmarks.items()]
    out = _overlapping(config, questions, [*trained, *tested])
    chosen = choose_meta_set(
        [q for q in questions if q.id not in out],
        [t for t in trajectories if t.question_id not in out],
        config.size,
        per_question=config.per_question,
        seed=config.seed,
    )
    _check(config, chosen, trained)
    write_questions(config.output_questions, chosen.questions)
    write_trajectories(config.output_trajectories, chosen.trajectories)
    print(
        f"{config.output_trajectories}: {len(chosen.trajectories)} candidates of "
        f"{len(chosen.questions)} questions, {chosen.account.right} right and "
        f"{chosen.account.wrong} wrong"
    )
    print("\n".join(account_lines(chosen.account)))
    tell_unread(unanswered(chosen.questions, chosen.trajectories), "chosen candidates")


def account_lines(account: Account) -> Iterator[str]:
    """The account as a table for people."""
    yield f"  {'questions':>10} {'candidates':>10}"
    for kind, count in account.kinds.items():
        yield f"  {count.questions:>10} {count.trajectories:>10}  {kind}, of {account.supply[kind]}"
    for subject, count in list(account.subjects.items())[:MOST_SUBJECTS]:
        yield f"  {count.questions:>10} {count.trajectories:>10}  subject {subject}"
    if (more := len(account.subjects) - MOST_SUBJECTS) > 0:
        yield f"  and {more} more subjects"
    for reason, skipped in account.skipped.items():
        yield f"  {'':>10} {skipped:>10}  left out: {reason}"
    if account.missing:
        yield f"  {_shortage(account)}"


def _overlapping(
    config: Config, questions: Sequence[Question], sources: Iterable[tuple[str, list[Question]]]
) -> set[str]:
    """Ids of the questions that are also in one of the sources; says how many and which first."""
    hashes: dict[Reference, ImageHash] = {}
    out: set[str] = set()
    for name, others in sources:
        overlaps = find_overlap(questions, others, same_images=False, hashes=hashes)
        same = [overlap for overlap in overlaps if overlap.counts]
        if same and config.on_overlap == "refuse":
            raise DataError(
                f"{_told(same)} in {name}; remove them or give --on_overlap drop",
                file=config.questions,
                row=same[0].row,
            )
        print(f"{name}: {_told(same) + '; left out' if same else 'no question in common'}")
        if alike := len(overlaps) - len(same):
            print(f"  {alike} more share their text and not their image, and stay")
        references = {image for q in others for image in q.images}
        if unread := sum(i in hashes and hashes[i].shape is None for i in references):
            print(f"  {unread} images cannot be read; their questions were compared by text")
        out |= {overlap.question_id for overlap in same}
    return out


def _told(same: Sequence[Overlap]) -> str:
    first = same[0]
    count = "1 question is" if len(same) == 1 else f"{len(same)} questions are"
    return (
        f"{count} there too, the first '{first.question_id}' as '{first.other_id}' (row "
        f"{first.other_row}, {first.why})"
    )


def _check(
    config: Config, chosen: MetaSet, trained: Iterable[tuple[str, Sequence[Question]]]
) -> None:
    """Refuse a set that cannot be learned on, before it is written."""
    account = chosen.account
    if lacking := [n for n in ("right", "wrong") if not getattr(account, n)]:
        rest = ", ".join(f"{count} {reason}" for reason, count in account.skipped.items())
        raise DataError(
            f"no {' and no '.join(lacking)} candidate can be chosen"
            f"{f' (left out: {rest})' if rest else ''}, and a meta set needs right and wrong ones; "
            "sample more",
            file=config.trajectories,
        )
    if account.missing and config.strict:
        raise DataError(_shortage(account), file=config.trajectories)
    for name, others in trained:
        if shared := {q.id for q in chosen.questions} & {q.id for q in others}:
            raise DataError(
                f"{len(shared)} ids of other questions are also in {name} (the first: "
                f"'{min(shared)}'), and `dreamprm train` would take them for the same; rename them",
                file=config.questions,
                field="id",
            )


def _shortage(account: Account) -> str:
    return (
        f"{account.missing} fewer than the {account.wanted} wanted: no more can be chosen with as "
        "many right as wrong; sample more candidates, raise per_question or lower size"
    )


def _check_outputs(config: Config) -> None:
    taken = {config.questions, config.trajectories, *config.train_questions}
    taken |= {*config.benchmarks.values()}
    for path in (config.output_questions, config.output_trajectories):
        if path.absolute() in {other.absolute() for other in taken}:
            raise DataError("would be overwritten, and is read", file=path)
