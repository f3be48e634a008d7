"""Numbers are compared with their units, and to the decimals that are asked for."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from dreamprm.answers import Verdict, verdict, verdict_on
from dreamprm.answers.quantities import parse_quantity
from dreamprm.errors import DataError
from dreamprm.records import Question


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
