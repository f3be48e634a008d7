"""PRMBench: 1-based error steps, pairs of processes, what survives, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from dreamprm.data.prmbench import read_prmbench, write_prmbench
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
ROW = {  # made up, in the published form
    "original_question": "How much are two pens at 3 each?",
    "modified_question": "How much are two pens at 3 each?",
    "original_process": ["One pen is 3.", "Two are 6. "],
    "modified_process": ["Say that two are 8.", "Then one is 4.", "So two are 8."],
    "modified_steps": [1, 2, 3, 9],
    "error_steps": [1, 3],
    "reason": "The result is assumed.",
    "idx": "circular_prm_test_p1_0",
    "question": "How much are two pens at $3$ each?",
    "classification": "circular",
}
TWO_QUESTIONS = {**ROW, "modified_question": "How much are two pens?", "error_steps": []}


def test_error_steps_count_from_one(tmp_path: Path) -> None:
    _, (modified, original) = read_prmbench(save(tmp_path, [ROW]))
    assert modified.labels == (WRONG, RIGHT, WRONG)
    assert modified.steps[0] == "Say that two are 8."
    assert (original.labels, original.steps) == ((RIGHT, RIGHT), ("One pen is 3.", "Two are 6. "))


def test_both_processes_answer_one_question_where_the_questions_are_equal(tmp_path: Path) -> None:
    (question,), both = read_prmbench(save(tmp_path, [ROW]))
    assert (question.text, question.answer) == ("How much are two pens at 3 each?", UNKNOWN_ANSWER)
    assert [one.sample_index for one in both] == [0, 1]
    assert [one.extra["prmbench"]["process"] for one in both] == ["modified", "original"]  # type: ignore[index, call-overload]


def test_a_changed_question_is_a_question_of_its_own(tmp_path: Path) -> None:
    questions, (modified, original) = read_prmbench(save(tmp_path, [TWO_QUESTIONS]))
    assert [question.id for question in questions] == [modified.question_id, original.question_id]
    assert [question.text for question in questions] == [
        "How much are two pens?",
        "How much are two pens at 3 each?",
    ]


def test_rows_in_the_published_form_survive_reading_and_writing(tmp_path: Path) -> None:
    rows = [ROW, TWO_QUESTIONS, {**ROW, "error_steps": [3, 1, 3]}, {**ROW, "idx": "b"}]
    path = save(tmp_path, rows)
    assert rewritten(read_prmbench, write_prmbench, path, tmp_path) == rows


def test_trajectories_of_joined_and_shuffled_files_find_their_partners(tmp_path: Path) -> None:
    other = {**ROW, "reason": "other", "original_process": ["a"]}
    questions, first = read_prmbench(save(tmp_path, [ROW, TWO_QUESTIONS]))
    _, second = read_prmbench(save(tmp_path, [other]))
    more = read_prmbench(save(tmp_path, [TWO_QUESTIONS]))[0]
    everything = {question.id: question for question in questions + more}.values()
    trajectories = [first[1], first[3], first[2], first[0], *second]
    write_prmbench(tmp_path / "out.jsonl", everything, trajectories)
    assert load(tmp_path / "out.jsonl") == [ROW, TWO_QUESTIONS, other]


def test_what_a_record_holds_is_written_from_the_record(tmp_path: Path) -> None:
    (question,), (modified, original) = read_prmbench(
        save(tmp_path, [{**ROW, "error_steps": [3, 1]}])
    )
    question = question.model_copy(update={"text": "Two pens?"})
    modified = modified.model_copy(
        update={"labels": (RIGHT, WRONG, WRONG), "steps": ("a", "b", "c ")}
    )
    original = original.model_copy(update={"steps": ("d", "e")})
    write_prmbench(tmp_path / "out.jsonl", [question], [modified, original])
    assert load(tmp_path / "out.jsonl") == [
        {
            **ROW,
            "original_question": "Two pens?",
            "modified_question": "Two pens?",
            "original_process": ["d", "e"],
            "modified_process": ["a", "b", "c "],
            "error_steps": [2, 3],
        }
    ]


def test_records_from_elsewhere_are_a_pair_when_their_extra_says_so(tmp_path: Path) -> None:
    questions, (trajectory,) = from_elsewhere()
    sides = [{"prmbench": {"row": 1, "process": side}} for side in ("original", "modified")]
    original = trajectory.model_copy(update={"labels": (RIGHT, RIGHT), "extra": sides[0]})
    modified = trajectory.model_copy(update={"extra": sides[1]})
    write_prmbench(tmp_path / "out.jsonl", questions, [original, modified])
    (written,) = load(tmp_path / "out.jsonl")
    assert (written["error_steps"], written["original_process"]) == ([2], list(trajectory.steps))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": (RIGHT, None, WRONG)}, "has no label on step 2"),
        ({"labels": (Label.of(1, 3), RIGHT, WRONG)}, "soft label 1 of 3 on step 1"),
        ({"extra": {}}, "has no partner"),
        ({"question_id": "r"}, "question 'r', which is not among the questions"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    questions, (modified, original) = read_prmbench(save(tmp_path, [ROW]))
    with pytest.raises(DataError, match=message):
        write_prmbench(
            tmp_path / "out.jsonl", questions, [modified.model_copy(update=changes), original]
        )
    assert not (tmp_path / "out.jsonl").exists()


def test_a_wrong_step_in_an_original_is_refused(tmp_path: Path) -> None:
    questions, (modified, original) = read_prmbench(save(tmp_path, [ROW]))
    original = original.model_copy(update={"labels": (RIGHT, WRONG)})
    with pytest.raises(DataError, match="trajectory 1 of .* original process with a wrong step 2"):
        write_prmbench(tmp_path / "out.jsonl", questions, [modified, original])


def test_images_are_refused(tmp_path: Path) -> None:
    (question,), trajectories = read_prmbench(save(tmp_path, [ROW]))
    with pytest.raises(DataError, match="has images"):
        question = question.model_copy(update={"images": (b"a",)})
        write_prmbench(tmp_path / "out.jsonl", [question], trajectories)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"error_steps": [0]}, "field 'error_steps': must list 1-based steps of the 3 in"),
        ({"error_steps": [4]}, "field 'error_steps': .* not \\[4\\]"),
        ({"error_steps": [True]}, "field 'error_steps'"),
        ({"error_steps": None}, "field 'error_steps'"),
        ({"modified_process": []}, "field 'modified_process': must be a list of texts"),
        ({"original_process": "a"}, "field 'original_process'"),
        ({"original_process": [None]}, "field 'original_process'"),
        ({"modified_question": ""}, "field 'modified_question': is missing or empty"),
        ({"original_question": 1}, "field 'original_question': must be text"),
    ],
)
def test_a_broken_row_is_refused_with_file_row_and_field(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = save(tmp_path, [ROW, {**ROW, **changes}, ROW])
    with pytest.raises(DataError, match=message) as caught:
        read_prmbench(path)
    assert (caught.value.file, caught.value.row) == (path, 2)
    errors: list[DataError] = []
    _, trajectories = read_prmbench(path, bad_row=errors.append)
    assert ([error.row for error in errors], len(trajectories)) == ([2], 4)


@settings(max_examples=300)
@given(mutated(ROW))
def test_a_mutated_row_comes_out_as_it_went_in_or_is_refused(row: Any) -> None:
    survives_or_is_refused(read_prmbench, write_prmbench, row)
