"""Math-Shepherd: where the question ends, what the tags mean, what survives, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dreamprm.records import UNKNOWN_ANSWER
from tests.format_rows import RIGHT, WRONG, check_refused, reader, save

read_math_shepherd = reader("math_shepherd")


def row(tagged: str, signs: str, **more: Any) -> dict[str, Any]:
    """A row whose `input` is `tagged` with ки for #, and whose `label` has `signs` there."""
    parts = tagged.split("#")
    label = "".join(part + sign for part, sign in zip(parts, [*signs, ""], strict=True))
    return {"input": tagged.replace("#", "ки"), "label": label, "task": "GSM8K", **more}


ROW = row("How much is 2 + 3? Step 1: Add. #\nStep 2: It is 6. The answer is: 6 #", "+-")


def steps_of(path: Path) -> list[tuple[str, ...]]:
    return [trajectory.steps for trajectory in read_math_shepherd(path)[1]]


def test_each_tag_ends_a_step_and_its_sign_labels_it(tmp_path: Path) -> None:
    (question,), (trajectory,) = read_math_shepherd(save(tmp_path, [ROW]))
    assert question.text == "How much is 2 + 3?"
    assert (question.answer, question.subject) == (UNKNOWN_ANSWER, "GSM8K")
    assert trajectory.steps == ("Step 1: Add.", "Step 2: It is 6. The answer is: 6")
    assert trajectory.labels == (RIGHT, WRONG)
    assert (trajectory.answer, trajectory.outcome) == ("6", None)


def test_without_a_mark_the_first_step_begins_behind_the_question_mark(tmp_path: Path) -> None:
    path = save(tmp_path, [row("Is 4 even? Is 6? Both are. #\nSo yes. #", "++")])
    assert steps_of(path) == [("Both are.", "So yes.")]
    assert read_math_shepherd(path)[0][0].text == "Is 4 even? Is 6?"


def test_a_tag_inside_the_question_is_no_step(tmp_path: Path) -> None:
    path = save(tmp_path, [row(" Mr. Rocky # had 5. How many? # step 1: Five. #\n", "-++")])
    (question,), (trajectory,) = read_math_shepherd(path)
    assert question.text == " Mr. Rocky  had 5. How many?"
    assert (trajectory.steps, trajectory.labels) == (("step 1: Five.",), (RIGHT,))


@pytest.mark.parametrize(
    "text",
    ["Q?\n\nStep 1: a#Step 2: b \t #\n", "Q?Step 1: a #\n\nStep 2: b# "],
)
def test_spaces_around_steps_are_no_part_of_them(text: str, tmp_path: Path) -> None:
    assert steps_of(save(tmp_path, [row(text, "+-")])) == [("Step 1: a", "Step 2: b")]


def test_published_rows_have_the_steps_and_signs_that_the_file_shows(real_data: Path) -> None:
    questions, trajectories = read_math_shepherd(real_data / "prm_formats" / "math-shepherd.jsonl")
    assert (len(questions), len(trajectories)) == (7, 7)
    assert [len(trajectory.steps) for trajectory in trajectories] == [5, 3, 2, 5, 5, 2, 3]
    assert all(step.startswith(f"Step {i}: ") for one in trajectories
               for i, step in enumerate(one.steps, start=1))  # fmt: skip
    assert trajectories[0].labels == (RIGHT, RIGHT, RIGHT, RIGHT, WRONG)
    answers = [one.answer for one in trajectories]
    assert answers == ["13520", "16000", "40", "900", "52", "2.2", "210"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": None}, "field 'input': is missing"),
        ({"input": "Q? Step 1: a"}, "field 'input': holds no step tag 'ки'"),
        ({"input": "Q. a ки", "label": "Q. a +"}, "nor a question mark that ends the question"),
        (
            {"input": "Step 1: a ки", "label": "Step 1: a +"},
            "field 'input': has neither text before",
        ),
        ({"input": "Q? ки", "label": "Q? +"}, "field 'input': step 1 is empty"),
        ({"input": ROW["input"] + " more"}, "field 'input': goes on behind the last tag"),
        ({"label": ROW["label"][:-1]}, "field 'label': must repeat 'input'"),
        ({"label": ROW["label"][:-1] + "0"}, "field 'label': must repeat 'input'"),
        ({"label": ROW["label"] + "+"}, "in place of each of its 2 tags"),
        ({"label": 1}, "field 'label': must be text"),
        ({"task": None}, "field 'task': is missing"),
    ],
)
def test_a_broken_row_is_refused_and_can_be_passed_over(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    check_refused("math_shepherd", tmp_path, ROW, ROW | changes, message)
