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

from dreamprm.answer_numbers import parse_quantity, same_quantity
from dreamprm.answer_text import clean, same_text, squeeze
from dreamprm.errors import DataError
from dreamprm.math_equal import same_math
from dreamprm.prompts import option_letter
from dreamprm.records import Question

_LETTER = re.compile(
    r"(?:option\s+|choice\s+)?(?:\(([A-Za-z])\)|([A-Z])(?=$|[).:]|\s+\()|([a-z])(?=$|\)))"
)
_ABOUT_OTHERS = re.compile(
    r"\b(?i:of (?:the|these) (?:above|below|others?|options)|both of (?:them|these))\b"
    r"|\b(?i:both|neither|only|options?|choices?) \(?[A-Z]\b"
    r"|(?:^|\s)\(?[A-Z]\)? (?:and|or|&) \(?[A-Z]\b"
)


class Meant(NamedTuple):
    """The option that a text means, and the rule that says so."""

    position: int
    rule: str


def letter_in(text: str) -> str | None:
    """The letter that a text begins with as one names an option: "B", "(b)", "B. 4 cm"."""
    match = _LETTER.match(text)
    return match and next(filter(None, match.groups())).upper()


def letter_index(letter: str) -> int:
    """A -> 0, B -> 1, ..."""
    return ord(letter) - ord("A")


def option_meant(text: str, options: Sequence[str]) -> Meant | None:
    """The option that a cleaned text means: by its text, its letter, or an equal value.

    None where it means none of them, or where an equal value fits several.
    """
    if not text:
        return None
    texts = [clean(option) for option in options]
    for i, option in enumerate(texts):
        if len(text) > 1 and same_text(text, option):
            return Meant(i, "option_text")
    letter = letter_in(text)
    if letter is not None and letter_index(letter) < len(options):
        return Meant(letter_index(letter), "letter")
    quantity = parse_quantity(text)
    equal = [i for i, other in enumerate(texts) if squeeze(text) == squeeze(other)]
    rule = "option_text"
    if not equal and quantity is not None:
        rule = "number"
        others = [parse_quantity(other) for other in texts]
        equal = [i for i, o in enumerate(others) if o is not None and same_quantity(quantity, o)]
    if not equal:
        rule = "math"
        equal = [i for i, other in enumerate(texts) if same_math(text, other)]
    distinct = {squeeze(texts[i]) for i in equal}
    return Meant(equal[0], rule) if len(distinct) == 1 else None


def gold_option(gold: str, options: Sequence[str]) -> Meant:
    """The option that a gold answer, a letter or a text, means.

    Raises:
        DataError: it means none of them.
    """
    meant = option_meant(clean(gold), options)
    if meant is None:
        raise DataError(
            f"the gold answer '{gold}' is none of its {len(options)} options; correct the answer "
            "or give the options that it belongs to",
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
