"""An option stays the same option in whatever order the options are shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamprm.answer_options import shuffle_options
from dreamprm.answers import verdict, verify_answer
from dreamprm.errors import DataError
from dreamprm.records import Question

CITIES = ("Lyon", "Paris", "Nice")


def test_a_gold_letter_of_another_order_goes_by_the_options_text() -> None:
    shown = ("Oslo", "Nice", "Paris", "Rome", "Lyon")
    assert verdict("C", "B", shown, gold_options=CITIES).correct
    assert verdict("Paris", "B", shown, gold_options=CITIES).correct
    assert not verdict("B", "B", shown, gold_options=CITIES).correct
    assert verdict("B", "Nice", shown, gold_options=CITIES).correct
    assert verdict("Paris", "B", gold_options=CITIES).correct  # asked without options
    with pytest.raises(DataError, match="'Paris' is not among the 2 options that were shown"):
        verdict("A", "B", ("Oslo", "Rome"), gold_options=CITIES)
    with pytest.raises(DataError, match="'D' is none of its 3 options"):
        verdict("A", "D", shown, gold_options=CITIES)


@given(st.integers(0, 10**6), st.sampled_from(["A", "B", "C", "Nice", "(C)"]))
def test_shuffled_options_keep_the_right_one_right(seed: int, gold: str) -> None:
    question = Question(id="1", domain="d", text="Where?", options=CITIES, answer=gold)
    right = gold if gold in CITIES else CITIES["ABC".index(gold.strip("()"))]
    shuffled = shuffle_options(question, seed)
    assert sorted(shuffled.options) == sorted(CITIES)
    for text in CITIES:
        assert verify_answer(text, shuffled.answer, shuffled.options) == (text == right)
    assert shuffle_options(question, seed) == shuffled


def test_options_are_shuffled_unless_they_speak_of_each_other() -> None:
    question = Question(id="1", domain="d", text="?", options=CITIES, answer="B")
    assert {shuffle_options(question, seed).answer for seed in range(30)} == {"A", "B", "C"}
    for last in ("All of the above", "Both A and B", "A and B", "None of these options"):
        fixed = question.model_copy(update={"options": (*CITIES, last)})
        assert all(shuffle_options(fixed, seed) == fixed for seed in range(5))
    assert shuffle_options(question.model_copy(update={"options": ()}), 1).answer == "B"
    with pytest.raises(DataError, match="none of its 3 options"):
        shuffle_options(question.model_copy(update={"answer": "Rome"}), 1)
