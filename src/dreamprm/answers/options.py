"""Options of a question: which one does a text mean, and how to shuffle them safely.

A letter means nothing without the order of options that it belongs to. MMMU-Pro, for one, shows the
options of MMMU in another order and with more of them; so whatever crosses from one order to
another goes by the option's text.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import NamedTuple

from dreamprm.answers.formula import same_math
from dreamprm.answers.letters import letter_beside_text, letter_in, letter_index, without_lead
from dreamprm.answers.math_equal import NoReply
from dreamprm.answers.numbers import parse_quantity, same_quantity
from dreamprm.answers.text import clean, polarity, same_text, squeeze, yes_no
from dreamprm.errors import DataError
from dreamprm.prompts import option_letter
from dreamprm.records import Question

_ABOUT_OTHERS = re.compile(
    r"\b(?i:of (?:the|these) (?:above|below|others?|options)|both of (?:them|these))\b"
    r"|\b(?i:both|neither|only|options?|choices?) \(?[A-Z]\b"
    r"|(?:^|\s)\(?[A-Z]\)? (?:and|or|&) \(?[A-Z]\b"
)


class Meant(NamedTuple):
    """The option that a text means, and the rule that says so."""

    position: int
    rule: str


def option_meant(text: str, options: Sequence[str]) -> Meant | None:
    """The option that a cleaned text means: by its text, its letter, an equal value, or yes or no.

    None where it means none of them, where an equal value fits several, or where that takes too
    long to find out.
    """
    try:
        return find_option(text, options)
    except NoReply:
        return None


def find_option(text: str, options: Sequence[str]) -> Meant | None:
    """`option_meant`, for a caller that wants to know when it took too long.

    Raises:
        NoReply: a comparison took too long.
    """
    if not text:
        return None
    texts = [clean(option) for option in options]
    bare = without_lead(text)
    for one in dict.fromkeys((text, bare)):
        for i, option in enumerate(texts):
            if len(one) > 1 and (same_text(one, option) or squeeze(one) == squeeze(option)):
                return Meant(i, "option_text")
    letter = letter_beside_text(bare, texts) or letter_in(text)
    if letter is not None and letter_index(letter) < len(options):
        return Meant(letter_index(letter), "letter")
    rule, equal = _equal_options(bare, texts)
    distinct = {squeeze(texts[i]) for i in equal}
    return Meant(equal[0], rule) if len(distinct) == 1 else None


def _equal_options(text: str, texts: Sequence[str]) -> tuple[str, list[int]]:
    """The options of equal value by the first rule that finds any, and that rule."""
    quantity = parse_quantity(text)
    said = yes_no(text)
    if equal := [i for i, other in enumerate(texts) if squeeze(text) == squeeze(other)]:
        return "option_text", equal
    if quantity is not None:
        others = [parse_quantity(other) for other in texts]
        equal = [i for i, o in enumerate(others) if o is not None and same_quantity(quantity, o)]
        if equal:
            return "number", equal
    if equal := [i for i, other in enumerate(texts) if same_math(text, other)]:
        return "math", equal
    if said is not None:
        return "yes_no", [i for i, other in enumerate(texts) if polarity(other) == said]
    return "no_match", []


def gold_option(gold: str, options: Sequence[str]) -> Meant:
    """The option that a gold answer, a letter or a text, means.

    Raises:
        DataError: it means none of them.
    """
    try:
        meant = find_option(clean(gold), options)
    except NoReply:
        raise DataError(
            f"comparing the gold answer '{gold:.80}' with its options takes too long; give the "
            "letter of the right one instead",
            field="answer",
        ) from None
    if meant is None:
        raise DataError(
            f"the gold answer '{gold:.80}' is none of its {len(options)} options, or fits several; "
            "correct the answer or give the options that it belongs to",
            field="answer",
        )
    return meant


def position_of(text: str, options: Sequence[str]) -> int:
    """Where an option of another order stands in this one; found by text, never by letter.

    Raises:
        DataError: it is not there.
    """
    for i, option in enumerate(options):
        if same_text(clean(option), clean(text)):
            return i
    raise DataError(
        f"the right option '{text}' is not among the {len(options)} options that were shown; every "
        "answer would be wrong, so correct or remove the question",
        field="options",
    )


def shuffle_options(question: Question, seed: int) -> Question:
    """The question with its options in another order, its gold letter moved along.

    The order depends on the seed and the question's id. A question without options is returned as
    it is, and so is one whose options speak of each other ("all of the above", "both A and B").

    Raises:
        DataError: the gold answer is none of the options.

    Example:
        >>> q = Question(id="1", domain="d", text="?", options=("Lyon", "Paris"), answer="B")
        >>> s = shuffle_options(q, 1)
        >>> s.options["AB".index(s.answer)]
        'Paris'
    """
    if not question.options or any(map(_ABOUT_OTHERS.search, question.options)):
        return question
    meant = gold_option(question.answer, question.options)
    order = list(range(len(question.options)))
    random.Random(f"{seed}/{question.id}").shuffle(order)
    answer = question.answer
    if meant.rule == "letter":
        answer = option_letter(order.index(meant.position))
    options = tuple(question.options[i] for i in order)
    return question.model_copy(update={"options": options, "answer": answer})
