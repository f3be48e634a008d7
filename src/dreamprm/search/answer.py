"""A question in, an answer out: a search method, then a choice among all candidates it saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dreamprm.errors import DreamPRMError, offer
from dreamprm.search.aggregation import log_sigmoid
from dreamprm.search.ask import Asked, Candidate
from dreamprm.search.parallel import sample_parallel
from dreamprm.search.selection import best_of_n, first_sample, majority_vote, weighted_vote
from dreamprm.search.step_search import beam_search, diverse_tree_search, step_best_of_n

VOTES = ("first_sample", "self_consistency")
PARALLEL = (*VOTES, "best_of_n", "weighted_vote")
TREES = ("step_best_of_n", "beam_search", "diverse_tree_search")
METHODS = (*PARALLEL, *TREES)


@dataclass(frozen=True)
class SearchOptions:
    """How to search.

    Attributes:
        method: one of `METHODS`.
        n: completions of a question at most.
        width: lines of beam and tree search.
        expand: continuations of a prefix, of the methods over steps.
        early_stop: of the parallel methods, see `parallel`.
        single_steps: methods over steps sample a step at a time; by default each continuation goes
            to its end, which costs more and is a candidate.
    """

    method: str = "best_of_n"
    n: int = 8
    width: int = 2
    expand: int = 2
    early_stop: float | None = None
    single_steps: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise DreamPRMError(
                f"there is no method '{self.method}'; {offer(self.method, METHODS)}"
            )
        for name in ("n", "width", "expand"):
            if getattr(self, name) < 1:
                raise DreamPRMError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.early_stop is not None and not 0.5 < self.early_stop < 1:
            raise DreamPRMError(f"early_stop is {self.early_stop}; it must be between 0.5 and 1")

    @property
    def needs_judge(self) -> bool:
        return self.method not in VOTES

    @property
    def stops_at_steps(self) -> bool:
        return self.single_steps and self.method in TREES


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
        chosen: the candidate whose answer is given.
        candidates: all that were finished, in order.
        trace: after so many tokens the answer was that of candidate i: (tokens, i), at each change.
        tokens: sampled for all of it.
    """

    chosen: Candidate
    candidates: tuple[Candidate, ...]
    trace: tuple[tuple[int, int], ...]
    tokens: int


async def answer(asked: Asked, options: SearchOptions) -> Found:
    """Search and choose.

    Raises:
        DreamPRMError: the method needs a judge and has none, or the budget allows no completion.
    """
    if options.needs_judge and asked.judge is None:
        raise DreamPRMError(f"method {options.method} needs a reward model; give --prm")
    if options.method in PARALLEL:
        n = 1 if options.method == "first_sample" else options.n
        await sample_parallel(asked, n, options.early_stop)
    elif options.method == "step_best_of_n":
        await step_best_of_n(asked, options.expand * options.width)
    elif options.method == "beam_search":
        await beam_search(asked, options.width, options.expand)
    else:
        await diverse_tree_search(asked, options.width, options.expand)
    await asked.finish()
    if not asked.candidates:
        raise DreamPRMError(
            f"question '{asked.question.id}': the budget allows no completion; raise it"
        )
    trace: list[tuple[int, int]] = []
    for i, candidate in enumerate(asked.candidates, start=1):
        chosen = choose(asked, options.method, asked.candidates[:i]).trajectory.sample_index
        if not trace or trace[-1][1] != chosen:
            trace.append((candidate.spent, chosen))
    best = choose(asked, options.method, asked.candidates)
    return Found(best, tuple(asked.candidates), tuple(trace), asked.tokens)


def choose(asked: Asked, method: str, candidates: list[Candidate]) -> Candidate:
    """The candidate whose answer is given: by votes, by weighted votes, or the best score."""
    trajectories = [c.trajectory for c in candidates]
    if method == "first_sample":
        chosen = first_sample(trajectories)
    elif method == "self_consistency":
        chosen = majority_vote(trajectories)
    else:
        scores = np.array([asked.score(c) for c in candidates])
        if method == "weighted_vote":
            chosen = weighted_vote(trajectories, np.exp(log_sigmoid(scores)).tolist())
        else:
            chosen = best_of_n(trajectories, scores.tolist())
    return next(c for c in candidates if c.trajectory.sample_index == chosen.sample_index)
