"""Searching over steps: sample continuations, judge their next step, go on from the best.

    step_best_of_n       one line: of k continuations the best next step is kept
    beam_search          the best `width` prefixes are kept at every depth, k continuations of each
                         (arXiv 2408.03314)
    diverse_tree_search  `width` lines that never compete, so that one early mistake of the judge
                         cannot take all (search-and-learn's DVTS)

All stop when the lines are finished or the budget is spent; see `ask` for what is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from dreamprm.search.ask import Asked, Candidate, Steps, is_finished


async def step_best_of_n(asked: Asked, expand: int, prefix: Steps = ()) -> None:
    """Follow the best next step from a prefix to the end.

    Args:
        expand: continuations sampled at each depth.
    """
    while found := await asked.continue_from(prefix, expand):
        depth = len(prefix) + 1
        best = max(found, key=lambda c: asked.score(c, depth))
        if is_finished(best, depth) or asked.left <= 0:
            return
        prefix = best.steps[:depth]


async def beam_search(asked: Asked, width: int, expand: int) -> None:
    """Keep the best prefixes of equal depth.

    Args:
        width: prefixes that are kept.
        expand: continuations of each.
    """
    prefixes: list[Steps] = [()]
    found = await asked.continue_from((), width * expand)
    while asked.left > 0:
        depth = len(prefixes[0]) + 1
        prefixes = _best_prefixes(asked, found, depth, width)
        if not prefixes:
            return
        found = [c for p in prefixes for c in await asked.continue_from(p, expand)]


async def diverse_tree_search(asked: Asked, width: int, expand: int) -> None:
    """Lines that begin with different first steps where there are such, each on its own.

    Args:
        width: lines.
        expand: continuations at each depth of a line.
    """
    found = await asked.continue_from((), width * expand)
    lines = _best_prefixes(asked, found, 1, width)
    alive = True
    while alive and asked.left > 0:  # a depth of every line in turn, so that none starves
        alive = False
        for place, prefix in enumerate(lines):
            grown = await asked.continue_from(prefix, expand)
            further = _best_prefixes(asked, grown, len(prefix) + 1, 1)
            if further:
                lines[place], alive = further[0], True


def _best_prefixes(asked: Asked, found: Sequence[Candidate], depth: int, width: int) -> list[Steps]:
    """The best distinct prefixes of some depth that go on; by their best continuation."""
    scores: dict[Steps, float] = {}
    for c in found:
        if not is_finished(c, depth):
            prefix, score = c.steps[:depth], asked.score(c, depth)
            scores[prefix] = max(scores.get(prefix, score), score)
    return sorted(scores, key=lambda p: -scores[p])[:width]
