"""Reading the final answer out of a text, and judging it."""

from dreamprm.answers.extract import (
    RULES_VERSION,
    Verdict,
    check_gold,
    extract_answer,
    is_plain,
    verdict,
    verdict_on,
    verify_answer,
)

__all__ = [
    "RULES_VERSION",
    "Verdict",
    "check_gold",
    "extract_answer",
    "is_plain",
    "verdict",
    "verdict_on",
    "verify_answer",
]
