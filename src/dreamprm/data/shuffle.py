"""Another order of a question's options, with the gold answer moved along."""

from __future__ import annotations

import random
import re

from dreamprm.answers.options import gold_option
from dreamprm.prompts import option_letter
from dreamprm.records import Question

_ABOUT_OTHERS = re.compile(
    r"\b(?i:of (?:the|these) (?:above|below|others?|options)|both of (?:them|these))\b"
    r"|\b(?i:both|neither|only|options?|choices?) \(?[A-Z]\b"
    r"|(?:^|\s)\(?[A-Z]\)? (?:and|or|&) \(?[A-Z]\b"
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
        answer = ", ".join(sorted(option_letter(order.index(place)) for place in meant.places))
    options = tuple(question.options[i] for i in order)
    return question.model_copy(update={"options": options, "answer": answer})
