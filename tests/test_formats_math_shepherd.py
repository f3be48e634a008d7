"""Math-Shepherd: where the question ends, what the tags mean, what survives, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamprm.data.math_shepherd import read_math_shepherd, write_math_shepherd
from dreamprm.errors import DataError
from dreamprm.records import UNKNOWN_ANSWER, Label
from tests.test_formats_processbench import (
    from_elsewhere,
    load,
    mutated,
    rewritten,
    save,
    survives_or_is_refused,
)

RIGHT, WRONG = Label(1.0), Label(0.0)


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
    assert rewritten(read_math_shepherd, write_math_shepherd, path, tmp_path) == load(path)


def test_a_tag_inside_the_question_is_no_step_and_is_put_back(tmp_path: Path) -> None:
    rows = [row(" Mr. Rocky # had 5. How many? # step 1: Five. #\n", "-++")]
    path = save(tmp_path, rows)
    (question,), (trajectory,) = read_math_shepherd(path)
    assert question.text == " Mr. Rocky  had 5. How many?"
    assert (trajectory.steps, trajectory.labels) == (("step 1: Five.",), (RIGHT,))
    assert rewritten(read_math_shepherd, write_math_shepherd, path, tmp_path) == rows


def test_unusual_spaces_survive(tmp_path: Path) -> None:
    rows = [
        row("Q?\n\nStep 1: a#Step 2: b \t #\n", "+-"),
        row("Q?Step 1: a #\n\nStep 2: b# ", "--"),
        row("Q? Step 1: a #\nStep 2: b #\n", "+-"),
    ]
    path = save(tmp_path, rows)
    assert steps_of(path) == [("Step 1: a", "Step 2: b")] * 3
    assert rewritten(read_math_shepherd, write_math_shepherd, path, tmp_path) == rows


def test_published_rows_survive_reading_and_writing(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "prm_formats" / "math-shepherd.jsonl"
    assert rewritten(read_math_shepherd, write_math_shepherd, source, tmp_path) == load(source)


def test_published_rows_have_the_steps_and_signs_that_the_file_shows(real_data: Path) -> None:
    questions, trajectories = read_math_shepherd(real_data / "prm_formats" / "math-shepherd.jsonl")
    assert (len(questions), len(trajectories)) == (7, 7)
    assert [len(trajectory.steps) for trajectory in trajectories] == [5, 3, 2, 5, 5, 2, 3]
    assert all(step.startswith(f"Step {i}: ") for one in trajectories
               for i, step in enumerate(one.steps, start=1))  # fmt: skip
    assert trajectories[0].labels == (RIGHT, RIGHT, RIGHT, RIGHT, WRONG)
    assert [one.answer for one in trajectories] == [
        "13520",
        "16000",
        "40",
        "900",
        "52",
        "2.2",
        "210",
    ]


def test_what_a_record_holds_is_written_from_the_record(tmp_path: Path) -> None:
    (question,), (trajectory,) = read_math_shepherd(save(tmp_path, [{**ROW, "value": [1]}]))
    steps = ("Step 1: Add 2 and 3.", trajectory.steps[1])
    trajectory = trajectory.model_copy(update={"steps": steps, "labels": (WRONG, RIGHT)})
    question = question.model_copy(update={"text": "2 + 3?", "subject": "MATH"})
    write_math_shepherd(tmp_path / "out.jsonl", [question], [trajectory])
    expected = row("2 + 3? Step 1: Add 2 and 3. #\nStep 2: It is 6. The answer is: 6 #", "-+")
    assert load(tmp_path / "out.jsonl") == [{**expected, "task": "MATH", "value": [1]}]


def test_a_step_more_gets_the_usual_spaces(tmp_path: Path) -> None:
    questions, (trajectory,) = read_math_shepherd(save(tmp_path, [row("Q?Step 1: a#", "+")]))
    longer = trajectory.model_copy(update={"steps": ("Step 1: a", "b"), "labels": (RIGHT, WRONG)})
    write_math_shepherd(tmp_path / "out.jsonl", questions, [longer])
    assert load(tmp_path / "out.jsonl") == [row("Q? Step 1: a #\nb #", "+-")]


def test_records_from_elsewhere_get_marks_and_their_answer(tmp_path: Path) -> None:
    write_math_shepherd(tmp_path / "out.jsonl", *from_elsewhere())
    expected = row(
        "1 + 1?\nOptions: (A) 2 (B) 3 Step 1: One and one. #\n"
        "Step 2: That is two. The answer is: 2 #",
        "+-",
    )
    assert load(tmp_path / "out.jsonl") == [{**expected, "task": "d"}]
    ((_, again),) = [read_math_shepherd(tmp_path / "out.jsonl")]
    assert (again[0].labels, again[0].answer) == ((RIGHT, WRONG), "2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "trajectory 3 of question 'q' has no label on step 1"),
        ({"labels": (RIGHT, None)}, "has no label on step 2"),
        ({"labels": (RIGHT, Label.of(3, 4))}, "soft label 3 of 4 on step 2"),
        ({"steps": ("a", "ки b")}, "holds 'ки' in its text"),
        ({"images": ("a.png",)}, "question 'q' has images"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        write_math_shepherd(tmp_path / "out.jsonl", *from_elsewhere(**changes))
    assert not list(tmp_path.iterdir())


def test_counts_that_agree_are_hard_labels(tmp_path: Path) -> None:
    records = from_elsewhere(labels=(Label.of(8, 8), Label.of(0, 8)))
    write_math_shepherd(tmp_path / "out.jsonl", *records)
    assert load(tmp_path / "out.jsonl")[0]["label"].endswith("2 -")


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
def test_a_broken_row_is_refused_with_file_row_and_field(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = save(tmp_path, [ROW, {**ROW, **changes}])
    with pytest.raises(DataError, match=message) as caught:
        read_math_shepherd(path)
    assert (caught.value.file, caught.value.row) == (path, 2)


def test_reading_goes_on_behind_bad_rows_when_they_are_collected(tmp_path: Path) -> None:
    errors: list[DataError] = []
    path = save(tmp_path, [{**ROW, "label": ""}, ROW, ROW])
    _, trajectories = read_math_shepherd(path, bad_row=errors.append)
    assert ([error.row for error in errors], len(trajectories)) == ([1], 2)
    assert [trajectory.sample_index for trajectory in trajectories] == [0, 1]


@settings(max_examples=300)
@given(st.sampled_from([ROW, row("a # b? c #\n d#", "+-+", more=[{}])]).flatmap(mutated))
def test_a_mutated_row_comes_out_as_it_went_in_or_is_refused(found: Any) -> None:
    survives_or_is_refused(read_math_shepherd, write_math_shepherd, found)


@settings(max_examples=300)
@given(
    st.lists(st.text("aS ?\n#", max_size=6) | st.just("Step 1: "), max_size=8).map("".join),
    st.data(),
)
def test_any_text_with_tags_comes_out_as_it_went_in_or_is_refused(text: str, data: Any) -> None:
    signs = data.draw(st.text("+-", min_size=text.count("#"), max_size=text.count("#")))
    survives_or_is_refused(read_math_shepherd, write_math_shepherd, row(text, signs))
