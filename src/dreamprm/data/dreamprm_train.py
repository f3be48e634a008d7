"""The training file of the paper's code (arXiv 2505.20241), `train.json`, read and written.

A row is a prefix: `add` holds the response up to and including step `sid`, and `score` of `times`
completions sampled from there were right (the paper's minimal form has `accuracy` alone). The rows
of a question whose texts continue one another are merged into one trajectory: the longest prefix
gives the steps, the others label them. A prefix that several longer ones continue labels all of
them. Where rows repeat a prefix, their counts are added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

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
    Row,
    counted_label,
    exact_text,
    optional_text,
    required_text,
    row_text,
)
from dreamprm.data.text import parse_question, parse_response, render_question
from dreamprm.errors import DataError
from dreamprm.prompts import question_text
from dreamprm.records import UNKNOWN_ANSWER, Label, Question, Trajectory, domain_of


def _parse(row: Row, reading: Reading) -> list[Pair]:
    """A prefix as a trajectory whose last step is labelled; `_finish` merges them."""
    prefix = optional_text(row, "add").strip()
    reading.claim(row, has_response=bool(prefix))
    if not prefix and reading.without_response != "keep":
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
    label = counted_label(row, "accuracy", "score", "times")
    if label is None:
        raise DataError("0 of 0 completions say nothing; remove the row", field="score")
    # The text itself stands in the place of an answer until prefixes are merged.
    return [pair(question, steps, labels=[*[None] * (len(steps) - 1), label], answer=prefix)]


def _finish(reading: Reading) -> None:
    reading.refuse_without_response("add", " ('add' is empty)")
    prefixes: dict[tuple[str, str | None], dict[str, list[Trajectory]]] = {}
    for part in reading.trajectories:
        of_question = prefixes.setdefault((part.question_id, part.domain), {})
        of_question.setdefault(str(part.answer), []).append(part)
    counts: Counter[str] = Counter()
    reading.trajectories = []
    for (question_id, _), parts in prefixes.items():
        for trajectory in _merge(parts):
            index = {"sample_index": counts[question_id]}
            reading.trajectories.append(trajectory.model_copy(update=index))
            counts[question_id] += 1


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


def _rows(pairs: Iterator[tuple[Question, Trajectory]], folder: Path) -> Iterator[Row]:
    """One row per labelled step; steps that trajectories share, with the same label, once.

    Refused where a trajectory's last step has no label, or its text would give other steps.
    """
    told: dict[tuple[str, str, str], Label] = {}  # of question, domain and prefix
    for question, trajectory in pairs:
        labels = trajectory.labels or (None,)
        if labels[-1] is None:
            message = "has no label at its last step, so no row would hold that step"
            raise cannot_hold(trajectory, f"{message}; label it, or leave it out")
        steps = tuple(map(str.strip, trajectory.steps))
        images = outside_images(question, trajectory, folder)
        domain = domain_of(question, trajectory)
        for i, label in enumerate(labels, start=1):
            if label is None:
                continue
            # An empty line stands behind each step in the paper's files.
            prefix = "".join(f"{step}\n\n" for step in trajectory.steps[:i])
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
            yield row | {"image_path": images, "dataset": domain}


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
    to_rows=_rows,
    loses="subjects, final answers, outcomes and policies",
    default_domain=None,
    rows_without_response=True,
)
