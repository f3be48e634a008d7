"""The pool of servers: who gets the next request, and who is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from dreamprm.policy.servers import Backoff, Endpoint, Failure, Pool

BROKEN = Failure("again", "broken")


def with_pool(story: Callable[[Pool], Awaitable[None]], urls: str = "ab", slots: int = 2) -> None:
    async def run() -> None:
        await asyncio.wait_for(story(Pool(urls, slots, 3, Backoff(0.02, 0.02))), 5)

    asyncio.run(run())


def fail(pool: Pool, endpoint: Endpoint, failure: Failure = BROKEN, times: int = 1) -> None:
    for _ in range(times):
        pool.failed(endpoint, asyncio.get_running_loop().time(), failure)


async def gets_none(pool: Pool, failed: dict[Endpoint, int] | None = None) -> bool:
    try:
        await asyncio.wait_for(pool.take(failed or {}), 0.005)
    except TimeoutError:
        return True
    return False


def test_a_request_goes_where_it_has_failed_least_but_not_to_a_full_server() -> None:
    async def story(pool: Pool) -> None:
        a, b = pool.endpoints
        assert [(await pool.take({a: 1})).url for _ in range(3)] == ["b", "b", "a"]
        assert await gets_none(pool, {a: 3})
        assert not pool.given_up({a: 3})
        assert pool.given_up({a: 3, b: 3})

    with_pool(story)


def test_a_server_that_fails_in_a_row_is_rested_and_then_tried_by_one_request() -> None:
    async def story(pool: Pool) -> None:
        [a] = pool.endpoints
        fail(pool, a, times=2)
        assert (await pool.take({})) is a  # two failures are not yet a row
        pool.release(a)
        fail(pool, a)
        assert await gets_none(pool)
        await asyncio.sleep(0.025)
        assert (await pool.take({})) is a
        assert await gets_none(pool)  # though a slot is free
        pool.release(a)
        pool.answered(a)
        assert [(await pool.take({})).url for _ in range(2)] == ["a", "a"]

    with_pool(story, "a")


def test_all_that_was_under_way_when_a_server_died_counts_as_one_failure() -> None:
    async def story(pool: Pool) -> None:
        [a] = pool.endpoints
        begun = asyncio.get_running_loop().time()
        await asyncio.sleep(0.001)
        for _ in range(50):
            pool.failed(a, begun, BROKEN)
        assert a.strikes == 1
        fail(pool, a)
        assert a.strikes == 2

    with_pool(story, "a", slots=50)


@pytest.mark.parametrize("woken", [False, True])
def test_a_request_that_is_called_off_while_it_waits_costs_no_slot(woken: bool) -> None:
    async def story(pool: Pool) -> None:
        [a] = pool.endpoints
        await pool.take({})
        first, second = (asyncio.ensure_future(pool.take({})) for _ in range(2))
        await asyncio.sleep(0)
        if woken:
            pool.release(a)
            first.cancel()
        else:
            first.cancel()
            pool.release(a)
        assert await asyncio.wait_for(second, 0.1) is a

    with_pool(story, "a", slots=1)
