"""MATH-Vision's published rows become questions whose text reads well."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dreamprm.data import check_images, read_pair, read_questions, read_trajectories
from dreamprm.data.mathvision import without_marks
from dreamprm.errors import DataError


def row(**changes: Any) -> dict[str, Any]:
    """A published row."""
    return {
        "id": "4",
        "question": "How many digits are there?\n<image1>",
        "options": [],
        "answer": "6",
        "solution": None,
        "level": 1,
        "subject": "counting",
        "image": "images/4.jpg",
    } | changes


def write(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "testmini.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_an_open_question_is_read_from_a_row(tmp_path: Path) -> None:
    [question] = read_questions(write(tmp_path, row()))
    assert (question.id, question.domain, question.subject) == ("4", "mathvision", "counting")
    assert question.text == "How many digits are there?"
    assert question.images == (str(tmp_path / "images" / "4.jpg"),)
    assert (question.options, question.answer) == ((), "6")


def test_options_keep_their_order_and_the_answer_is_a_letter(tmp_path: Path) -> None:
    options = ["KNAO", "$\\frac{1}{2}$", "<image2>"]
    [question] = read_questions(write(tmp_path, row(options=options, answer="C")))
    assert question.options == ("KNAO", "$\\frac{1}{2}$", "[image 2]")
    assert question.answer == "C"


@pytest.mark.parametrize(
    ("published", "read"),
    [
        ("How many?\n<image1>", "How many?"),
        ("How many? <image1>", "How many?"),
        ("<image1>\nHow many?\n<image2> <image3>\n", "How many?"),
        ("<image1>\n\nHow many?", "How many?"),
        ("One piece:\n<image1>\nand the other?\n<image2>", "One piece:\nand the other?"),
        ("The ant <image1> walks to <image2>.", "The ant [image 1] walks to [image 2]."),
        ("Is it like this: <image1>\nor not?", "Is it like this: [image 1]\nor not?"),
        ("Is $x<image$?", "Is $x<image$?"),
        ("One line\n\nand another", "One line\n\nand another"),
    ],
)
def test_a_mark_stays_only_where_it_stands_for_a_word(published: str, read: str) -> None:
    assert without_marks(published) == read


def test_a_question_that_is_all_in_the_image_has_a_text(tmp_path: Path) -> None:
    [question] = read_questions(write(tmp_path, row(question="<image1>")))
    assert question.text == "Answer the question in the image."


@pytest.mark.parametrize(
    ("bad", "field", "message"),
    [
        ({"options": ["1", "2"], "answer": "E"}, "answer", "'E' is none of the 2 options A to B"),
        ({"options": "ABCDE", "answer": "A"}, "options", "must be a list of texts"),
        ({"answer": None}, "answer", "missing or empty"),
        ({"question": " "}, "question", "missing or empty"),
        ({"id": ""}, "id", "missing or empty"),
        ({"image": ["images/4.jpg"]}, "image", "must be text, not list"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, bad: dict[str, Any], field: str, message: str) -> None:
    path = write(tmp_path, row(), row(id="5") | bad)
    with pytest.raises(DataError, match=rf"mini\.jsonl, row 2, field '{field}': .*{message}"):
        read_questions(path)


def test_an_id_may_come_only_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 2, field 'id': question id '4' is already used"):
        read_questions(write(tmp_path, row(), row()))


def test_the_file_holds_no_trajectories(tmp_path: Path) -> None:
    path = write(tmp_path, row())
    for read in (read_pair, read_trajectories):
        with pytest.raises(DataError, match="questions and no trajectories"):
            read(path)


def test_the_304_published_questions_are_read_and_every_image_is_readable(real_data: Path) -> None:
    path = real_data / "mathvision" / "testmini.jsonl"
    questions = read_questions(path)
    assert len(questions) == 304
    assert set(Counter(question.subject for question in questions).values()) == {19}
    assert sum(bool(question.options) for question in questions) == 190
    assert not any("<image" in text for q in questions for text in (q.text, *q.options))
    assert all(len(question.images) == 1 for question in questions)
    check_images(questions, path)


def test_all_3040_published_questions_are_read(real_data: Path) -> None:
    assert len(read_questions(real_data / "mathvision" / "test.jsonl")) == 3040
