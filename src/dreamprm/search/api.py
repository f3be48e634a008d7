"""Best-of-N, weighted voting and beam search in one call: a question, a policy, a reward model.

Each function exists twice: plain, which also works where an event loop is running (a notebook), and
as a coroutine with an `a` in front, of which many may be awaited at once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from dreamprm.policy import Writer
from dreamprm.policy.policy import wait_for
from dreamprm.prm.conventions import TextPRM
from dreamprm.prm.model import PRM
from dreamprm.prm.scorer import StepScorer
from dreamprm.prm.served import ServedPRM
from dreamprm.records import Question
from dreamprm.rollouts.sampler import open_sampler
from dreamprm.rollouts.store import RolloutStore
from dreamprm.search.aggregation import DEFAULT_AGGREGATION
from dreamprm.search.search import Search, SearchOptions, SearchResult, StepJudge

T = TypeVar("T")
Judge = PRM | ServedPRM | TextPRM | StepJudge


def best_of_n(
    question: Question, policy: Writer, prm: Judge, n: int = 8, **options: Any
) -> SearchResult:
    """Sample n reasonings, score every step, and choose the one with the highest score.

    Args:
        question: its gold answer is not looked at by the choice.
        policy: stays open.
        prm: the reward model, or anything that has its `score_steps`.
        options: aggregation (of step logits to one score, see `search.aggregation`; by default what
            the model was trained for), max_tokens (sampled at most, see `SearchOptions`), seed.

    Returns:
        The answer, the chosen trajectory, and all candidates with their step scores.

    >>> from dreamprm import Policy
    >>> policy = Policy("tiny", max_new_tokens=32)
    >>> prm = PRM.from_backbone("tiny")  # not trained: a real one is PRM.from_pretrained(folder)
    >>> question = Question(id="q", domain="d", text="What is 2 + 2?", answer="4")
    >>> result = best_of_n(question, policy, prm, n=4)
    >>> len(result.candidates), result.answer == result.trajectory.answer
    (4, True)
    >>> len(result.chosen.step_scores) == len(result.trajectory.steps)
    True
    """
    return wait_for(abest_of_n(question, policy, prm, n, **options))


def weighted_vote(
    question: Question, policy: Writer, prm: Judge, n: int = 8, **options: Any
) -> SearchResult:
    """Sample n reasonings; each votes for its answer with the weight of its score.

    The first candidate with the winning answer is chosen. Arguments are those of `best_of_n`.
    """
    return wait_for(aweighted_vote(question, policy, prm, n, **options))


def beam_search(
    question: Question,
    policy: Writer,
    prm: Judge,
    n: int = 8,
    *,
    width: int = 2,
    expand: int = 2,
    **options: Any,
) -> SearchResult:
    """Search over steps: keep the best prefixes, continue each, until the reasonings are finished.

    Args:
        n: continuations sampled at most.
        width: prefixes that are kept at each depth.
        expand: continuations of each.
        options: those of `best_of_n`, and single_steps (see `SearchOptions`).
    """
    return wait_for(abeam_search(question, policy, prm, n, width=width, expand=expand, **options))


async def abest_of_n(
    question: Question, policy: Writer, prm: Judge, n: int = 8, **options: Any
) -> SearchResult:
    """`best_of_n`, to be awaited."""
    return await asearch(question, policy, prm, method="best_of_n", n=n, **options)


async def aweighted_vote(
    question: Question, policy: Writer, prm: Judge, n: int = 8, **options: Any
) -> SearchResult:
    """`weighted_vote`, to be awaited."""
    return await asearch(question, policy, prm, method="weighted_vote", n=n, **options)


async def abeam_search(
    question: Question, policy: Writer, prm: Judge, n: int = 8, **options: Any
) -> SearchResult:
    """`beam_search`, to be awaited."""
    return await asearch(question, policy, prm, method="beam_search", n=n, **options)


async def asearch(
    question: Question,
    policy: Writer,
    prm: Judge,
    *,
    aggregation: str | None = None,
    seed: int | None = None,
    **options: Any,
) -> SearchResult:
    """Search by any method of `SearchOptions`, with a store that is gone afterwards."""
    judge, count_tokens, trained_for = as_judge(prm)
    if isinstance(prm, PRM | ServedPRM | TextPRM):
        prm.plain.check(question)
    how = SearchOptions(aggregation=aggregation or trained_for, **options)
    with (
        tempfile.TemporaryDirectory(prefix="dreamprm-") as folder,
        RolloutStore(Path(folder) / "rollouts.db") as store,
    ):
        async with open_sampler(policy, store, seed) as sampler:
            return await Search(question, sampler, how, judge, count_tokens).run()


def as_judge(
    prm: Judge, batch_size: int = 16
) -> tuple[StepJudge, Callable[[str], int] | None, str]:
    """A judge of steps, a counter of tokens, and the aggregation that the model is trained for."""
    if not isinstance(prm, PRM | ServedPRM | TextPRM):
        return prm, None, DEFAULT_AGGREGATION
    tokenizer = prm.plain.tokenizer
    aggregation = DEFAULT_AGGREGATION if isinstance(prm, TextPRM) else prm.config.aggregation

    def count_tokens(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False).input_ids)

    batch_size = prm.batch_size if isinstance(prm, ServedPRM) else batch_size
    return StepScorer(prm, batch_size), count_tokens, aggregation
