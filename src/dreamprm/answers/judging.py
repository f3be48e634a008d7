"""Is an answer right? The one place that decides it.

Cheap comparisons come first (letters, option texts, equal words, numbers with and without units);
math-verify is asked only when both sides look like mathematics and are not plain quantities.
"""

from __future__ import annotations

from collections.abc import Sequence

from dreamprm.answers.comparing import Verdict, compare
from dreamprm.answers.math_equal import NoReply
from dreamprm.answers.options import (
    find_option,
    gold_option,
    letter_index,
    letters_at,
    position_of,
    without_lead,
)
from dreamprm.answers.quantities import parse_quantity
from dreamprm.answers.text import clean, polarity
from dreamprm.errors import DataError
from dreamprm.records import UNKNOWN_ANSWER, Question

RULES_VERSION = 4
"""Raised whenever a verdict or an extracted answer may change: stored verdicts are keyed by it."""


def verdict(
    answer: str | None,
    gold: str,
    options: Sequence[str] = (),
    *,
    gold_options: Sequence[str] | None = None,
    unit: str | None = None,
    precision: int | None = None,
) -> Verdict:
    """Is `answer` right, and which rule says so?

    Args:
        answer: as `extract_answer` gives it; None is wrong.
        gold: a letter or an option's text where there are options; else text, number or formula.
        options: the option texts, in the order of their letters, as the answer's writer saw them.
        gold_options: the options in the order that a gold letter belongs to, where that is another
            one (MMMU-Pro shows more options than MMMU); the right option is then found by its text.
        unit: of a gold answer that is a bare number.
        precision: decimals that a number must agree to; None: exactly.

    Raises:
        DataError: the gold answer is not known or not among the options, so that every answer would
            be called wrong.

    Example:
        >>> verdict("0.12 m", "12 cm"), verdict("A", "B", ["x", "y"], gold_options=["y", "x"])
        (Verdict(correct=True, rule='unit'), Verdict(correct=True, rule='letter'))
    """
    if gold == UNKNOWN_ANSWER:
        raise DataError("the question has no gold answer to verify against", field="answer")
    right: tuple[int, ...] = ()
    if gold_options:
        places = gold_option(gold, gold_options).places
        right = tuple(position_of(gold_options[place], options) for place in places if options)
        gold = gold_options[places[0]]
    elif options:
        right = gold_option(gold, options).places
    if answer is None or not answer.strip():
        return Verdict(False, "none")
    try:
        if options:
            return _choice(clean(answer), right, options)
        if answer.strip() == gold.strip():
            return Verdict(True, "same_text")
        answer, gold = clean(answer), clean(gold)
        return _open(answer, gold, unit, precision) if answer else Verdict(False, "none")
    except NoReply:
        return Verdict(False, "timeout")


def verify_answer(answer: str | None, gold: str, options: Sequence[str] = ()) -> bool:
    """Is `answer` right? `verdict` tells more.

    Raises:
        DataError: as `verdict`.

    Example:
        >>> verify_answer("(B) 4 cm", "B", ["3 cm", "4 cm"]), verify_answer("0.5", "1/2")
        (True, True)
    """
    return verdict(answer, gold, options).correct


def verdict_on(question: Question, answer: str | None) -> Verdict:
    """`verdict`, with what the question's `extra` says about unit, precision and other `answers`.

    An open question may have several accepted answers (MMMU); the first that fits decides.

    Raises:
        DataError: as `verdict`, or something in `extra` has the wrong type.
    """
    accepted, unit, precision = _wanted(question)
    verdicts = [
        verdict(answer, gold, question.options, unit=unit, precision=precision) for gold in accepted
    ]
    right = [one for one in verdicts if one.correct]
    undecided = [one for one in verdicts if one.rule == "timeout"]
    return (right or undecided or verdicts)[0]


def check_gold(question: Question) -> None:
    """Can any answer to this question be right? Asked before a policy is paid for answers to it.

    A question without a known gold answer passes, and so does an open one.

    Raises:
        DataError: a gold answer is none of the options, or something in `extra`, which `verdict_on`
            heeds, has the wrong type.
    """
    try:
        accepted, _, _ = _wanted(question)
        if question.options and question.answer != UNKNOWN_ANSWER:
            for gold in accepted:
                gold_option(gold, question.options)
    except DataError as error:
        message = f"question '{question.id}': {error.message}"
        raise DataError(message, field=error.field) from error


def _wanted(question: Question) -> tuple[list[str], str | None, int | None]:
    """All accepted answers, unit and precision."""
    unit, precision = question.extra.get("unit"), question.extra.get("precision")
    if unit is not None and not isinstance(unit, str):
        raise DataError(f"must be a text, not {unit!r}", field="extra.unit")
    if isinstance(precision, float) and precision.is_integer():
        precision = int(precision)  # what some readers make of a column with gaps
    if precision is not None and (
        isinstance(precision, bool) or not isinstance(precision, int) or precision < 0
    ):
        message = f"must be a number of decimals, 0 or more, not {precision!r}"
        raise DataError(message, field="extra.precision")
    others = question.extra.get("answers") or []
    if not isinstance(others, list) or not all(isinstance(other, str) for other in others):
        raise DataError(f"must be a list of texts, not {others!r}", field="extra.answers")
    return list(dict.fromkeys([question.answer, *map(str, others)])), unit, precision


def is_plain(gold: str) -> bool:
    """Is this gold answer a bare number, a letter, yes or no, so that rules have the last word?"""
    gold = clean(gold)
    quantity = parse_quantity(gold)
    is_number = quantity is not None and quantity.unit is None
    return is_number or (len(gold) == 1 and gold.isalpha()) or polarity(gold) is not None


def _choice(answer: str, right: Sequence[int], options: Sequence[str]) -> Verdict:
    meant = find_option(answer, options)
    if meant is None or (len(meant.places) > 1 and len(right) == 1):
        return Verdict(False, "no_match")
    chosen, wanted = (  # by text, because some sources list an option twice
        {" ".join(clean(options[place]).split()) for place in places}
        for places in (meant.places, right)
    )
    return Verdict(chosen == wanted, meant.rule)


def _open(answer: str, gold: str, unit: str | None, precision: int | None) -> Verdict:
    bare = without_lead(answer)
    if len(gold) == 1 and gold.isupper() and answer != gold and (letters := letters_at(bare)):
        return Verdict(letters.places == (letter_index(gold),), "letter")
    whole = compare(answer, gold, unit, precision)
    return whole if whole.correct or bare == answer else compare(bare, gold, unit, precision)
