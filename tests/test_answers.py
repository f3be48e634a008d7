"""Answers are found in a text and compared as a careful reader would."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import JsonValue

from dreamprm.answers import (
    Verdict,
    check_gold,
    extract_answer,
    verdict,
    verdict_on,
    verify_answer,
)
from dreamprm.answers import formula as answer_formula
from dreamprm.answers.math_equal import NoReply
from dreamprm.answers.options import option_meant
from dreamprm.answers.quantities import parse_quantity
from dreamprm.answers.text import clean
from dreamprm.data.shuffle import shuffle_options
from dreamprm.errors import DataError
from dreamprm.records import UNKNOWN_ANSWER, Question

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
        ("2 + 1 = <<2+1=3>>3 bolts\nA: 3", "3"),
        ("2 + 1 = 3 bolts\n#### 1,003", "1,003"),
        ("A: is it 3?\nNobody can know this", None),
        ("Thus:\n\\[\n\\text{Answer: C}\n\\]", "C"),
        ("The correct answer is B.", "B"),
        ("Hence option (B) is correct, not A.", "B"),
        ("Final Answer: The final answer is $7$. I hope it is correct.", "7"),
        ("I think so.\n<answer>B</answer>", "B"),
        ("Final answer: 7\n<answer>\nthe red one\n</answer>", "the red one"),
        ("<answer>So the final answer is: 8</answer>", "8"),
        ("<answer>B", "B"),
        ("I fill in <answer></answer>.\nFinal answer: 7", "7"),
        ("Yes, because it is red.", "Yes"),
        ("There are three hundred people.", "three hundred people"),
        ("Answer: There are 8 apples.", "8 apples"),
        ("The total of both is 5 + 8 = 13.", "5 + 8 = 13"),
        ("The area is $12\\text{ cm}^2$.", "12 cm^2"),
        ("The ratio is 3:4.", "3:4"),
        ("Answer: Route 66 is closed", "Route 66 is closed"),
        ('The answer is "red".', "red"),
        ('{"answer": 8.5, "unit": "cm"}', "8.5"),
        ("Nobody can know this", None),
        ("No idea", None),
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
        ("The capital shown is Paris, not Lyon.", "Paris"),
        ("Answer: AC", "AC"),
        ("Answer: IT", None),
        ("The river fits:\nB: Paris", "B: Paris"),
        ("(A) Lyon (B) Paris (C) Nice", None),
        ("A. Lyon\nB. Paris\nC. Nice", None),
    ],
)
def test_a_letter_or_text_of_an_option_at_the_end_is_an_answer(
    text: str, answer: str | None
) -> None:
    assert extract_answer(text, CITIES) == answer


@pytest.mark.parametrize(
    "text",
    [
        "Answer - B",
        "Ans: B",
        "Correct option: **B**",
        "**Conclusion:** B",
        "Answer → B",
        "The correct statement is B.",
        "The answer, therefore, is B.",
        "The answer I choose is B.",
        "The answer seems to be B rather than A.",
        "My best guess would be B.",
        "I would go for B",
        "I would say B.",
        "This corresponds to option B.",
        "That leaves B.",
        "B seems to be correct.",
        "Only option B fits.",
        "Maybe B",
        "答：B",
        "答案应该是B。",
        "答案：选项 B",
        "选项B正确",
        "B是正确答案",
        "【答案】 B\n【解析】A 不对",
        "<CONCLUSION> B </CONCLUSION>",
        "<final_answer>B</final_answer>",
        '{"answer": "B", "reason": "A has another river"}',
        "B</s>",
        "The answer is B.<|im_end|>",
    ],
)
def test_a_letter_is_read_whatever_words_lead_to_it(text: str) -> None:
    assert verify_answer(extract_answer(text, CITIES), "B", CITIES)


@pytest.mark.parametrize(
    "answer",
    ["B", "(B)", "b", "B.", "B) Paris", "(B) Paris", "paris", "B: x", "B (Paris)", "\\boxed{B}"],
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
        ("\\boxed{\\text{red}}", "red"),
        ("0.333333", "1/3"),
        ("1 1/2", "1\\frac{1}{2}"),
        ("10 000", "10000"),
        ("10\\,000.5", "10,000.5"),
        ("3.0e4", "30000"),
        ("3.0 \\times 10^{-4}", "0.0003"),
        ("3 million", "3,000,000"),
        ("3:00 P.M.", "3 pm"),
        ("16:30", "4:30 p.m."),
        ("15-20", "15 to 20"),
        ("15\u201320 cm", "15-20"),
        ("15-20", "15 - 20"),
        ("2xy", "2yx"),
        ("ab + ac", "a(b + c)"),
        ("AB = 2\\sqrt{3}", "\\sqrt{12}"),
        ("6\\pi cm^2", "6\\pi"),
        ("$2\\sqrt{3}$ units", "2\\sqrt{3}"),
        ("6\\pi \\text{ square inches}", "6\\pi in^2"),
        ("2\\sin(x) + 1", "1 + 2\\sin x"),
        ("12-15x", "-15x+12"),
        ("\\frac{1}{2} - x", "0.5 - x"),
        ("x = 1 or x = 2", "x = 2 or x = 1"),
        ("1 or 2", "2, 1"),
        ("2:4", "1:2"),
        ("the answer is $\\sqrt{12}$", "2\\sqrt{3}"),
        ("minus two", "-2"),
        ("two dozen", "24"),
        ("one thousand two hundred and five", "1205"),
        ("two thirds", "2/3"),
        ("one and a half", "1.5"),
        ("approximately 8.2 cm", "8.2"),
        ("x \u2265 3", "[3, \\infty)"),
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
        ("5000", "50%"),
        ("0.333", "1/3"),
        ("1 2", "12"),
        ("10 0000", "100000"),
        ("5 or 6", "5"),
        ("5 and a half", "5"),
        ("5x", "5"),
        ("A", "B"),
        ("3:00 P.M.", "3:00 A.M."),
        ("4:30", "4:30 p.m."),
        ("3 p.m.", "3"),
        ("5 m east", "5 m west"),
        ("5 m east", "5 m"),
        ("North 30\u00b0", "South 30\u00b0"),
        ("60\u00b0 N", "60\u00b0 S"),
        ("15-20", "-5"),
        ("-5", "15 - 20"),
        ("15-20", "10-15"),
        ("2010-05-03", "2002"),
        ("2\\sqrt{3} cm", "2\\sqrt{3} m"),
        ("3 cats and \\frac{1}{2} dogs", "3 dogs and \\frac{1}{2} cats"),
        ("x + 1 or more", "x + 1"),
    ],
)
def test_different_answers_are_different(answer: str | None, gold: str) -> None:
    assert not verify_answer(answer, gold)


@pytest.mark.parametrize(
    ("answer", "gold", "correct"),
    [
        ("Yes, because it is red", "yes", True),
        ("Yes because it is red", "True", True),
        ("correct", "Yes", True),
        ("False.", "no", True),
        ("No: it is blue", "yes", False),
        ("Incorrect", "No", True),
        ("\u4e0d\u662f", "No", True),
        ("Yes and no", "yes", False),
        ("No idea", "no", False),
        ("Yesterday", "yes", False),
    ],
)
def test_yes_and_no_are_understood(answer: str, gold: str, correct: bool) -> None:
    assert verdict(answer, gold).correct == correct
    assert verdict(answer, gold, ["Yes", "No"]).correct == correct


@pytest.mark.parametrize(
    ("answer", "gold", "options", "expected"),
    [
        (None, "8", (), Verdict(False, "none")),
        (" ", "8", (), Verdict(False, "none")),
        ("(b)", "B", CITIES, Verdict(True, "letter")),
        ("Nice", "B", CITIES, Verdict(False, "option_text")),
        ("Rome", "B", CITIES, Verdict(False, "no_match")),
        ("34", "34m", ("13m", "34m"), Verdict(True, "unit")),
        ("34", "34m", ("34m", "34 km"), Verdict(False, "no_match")),
        ("50", "D", ("15", "100", "50", "50"), Verdict(True, "option_text")),
        ("C", "B", (), Verdict(False, "letter")),
        ("RED", "red", (), Verdict(True, "same_text")),
        ("no", "Yes", (), Verdict(False, "yes_no")),
        ("8.0", "8", (), Verdict(True, "number")),
        ("8 cm", "8", (), Verdict(True, "unit")),
        ("x+1", "1+x", (), Verdict(True, "math")),
        ("blue", "red", (), Verdict(False, "no_match")),
    ],
)
def test_the_verdict_names_the_rule_that_decided(
    answer: str | None, gold: str, options: tuple[str, ...], expected: Verdict
) -> None:
    assert verdict(answer, gold, options) == expected


@given(st.text(max_size=30))
def test_an_answer_verifies_against_itself(answer: str) -> None:
    assume(answer.strip() and answer != UNKNOWN_ANSWER)
    assert verify_answer(answer, answer)
    assume(clean(answer))
    assert verify_answer(answer, answer, [answer, f"{answer} or not"])


ANSWERS = st.one_of(
    st.text("abyesnoABC 0123456789.,/%+-():\u00b0", min_size=1, max_size=8),
    st.sampled_from(
        ["12 cm", "$5", "\\$5", "$1,234.50", "50\\%", "120^\\circ", "\\frac{1}{2}", "x^{2}+1"]
        + ["(B) Paris", "Yes, because it is red", "\\text{red}", "Nice", "1 1/2", "3.0e4"]
        + ["Option B", "4 cm (B)", "3:00 P.M.", "15-20", "5 m east", "2\\sqrt{3} cm"]
    ),
)


@given(ANSWERS, ANSWERS, st.sampled_from([(), CITIES, ("12 cm", "x^2+1", "$5", "1/2")]))
def test_what_dresses_an_answer_changes_no_verdict(
    answer: str, gold: str, options: tuple[str, ...]
) -> None:
    assume(clean(answer) and clean(gold))  # "." is nothing but dress
    assume(not options or option_meant(clean(gold), options))
    plain = verdict(answer, gold, options).correct
    for left, right in (("$", "$"), ("\\boxed{", "}"), ("**", "**"), ("", "."), ("\\(", "\\)")):
        assert verdict(left + answer + right, gold, options).correct == plain, left
        assert verdict(answer, left + gold + right, options).correct == plain, left


def test_a_question_without_gold_answer_cannot_be_verified_against() -> None:
    with pytest.raises(DataError, match="no gold answer"):
        verify_answer("8", UNKNOWN_ANSWER)


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_text_breaks_extraction_or_comparison(answer: str, gold: str) -> None:
    assume(gold != UNKNOWN_ANSWER)
    extract_answer(answer, CITIES)
    assert verify_answer(answer, gold) in (True, False)
    assert verify_answer(answer, "B", CITIES) in (True, False)
    question = Question(id="1", domain="d", text="?", options=CITIES, answer="B")
    with suppress(DataError):
        check_gold(question.model_copy(update={"answer": gold}))


@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_integers_are_equal_exactly_when_they_are(left: int, right: int) -> None:
    assert verify_answer(str(left), str(right)) == (left == right)
    assert verify_answer(f"{left:,}", str(left))


def test_plain_answers_never_load_computer_algebra() -> None:
    code = (
        "import sys; from dreamprm.answers import verify_answer as v; v('8', '9'); v('a', 'b');"
        "v('x+1', '1+x'); assert 'sympy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_comparison_that_took_too_long_is_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_long(answer: str, gold: str) -> bool:
        raise NoReply

    monkeypatch.setattr(answer_formula, "math_equal", too_long)
    undecided = Verdict(False, "timeout")
    assert verdict("x + 1", "1 + x") == undecided
    assert verdict("x + 1", "B", ["2 + x", "1 + x"]) == undecided
    assert verdict("1 + x", "B", ["2 + x", "1 + x"]) == Verdict(True, "option_text")
    assert option_meant("x + 1", ["2 + x", "1 + x"]) is None
    question = Question(
        id="1", domain="d", text="?", answer="8", extra={"answers": ["1 + x", "red"]}
    )
    assert verdict_on(question, "x + 1") == undecided
    assert verdict_on(question, "red") == Verdict(True, "same_text")
    with pytest.raises(DataError, match="'x \\+ 1' with its options takes too long"):
        check_gold(question.model_copy(update={"answer": "x + 1", "options": ("y", "1 + x")}))


@pytest.mark.parametrize("gold", ["zebra", "D", "", "."])
def test_a_gold_answer_that_is_no_option_is_an_error_whatever_the_answer(gold: str) -> None:
    for answer in ("A", "zebra", None):
        with pytest.raises(DataError, match=f"field 'answer'.*'{gold}' is none of its 3 options"):
            verdict(answer, gold, CITIES)


@pytest.mark.parametrize(
    ("gold", "options"),
    [
        ("B", CITIES),
        ("(b)", CITIES),
        ("paris", CITIES),
        ("0.5", ("1/4", "1/2")),
        ("True", ("Yes", "No")),
        ("zebra", ()),
        (UNKNOWN_ANSWER, CITIES),
    ],
)
def test_a_gold_answer_that_some_answer_meets_passes(gold: str, options: tuple[str, ...]) -> None:
    check_gold(Question(id="1", domain="d", text="?", options=options, answer=gold))


def test_a_question_that_can_never_be_answered_right_is_told_by_its_id() -> None:
    question = Question(id="q7", domain="d", text="?", options=CITIES, answer="zebra")
    with pytest.raises(DataError, match="field 'answer': question 'q7': .* 'zebra' is none of"):
        check_gold(question)
    twice = ("50 m", "50 km")
    with pytest.raises(DataError, match="or fits several"):
        check_gold(question.model_copy(update={"options": twice, "answer": "50"}))
    bad = question.model_copy(update={"options": (), "extra": {"unit": 3}})
    with pytest.raises(DataError, match=r"extra\.unit.*question 'q7'"):
        check_gold(bad)


def test_any_of_several_accepted_answers_is_right() -> None:
    question = Question(
        id="1", domain="d", text="?", answer="bus", extra={"answers": ["bus", "coach"]}
    )
    assert verdict_on(question, "a coach") == Verdict(False, "no_match")
    assert verdict_on(question, "Coach").correct and verdict_on(question, "bus").correct
    wrong = question.model_copy(update={"extra": {"answers": "coach"}})
    with pytest.raises(DataError, match=r"extra\.answers"):
        verdict_on(wrong, "coach")


@given(st.integers(-(10**12), 10**12), st.integers(0, 6))
def test_every_way_to_write_a_decimal_has_its_value(digits: int, decimals: int) -> None:
    value = Fraction(digits, 10**decimals)
    plain = f"{'-' * (digits < 0)}{abs(digits) // 10**decimals:,}"
    if decimals:
        plain += f".{abs(digits) % 10**decimals:0{decimals}d}"
    for text in (
        plain,
        plain.replace(",", ""),
        plain.replace(",", " "),
        plain.replace(",", "{,}"),
        plain.replace(",", "\\,"),
        f"${plain}$",
        f"{digits}e-{decimals}",
        f"{digits} \\times 10^{{-{decimals}}}",
    ):
        quantity = parse_quantity(text)
        assert quantity is not None and quantity.value == value, text
        assert quantity.unit is None


@given(st.integers(1, 500), st.integers(1, 50), st.integers(1, 50))
def test_every_way_to_write_a_mixed_number_has_its_value(whole: int, a: int, b: int) -> None:
    for text in (f"{whole} {a}/{b}", f"{whole}\\frac{{{a}}}{{{b}}}", f"{whole * b + a}/{b}"):
        quantity = parse_quantity(text)
        assert quantity is not None and quantity.value == whole + Fraction(a, b), text


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("12 cm", "12"),
        ("12", "12 cm"),
        ("12\\text{ cm}", "$12$ cm"),
        ("0.12 m", "12 cm"),
        ("1 ft", "30.48 cm"),
        ("500 g", "0.5 kilograms"),
        ("2 hours", "120 min"),
        ("1 m^2", "10,000 square centimeters"),
        ("1 L", "1000 cm^3"),
        ("36 km/h", "10 meters per second"),
        ("$1,234.50", "1234.5"),
        ("\\$5 million", "5000000 dollars"),
        ("50 cents", "$0.50"),
        ("120\u00b0", "120"),
        ("120^\\circ", "120 degrees"),
        ("20^\\circ\\text{C}", "20 degrees Celsius"),
        ("50\\%", "0.5"),
        ("50 percent", "50%"),
        ("18 apples", "18"),
        ("1 slice of pizza", "1 slices of pizza"),
    ],
)
def test_a_unit_may_be_left_out_or_converted(answer: str, gold: str) -> None:
    assert verdict(answer, gold) == Verdict(True, "unit")
    assert verdict(gold, answer) == Verdict(True, "unit")


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("12 cm", "12 m"),
        ("12 cm", "12 kg"),
        ("12 cm", "12 cm^2"),
        ("$12", "12 euros"),
        ("20 \u00b0C", "20 \u00b0F"),
        ("18 apples", "18 oranges"),
        ("0.5", "50 cm"),
    ],
)
def test_another_unit_is_another_answer(answer: str, gold: str) -> None:
    assert verdict(answer, gold) == Verdict(False, "unit")
    assert verdict(gold, answer) == Verdict(False, "unit")


def test_the_unit_of_a_bare_gold_number_may_be_given_apart() -> None:
    assert verdict("0.12 m", "12", unit="cm") == Verdict(True, "unit")
    assert verdict("12", "12", unit="cm").correct
    assert not verdict("12 m", "12", unit="cm").correct
    assert verdict("12 m", "12").correct


@pytest.mark.parametrize(
    ("answer", "gold", "precision", "correct"),
    [
        ("1.24", "1.2", 1, True),
        ("1.16", "1.2", 1, True),
        ("1.26", "1.2", 1, False),
        ("1.24", "1.2", 2, False),
        ("0.214", "0.21", 2, True),
        ("3.4", "3", 0, True),
        ("0.1234 m", "12.3 cm", 1, True),
        ("\\frac{1}{3}", "0.33", 2, True),
        ("1.24", "1.2", None, False),
    ],
)
def test_a_number_agrees_to_the_decimals_asked_for(
    answer: str, gold: str, precision: int | None, correct: bool
) -> None:
    assert verdict(answer, gold, precision=precision).correct == correct


def test_unit_and_precision_come_from_the_question() -> None:
    extra: dict[str, JsonValue] = {"unit": "cm", "precision": 1.0}
    question = Question(id="1", domain="d", text="How long?", answer="1.2", extra=extra)
    assert verdict_on(question, "0.0124 m") == Verdict(True, "unit")
    for field, value in (("unit", 3), ("precision", "one"), ("precision", -1), ("precision", True)):
        bad = question.model_copy(update={"extra": {field: value}})
        with pytest.raises(DataError, match=f"extra.{field}"):
            verdict_on(bad, "1.2")


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
