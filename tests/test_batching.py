"""The batcher: what waits goes together, and everyone gets what is his."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from dreamprm.policy.batching import Batcher, Wanted


class Log:
    """A worker that writes down its batches; a job is a number, its result the double."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()
        self.seconds, self.busy = seconds, 0

    def run(self, jobs: Sequence[int], wanted: Wanted) -> list[int | Exception]:
        assert self.busy == 0, "two batches at once"
        self.busy += 1
        self.batches.append(list(jobs))
        self.threads.add(threading.current_thread().name)
        time.sleep(self.seconds)
        self.busy -= 1
        return [2 * job for job in jobs]


def together(batcher: Batcher[int, int], jobs: Sequence[int]) -> list[int]:
    async def ask() -> list[int]:
        return await asyncio.gather(*(batcher.submit(job) for job in jobs))

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("capacity", "jobs", "batches"),
    [
        (4, [(n, {}) for n in range(10)], [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]),
        (5, [(n, {"size": n}) for n in (3, 9, 3, 2, 1)], [[3, 2], [9], [3, 1]]),
        (4, [(n, {"kind": n % 2}) for n in range(5)], [[0, 2, 4], [1, 3]]),
        (2, [(n, {"length": n}) for n in (50, 11, 900, 10, 51)], [[50, 51], [11, 10], [900]]),
    ],
    ids=["up to the capacity", "a larger job alone", "kinds apart", "similar lengths together"],
)
def test_what_waits_goes_together(
    capacity: int, jobs: list[tuple[int, dict[str, Any]]], batches: list[list[int]]
) -> None:
    log = Log()
    batcher: Batcher[int, int] = Batcher(log.run, capacity=capacity)

    async def ask() -> list[int]:
        return await asyncio.gather(*(batcher.submit(job, **how) for job, how in jobs))

    assert asyncio.run(ask()) == [2 * job for job, _ in jobs]
    assert log.batches == batches


def test_an_exception_reaches_its_caller_alone() -> None:
    def run(jobs: Sequence[int], wanted: Wanted) -> list[int | Exception]:
        return [ValueError(f"job {job}") if job == 2 else job for job in jobs]

    batcher = Batcher(run, capacity=4)

    async def ask() -> list[int | BaseException]:
        return await asyncio.gather(*map(batcher.submit, range(4)), return_exceptions=True)

    results = asyncio.run(ask())
    assert [results[i] for i in (0, 1, 3)] == [0, 1, 3]
    assert isinstance(results[2], ValueError) and str(results[2]) == "job 2"


def test_a_batch_that_fails_fails_for_its_callers_and_the_next_goes_on() -> None:
    def run(jobs: Sequence[int], wanted: Wanted) -> list[int | Exception]:
        if 1 in jobs:
            raise OSError("no memory")
        return [] if 5 in jobs else list(jobs)  # a worker that gives too few results

    batcher = Batcher(run, capacity=2)

    async def ask() -> list[int | BaseException]:
        return await asyncio.gather(*map(batcher.submit, range(6)), return_exceptions=True)

    results = asyncio.run(ask())
    kinds = [type(one) for one in results]
    assert kinds == [OSError] * 2 + [int] * 2 + [RuntimeError] * 2


def test_a_cancelled_caller_leaves_the_line_and_the_others_are_served() -> None:
    log = Log(seconds=0.05)
    batcher = Batcher(log.run, capacity=2)

    async def ask() -> list[int]:
        futures = [batcher.submit(job) for job in range(6)]
        await asyncio.sleep(0.02)  # the first two are running
        futures[1].cancel()
        futures[3].cancel()
        return await asyncio.gather(*(futures[i] for i in (0, 2, 4, 5)))

    assert asyncio.run(ask()) == [0, 4, 8, 10]
    assert log.batches == [[0, 1], [2, 4], [5]]


@pytest.mark.parametrize(("callers", "hops"), [(8, 0), (12, 4)])
def test_batches_stay_full_while_callers_ask_again_and_again(callers: int, hops: int) -> None:
    """Each does some small thing between an answer and its next question."""
    log = Log(seconds=0.01)
    batcher = Batcher(log.run, capacity=8)

    async def caller(name: int) -> None:
        for _ in range(6):
            await batcher.submit(name)
            for _ in range(hops):
                await asyncio.sleep(0)

    async def ask() -> None:
        async with asyncio.TaskGroup() as group:
            for name in range(callers):
                group.create_task(caller(name))

    asyncio.run(ask())
    assert [len(batch) for batch in log.batches] == [8] * (6 * callers // 8)


def test_it_serves_one_event_loop_after_another_in_one_thread_and_after_closing() -> None:
    log = Log()
    batcher = Batcher(log.run, capacity=4)
    for _ in range(3):
        assert together(batcher, [1, 2]) == [2, 4]
    assert len(log.threads) == 1
    before = threading.active_count()
    asyncio.run(batcher.close())
    assert threading.active_count() == before - 1
    assert together(batcher, [3]) == [6]
    asyncio.run(batcher.close())


def test_closing_cancels_whoever_waits() -> None:
    def run(jobs: Sequence[int], wanted: Callable[[], bool]) -> list[int | Exception]:
        while wanted():
            time.sleep(0.005)
        return list(jobs)

    batcher = Batcher(run, capacity=1)

    async def ask() -> list[int | BaseException]:
        futures = [batcher.submit(job) for job in range(3)]
        await asyncio.sleep(0.02)
        await batcher.close()
        return await asyncio.gather(*futures, return_exceptions=True)

    assert all(isinstance(one, asyncio.CancelledError) for one in asyncio.run(ask()))
