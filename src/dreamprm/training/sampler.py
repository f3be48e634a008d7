"""Which data each step sees: a pure function of the seed and the step.

Nothing here has state, so there is nothing to save: a resumed run asks for step t and gets what the
unbroken run got.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache

BATCHES_IN_BLOCK = 8  # within which trajectories are sorted by length


def domains_at(step: int, count: int, per_step: int, seed: int) -> list[tuple[int, int]]:
    """Domains of a lower step, each with the number of times that it was visited before.

    The domains come in rounds, each a fresh permutation of all of them, so that every domain is
    visited equally often and `count / per_step` steps see each domain once.

    Returns:
        `per_step` pairs (domain index, visit).
    """
    places = range(step * per_step, (step + 1) * per_step)
    rounds = {place // count for place in places}
    order = {r: _permutation(count, f"{seed}/round/{r}") for r in rounds}
    return [(order[place // count][place % count], place // count) for place in places]


def items_at(visit: int, size: int, count: int, key: str) -> list[int]:
    """`count` items of the `visit`-th batch from a set of `size`, epoch by epoch in fresh order.

    An item comes twice in a batch only where the batch is larger than what the epochs leave.
    """
    places = range(visit * count, (visit + 1) * count)
    epochs = {place // size for place in places}
    order = {e: _permutation(size, f"{key}/epoch/{e}") for e in epochs}
    return [order[place // size][place % size] for place in places]


@lru_cache(maxsize=64)
def _grouped_epoch(lengths: tuple[int, ...], count: int, key: str, epoch: int) -> list[list[int]]:
    """An epoch's batches: sorted by length within random blocks of some batches, then shuffled."""
    order = _permutation(len(lengths), f"{key}/epoch/{epoch}")
    block = BATCHES_IN_BLOCK * count
    by_length: list[int] = []
    for start in range(0, len(order), block):
        by_length += sorted(order[start : start + block], key=lambda i: lengths[i])
    batches = [by_length[i : i + count] for i in range(0, len(by_length), count)]
    if len(batches) > 1 and len(batches[-1]) < count:  # fill the last with random others
        missing = count - len(batches[-1])
        batches[-1] += [i for i in order if i not in batches[-1]][:missing]
    while len(batches[-1]) < count:  # fewer items than a batch takes
        batches[-1] = [*batches[-1], *order][:count]
    return [batches[i] for i in _permutation(len(batches), f"{key}/batches/{epoch}")]


def grouped_items_at(visit: int, lengths: Sequence[int], count: int, key: str) -> list[int]:
    """`items_at` with items of similar length in a batch."""
    per_epoch = -(-len(lengths) // count)
    epoch, place = divmod(visit, per_epoch)
    return _grouped_epoch(tuple(lengths), count, key, epoch)[place]


def contrasting(outcomes: Sequence[bool], count: int, key: str) -> list[int]:
    """Up to `count` candidates of one question, with both outcomes among them where there are both.

    Returns:
        Indices into `outcomes`, random but for one right and one wrong candidate (if count allows).
    """
    order = _permutation(len(outcomes), key)
    if count < 2:
        return list(order[:count])
    first_right = next((i for i in order if outcomes[i]), None)
    first_wrong = next((i for i in order if not outcomes[i]), None)
    needed = [i for i in (first_right, first_wrong) if i is not None]
    rest = [i for i in order if i not in needed]
    return (needed + rest)[:count]


@lru_cache(maxsize=256)  # a domain's epoch is asked for at every visit
def _permutation(size: int, key: str) -> tuple[int, ...]:
    order = list(range(size))
    random.Random(key).shuffle(order)
    return tuple(order)
