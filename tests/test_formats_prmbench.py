"""PRMBench: 1-based error steps, pairs of processes, what survives, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dreamprm.records import UNKNOWN_ANSWER
from tests.format_rows import RIGHT, WRONG, check_refused, reader, save

read_prmbench = reader("prmbench")

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
def test_a_broken_row_is_refused_and_can_be_passed_over(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    check_refused("prmbench", tmp_path, ROW, ROW | changes, message)
