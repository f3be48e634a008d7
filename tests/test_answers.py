"""Answers are found in a text and compared as a careful reader would."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamprm import math_equal
from dreamprm.answers import extract_answer, verify_answer
from dreamprm.errors import DataError
from dreamprm.records import UNKNOWN_ANSWER

CITIES = ("Lyon", "Paris", "Nice")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Step 1: 3 + 5 = 8\nFinal answer: 8", "8"),
        ("Final answer: 7\nNo, wait.\nFinal answer: **8**.", "8"),
        ("### Final Answer:\nFinal answer: A", "A"),
        ("**Final Answer**: (B) Paris", "(B) Paris"),
        ("### Final answer:\n$8$", "8"),
        ("Final answer: \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("so \\boxed{7} and in the end \\boxed{x^{2}}", "x^{2}"),
        ("[Reasoning]\n- it is red\n\nAnswer: B", "B"),
        ("The answer is 8. That was easy.", "8"),
        ("The correct answer is: 3.5", "3.5"),
        ("The final answer is:\n\\[\n\\boxed{5}\n\\]", "5"),
        ("8", "8"),
        ("$4 \\sqrt{3}$", "4 \\sqrt{3}"),
        ("D", "D"),
        ("(D)", "D"),
        ("Nobody can know this", None),
        ("", None),
    ],
)
def test_the_stated_answer_is_found(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("It lies on the Seine, therefore B", "B"),
        ("It lies on the Seine, therefore (B).", "B"),
        ("It lies on the Seine:\nParis", "Paris"),
        ("It lies on the Seine, therefore D", None),
    ],
)
def test_a_letter_or_text_of_an_option_at_the_end_is_an_answer(
    text: str, answer: str | None
) -> None:
    assert extract_answer(text, CITIES) == answer


@pytest.mark.parametrize(
    "answer", ["B", "(B)", "b", "B.", "B) Paris", "(B) Paris", "paris", "B: x"]
)
@pytest.mark.parametrize("gold", ["B", "Paris", "(B)"])
def test_an_option_may_be_given_by_letter_or_text(answer: str, gold: str) -> None:
    assert verify_answer(answer, gold, CITIES)
    assert not verify_answer(answer, "A", CITIES)


@pytest.mark.parametrize("answer", ["A", "Lyon", "D", "Paris or Nice", "A beautiful city", ""])
def test_another_option_or_none_of_them_is_wrong(answer: str) -> None:
    assert not verify_answer(answer, "B", CITIES)


def test_an_option_that_is_a_number_is_met_by_its_value() -> None:
    assert verify_answer("0.5", "B", ["1/4", "1/2"])
    assert verify_answer("8", "A", ["8", "9"])
    assert not verify_answer("8", "B", ["8", "9"])


def test_an_option_that_is_a_formula_is_met_by_an_equal_formula() -> None:
    roots = ["$3 \\sqrt{3}$", "$2 \\sqrt{3}$", "$\\frac{1}{2}$"]
    assert verify_answer("2\\sqrt{3}", "B", roots)
    assert verify_answer("\\sqrt{12}", "B", roots)
    assert verify_answer("0.5", "C", ["$\\frac{1}{3}$", "$\\frac{1}{4}$", "1/2"])
    assert not verify_answer("\\sqrt{12}", "A", roots)


def test_an_option_text_that_begins_like_a_letter_is_read_as_text() -> None:
    assert verify_answer("C. elegans", "A", ["C. elegans", "E. coli", "S. aureus"])


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("8", "8"),
        ("8.0", "8"),
        ("1,000", "1000"),
        ("10000", "10{,}000"),
        ("$8$", "8"),
        ("1/2", "0.5"),
        ("50%", "50"),
        ("50%", "0.5"),
        ("\u22123", "-3"),
        (".5", "0.5"),
        ("Red", "red"),
        ("the  red one.", "the red one"),
        ("\\frac{1}{2}", "0.5"),
        ("sqrt(12)", "2\\sqrt{3}"),
        ("pi/2", "\\frac{\\pi}{2}"),
        ("x + 1", "1 + x"),
        ("5 cm", "5"),
        ("B) 8 cm", "B"),
    ],
)
def test_equal_answers_are_equal_in_either_notation(answer: str, gold: str) -> None:
    assert verify_answer(answer, gold)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        (None, "8"),
        ("", "8"),
        ("88", "8"),
        ("8", "-8"),
        ("3.14", "3.14159"),
        ("1,5", "15"),
        ("50", "0.5"),
        ("red", "blue"),
        ("red", "8"),
        ("x^2", "x^3"),
        ("1/0", "5"),
        ("A", "B"),
    ],
)
def test_different_answers_are_different(answer: str | None, gold: str) -> None:
    assert not verify_answer(answer, gold)


def test_a_question_without_gold_answer_cannot_be_verified_against() -> None:
    with pytest.raises(DataError, match="no gold answer"):
        verify_answer("8", UNKNOWN_ANSWER)


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_text_breaks_extraction_or_comparison(answer: str, gold: str) -> None:
    extract_answer(answer, CITIES)
    assert verify_answer(answer, gold, CITIES) in (True, False)


@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_integers_are_equal_exactly_when_they_are(left: int, right: int) -> None:
    assert verify_answer(str(left), str(right)) == (left == right)
    assert verify_answer(f"{left:,}", str(left))


def test_mathematics_is_compared_in_any_thread() -> None:
    pairs = [(f"{i}*x + sqrt({i * i})", f"{i}x + {i}") for i in range(2, 8)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda pair: verify_answer(*pair), pairs)) == [True] * 6


def test_a_computation_without_end_is_stopped_and_the_next_one_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(math_equal, "SECONDS_PER_QUESTION", 1)
    math_equal.stop()  # so that one with this limit is started
    started = time.monotonic()
    assert not verify_answer("9^{9^{9^{9}}}", "9^{9^{9^{8}}}")
    assert time.monotonic() - started < 20
    assert verify_answer("y + 1", "1 + y")
    math_equal.stop()


def test_plain_answers_never_load_computer_algebra() -> None:
    code = (
        "import sys; from dreamprm.answers import verify_answer as v; v('8', '9'); v('a', 'b');"
        "v('x+1', '1+x'); assert 'sympy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
