"""The meta file of the paper's code (arXiv 2505.20241), `meta.json`, read and written.

A row is a question and a whole response in one text, `input`, and whether the response's answer is
right, `true_false`. The released file has rows without any response, hence the checks. The file
names neither domains nor gold answers; that of a question is the answer of a right response.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from dreamprm.answers import extract_answer
from dreamprm.data.format import (
    Format,
    Pair,
    Reading,
    cannot_hold,
    contradictions,
    has,
    outside_id,
    outside_images,
    pair,
)
from dreamprm.data.rows import Row, exact_text, true_or_false
from dreamprm.data.text import (
    parse_question,
    parse_response,
    render_question,
    render_response,
    split_response,
)
from dreamprm.records import Question, Trajectory
from dreamprm.steps import join_steps


def _parse(row: Row, reading: Reading) -> list[Pair]:
    outcome = true_or_false(row, "true_false", required=True)
    whole = exact_text(row, "input")
    text, response = split_response(whole)
    reading.claim(
        row,
        has_response=bool(response),
        outcome=outcome,
        text=" ".join(whole.split()),
        images=str(row.get("image_path")),
    )
    question = reading.question(row, text, "image_path")
    if not response:
        return [(question, None)] if reading.without_response == "keep" else []
    answer = extract_answer(response, question.options)
    return [pair(question, parse_response(response), answer=answer, outcome=outcome)]


def _finish(reading: Reading) -> None:
    """Learn gold answers; refuse rows without a response; warn of what spoils a meta set."""
    reading.learn_answers()
    told = ((claim.text, claim.images, claim.outcome, claim.place) for claim in reading.claims)
    for same_images, members in contradictions(told):
        only = "and the same image" if same_images else "the images differ"
        where = ", ".join(f"{place} {str(outcome).lower()}" for place, outcome in members)
        reading.warn(f"contradiction: the same text carries both labels ({only}): {where}")
    classes = ""
    for outcome in (False, True):
        of_class = [claim.has_response for claim in reading.claims if claim.outcome is outcome]
        missing = of_class.count(False)
        all_of_them = "including all " if missing and missing == len(of_class) else ""
        classes += f", {all_of_them}{missing} of {len(of_class)} {str(outcome).lower()} rows"
    reading.refuse_without_response(
        "input", f"{classes}: a model could tell the classes apart by the absence of steps"
    )
    outcomes = {trajectory.outcome for trajectory in reading.trajectories}
    if len(outcomes) == 1:
        reading.warn(
            f"all {len(reading.trajectories)} trajectories have the outcome "
            f"{str(outcomes.pop()).lower()}; an upper level cannot be fitted on one class"
        )


def _rows(pairs: Iterator[tuple[Question, Trajectory]], folder: Path) -> Iterator[Row]:
    """One row per trajectory; refused without an outcome, or where steps would not come back."""
    for question, trajectory in pairs:
        if trajectory.outcome is None:
            message = (
                "has no outcome, and this format needs one; verify its answer, or leave it out"
            )
            raise cannot_hold(trajectory, message, field="outcome")
        yield {
            "id": outside_id(question.id),
            "true_false": trajectory.outcome,
            "input": _text(question, trajectory),
            "image_path": outside_images(question, trajectory, folder),
        }


def _text(question: Question, trajectory: Trajectory) -> str:
    """Question and response as one text from which the same records are read."""
    steps, answer = trajectory.steps, trajectory.answer
    ours = f"{render_question(question)}\n\n{render_response(steps, answer)}"
    plain = f"{render_question(question)}\n\n{join_steps(steps, answer)}"
    same = False
    for candidate in (ours, plain):
        asked, response = split_response(candidate)
        same = parse_question(asked) == (question.text.strip(), _stripped(question.options))
        same = same and bool(response) and parse_response(response) == _stripped(steps)
        if same and (answer is None or extract_answer(response, question.options) == answer):
            return candidate
    if same:  # its answer is a text that cannot be found again as it stands, such as "**B**"
        return ours
    raise cannot_hold(
        trajectory,
        "would be read back otherwise from this format's one text; begin its steps with "
        "'Step 1: ', 'Step 2: ', ..., and take empty lines out of the question",
        field="steps",
    )


def _stripped(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(text.strip() for text in texts)


FORMAT = Format(
    name="dreamprm_meta",
    about="meta.json of DreamPRM: whole responses, right or wrong",
    fits=has("true_false", "input"),
    parse=_parse,
    finish=_finish,
    to_rows=_rows,
    loses="domains, subjects, gold answers, labels and policies",
    default_domain="meta",
    rows_without_response=True,
)
