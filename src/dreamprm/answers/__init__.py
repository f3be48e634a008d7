"""Reading the final answer out of a text, and judging it."""

from dreamprm.answers.comparing import Verdict
from dreamprm.answers.judging import (
    RULES_VERSION,
    check_gold,
    is_plain,
    verdict,
    verdict_on,
    verify_answer,
)
from dreamprm.answers.reading import Reading, extract_answer, read_answer

__all__ = [
    "RULES_VERSION",
    "Reading",
    "Verdict",
    "check_gold",
    "extract_answer",
    "is_plain",
    "read_answer",
    "verdict",
    "verdict_on",
    "verify_answer",
]
