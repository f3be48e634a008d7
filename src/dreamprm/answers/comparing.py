"""Is an answer the same as another text? Words first, then numbers, ranges and formulas."""

from __future__ import annotations

from typing import NamedTuple

from dreamprm.answers.formula import same_formula
from dreamprm.answers.quantities import parse_quantity, parse_range, same_quantity
from dreamprm.answers.text import polarity, same_text, yes_no

LONGEST_VALUE = 500  # characters; a longer text is prose, not an answer


class Verdict(NamedTuple):
    """Is an answer right, and what decided.

    Attributes:
        rule: `none` (there is no answer), `letter` (of an option, or the gold answer is a lone
            letter), `option_text`, `same_text` (but for case and spaces), `yes_no`, `number`
            (exactly, or to the precision asked for), `unit` (a number, and a side has a unit or is
            a time of day), `span` (two ranges or dates), `math` (math-verify), `no_match` (nothing
            above could compare the two). `timeout` says nothing about the answer, and is never
            correct: math-verify needed too long. A judge adds `judge` and `judge_unclear`, see
            `rollouts.judge`; MathVista's own rules (`evaluation.benchmarks`) add `nearest_choice`.
    """

    correct: bool
    rule: str


def compare(
    answer: str, gold: str, unit: str | None = None, precision: int | None = None
) -> Verdict:
    """Do two cleaned texts say the same? The first rule that can compare the two decides.

    Args:
        unit: of a gold answer that is a bare number.
        precision: decimals that a number must agree to; None: exactly.

    Raises:
        NoReply: a comparison of formulas took too long.
    """
    if same_text(answer, gold):
        return Verdict(True, "same_text")
    said, wanted = yes_no(answer), polarity(gold)
    if said is not None and wanted is not None:
        return Verdict(said == wanted, "yes_no")
    if max(len(answer), len(gold)) > LONGEST_VALUE:
        return Verdict(False, "no_match")
    stated, number = parse_quantity(answer), parse_quantity(gold)
    if stated is not None and number is not None:
        is_bare = stated.unit is None and number.unit is None
        same = same_quantity(stated, number, unit, precision)
        return Verdict(same, "number" if is_bare else "unit")
    ends, others = parse_range(answer), parse_range(gold)
    if ends is not None and others is not None:
        same = len(ends) == len(others) and all(map(same_quantity, ends, others))
        return Verdict(same, "span")
    is_same_formula = None if ends or others else same_formula(answer, gold)
    if is_same_formula is not None:
        return Verdict(is_same_formula, "math")
    return Verdict(False, "no_match")
