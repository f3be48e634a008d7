"""VisualPRM400K-Raw (arXiv 2503.10291): every step with its Monte Carlo counts, `steps_with_score`.

The conversations of VisualPRM400K are made from these rows by thresholding, so this is the version
to learn soft labels from. Its makers stop sampling once no completion of a prefix is right; the
steps behind carry 0 of 0 completions, which is no label.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dreamprm.answers import extract_answer
from dreamprm.data.as_read import (
    changes,
    fill,
    gaps_of,
    gaps_unless,
    layout_of,
    pieces_of,
    read_rows,
    response_gaps,
    restored,
    stating,
    with_extra,
    write_rows,
)
from dreamprm.data.fields import Row, cannot_hold, exact_text, label_of_score
from dreamprm.data.files import BadRow, refuse
from dreamprm.data.row_images import image_references, images_of, kept_images
from dreamprm.data.rows import outside_id, question_of_row, row_text
from dreamprm.errors import DataError
from dreamprm.prompts import question_text
from dreamprm.records import UNKNOWN_ANSWER, Label, Question, Trajectory

_NAME = "visualprm_raw"
_ANSWER = re.compile(r"\A[\s*#]*(?:final\s+)?answer[*\s]*:[^\n]*\s*\Z", re.IGNORECASE)
_ROUNDED = 0.005  # how far `score` may be from correct / total


def read_visualprm_raw(
    path: str | Path,
    *,
    image_root: str | Path | None = None,
    domain: str = _NAME,
    bad_row: BadRow = refuse,
) -> tuple[list[Question], list[Trajectory]]:
    """Read a JSON list or JSONL file of rows with `steps_with_score`.

    A label is `num_mc_correct` of `num_mc_total`; where they are missing, the smallest fraction
    that equals `score`. The question is `question_orig` if there is one (`question` is that with
    an instruction around it). A last step that only states the answer is no step, unless it is all
    there is.

    Args:
        path: the file.
        image_root: folder that image paths start from; the file's own by default.
        domain: domain of all questions, because the rows name none.
        bad_row: told of each row that cannot be read; when it returns, the row is left out.

    Raises:
        DataError: names the row and field of what is wrong.
    """
    return read_rows(path, image_root, domain, bad_row, _NAME, _parse, _row)


def states_only_an_answer(step: str) -> bool:
    """Is this "Final answer: 8" and nothing else?"""
    return _ANSWER.match(step) is not None


def refuse_lone_answer(trajectory: Trajectory, closing: object) -> None:
    """Refuse a last step that states an answer alone: it would be read back as no step."""
    if not closing and len(trajectory.steps) > 1 and states_only_an_answer(trajectory.steps[-1]):
        message = "has a last step that only states the answer, and would be read back without it"
        raise cannot_hold(trajectory, f"{message}; remove that step, and set `answer`", "steps")


def own_id(row: Row) -> Row:
    """The id of a row as a row; published files write -1 for "no id"."""
    return {} if row_text(row, "id") == "-1" else {"id": row.get("id")}


def _parse(row: Row, root: Path, domain: str) -> tuple[Question, Trajectory, Row]:
    has_original = row.get("question_orig") is not None
    text = exact_text(row, "question_orig" if has_original else "question")
    response = row.get("response")
    if response is not None and not isinstance(response, str):
        raise DataError(f"must be text, not {type(response).__name__}", field="response")
    scored = row.get("steps_with_score")
    if not isinstance(scored, list) or not scored:
        raise DataError("must be a list with at least one step", field="steps_with_score")
    labels = [_label(step, i) for i, step in enumerate(scored, start=1)]
    steps = [str(step["step"]) for step in scored]
    question = question_of_row(
        {"image_path": image_references(row, "image"), **own_id(row)},
        text,
        root,
        domain,
        answer=row_text(row, "answer"),
    )
    answer = extract_answer(response or "\n\n".join(steps), question.options)
    pieces, ours = pieces_of(question), question_text(question)
    layout: Row = {"images": kept_images(row, "image")}
    if has_original:
        layout["question_orig"] = gaps_of(text, pieces) or []
        if isinstance(row.get("question"), str):
            layout["question"] = gaps_unless(ours, row["question"], pieces)
    else:
        layout["question"] = gaps_unless(ours, text, pieces)
    if len(steps) > 1 and states_only_an_answer(steps[-1]):
        *steps, last = steps
        *labels, _ = labels
        *scored, closing = scored
        gaps = response_gaps(last, [], answer) or []
        said = gaps if len(gaps) > 1 else last
        layout["answer"] = {"text": said, "for": answer, "rest": _without_step(closing)}
    trajectory = Trajectory.parse(
        {"question_id": question.id, "steps": steps, "answer": answer, "labels": labels}
    )
    notes = [
        {"changed": changes(step, ours), "rest": {k: v for k, v in step.items() if k not in ours}}
        for step, ours in zip(scored, _scored(trajectory), strict=True)
    ]
    if any(note["changed"] or note["rest"] for note in notes):
        layout["steps"] = notes
    trajectory = with_extra(trajectory, {f"{_NAME}_as_read": layout})
    said = _said(trajectory)
    if response is None:
        layout["response"] = False
    else:
        layout["response"] = gaps_unless("\n\n".join(said), response, said)
    return question, trajectory, layout


def _without_step(scored: Row) -> Row:
    return {field: value for field, value in scored.items() if field != "step"}


def _label(scored: Any, number: int) -> Label | None:
    """The counts of one step, checked against each other; None for 0 of 0."""
    field = f"steps_with_score.{number}"
    if not isinstance(scored, dict) or not isinstance(scored.get("step"), str):
        raise DataError("must be an object with the text 'step'", field=field)
    score, counts = scored.get("score"), [scored.get(f"num_mc_{k}") for k in ("correct", "total")]
    from_score = None if score is None else label_of_score(score, f"{field}.score")
    if counts == [None, None]:
        if from_score is None:
            raise DataError("has neither 'score' nor counts; add one", field=field)
        return from_score
    correct, total = counts
    if type(correct) is not int or type(total) is not int:  # bool is an int, too
        message = "num_mc_correct and num_mc_total must both be whole numbers"
        raise DataError(message, field=field)
    if not 0 <= correct <= total:
        message = f"{correct} of {total} completions is outside 0-1; correct it"
        raise DataError(message, field=f"{field}.num_mc_correct")
    value = correct / total if total else 0.0
    if from_score is not None and abs(from_score.value - value) > _ROUNDED:
        message = f"{score} is not {correct} of {total} completions; correct one of them"
        raise DataError(message, field=f"{field}.score")
    return Label.of(correct, total) if total else None


def write_visualprm_raw(
    path: str | Path, questions: Iterable[Question], trajectories: Iterable[Trajectory]
) -> None:
    """Write one row per trajectory, as JSONL, or as a JSON list where `path` ends in `.json`.

    A step without a label is written as 0 of 0 completions. Domains, outcomes and policies are
    lost.

    Raises:
        DataError: an image is held as bytes.
    """
    write_rows(path, questions, trajectories, _NAME, _row)


def _row(question: Question, trajectory: Trajectory, folder: Path) -> Row:
    layout = layout_of(trajectory, _NAME)
    pieces, ours = pieces_of(question), question_text(question)
    row: Row = {"id": outside_id(question.id)}
    row |= images_of(question, trajectory, "image", layout, folder)
    row["question"] = fill(layout.get("question"), pieces, ours)
    if "question_orig" in layout:
        row["question_orig"] = fill(layout["question_orig"], pieces, ours)
    if question.answer != UNKNOWN_ANSWER:
        row["answer"] = question.answer
    refuse_lone_answer(trajectory, _closing(trajectory))
    said = _said(trajectory)
    plain = "\n\n".join(said)
    response = stating(fill(layout.get("response"), said, plain), question, trajectory)
    if layout.get("response") is not False or response != plain:
        row["response"] = response
    scored = _scored(trajectory)
    notes = layout.get("steps")
    if isinstance(notes, list) and len(notes) == len(scored):
        scored = [
            restored(step, note.get("changed"), note.get("rest"))
            if isinstance(note, dict)
            else step
            for step, note in zip(scored, notes, strict=True)
        ]
    if (closing := _closing(trajectory)) is not None:
        rest = layout["answer"].get("rest")
        scored.append({"step": closing, **(rest if isinstance(rest, dict) else {})})
    row["steps_with_score"] = scored
    return row


def _scored(trajectory: Trajectory) -> list[Row]:
    labels = trajectory.labels or (None,) * len(trajectory.steps)
    return [
        {
            "step": step,
            "score": label.value if label else 0.0,
            "num_mc_correct": label.correct if label else 0,
            "num_mc_total": label.total if label else 0,
        }
        for step, label in zip(trajectory.steps, labels, strict=True)
    ]


def _closing(trajectory: Trajectory) -> str | None:
    """The last step of the source, which only states the answer; None when it had none."""
    closing = layout_of(trajectory, _NAME).get("answer")
    if not isinstance(closing, dict):
        return None
    answer, text = trajectory.answer, closing.get("text")
    if isinstance(text, str) and answer == closing.get("for"):
        return text
    ours = "" if answer is None else f"Final answer: {answer}"
    return fill(text, [answer], ours) if answer else None


def _said(trajectory: Trajectory) -> list[str]:
    closing = _closing(trajectory)
    return [*trajectory.steps, *([] if closing is None else [closing])]
