"""Answer benchmarks by name; each in a file of its own, with its own rules."""

from __future__ import annotations

from collections.abc import Mapping

from dreamprm.errors import DreamPRMError, offer
from dreamprm.evaluation.benchmarks.benchmark import Benchmark, Response, score_answers
from dreamprm.evaluation.benchmarks.mathvision import MATHVISION
from dreamprm.evaluation.benchmarks.mathvista import MATHVISTA
from dreamprm.evaluation.benchmarks.mmmu import MMMU, MMMU_PRO
from dreamprm.evaluation.benchmarks.mmstar import MMSTAR
from dreamprm.evaluation.benchmarks.mmvet import MMVET
from dreamprm.evaluation.benchmarks.wemath import WEMATH

__all__ = ["ANSWERS", "STEPS", "Benchmark", "Response", "find_benchmark", "score_answers"]

ANSWERS: Mapping[str, Benchmark] = {
    b.name: b for b in (MATHVISTA, WEMATH, MATHVISION, MMVET, MMSTAR, MMMU, MMMU_PRO)
}
STEPS: Mapping[str, str] = {
    "processbench": "first wrong step, F1 of two accuracies (arXiv 2412.06559)",
    "visualprocessbench": "every step, macro F1 (arXiv 2503.10291)",
    "prmbench": "every step, PRM score (arXiv 2501.03124)",
    "rewardmath": "the right solution above nine wrong ones (arXiv 2410.01729)",
}
"""Benchmarks of the scores themselves."""


def find_benchmark(name: str) -> str:
    """The benchmark that a name means, whatever its case, hyphens and blanks.

    Raises:
        DreamPRMError: there is none; the message gives the nearest ones.
    """
    known = {_plain(key): key for key in (*ANSWERS, *STEPS)}
    if _plain(name) in known:
        return known[_plain(name)]
    raise DreamPRMError(f"there is no benchmark '{name}'; {offer(_plain(name), known)}")


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())
