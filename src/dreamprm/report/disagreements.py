"""Questions on which compared runs differ, with the answer of each: what a table cannot show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dreamprm.evaluation.compare import Run
from dreamprm.evaluation.results import QuestionResult
from dreamprm.records import Question
from dreamprm.report.build import evenly, example_of
from dreamprm.report.data import Example, ExampleCandidate


def disagreements(
    runs: Sequence[Run],
    questions: Sequence[Question],
    *,
    main: str,
    limit: int = 24,
    image_root: Path | None = None,
) -> tuple[Example, ...]:
    """Up to `limit` questions that some runs have right and others wrong, first seed of each.

    One half are questions that the main run has right, one half those that it has wrong, as far as
    there are such. Answers that are spelled alike stand together, with the runs that gave them.
    """
    answers: dict[str, dict[str, QuestionResult]] = {}
    for run in runs:
        for row in run.rows:
            if row.seed == 0:
                answers.setdefault(row.question_id, {})[run.name] = row
    kinds: dict[bool, list[str]] = {True: [], False: []}
    by_id = {q.id: q for q in questions}
    for name, rows in answers.items():
        if name in by_id and len({row.value > 0 for row in rows.values()}) > 1 and main in rows:
            kinds[rows[main].value > 0].append(name)
    first = [q for ids in kinds.values() for q in evenly(ids, limit // 2)]
    left = [q for ids in kinds.values() for q in ids if q not in set(first)]
    picked = first + evenly(left, limit - len(first))
    return tuple(_example(by_id[q], answers[q], image_root) for q in picked)


def _example(
    question: Question, rows: dict[str, QuestionResult], image_root: Path | None
) -> Example:
    groups: dict[tuple[bool, str | None], list[str]] = {}
    for name, row in rows.items():
        groups.setdefault((row.value > 0, row.answer), []).append(name)
    ordered = sorted(groups.items(), key=lambda group: (not group[0][0], -len(group[1])))
    shown = [
        ExampleCandidate(
            steps=(),
            step_scores=(),
            score=None,
            answer=answer,
            outcome=right,
            sample_index=place,
            chosen_by=tuple(names),
        )
        for place, ((right, answer), names) in enumerate(ordered)
    ]
    return example_of(question, shown, image_root)
