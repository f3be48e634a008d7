"""What can a meta set of this size find? An estimate before training.

A domain's mean hypergradient over a run, in standard deviations of what one question adds to one
window, has a standard error with two parts:

    se^2 = rho / Q + (1 - rho) / V

Q are the distinct meta questions, V how many the windows see in all. rho is the share of the
variance that a question brings each time: more windows do not average it out. A domain is told
apart if its mean is beyond Student's t of its standard error, which the parts of the meta set give;
for a power of 80% it has to be about 0.9 standard errors further away.

The lower level's squared error is linear in the labels, and so is the hypergradient: a domain with
a share s of its labels inverted is moved s times as far as one with all of them. (Labels at random
count as half.) So the smallest effect can be said as a share of wrong labels.

The two constants are rough: they are of the embedded world's harmful domains (seeds 1 and 2, ten of
them, default settings). There the formula says within 0.1 how often one is found, with
48 to 192 questions and 8 to 99 windows (`experiments/power.py`). Other data and models have others,
and the chance in a domain's own trajectories comes on top: one of a few dozen needs more.
"""

from __future__ import annotations

import warnings
from bisect import bisect_left

from scipy.special import stdtrit  # type: ignore[import-untyped]

from dreamprm.errors import DataWarning
from dreamprm.training.config import TrainConfig
from dreamprm.training.data import TrainData
from dreamprm.training.problem import LEAST_PARTS

RHO = 0.05
EFFECT = 0.72  # of a domain with all labels wrong, below the others
LARGEST = 100_000  # questions of a meta set, in the search for one that is large enough


def smallest_share(questions: int, windows: int, batch: int) -> float:
    """Share of wrong labels of a domain that is told apart in 80% of runs; above 1: none is.

    Args:
        questions: distinct meta questions, those with both outcomes where there are such.
        windows: that are learned from.
        batch: `meta_batch_questions`.
    """
    parts = min(max(LEAST_PARTS, round(questions / batch)), questions, windows)
    if parts < 3:
        return float("inf")
    needed = float(stdtrit(parts - 1, 0.975) + stdtrit(parts - 1, 0.8))
    seen = max(questions, windows * questions / parts)
    se: float = (RHO / questions + (1 - RHO) / seen) ** 0.5
    return needed * se / EFFECT


def needed_questions(share: float, windows: int, batch: int) -> int | None:
    """Meta questions with which a domain of so many wrong labels is told apart.

    None where so many windows cannot do it, whatever the size of the meta set.
    """
    sizes = range(6, LARGEST)
    at = bisect_left(sizes, -share, key=lambda q: -smallest_share(q, windows, batch))
    return sizes[at] if at < len(sizes) else None


def what_can_be_found(config: TrainConfig, data: TrainData) -> tuple[float, str]:
    """`smallest_share` of a run, and what it means in words."""
    contrast = [group for group in data.meta if len({t.outcome for _, t in group}) == 2]
    first = config.unroll_steps if config.meta_gradient_at == "start" else 0
    steps = config.max_steps - max(first, config.meta_warmup_steps)
    windows = max(0, -(-steps // config.unroll_steps))
    batch = config.meta_batch_questions
    share = smallest_share(len(contrast) or len(data.meta), windows, batch)
    if share > 1:
        goal, found = 1.0, "no domain is told apart from the others, even with all labels wrong"
    else:
        goal = 0.5 if share > 0.5 else share / 2
        found = f"a domain is told apart from the others where {share:.0%} of labels are wrong"
    more = needed_questions(goal, windows, batch)
    need = f"{more:,} questions" if more else "more windows (max_steps)"
    return share, (
        f"{sum(map(len, data.meta)):,} meta candidates, {len(contrast):,} questions with both "
        f"outcomes, {windows:,} windows: {found} (in 4 of 5 runs; a rough estimate); "
        f"{goal:.0%} would need {need}"
    )


def warn_if_too_small(config: TrainConfig, data: TrainData) -> None:
    """Where no domain could be told apart, however bad its labels."""
    if config.learn_weights and config.weighting == "domain" and len(data.domains) > 1:
        share, text = what_can_be_found(config, data)
        if share > 1:
            warnings.warn(f"the meta set is small: {text}", DataWarning, stacklevel=3)
