"""MMStar (arXiv 2403.20330): 1,500 questions that cannot be answered without the image.

The options stand in the question's text, the gold answer is a letter; six core capabilities.
"""

from __future__ import annotations

from dreamprm.evaluation.benchmarks.benchmark import Benchmark, Groups
from dreamprm.records import Question


def groups(question: Question) -> Groups:
    """Core capability and, below it, the finer axis."""
    found: Groups = {"category": (question.subject,)} if question.subject else {}
    finer = question.extra.get("l2_category")
    return found | ({"axis": (str(finer),)} if finer else {})


MMSTAR = Benchmark(
    name="mmstar",
    about="1,500 questions, six capabilities (arXiv 2403.20330)",
    count=1500,
    groups=groups,
    rules="the letter",
)
