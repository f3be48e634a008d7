"""Records for the property tests of all formats: arbitrary ones, and such as a format can hold."""

from __future__ import annotations

import os
import re
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

from dreamprm.data.format import Format
from dreamprm.prompts import question_text
from dreamprm.records import UNKNOWN_ANSWER, Label, Question, Trajectory
from tests.record_strategies import question_lists, trajectories

RIGHT, WRONG = Label(1.0), Label(0.0)
TEXT_ONLY = {
    *("math_shepherd", "prm800k", "math_aps", "math_aps_tree", "processbench", "prmbench"),
}
HARD = {"visualprm", "visualprocessbench", "math_shepherd", "prm800k", "prmbench", "processbench"}
EVERY_STEP = {"visualprm", "trl_stepwise", "math_shepherd", "math_aps", "math_aps_tree", "prmbench"}
_ANSWER = re.compile(r"(?:\nFinal answer: | The answer is: |\n\n# Answer\n\n).*\Z", re.DOTALL)
_MARK = re.compile(r"\AStep \d+: ?")  # which Math-Shepherd's writer adds
Pair = tuple[list[Question], list[Trajectory]]


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    """Questions, each with up to three trajectories."""
    questions = draw(question_lists)
    found = []
    for question in questions:
        for index in range(draw(st.integers(0, 3))):
            own = {"question_id": question.id, "sample_index": index}
            found.append(draw(trajectories()).model_copy(update=own))
    return questions, found


def fitted(
    known: Format, questions: list[Question], found: list[Trajectory], *, plain: bool
) -> Pair:
    """The records with what the format has no place for taken out.

    Args:
        known: the format.
        questions: any.
        found: their trajectories.
        plain: also make the texts such as every format can hold: one line, steps with marks.
    """
    name = known.name
    changes: dict[str, Any] = {"images": ()} if name in TEXT_ONLY else {}
    if name == "math_aps_tree":
        changes["extra"] = {"math_aps": {"mc_value": 0.5}}
    ids = {question.id: f"q{number}" for number, question in enumerate(questions)}
    questions = [
        _prepared(q, plain).model_copy(update={**changes, "id": ids[q.id]}) for q in questions
    ]
    fit: list[Trajectory] = []
    for number, trajectory in enumerate(found):
        answer = trajectory.answer
        steps = tuple(step if step.strip() else "x" for step in trajectory.steps)
        if name in ("dreamprm_train", "math_aps"):  # they know a step by its text alone
            steps = (f"<{number}> {steps[0]}", *steps[1:])
        if plain:
            answer = answer and "8"
            steps = tuple(f"Step {i}: {number} {_plain(step)} x" for i, step in enumerate(steps, 1))
        outcome = bool(trajectory.outcome)
        update: dict[str, Any] = {"question_id": ids[trajectory.question_id]}
        update |= {"steps": steps, "labels": _labels(name, trajectory), "answer": answer}
        update |= {"outcome": outcome, "extra": {}}
        if name == "visualprm":
            update["outcome"] = trajectory.outcome
            if outcome is False:  # all + for a wrong answer carries nothing, and is left out
                update["labels"] = (*update["labels"][:-1], WRONG)
        if name == "prmbench":
            for process in ("modified", "original"):
                labels = update["labels"] if process == "modified" else (RIGHT,) * len(steps)
                extra = {"prmbench": {"row": number, "process": process}}
                fit.append(
                    trajectory.model_copy(update={**update, "labels": labels, "extra": extra})
                )
            continue
        fit.append(trajectory.model_copy(update=update))
    return questions, fit


def _plain(text: str) -> str:
    """One line that spells no mark, tag or answer, in whatever script."""
    return " ".join(re.sub(r"[^\W\d_]+", "z", text).split())


def _prepared(question: Question, plain: bool) -> Question:
    images = tuple(image for image in question.images if isinstance(image, str))
    question = question.model_copy(update={"images": images, "extra": {}})
    if not plain:
        return question
    options = tuple(f"option {i} {_plain(o)}".strip() for i, o in enumerate(question.options))
    one_line = {name: _plain(getattr(question, name)) for name in ("text", "domain", "answer")}
    one_line["text"] = f"What is {one_line['text']} ?"
    return question.model_copy(update={**one_line, "options": options})


def _labels(name: str, trajectory: Trajectory) -> tuple[Label | None, ...]:
    labels = list(trajectory.labels or [RIGHT, WRONG] * 3)[: len(trajectory.steps)]
    labels += [None] * (len(trajectory.steps) - len(labels))
    if name in HARD:
        labels = [label and _hard(label) for label in labels]
    if name in EVERY_STEP:
        labels = [label or WRONG for label in labels]
    if name == "dreamprm_train":
        labels[-1] = labels[-1] or WRONG
    if name == "processbench":
        right = next((i for i, one in enumerate(labels) if not one or not one.correct), len(labels))
        labels = [*labels[:right], WRONG, *[None] * len(labels)][: len(labels)]
    return tuple(labels)


def _hard(label: Label) -> Label:
    return Label.of(label.total if label.correct else 0, label.total)


def held(
    known: Format, questions: list[Question], found: list[Trajectory], *, plain: bool
) -> list[str]:
    """What a format holds of records, by its `loses`, in an order that does not matter.

    Spaces around a text are not held. An answer is looked for in the text by some readers, so it is
    compared only where steps are `plain`, and hold none.
    """
    by_id = {question.id: question for question in questions}
    return sorted(repr(_held(known, by_id[t.question_id], t, plain)) for t in found)


def _held(known: Format, question: Question, trajectory: Trajectory, plain: bool) -> dict[str, Any]:
    keeps = {
        "ids",
        "domains",
        "subjects",
        "options",
        "gold",
        "outcomes",
        "labels",
        "policies",
        "answers",
    }
    keeps -= set(known.loses)
    text = question.text if "options" in keeps else question_text(question)
    facts: dict[str, Any] = {
        "text": text.strip(),
        "images": [_absolute(image) for image in question.images],
        "steps": [step.strip() for step in trajectory.steps],
    }
    if known.name in TEXT_ONLY:  # their writers put the answer there
        facts["steps"][-1] = _ANSWER.sub("", facts["steps"][-1]).strip()
    if known.name == "math_shepherd":
        facts["steps"] = [_MARK.sub("", step).strip() for step in facts["steps"]]
    if "ids" in keeps:
        facts["id"] = question.id.strip()
    if "domains" in keeps:
        facts["domain"] = question.domain.strip()
    if "subjects" in keeps:
        facts["subject"] = question.subject and question.subject.strip()
    if "options" in keeps:
        facts["options"] = [option.strip() for option in question.options]
    if "gold" in keeps and question.answer != UNKNOWN_ANSWER:
        facts["gold"] = question.answer.strip()
    if "outcomes" in keeps:
        only_right = "wrong_outcomes" in known.loses
        facts["outcome"] = (trajectory.outcome or None) if only_right else trajectory.outcome
    if "policies" in keeps:
        facts["policy"] = trajectory.policy.strip()
    if "answers" in keeps and plain:
        facts["answer"] = trajectory.answer
    if "labels" in keeps:
        facts["labels"] = [_value(known, label) for label in trajectory.labels or ()]
        if not any(trajectory.labels or ()):
            facts["labels"] = []
    return facts


def _absolute(image: str | bytes) -> str | bytes:
    is_path = isinstance(image, str) and "://" not in image
    return os.path.abspath(image) if is_path else image


def _value(known: Format, label: Label | None) -> Any:
    if label is None:
        return None
    return Fraction(*label) if "counts" in known.loses else tuple(label)
