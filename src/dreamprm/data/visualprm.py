"""Conversations of VisualPRM400K and DreamPRM-1.5 (arXiv 2509.05542): one turn per step.

The policy's step is a human turn, and the verdict on it, + or -, is the reply. DreamPRM-1.5 adds
the whole `response` and whether its answer is right, `true_false`.
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from dreamprm.answers import extract_answer
from dreamprm.data.as_read import (
    fill,
    fill_response,
    gaps_of,
    gaps_unless,
    keep_all,
    layout_of,
    pieces_of,
    response_gaps,
    stating,
    write_rows,
)
from dreamprm.data.fields import Row, cannot_hold, whole_characters
from dreamprm.data.files import BadRow, DataWarning, refuse
from dreamprm.data.row_files import each_row
from dreamprm.data.row_images import image_references, images_of, kept_images
from dreamprm.data.rows import learn_answer, outside_id, question_of_row, row_text, same_question
from dreamprm.data.text import render_question, render_response
from dreamprm.data.visualprm_raw import own_id, refuse_lone_answer, states_only_an_answer
from dreamprm.errors import DataError
from dreamprm.records import UNKNOWN_ANSWER, Label, Question, Trajectory

_NAME = "visualprm"
_SOLUTION = re.compile(r"\n*### Solution Process:\s*")
_SUBJECT = re.compile(r"\A(?:test|validation|dev)_(?P<subject>\w+)_\d+\Z")
_SYSTEM = (
    "You are given a problem and then its solution, one step at a time. Reply + while the solution "
    "is right up to the step at hand, and - once it is not. Reply with nothing else."
)


def read_visualprm(
    path: str | Path,
    *,
    image_root: str | Path | None = None,
    domain: str = _NAME,
    bad_row: BadRow = refuse,
) -> tuple[list[Question], list[Trajectory]]:
    """Read a JSON list or JSONL file of conversations.

    A last turn that only states the answer ("Answer: B") is no step, unless it is all there is.
    Where every turn is labelled +, also in responses with a wrong answer (DreamPRM-1.5's meta set),
    the labels carry nothing: they are left out, with a `DataWarning`.

    Args:
        path: the file.
        image_root: folder that image paths start from; the file's own by default.
        domain: domain of rows that have no `dataset` field.
        bad_row: told of each row that cannot be read; when it returns, the row is left out.

    Raises:
        DataError: names the row and field of what is wrong.
    """
    path = Path(path)
    root = path.parent if image_root is None else Path(image_root)
    questions: dict[str, Question] = {}
    found: list[tuple[int, Row, Trajectory, Row]] = []
    samples: dict[str, int] = defaultdict(int)
    for number, row in each_row(path, bad_row):
        try:
            question, trajectory, layout = _parse(whole_characters(row), root, domain)
            same_question(question, questions)
        except DataError as error:
            bad_row(error.at(file=path, row=number))
            continue
        if trajectory.outcome:
            learn_answer(question.id, trajectory.answer, questions)
        index = samples[question.id]
        samples[question.id] += 1
        found.append((number, row, trajectory.model_copy(update={"sample_index": index}), layout))
    _leave_out_empty_labels(found, path)
    trajectories = keep_all(found, questions, path, bad_row, _NAME, _row)
    return list(questions.values()), trajectories


def _parse(row: Row, root: Path, domain: str) -> tuple[Question, Trajectory, Row]:
    said, verdicts = _turns(row)
    outcome = row.get("true_false")
    if outcome not in (None, True, False):
        raise DataError(f"must be true or false, not {outcome!r}", field="true_false")
    response = row.get("response")
    if response is not None and not isinstance(response, str):
        raise DataError(f"must be text, not {type(response).__name__}", field="response")
    text, *steps = [turn.strip() for turn in said]
    shared = len(steps) < len(verdicts)  # question and first step in one turn
    if shared:
        text, *first = _SOLUTION.split(text, maxsplit=1)
        if not first:
            message = "the first human turn must hold '### Solution Process:' and the first step"
            raise DataError(message, field="conversations")
        steps = [*first, *steps]
    if not all(steps):
        raise DataError("a step is empty", field="conversations")
    subject = _SUBJECT.match(row_text(row, "id"))
    question = question_of_row(
        {"image_path": image_references(row, "image"), **own_id(row)},
        text,
        root,
        row_text(row, "dataset") or domain,
        answer=row_text(row, "answer"),
        subject=subject["subject"] if subject else None,
    )
    whole = response if response and response.strip() else "\n\n".join(steps)
    answer = extract_answer(whole, question.options)
    layout: Row = {"images": kept_images(row, "image")}
    if len(steps) > 1 and states_only_an_answer(steps[-1]):
        steps = steps[:-1]
        *verdicts, verdict = verdicts
        gaps = response_gaps(said[-1], [], answer) or []
        closing = gaps if len(gaps) > 1 else said[-1]
        layout["answer"] = {"text": closing, "for": answer, "verdict": verdict}
    opening = [*pieces_of(question), *steps[:1]] if shared else pieces_of(question)
    layout["question"] = gaps_unless(_opening(question, steps) if shared else "", said[0], opening)
    turns = [gaps_of(turn, [step]) for turn, step in zip(said[1:], steps[shared:], strict=False)]
    if any(turn != ["", ""] for turn in turns):
        layout["turns"] = turns
    system = row["conversations"][0]
    if system.get("from") != "system":
        layout["no_system"] = True
    elif system["value"] != _SYSTEM:
        layout["system"] = system["value"]
    ours = "" if outcome is None else render_response(steps, answer)
    if response is None:
        layout["response"] = False if outcome is not None else None
    elif response != ours:
        layout["response"] = response_gaps(response, steps, answer)
    trajectory = Trajectory.parse(
        {
            "question_id": question.id,
            "steps": steps,
            "answer": answer,
            "outcome": None if outcome is None else bool(outcome),
            "labels": [Label(float(verdict == "+")) for verdict in verdicts],
        }
    )
    return question, trajectory, layout


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


def _leave_out_empty_labels(found: list[tuple[int, Row, Trajectory, Row]], path: Path) -> None:
    """Where all turns are +, wrong answers included, make them notes for the writer, no labels."""
    wrong = sum(trajectory.outcome is False for _, _, trajectory, _ in found)
    labels = [label for _, _, trajectory, _ in found for label in trajectory.labels or ()]
    if not wrong or any(label is not None and label.value == 0 for label in labels):
        return
    warnings.warn(
        f"{path}: every turn is labelled +, also in all {wrong} responses with a wrong answer; the "
        "turn labels carry nothing and are left out",
        DataWarning,
        stacklevel=3,
    )
    for i, (number, row, trajectory, layout) in enumerate(found):
        layout["verdicts"] = "+" * len(trajectory.steps)
        found[i] = (number, row, trajectory.model_copy(update={"labels": None}), layout)


def write_visualprm(
    path: str | Path, questions: Iterable[Question], trajectories: Iterable[Trajectory]
) -> None:
    """Write one conversation per trajectory, as JSONL, or a JSON list where `path` ends in `.json`.

    A label that all completions agree on becomes + or -; their number is lost, and so is the
    policy. Outcomes make a row of DreamPRM-1.5, with `response` and `true_false`.

    Raises:
        DataError: a step has no label, or one between 0 and 1, or an image is held as bytes.
    """
    write_rows(path, questions, trajectories, _NAME, _row)


def _row(question: Question, trajectory: Trajectory, folder: Path) -> Row:
    layout = layout_of(trajectory, _NAME)
    steps, answer, outcome = list(trajectory.steps), trajectory.answer, trajectory.outcome
    row: Row = {"id": outside_id(question.id)}
    if question.domain != _NAME:
        row["dataset"] = question.domain
    if question.answer != UNKNOWN_ANSWER:
        row["answer"] = question.answer
    gaps, plain = layout.get("response"), "\n\n".join([*steps, *_closing(trajectory)])
    if (gaps is None and outcome is not None) or isinstance(gaps, list):
        text = fill_response(gaps, steps, answer, render_response(steps, answer))
        row["response"] = stating(text, question, trajectory)
    elif (stated := stating(plain, question, trajectory)) != plain:
        row["response"] = stated
    if outcome is not None:
        row["true_false"] = outcome
    row |= images_of(question, trajectory, "image", layout, folder)
    row["conversations"] = _conversation(question, trajectory)
    return row


def _conversation(question: Question, trajectory: Trajectory) -> list[Row]:
    layout, steps = layout_of(trajectory, _NAME), list(trajectory.steps)
    system, gaps = layout.get("system", _SYSTEM), layout.get("question")
    pieces = pieces_of(question)
    apart = isinstance(gaps, list) and len(gaps) == len(pieces) + 1  # a turn for the question only
    if apart:
        said = [fill(gaps, pieces, ""), *steps]
    else:
        opening = fill(gaps, [*pieces, steps[0]], _opening(question, steps))
        said = [opening, *steps[1:]]
    turns = layout.get("turns")
    if isinstance(turns, list) and len(turns) == len(said) - 1:
        said[1:] = [fill(turn, [step], step) for turn, step in zip(turns, said[1:], strict=True)]
    refuse_lone_answer(trajectory, _closing(trajectory))
    verdicts = _verdicts(trajectory)
    if closing := _closing(trajectory):
        said += closing
        verdicts += str(layout["answer"].get("verdict", "+"))
    told = [] if layout.get("no_system") else [{"from": "system", "value": system}]
    told += [{"from": "human", "value": said.pop(0)}] if apart else []
    for turn, verdict in zip(said, verdicts, strict=True):
        told += [{"from": "human", "value": turn}, {"from": "gpt", "value": verdict}]
    return told


def _opening(question: Question, steps: list[str]) -> str:
    """Question and first step in one turn, as in VisualPRM400K."""
    return f"### Question:\n{render_question(question)}\n\n### Solution Process:\n{steps[0]}"


def _closing(trajectory: Trajectory) -> list[str]:
    """The last turn of the source, which only stated the answer; [] when it had none."""
    closing = layout_of(trajectory, _NAME).get("answer")
    if not isinstance(closing, dict):
        return []
    answer, text = trajectory.answer, closing.get("text")
    if isinstance(text, str) and answer == closing.get("for"):
        return [text]
    return [fill(text, [answer], f"Answer: {answer}")] if answer else []


def _verdicts(trajectory: Trajectory) -> str:
    """+ or - for every step."""
    if trajectory.labels is None:
        kept = layout_of(trajectory, _NAME).get("verdicts")
        if isinstance(kept, str) and len(kept) == len(trajectory.steps):
            return kept
    labels = trajectory.labels or (None,) * len(trajectory.steps)
    for i, label in enumerate(labels, start=1):
        if label is None:
            message = f"has no label at step {i}, and every turn needs one"
            raise cannot_hold(trajectory, f"{message}; label all steps, or leave it out")
        if label.value not in (0, 1):
            message = f"has a label of {label.value:g} at step {i}, and this format"
            raise cannot_hold(trajectory, f"{message} takes + or - only; set a threshold first")
    return "".join("+" if label and label.value else "-" for label in labels)
