"""An option stays the same option in whatever order the options are shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamprm.answers import Verdict, verdict, verify_answer
from dreamprm.answers.options import shuffle_options
from dreamprm.errors import DataError
from dreamprm.records import Question

CITIES = ("Lyon", "Paris", "Nice")


@pytest.mark.parametrize(
    "answer",
    ["Option B", "Option (B)", "option b", "Option B: 4 cm", "Choice B", "[B]", "4 cm (B)"]
    + ["4 cm, option B", "The correct answer is B", "B, 4 cm", "B - 4 cm", "B 4 cm", "B.4 cm"]
    + ["<answer>B</answer>", "the answer is (B) 4 cm", "The answer is option B.", "Answer: B"]
    + ["B is correct", "B, because it is longer", "**Option B**", "(B) or B", "3 cm (B)"]
    + ["Hence the best choice is **B**", "the answer is 4 cm", "[B] 4 cm"],
)
def test_there_are_many_ways_to_name_an_option(answer: str) -> None:
    assert verify_answer(answer, "B", ["3 cm", "4 cm"])
    assert verify_answer(answer, "4 cm", ["3 cm", "4 cm"])
    assert not verify_answer(answer, "A", ["3 cm", "4 cm"])


@pytest.mark.parametrize(
    "answer",
    ["the answer is (A) 4 cm", "(A) 4 cm", "A, 4 cm", "A - 4 cm", "A 4 cm", "4 cm (A)"]
    + ["Option A: 4 cm", "4 cm, option A"],
)
def test_the_letter_wins_over_the_text_beside_it(answer: str) -> None:
    assert verdict(answer, "B", ["3 cm", "4 cm"]) == Verdict(False, "letter")
    assert verdict(answer, "A", ["3 cm", "4 cm"]) == Verdict(True, "letter")


@pytest.mark.parametrize(
    "answer",
    ["A, B", "A and B", "(A) and (B)", "A. B", "A, B, and C all fit", "A & B", "B, or A", "A (B)"]
    + ["Optional", "Option pricing", "A.M.", "B.C.", "A small one", "Both", "about (B)"],
)
def test_several_letters_or_words_name_no_option(answer: str) -> None:
    assert verdict(answer, "B", CITIES) == verdict(answer, "A", CITIES)
    assert verdict(answer, "B", CITIES) == Verdict(False, "no_match")


def test_an_option_that_is_a_letter_or_begins_like_one_is_found() -> None:
    assert verdict("B. C", "B", ["O", "C", "H"]) == Verdict(True, "letter")
    assert verdict("A. (D)", "A", ["(D)", "(E)"]) == Verdict(True, "letter")
    assert verdict("a dog", "B", ["cat", "dog"]) == Verdict(False, "no_match")
    assert verdict("The answer is a", "A", CITIES) == Verdict(True, "letter")
    assert verdict("The answer is open", "B", ["x", "The answer is open"]).correct


def test_options_that_are_ranges_or_times_are_found() -> None:
    ranges = ["10-15", "15-20", "-5", "-10"]
    assert verdict("15 to 20", "B", ranges).correct
    assert not verdict("15 to 20", "C", ranges).correct
    assert verdict("3 pm", "B", ["3:00 A.M.", "3:00 P.M."]).correct


def test_a_gold_letter_without_options_is_met_by_the_same_ways() -> None:
    for answer in ("Option B", "[B]", "The correct answer is B", "B, 4 cm", "B is correct"):
        assert verdict(answer, "B") == Verdict(True, "letter")
        assert not verdict(answer, "A").correct


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
