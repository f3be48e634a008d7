"""Many units of work at once, none of them lost when one fails.

Enough units are alive to keep the policy's slots full, and no more, so memory does not grow with
the job. When the policy can no longer be used, or the budget is spent, no unit is begun, what is in
flight is allowed to end, and the reason is told; a unit that the policy refuses is noted and left
out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from dreamprm.errors import DataError, DreamPRMError
from dreamprm.policy import RequestRefused
from dreamprm.rollouts.budget import BudgetSpent

T = TypeVar("T")


@dataclass
class Outcome:
    """How a pass over the units ended.

    Attributes:
        refused: units that were left out, and why.
        stopped: why the pass ended before all units were done; None if it did not.
    """

    refused: list[tuple[object, str]] = field(default_factory=list)
    stopped: DreamPRMError | None = None


async def work_through(
    units: Iterable[T],
    do: Callable[[T], Awaitable[None]],
    alive: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Outcome:
    """Do every unit, `alive` of them at a time.

    Args:
        units: taken one by one, when there is room; may be a generator over a large file.
        do: does one. `RequestRefused` and `DataError` concern this unit alone, any other
            `DreamPRMError` ends the pass.
        alive: units in work at once.
        progress: called with 1 for each unit that ended, refused ones included.
    """
    outcome = Outcome()
    source = iter(units)

    async def worker() -> None:
        unit: T
        for unit in _until_stopped(source, outcome):
            try:
                await do(unit)
                progress(1)
            except (RequestRefused, DataError) as error:
                outcome.refused.append((unit, str(error)))
                progress(1)
            except DreamPRMError as error:
                # Many units meet the same end; the first to tell is the reason.
                if outcome.stopped is None or isinstance(outcome.stopped, BudgetSpent):
                    outcome.stopped = error
                return

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(alive):
                group.create_task(worker())
    except BaseExceptionGroup as bugs:  # one is enough to find the mistake in our code
        raise bugs.exceptions[0] from None
    return outcome


def _until_stopped(source: Iterator[T], outcome: Outcome) -> Iterator[T]:
    while outcome.stopped is None:
        try:
            yield next(source)
        except StopIteration:
            return


async def all_of(parts: Iterable[Awaitable[T]]) -> list[T]:
    """Await all; an error of one is raised only when the others have ended and are kept."""
    results = await asyncio.gather(*parts, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]
