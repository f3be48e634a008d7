"""VisualPRM400K (arXiv 2503.10291) and DreamPRM-1.5 (arXiv 2509.05542): two formats.

`visualprm`, read and written, are conversations: the policy's step is a human turn, and the verdict
on it, + or -, is the reply. DreamPRM-1.5 adds the whole `response` and whether its answer is right,
`true_false`. `visualprm_raw` has the Monte Carlo counts that those verdicts were made from by a
threshold, `steps_with_score`, so it is the version to learn soft labels from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from dreamprm.answers import extract_answer
from dreamprm.data.format import (
    Format,
    Pair,
    Reading,
    cannot_hold,
    has,
    outside_id,
    outside_images,
    pair,
)
from dreamprm.data.rows import (
    RIGHT,
    WRONG,
    Row,
    counted_label,
    exact_text,
    optional_text,
    row_text,
    true_or_false,
)
from dreamprm.data.text import render_question, render_response
from dreamprm.errors import DataError
from dreamprm.records import UNKNOWN_ANSWER, Question, Trajectory, domain_of

_NAME = "visualprm"
_SOLUTION = re.compile(r"\n*### Solution Process:\s*")
_SUBJECT = re.compile(r"\A(?:test|validation|dev)_(?P<subject>\w+)_\d+\Z")
_ONLY_ANSWER = re.compile(r"\A[\s*#]*(?:final\s+)?answer[*\s]*:[^\n]*\s*\Z", re.IGNORECASE)
_SYSTEM = (
    "You are given a problem and then its solution, one step at a time. Reply + while the solution "
    "is right up to the step at hand, and - once it is not. Reply with nothing else."
)


def _parse(row: Row, reading: Reading) -> list[Pair]:
    """A conversation. A last turn that only states the answer is no step, unless it is alone."""
    said, verdicts = _turns(row)
    outcome = true_or_false(row, "true_false")
    response = optional_text(row, "response")
    reading.claim(row, outcome=outcome, labels=tuple(verdict == "+" for verdict in verdicts))
    text, *steps = [turn.strip() for turn in said]
    if len(steps) < len(verdicts):  # question and first step in one turn
        text, *first = _SOLUTION.split(text, maxsplit=1)
        if not first:
            message = "the first human turn must hold '### Solution Process:' and the first step"
            raise DataError(message, field="conversations")
        steps = [*first, *steps]
    if not all(steps):
        raise DataError("a step is empty", field="conversations")
    subject = _SUBJECT.match(row_text(row, "id"))
    question = reading.question(
        row,
        text,
        "image",
        domain=row_text(row, "dataset"),
        answer=row_text(row, "answer"),
        subject=subject["subject"] if subject else None,
    )
    whole = response if response.strip() else "\n\n".join(steps)
    count = len(steps) - _states_answer_at_the_end(steps)
    labels = [RIGHT if verdict == "+" else WRONG for verdict in verdicts[:count]]
    answer = extract_answer(whole, question.options)
    return [pair(question, steps[:count], answer=answer, outcome=outcome, labels=labels)]


def _turns(row: Row) -> tuple[list[str], list[str]]:
    """What was said: the question (and perhaps the first step), further steps; and the verdicts."""
    turns = row.get("conversations")
    if not isinstance(turns, list) or not all(
        isinstance(turn, dict) and isinstance(turn.get("value"), str) for turn in turns
    ):
        raise DataError("must be a list of {from, value}", field="conversations")
    waiting: list[str] = []
    groups: list[list[str]] = []  # what was said before each verdict
    verdicts: list[str] = []
    for turn in turns:
        if turn.get("from") == "human":
            waiting.append(turn["value"])
        elif turn.get("from") == "gpt":
            verdict = turn["value"].strip()
            if verdict not in ("+", "-"):
                message = f"the verdict on step {len(verdicts) + 1} is {verdict!r}, not + or -"
                raise DataError(message, field="conversations")
            verdicts.append(verdict)
            groups.append(waiting)
            waiting = []
    if waiting or not groups or not all(groups):
        raise DataError(
            "turns must alternate: question and step, verdict, step, verdict, ...",
            field="conversations",
        )
    question, *first = groups[0]
    steps = ["\n\n".join(group) for group in ([first] if first else []) + groups[1:]]
    return [question, *steps], verdicts


def _states_answer_at_the_end(steps: list[str]) -> bool:
    """Is the last of several steps "Final answer: 8" and nothing else?"""
    return len(steps) > 1 and _ONLY_ANSWER.match(steps[-1]) is not None


def _finish(reading: Reading) -> None:
    """Learn gold answers, and leave out labels that are + in wrong answers, too."""
    reading.learn_answers()
    wrong = sum(trajectory.outcome is False for trajectory in reading.trajectories)
    labels = [label for trajectory in reading.trajectories for label in trajectory.labels or ()]
    if not wrong or WRONG in labels:
        return
    reading.warn(
        f"every turn is labelled +, also in all {wrong} responses with a wrong answer; the turn "
        "labels carry nothing and are left out"
    )
    reading.trajectories = [t.model_copy(update={"labels": None}) for t in reading.trajectories]


def _rows(pairs: Iterator[tuple[Question, Trajectory]], folder: Path) -> Iterator[Row]:
    """One conversation per trajectory; outcomes make a row of DreamPRM-1.5.

    Refused where a step has no label, or one between 0 and 1, or the last one only answers.
    """
    return (_row(question, trajectory, folder) for question, trajectory in pairs)


def _row(question: Question, trajectory: Trajectory, folder: Path) -> Row:
    steps, answer = list(trajectory.steps), trajectory.answer
    row: Row = {"id": outside_id(question.id)}
    if (domain := domain_of(question, trajectory)) != _NAME:
        row["dataset"] = domain
    if question.answer != UNKNOWN_ANSWER:
        row["answer"] = question.answer
    response = "\n\n".join(steps)
    if trajectory.outcome is not None:
        response = render_response(steps, answer)
    stated = response
    if answer is not None and extract_answer(response, question.options) != answer:
        stated = f"{response}\nFinal answer: {answer}"
    if trajectory.outcome is not None or stated != response:
        row["response"] = stated
    if trajectory.outcome is not None:
        row["true_false"] = trajectory.outcome
    if images := outside_images(question, trajectory, folder):
        row["image"] = images
    if _states_answer_at_the_end(steps):
        message = "has a last step that only states the answer, and would be read back without it"
        raise cannot_hold(trajectory, f"{message}; remove that step, and set `answer`", "steps")
    opening = f"### Question:\n{render_question(question)}\n\n### Solution Process:\n{steps[0]}"
    conversation = [{"from": "system", "value": _SYSTEM}]
    for turn, verdict in zip([opening, *steps[1:]], _verdicts(trajectory), strict=True):
        conversation += [{"from": "human", "value": turn}, {"from": "gpt", "value": verdict}]
    row["conversations"] = conversation
    return row


def _verdicts(trajectory: Trajectory) -> list[str]:
    """+ or - for every step."""
    verdicts = []
    for i, label in enumerate(trajectory.labels or (None,) * len(trajectory.steps), start=1):
        if label is None:
            message = f"has no label at step {i}, and every turn needs one"
            raise cannot_hold(trajectory, f"{message}; label all steps, or leave it out")
        if label.value not in (0, 1):
            message = f"has a label of {label.value:g} at step {i}, and this format"
            raise cannot_hold(trajectory, f"{message} takes + or - only; set a threshold first")
        verdicts.append("+" if label.value else "-")
    return verdicts


def _parse_raw(row: Row, reading: Reading) -> list[Pair]:
    """A row with counts. The question is `question_orig` where there is one: without prompt."""
    has_original = row.get("question_orig") is not None
    text = exact_text(row, "question_orig" if has_original else "question")
    response = optional_text(row, "response")
    scored = row.get("steps_with_score")
    if not isinstance(scored, list) or not scored:
        raise DataError("must be a list with at least one step", field="steps_with_score")
    steps, labels = [], []
    for i, step in enumerate(scored, start=1):
        field = f"steps_with_score.{i}"
        if not isinstance(step, dict) or not isinstance(step.get("step"), str):
            raise DataError("must be an object with the text 'step'", field=field)
        steps.append(step["step"])
        # 0 of 0 gives no label: the makers stop sampling once no completion of a prefix is right.
        counts = ("num_mc_correct", "num_mc_total")
        labels.append(counted_label(step, "score", *counts, within=f"{field}."))
    question = reading.question(row, text, "image", answer=row_text(row, "answer"))
    count = len(steps) - _states_answer_at_the_end(steps)
    answer = extract_answer(response or "\n\n".join(steps), question.options)
    return [pair(question, steps[:count], answer=answer, labels=labels[:count])]


CONVERSATIONS = Format(
    name=_NAME,
    about="conversations of VisualPRM400K and DreamPRM-1.5: + or - after every step",
    fits=has("conversations"),
    parse=_parse,
    finish=_finish,
    to_rows=_rows,
    loses="subjects, label counts and policies",
)
RAW = Format(
    name="visualprm_raw",
    about="VisualPRM400K-Raw: steps with their Monte Carlo counts",
    fits=has("steps_with_score"),
    parse=_parse_raw,
)
