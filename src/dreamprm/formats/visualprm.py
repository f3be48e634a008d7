"""Conversations of VisualPRM400K and DreamPRM-1.5 (arXiv 2509.05542): one turn per step.

The policy's step is a human turn, and the verdict on it, + or -, is the reply. DreamPRM-1.5 adds
the whole `response` and whether its answer is right, `true_false`.
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

from dreamprm.answers import extract_answer
from dreamprm.errors import DataError
from dreamprm.formats.files import DataWarning, load_json_rows
from dreamprm.formats.rows import learn_answer, question_of_row, remember, row_text
from dreamprm.records import Question, StepLabel, Trajectory

_SOLUTION = re.compile(r"\n*### Solution Process:\s*")
_ANSWER_TURN = re.compile(r"\A[\s*#]*(?:final\s+)?answer[*\s]*:[^\n]*\Z", re.IGNORECASE)
_SUBJECT = re.compile(r"\A(?:test|validation|dev)_(?P<subject>\w+)_\d+\Z")


def read_visualprm(
    path: str | Path, *, image_root: str | Path | None = None, domain: str = "visualprm"
) -> tuple[list[Question], list[Trajectory]]:
    """Read a JSON list or JSONL file of conversations.

    A last turn that only states the answer ("Answer: B") is no step, unless it is all there is.
    Where every turn is labelled +, also in responses with a wrong answer (DreamPRM-1.5's meta set),
    the labels carry nothing: they are left out, with a `DataWarning`.

    Args:
        path: the file.
        image_root: folder that image paths start from; the file's own by default.
        domain: domain of rows that have no `dataset` field.

    Raises:
        DataError: names the row and field of what is wrong.
    """
    path = Path(path)
    root = path.parent if image_root is None else Path(image_root)
    questions: dict[str, Question] = {}
    trajectories: list[Trajectory] = []
    samples: dict[str, int] = defaultdict(int)
    for number, row in enumerate(load_json_rows(path), start=1):
        try:
            text, steps, labels = _turns(row)
            outcome = row.get("true_false")
            if outcome not in (None, True, False):
                raise DataError(f"must be true or false, not {outcome!r}", field="true_false")
            subject = _SUBJECT.match(row_text(row, "id"))
            question = question_of_row(
                row,
                text,
                root,
                row_text(row, "dataset") or domain,
                image_field="image",
                answer=row_text(row, "answer"),
                subject=subject["subject"] if subject else None,
            )
            remember(question, questions)
            response = row_text(row, "response") or "\n\n".join(steps)
            answer = extract_answer(response, question.options)
            if outcome:
                learn_answer(question.id, answer, questions)
            if len(steps) > 1 and _ANSWER_TURN.match(steps[-1]):
                steps, labels = steps[:-1], labels[:-1]
            trajectory = Trajectory.parse(
                {
                    "question_id": question.id,
                    "steps": tuple(steps),
                    "answer": answer,
                    "outcome": None if outcome is None else bool(outcome),
                    "labels": tuple(labels),
                    "sample_index": samples[question.id],
                }
            )
        except DataError as error:
            raise error.at(file=path, row=number) from error
        samples[question.id] += 1
        trajectories.append(trajectory)
    return list(questions.values()), _without_empty_labels(trajectories, path)


def _turns(row: dict[str, Any]) -> tuple[str, list[str], list[StepLabel]]:
    """Question text, steps and labels of one conversation."""
    turns = row.get("conversations")
    if not isinstance(turns, list) or not all(
        isinstance(turn, dict) and isinstance(turn.get("value"), str) for turn in turns
    ):
        raise DataError("must be a list of {from, value}", field="conversations")
    said: list[str] = []
    groups: list[list[str]] = []  # what was said before each verdict
    labels: list[StepLabel] = []
    for turn in turns:
        if turn.get("from") == "human":
            said.append(turn["value"].strip())
        elif turn.get("from") == "gpt":
            verdict = turn["value"].strip()
            if verdict not in ("+", "-"):
                message = f"the verdict on step {len(labels) + 1} is {verdict!r}, not + or -"
                raise DataError(message, field="conversations")
            labels.append(StepLabel(int(verdict == "+"), 1))
            groups.append(said)
            said = []
    if said or not groups or not all(groups):
        raise DataError(
            "turns must alternate: question and step, verdict, step, verdict, ...",
            field="conversations",
        )
    text, *first = groups[0]
    if not first:
        text, *first = _SOLUTION.split(text, maxsplit=1)
    if not first:
        message = "the first human turn must hold '### Solution Process:' and the first step"
        raise DataError(message, field="conversations")
    steps = ["\n\n".join(group) for group in ([*first], *groups[1:])]
    if not all(steps):
        raise DataError("a step is empty", field="conversations")
    return text, steps, labels


def _without_empty_labels(trajectories: list[Trajectory], path: Path) -> list[Trajectory]:
    """Leave out labels that are all +, wrong answers included."""
    wrong = sum(trajectory.outcome is False for trajectory in trajectories)
    if not wrong or any(
        label is not None and label.correct == 0
        for trajectory in trajectories
        for label in trajectory.labels or ()
    ):
        return trajectories
    warnings.warn(
        f"{path}: every turn is labelled +, also in all {wrong} responses with a wrong answer; the "
        "turn labels carry nothing and are left out",
        DataWarning,
        stacklevel=3,
    )
    return [trajectory.model_copy(update={"labels": None}) for trajectory in trajectories]
