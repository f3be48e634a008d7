"""Real questions through every verb: MATH-Vision's 304 with the embedded model.

    python experiments/real_input.py --output-dir build/real_input

The embedded model is a toy that knows a small world of coloured shapes, so nothing here says how
good the method is. What is shown is that real input passes: 304 photographs and diagrams of all
shapes, LaTeX, options and open answers go through `dreamprm sample`, `label`, `train`, `score`,
`select`, `evaluate` and `report`, called as from a shell. Between `label` and `train` lies the one
step that is the user's: to say which questions train, in which domains, and which are the meta set
(`split` below). Whatever is on disk is not made again, so a killed run goes on. The seconds of
each stage and the counts are written to `real_input.json`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dreamprm.cli import main as dreamprm
from dreamprm.data import (
    read_questions,
    read_scores,
    read_trajectories,
    write_questions,
    write_trajectories,
)
from dreamprm.data.files import atomic_write
from dreamprm.errors import DataError
from dreamprm.evaluation.results import main_figures, read_result
from dreamprm.records import Question, Trajectory

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "mathvision" / "testmini.jsonl"
NOTICE = (
    "This page shows that real input passes through every verb. Most of these questions were also "
    "trained on, so even with a real model the accuracy would be no result."
)


def run(
    questions_file: Path,
    out: Path,
    *,
    candidates: int = 2,
    completions: int = 1,
    max_new_tokens: int = 48,
    answer_tokens: int = 1,
    meta_subjects: Sequence[str] | int = 4,
    meta_loss: str = "affine_bce",
    max_steps: int = 9,
) -> dict[str, Any]:
    """Take questions through all verbs.

    Args:
        questions_file: questions in any form that dreamprm reads, with subjects.
        out: folder that gets everything.
        candidates: reasonings per question.
        completions: per step prefix.
        max_new_tokens: of each reasoning and completion.
        answer_tokens: of an answer that has to be asked for. On texts unlike those of its world the
            embedded model comes to no answer by itself (5 of 608 reasonings, none right); its
            numbers are one token each.
        meta_subjects: subjects of the meta set, or how many to choose; see `split`.
        meta_loss: of training. Ranking losses need a meta question with a right and a wrong
            candidate, which a policy that is nearly always wrong may not give; affine_bce needs one
            right candidate in the whole set. If there is not even that, no weights can be learned,
            and the reward model is trained plainly (`learn_weights` false).
        max_steps: training steps.

    Returns:
        Counts and seconds, also in `real_input.json`.
    """
    out.mkdir(parents=True, exist_ok=True)
    clock: dict[str, float] = {}
    policy = {
        "model_name_or_path": "tiny/policy",
        "max_new_tokens": max_new_tokens,
        "answer_tokens": answer_tokens,
        "per_device_batch_size": 64,
    }
    asked = {"questions": questions_file, "trajectories": out / "candidates.jsonl"}
    _verb(
        clock,
        "sample",
        questions=questions_file,
        output=out / "candidates.jsonl",
        num_candidates=candidates,
        **policy,
    )
    _verb(
        clock,
        "label",
        **asked,
        output=out / "labelled.jsonl",
        num_completions=completions,
        **policy,
    )
    questions = read_questions(questions_file)
    labelled = read_trajectories(out / "labelled.jsonl")
    train, meta = split(questions, labelled, meta_subjects)
    write_part(out, "train", train, labelled)
    write_part(out, "meta", meta, labelled)
    outcomes = [t.outcome for t in read_trajectories(out / "meta.labelled.jsonl")]
    learn = len(set(outcomes)) == 2
    _verb(
        clock,
        "train",
        output_dir=out / "prm",
        train_questions=out / "train.jsonl",
        train_trajectories=out / "train.labelled.jsonl",
        meta_questions=out / "meta.jsonl",
        meta_trajectories=out / "meta.labelled.jsonl",
        **{
            "max_steps": max_steps,
            "meta_loss": meta_loss,
            "learn_weights": learn,
        },
    )
    _verb(clock, "score", **asked, model_name_or_path=out / "prm", output=out / "scores.jsonl")
    _verb(clock, "select", **asked, scores=out / "scores.jsonl", output=out / "chosen.jsonl")
    evaluated = asked | {
        "scores.dreamprm": out / "scores.jsonl",
        "n": candidates,
        "curve": json.dumps(list(range(1, candidates + 1))),
    }
    _verb(clock, "evaluate", **evaluated, output=out / "results.json")
    _verb(
        clock,
        "report",
        **evaluated,
        training_dir=out / "prm",
        output=out / "report.html",
        title="Real input: MATH-Vision through the embedded model",
        notice=NOTICE,
    )
    found = facts(out, questions, train, meta) | {
        "meta_right": outcomes.count(True),
        "meta_wrong": outcomes.count(False),
        "weights_learned": learn,
        "seconds": clock | {"all": round(sum(clock.values()), 1)},
    }
    with atomic_write(out / "real_input.json") as file:
        file.write((json.dumps(found, indent=2, ensure_ascii=False) + "\n").encode())
    return found


def split(
    questions: Sequence[Question], trajectories: Sequence[Trajectory], meta_subjects: Any
) -> tuple[list[Question], list[Question]]:
    """Training questions, whose domain is their subject, and the meta set: other subjects.

    The upper level needs right and wrong candidates. Where only the number of meta subjects is
    given, those are taken that have most questions with both, then those with most right
    candidates: the policy may be too weak to be ever right in some subjects.
    """
    right: dict[str, list[bool]] = defaultdict(list)
    for t in trajectories:
        right[t.question_id].append(bool(t.outcome))
    by_subject: dict[str, list[Question]] = defaultdict(list)
    for q in questions:
        by_subject[q.subject or q.domain].append(q)
    if isinstance(meta_subjects, int):

        def use(subject: str) -> tuple[int, int]:
            of_questions = [right[q.id] for q in by_subject[subject]]
            return sum(len(set(r)) == 2 for r in of_questions), sum(map(sum, of_questions))

        meta_subjects = sorted(by_subject, key=use, reverse=True)[:meta_subjects]
    unknown = [subject for subject in meta_subjects if subject not in by_subject]
    if unknown:
        raise DataError(f"no subject '{unknown[0]}'; there are: {', '.join(by_subject)}")
    train = [
        q.model_copy(update={"domain": subject})
        for subject, of_subject in by_subject.items()
        if subject not in meta_subjects
        for q in of_subject
    ]
    return train, [q for subject in meta_subjects for q in by_subject[subject]]


def write_part(
    out: Path, name: str, questions: Sequence[Question], trajectories: Sequence[Trajectory]
) -> None:
    """Some of the questions, and their trajectories, as files for `dreamprm train`."""
    ids = {q.id for q in questions}
    write_questions(out / f"{name}.jsonl", questions)
    write_trajectories(
        out / f"{name}.labelled.jsonl", [t for t in trajectories if t.question_id in ids]
    )


def facts(
    out: Path, questions: list[Question], train: list[Question], meta: list[Question]
) -> dict[str, Any]:
    """What went through, read back from the files that the verbs wrote."""
    labelled = read_trajectories(out / "labelled.jsonl")
    labels = [label for t in labelled for label in t.labels or () if label is not None]
    result = read_result(out / "results.json")
    chosen = (out / "chosen.jsonl").read_text().splitlines()
    return {
        "questions": len(questions),
        "images": sum(len(q.images) for q in questions),
        "candidates": len(labelled),
        "candidates_right": sum(bool(t.outcome) for t in labelled),
        "candidates_without_answer": sum(t.answer is None for t in labelled),
        "steps": sum(len(t.steps) for t in labelled),
        "labels": len(labels),
        "labels_above_0": sum(label.correct > 0 for label in labels),
        "train_questions": len(train),
        "meta_questions": len(meta),
        "meta_subjects": sorted({q.subject or q.domain for q in meta}),
        "weights": json.loads((out / "prm" / "weights.json").read_text()),
        "scored": len(read_scores(out / "scores.jsonl")),
        "chosen": len(chosen),
        "accuracy": main_figures(result),
        "report_bytes": (out / "report.html").stat().st_size,
    }


def _verb(clock: dict[str, float], name: str, **options: Any) -> None:
    """`dreamprm NAME --option value ...`, and its seconds."""
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    started = time.monotonic()
    code = dreamprm([name, *words])
    clock[name] = round(time.monotonic() - started, 1)
    if code:
        raise SystemExit(code)
    print(f"-- {name}: {clock[name]} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--questions", type=Path, default=DATA)
    parser.add_argument("--output-dir", type=Path, default=Path("build/real_input"))
    parser.add_argument("--candidates", type=int, default=2, help="reasonings per question")
    parser.add_argument("--completions", type=int, default=1, help="per step prefix")
    parser.add_argument("--max-new-tokens", type=int, default=48)
    parser.add_argument("--answer-tokens", type=int, default=1, help="of an answer asked for")
    parser.add_argument("--max-steps", type=int, default=9, help="of training")
    parser.add_argument(
        "--meta-subjects",
        nargs="+",
        default=["4"],
        help="subjects of the meta set, or how many: those with most right and wrong candidates",
    )
    parser.add_argument("--meta-loss", default="affine_bce", help="see bilevel/config.py")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    subjects = args.meta_subjects
    found = run(
        args.questions,
        args.output_dir,
        candidates=args.candidates,
        completions=args.completions,
        max_new_tokens=args.max_new_tokens,
        answer_tokens=args.answer_tokens,
        meta_subjects=int(subjects[0]) if subjects[0].isdigit() else subjects,
        meta_loss=args.meta_loss,
        max_steps=args.max_steps,
    )
    print(json.dumps(found, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
