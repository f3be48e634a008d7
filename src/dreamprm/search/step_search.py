"""Searching over steps: sample continuations, judge their next step, go on from the best.

    step_best_of_n       one line: of k continuations the best next step is kept
    beam_search          the best `width` prefixes are kept at every depth, k continuations of each
                         (arXiv 2408.03314)
    diverse_tree_search  `width` lines that never compete, so that one early mistake of the judge
                         cannot take all (search-and-learn's DVTS)

All stop when the lines are finished or the budget is spent; see `ask` for what is kept. A
continuation may be one step or the rest of the reasoning: its first step is what is judged.
"""

from __future__ import annotations

from collections.abc import Sequence

from dreamprm.search.ask import Asked, Candidate, Steps, is_longer


async def step_best_of_n(asked: Asked, expand: int, prefix: Steps = ()) -> None:
    """Follow the best next step from a prefix to the end.

    Args:
        expand: continuations sampled at each depth.
    """
    while found := await asked.continue_from(prefix, expand):
        best = max(found, key=lambda c: asked.score(c, len(prefix) + 1))
        further = _further(best, prefix)
        if further is None or asked.left <= 0:
            return
        prefix = further


async def beam_search(asked: Asked, width: int, expand: int) -> None:
    """Keep the best prefixes of a depth.

    Args:
        width: prefixes that are kept.
        expand: continuations of each.
    """
    grown = await _grown(asked, (), width * expand)
    while asked.left > 0:
        prefixes = _best_prefixes(asked, grown, width)
        if not prefixes:
            return
        grown = [pair for p in prefixes for pair in await _grown(asked, p, expand)]


async def diverse_tree_search(asked: Asked, width: int, expand: int) -> None:
    """Lines that begin with different first steps where there are such, each on its own.

    Args:
        width: lines.
        expand: continuations at each depth of a line.
    """
    lines = _best_prefixes(asked, await _grown(asked, (), width * expand), width)
    while lines and asked.left > 0:  # a depth of every line in turn, so that none starves
        further = []
        for prefix in lines:
            further += _best_prefixes(asked, await _grown(asked, prefix, expand), 1)
        lines = further


async def _grown(asked: Asked, prefix: Steps, n: int) -> list[tuple[Candidate, Steps]]:
    """Continuations of a prefix, each beside it."""
    return [(c, prefix) for c in await asked.continue_from(prefix, n)]


def _further(c: Candidate, prefix: Steps) -> Steps | None:
    """The prefix with the step that a continuation adds; None where nothing follows that."""
    if not c.open and len(c.steps) <= len(prefix) + 1:
        return None
    further = c.steps[: len(prefix) + 1]
    return further if is_longer(further, prefix) else None


def _best_prefixes(
    asked: Asked, grown: Sequence[tuple[Candidate, Steps]], width: int
) -> list[Steps]:
    """The best distinct prefixes, one step longer, that go on; by their best continuation."""
    scores: dict[Steps, float] = {}
    for c, before in grown:
        prefix = _further(c, before)
        if prefix is not None:
            score = asked.score(c, len(prefix))
            scores[prefix] = max(scores.get(prefix, score), score)
    return sorted(scores, key=lambda p: -scores[p])[:width]
