"""Independent candidates, all at once or in waves until they agree.

Early stop: after each wave, the chance that the leading answer is the policy's most frequent one,
by the two leading counts alone: the mass above 1/2 of Beta(first + 1, second + 1)
(Adaptive-Consistency, arXiv 2305.11860). Candidates without an answer have no vote.
"""

from __future__ import annotations

from collections import Counter

from scipy.stats import beta  # type: ignore[import-untyped]

from dreamprm.search.ask import WAVE, Asked


async def sample_parallel(asked: Asked, n: int, early_stop: float | None = None) -> None:
    """Sample up to n candidates.

    Args:
        early_stop: stop once the leading answer is the most frequent one with this probability;
            None: sample all.
    """
    wave = n if early_stop is None else WAVE
    while len(asked.candidates) < n and asked.left > 0:
        await asked.continue_from((), min(n, len(asked.candidates) + wave))
        answers = [c.trajectory.answer for c in asked.candidates]
        if early_stop is not None and agreement(answers) >= early_stop:
            return


def agreement(answers: list[str | None]) -> float:
    """Probability that the leading answer is the most frequent one of the policy.

    >>> round(agreement(["4", "4", "4", "4"]), 3)
    0.969
    >>> agreement(["4", "5"])
    0.5
    """
    counts = [count for _, count in Counter(a for a in answers if a is not None).most_common(2)]
    first, second = [*counts, 0, 0][:2]
    return float(beta.sf(0.5, first + 1, second + 1))
