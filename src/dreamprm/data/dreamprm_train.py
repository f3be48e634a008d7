"""The training file of the paper's code (arXiv 2505.20241), `train.json`, read and written.

A row is a prefix: `add` holds the response up to and including step `sid`, and `score` of `times`
completions sampled from there were right (the paper's minimal form has `accuracy` alone). The rows
of a question whose texts continue one another are merged into one trajectory: the longest prefix
gives the steps, the others label them. A prefix that several longer ones continue labels all of
them. Where rows repeat a prefix, their counts are added.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from dreamprm.data.claims import train_claim
from dreamprm.data.format import (
    Format,
    Pair,
    Reading,
    cannot_hold,
    has,
    one_or_list,
    outside_id,
    outside_images,
    pairs_of,
    write_rows,
)
from dreamprm.data.rows import Row, exact_text, optional_text, required_text, row_text
from dreamprm.data.text import parse_question, parse_response, render_question
from dreamprm.errors import DataError
from dreamprm.prompts import question_text
from dreamprm.records import UNKNOWN_ANSWER, Label, Question, Trajectory, domain_of

_ROUNDED = 0.005  # how far `accuracy` may be from score / times


def _parse(row: Row, reading: Reading) -> list[Pair]:
    """A prefix as a trajectory whose last step is labelled; `_finish` merges them."""
    prefix = optional_text(row, "add").strip()
    if not prefix and reading.without_response != "keep":
        reading.empty_rows.append(reading.number)
        return []
    question = reading.question(
        row,
        exact_text(row, "input"),
        "image_path",
        domain=(row_text(row, "dataset") or reading.domain) or required_text(row, "dataset"),
        answer=row_text(row, "ground_truth"),
    )
    if not prefix:
        return [(question, None)]
    steps = parse_response(prefix)
    labels = (*[None] * (len(steps) - 1), _label(row))
    part = {"question_id": question.id, "steps": steps, "labels": labels, "answer": prefix}
    return [(question, Trajectory.parse(part))]


def _finish(reading: Reading) -> None:
    if reading.empty_rows and reading.without_response == "refuse":
        reading.bad_row(
            DataError(
                f"{len(reading.empty_rows)} of {reading.number} rows without a response ('add' is "
                "empty); leave them out (`dreamprm convert --without_response drop`)",
                file=reading.path,
                row=reading.empty_rows[0],
                field="add",
            )
        )
    prefixes: dict[tuple[str, str | None], dict[str, list[Trajectory]]] = {}
    for part in reading.trajectories:
        of_question = prefixes.setdefault((part.question_id, part.domain), {})
        of_question.setdefault(str(part.answer), []).append(part)
    counts: dict[str, int] = {}
    merged = []
    for (question_id, _), parts in prefixes.items():
        for trajectory in _merge(parts):
            index = counts.get(question_id, 0)
            counts[question_id] = index + 1
            merged.append(trajectory.model_copy(update={"sample_index": index}))
    reading.trajectories = merged


def _merge(parts: dict[str, list[Trajectory]]) -> list[Trajectory]:
    """One trajectory per prefix that no other prefix continues."""
    steps_of = {prefix: rows[0].steps for prefix, rows in parts.items()}

    def continues(text: str, prefix: str) -> bool:
        """By steps, not by characters: Step 1 is no beginning of Step 10."""
        steps = steps_of[prefix]
        return text.startswith(prefix) and steps_of[text][: len(steps)] == steps

    trajectories: list[Trajectory] = []
    for whole, rows in parts.items():
        if any(other != whole and continues(other, whole) for other in parts):
            continue
        told: list[list[Label]] = [[] for _ in steps_of[whole]]
        for prefix, others in parts.items():
            if continues(whole, prefix):
                last = len(steps_of[prefix]) - 1
                told[last] += [row.labels[-1] for row in others if row.labels and row.labels[-1]]
        labels = tuple(_together(labels) for labels in told)
        trajectories.append(rows[0].model_copy(update={"labels": labels, "answer": None}))
    return trajectories


def _together(labels: Sequence[Label]) -> Label | None:
    """The label of a prefix that several rows tell of: counts are added, values averaged."""
    if len(labels) < 2:
        return labels[0] if labels else None
    if all(label.total for label in labels):
        correct, total = (sum(column) for column in zip(*(x.counts() for x in labels), strict=True))
        return Label.of(correct, total)
    return Label(sum(label.value for label in labels) / len(labels))


def _label(row: Row) -> Label:
    """The label of a row: its counts, checked against the accuracy, or the accuracy alone."""
    values: dict[str, float] = {}
    for field in ("score", "times", "accuracy"):
        value = row.get(field)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DataError(f"must be a number, not {value!r}", field=field)
        if not math.isfinite(value):
            raise DataError(f"must be a finite number, not {value!r}", field=field)
        values[field] = value
    accuracy = values.get("accuracy")
    if accuracy is not None and not 0 <= accuracy <= 1:
        message = f"label {accuracy} is outside 0-1; correct it or remove the row"
        raise DataError(message, field="accuracy")
    if "score" in values and "times" in values:
        correct, total = values["score"], values["times"]
        if correct != int(correct) or total != int(total) or not 0 <= correct <= total or total < 1:
            message = f"{correct} of {total} completions is outside 0-1; correct it"
            raise DataError(message, field="score")
        if accuracy is not None and abs(accuracy - correct / total) > _ROUNDED:
            message = f"{accuracy} is not score / times = {correct} / {total}; correct one of them"
            raise DataError(message, field="accuracy")
        return Label.of(int(correct), int(total))
    if accuracy is None:
        raise DataError("is missing, and so are 'score' and 'times'", field="accuracy")
    return Label(float(accuracy))


def _write(
    path: str | Path, questions: Iterable[Question], trajectories: Iterable[Trajectory]
) -> None:
    """Write one row per labelled step, as a JSON list or, where `path` says so, as JSONL.

    Steps that trajectories of a question share, with the same label, are written once.

    Raises:
        DataError: a trajectory's last step has no label, or its text would be read back as other
            steps, or an image is held as bytes.
    """
    rows: list[Row] = []
    told: dict[tuple[str, str, str], Label] = {}  # of question, domain and prefix
    for question, trajectory in pairs_of(questions, trajectories):
        labels = trajectory.labels or (None,)
        if labels[-1] is None:
            message = "has no label at its last step, so no row would hold that step"
            raise cannot_hold(trajectory, f"{message}; label it, or leave it out")
        steps = tuple(map(str.strip, trajectory.steps))
        images = one_or_list(outside_images(question, trajectory, Path(path).parent))
        domain = domain_of(question, trajectory)
        for i, label in enumerate(labels, start=1):
            # An empty line stands behind each step in the paper's files.
            prefix = "".join(f"{step}\n\n" for step in trajectory.steps[:i])
            if label is None:
                continue
            if parse_response(prefix) != steps[:i]:
                message = "would be read back as other steps; begin them with 'Step 1: ', 'Step 2:"
                raise cannot_hold(trajectory, f"{message} ', ...", field="steps")
            key = (question.id, domain, prefix.strip())
            if i < len(labels) and told.get(key) == label:
                continue
            told[key] = label
            row: Row = {"id": outside_id(question.id), "input": _asked(question), "sid": i}
            row["add"] = prefix
            if label.total is not None:
                row |= {"score": label.correct, "times": label.total}
            row["accuracy"] = label.value
            if question.answer != UNKNOWN_ANSWER:
                row["ground_truth"] = question.answer
            rows.append(row | {"image_path": images, "dataset": domain})
    write_rows(path, rows)


def _asked(question: Question) -> str:
    text = question_text(question)
    whole = parse_question(text) == (question.text, question.options)
    return text if whole else render_question(question)


FORMAT = Format(
    name="dreamprm_train",
    about="train.json of DreamPRM: one row per prefix, with its Monte Carlo label",
    fits=has("add", "input"),
    parse=_parse,
    finish=_finish,
    write=_write,
    loses="subjects, final answers, outcomes and policies",
    default_domain=None,
    rows_without_response=True,
    claim=train_claim,
)
