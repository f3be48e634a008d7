"""Selection by quality, difficulty and diversity, as s1 chose its thousand questions.

The `s1-PRM` row of the paper's table (DESIGN section 7) is this idea applied to PRM data.
"""

from __future__ import annotations

import re

import numpy as np

from dreamprm.baselines.pool import Floats, Pool, kept, kept_count, known_labels
from dreamprm.records import Question, Trajectory, domain_of

TOO_EASY = 0.9
_REFERS_TO_IMAGE = re.compile(
    r"\b(the|this|following|given|attached)\s+(image|figure|diagram|picture|photo|chart|graph)\b",
    re.IGNORECASE,
)


def s1(pool: Pool, budget: float, seed: int) -> Floats:
    """Filter, then draw a domain at random and a long reasoning of it, until the budget is spent.

    From the paper (arXiv 2501.19393, section 2.2 and algorithm 1 of its appendix):
    - quality: broken samples go, among them those that refer to an image which is not there;
    - difficulty: questions that a model solves go; longer reasonings count as harder;
    - diversity: a domain is drawn uniformly, then one sample of it with probability proportional to
      2^-rank, rank 1 being the longest that is left; a domain that is used up drops out.

    Adapted to trajectories with Monte Carlo labels:
    - "a model solves it" (two models graded by a third) is `solve_rates`, the policy's own;
    - length is counted in characters, ties go to the question that is solved less often;
    - domains are those of the data, not classes that a model assigned;
    - the paper takes some samples of sources it trusts first; there are none here;
    - where the filters leave less than the budget, the drawing goes on among the questions that are
      too easy, then among the broken samples, so that all selectors keep equally many.

    As in the paper nobody asks whether the solution is right, so wrong gold answers look difficult.
    """
    rng = np.random.default_rng(seed)
    rates = solve_rates(pool)
    count = len(pool.pairs)
    left_to_keep = kept_count(count, budget)
    tiers: list[list[int]] = [[], [], []]  # fit, too easy, broken
    for i, (question, t) in enumerate(pool.pairs):
        broken = not is_sound(question, t)
        tiers[2 if broken else int(rates[question.id] >= TOO_EASY)].append(i)
    chosen: list[int] = []
    for tier in tiers:
        domains = _longest_first(pool, tier, rates)
        while domains and len(chosen) < left_to_keep:
            names = sorted(domains)
            name = names[rng.integers(len(names))]
            chosen.append(domains[name].pop(_power_law(len(domains[name]), rng)))
            if not domains[name]:
                del domains[name]
    return kept(chosen, count)


def is_sound(question: Question, trajectory: Trajectory) -> bool:
    """Is there nothing wrong with the texts: no image missing, no empty phrase, no repetition?"""
    if not question.images and _REFERS_TO_IMAGE.search(question.text):
        return False
    steps = [" ".join(step.split()) for step in trajectory.steps]
    return len(set(steps)) == len(steps) and all(any(c.isalnum() for c in s) for s in steps)


def solve_rates(pool: Pool) -> dict[str, float]:
    """How often the policy solves each question, by question id.

    Counted are the completions of the first labelled step, the nearest that labels come to the
    question itself, and the outcomes of its trajectories, over all trajectories of the question.
    """
    right: dict[str, float] = {}
    tried: dict[str, int] = {}
    for _, t in pool.pairs:
        first = known_labels(t)[0]
        known = t.outcome is not None
        total = first.total or 1  # a label without counts stands for one completion
        solved = first.value * total + int(bool(t.outcome))
        right[t.question_id] = right.get(t.question_id, 0.0) + solved
        tried[t.question_id] = tried.get(t.question_id, 0) + total + int(known)
    return {name: right[name] / tried[name] for name in tried}


def _longest_first(pool: Pool, members: list[int], rates: dict[str, float]) -> dict[str, list[int]]:
    """Members of each domain, the longest and then the least solved at the front."""
    domains: dict[str, list[int]] = {}
    for i in members:
        domains.setdefault(domain_of(*pool.pairs[i]), []).append(i)

    def key(i: int) -> tuple[int, float]:
        question, t = pool.pairs[i]
        return -sum(map(len, t.steps)), rates[question.id]

    return {name: sorted(mine, key=key) for name, mine in domains.items()}


def _power_law(count: int, rng: np.random.Generator) -> int:
    """An index below `count` with probability proportional to 2^-(index + 1)."""
    odds = np.exp2(-np.arange(1.0, min(count, 64) + 1))  # beyond 64 nothing is ever drawn
    return int(rng.choice(len(odds), p=odds / odds.sum()))
