"""Served models: addresses, keys, settings, late servers, and who gets the next request."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dreamprm.errors import DreamPRMError
from dreamprm.policy import served as greeting
from dreamprm.policy.servers import Backoff, Endpoint, Failure, Pool
from tests.fake_endpoint import FakeEndpoint
from tests.faults import Fault, always
from tests.test_endpoint import DEAD, policy_of, run

BROKEN = Failure("again", "broken")


def with_pool(story: Callable[[Pool], Awaitable[None]], urls: str = "ab", slots: int = 2) -> None:
    async def run() -> None:
        await asyncio.wait_for(story(Pool(urls, slots, 60.0, Backoff(0.02, 0.02))), 5)

    asyncio.run(run())


def fail(pool: Pool, endpoint: Endpoint, failure: Failure = BROKEN, times: int = 1) -> None:
    for _ in range(times):
        pool.failed(endpoint, asyncio.get_running_loop().time(), failure)


async def gets_none(pool: Pool) -> bool:
    try:
        await asyncio.wait_for(pool.take({}), 0.005)
    except TimeoutError:
        return True
    return False


def test_a_request_goes_where_it_has_failed_least_but_not_to_a_full_server() -> None:
    async def story(pool: Pool) -> None:
        a, b = pool.endpoints
        assert [await pool.take({a: 1}) for _ in range(4)] == [b, b, a, a]
        assert await gets_none(pool)

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
        assert [await pool.take({}) for _ in range(2)] == [a, a]

    with_pool(story, "a")


def test_all_that_was_under_way_when_a_server_died_counts_as_one_failure() -> None:
    async def story(pool: Pool) -> None:
        [a] = pool.endpoints
        begun = asyncio.get_running_loop().time()
        await asyncio.sleep(0.001)
        for _ in range(50):
            pool.failed(a, begun, BROKEN)
        assert a.row == 3
        fail(pool, a)
        assert a.row == 4

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


PLAIN = {"top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0}


def sent(server: FakeEndpoint) -> dict[str, Any]:
    """Which of the fields of plain sampling the last request had."""
    return {name: server.seen[-1].body[name] for name in PLAIN if name in server.seen[-1].body}


def test_settings_are_what_was_asked_for_and_known_before_connecting() -> None:
    for own in ({}, {"top_k": 40, "min_p": 0.1}):
        policy = policy_of(DEAD, continuation="prefill", extra_body=own)
        assert policy.settings == {
            "model": "fake",
            "prompt": "five_steps",
            "temperature": 1.0,
            "max_new_tokens": 1024,
            "continuation": "prefill",
            "extra_body": own,
        }


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_known_servers_are_kept_from_bending_the_distribution(kind: str) -> None:
    with FakeEndpoint(owned_by=kind) as server:
        policy = policy_of(server, continuation="prompt", extra_body={"top_k": 40})
        before = dict(policy.settings)
        assert run(policy)
        assert sent(server) == PLAIN | {"top_k": 40}
        assert policy.settings == before


def test_a_list_of_models_that_fails_once_changes_neither_settings_nor_samples() -> None:
    """Else a finished job is asked, and paid for, once more."""
    with FakeEndpoint(owned_by="vllm") as server:
        first, again = policy_of(server, continuation="prompt"), policy_of(server)
        texts = run(first)
        server.lists_models = False
        assert run(again) == texts
        assert sent(server) == PLAIN
        assert first.settings == again.settings


def test_fields_that_a_server_without_a_list_refuses_are_not_sent(caplog: Any) -> None:
    refuse = Fault("422", body='{"detail": "unexpected field top_k"}')
    plan = lambda _, body: refuse if "top_k" in body else None  # noqa: E731
    with FakeEndpoint(lists_models=False, plan=plan) as server:
        assert len(run(policy_of(server))) == 20
        assert sent(server) == {}
        assert "422 unexpected field top_k; asked without" in caplog.text


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://host:port/v1", "'http://host:port/v1': Port could not be cast"),
        ("http://[::1/v1", "Invalid IPv6 URL"),
        ("http://localhost:99999/v1", "Port out of range 0-65535"),
        ("http://user:sk-1@[::1/v1", "a base URL cannot be read"),
        ("localhost:8000/v1", "'localhost:8000/v1' is no base URL"),
    ],
)
def test_a_mistyped_address_is_one_line(address: str, said: str) -> None:
    with pytest.raises(DreamPRMError) as caught:
        policy_of(address)
    message = str(caught.value)
    assert said in message and message.endswith("write it like http://localhost:8000/v1")
    assert "sk-1" not in "".join(traceback.format_exception(caught.value))


def test_a_server_that_accepts_and_never_answers_holds_up_neither_connecting_nor_the_work(
    monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(greeting, "LATE_S", 0.2)
    with FakeEndpoint(plan=always(Fault("hang"))) as stuck, FakeEndpoint() as server:
        policy = policy_of(stuck, server, timeout_s=1.0, concurrency=8)
        begun = time.monotonic()
        asyncio.run(policy.connect())
        assert time.monotonic() - begun < 1.0
        assert f"no answer yet from {stuck.url}" in caplog.text
        stuck.forget()
        server.forget()
        assert len(run(policy, 60)) == 60
        assert len(server.answered) == 60
        assert len(stuck.seen) == 1  # one is asked for a word


def test_a_slow_server_is_waited_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greeting, "LATE_S", 5.0)
    with FakeEndpoint(latency_s=0.3, continues="prefill") as slow, FakeEndpoint() as quick:
        policy = policy_of(slow, quick)
        asyncio.run(policy.connect())
        assert policy.settings["continuation"] == "prompt"  # they differ, so both were heard


@pytest.mark.parametrize("status", ["401", "403"])
def test_a_key_that_is_not_taken_is_told_by_its_variable(
    status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    with FakeEndpoint(plan=always(Fault(status))) as server:
        with pytest.raises(DreamPRMError, match="does not take the key in MY_KEY"):
            run(policy_of(server, api_key_env="MY_KEY"))
        assert len(server.seen) == 1


def test_an_unknown_model_is_answered_with_the_served_ones() -> None:
    with FakeEndpoint(model="qwen") as server:
        with pytest.raises(DreamPRMError, match=r"'fake' served there.*models served there: qwen"):
            run(policy_of(server))
        assert len(server.seen) == 1


def test_nobody_at_the_address_is_one_line() -> None:
    with pytest.raises(DreamPRMError, match=r"no endpoint answers: http://127\.0\.0\.1:9/v1: Conn"):
        run(policy_of(DEAD))


def test_the_key_is_never_told(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: Any
) -> None:
    key = "sk-0123456789-secret"
    monkeypatch.setenv("MY_KEY", key)
    caplog.set_level(logging.DEBUG)
    echo = '{"error": {"message": "bad header Authorization: Bearer ' + key + '"}}'
    plans = [always(Fault(kind, body=echo)) for kind in ("400", "401", "404", "429", "500", "418")]
    plans += [always(Fault(kind)) for kind in ("reset", "hang", "garbage", "empty")]
    told = []
    for plan in plans:
        with FakeEndpoint(plan=plan) as server:
            quick = {"max_attempts": 2, "timeout_s": 0.1, "give_up_after_s": 0.2}
            policy = policy_of(server, api_key_env="MY_KEY", **quick)
            with pytest.raises(DreamPRMError) as caught:
                run(policy)
            told += [repr(policy), "".join(traceback.format_exception(caught.value))]
            error: BaseException | None = caught.value
            while error is not None:  # also what a traceback would hide
                told += [repr(error), str(vars(error))]
                error = error.__cause__ or error.__context__
    with FakeEndpoint(key=key) as server:
        policy = policy_of(server, api_key_env="MY_KEY")
        assert len(run(policy)) == 20
        assert server.seen[0].headers["authorization"] == f"Bearer {key}"
        told.append(str(policy.settings))
        assert server.url not in told[-1]
    for address in (f"http://user:{key}@host/v1", f"http://host/v1?key={key}"):
        with pytest.raises(DreamPRMError, match="base URL of host has more in it") as caught:
            policy_of(address)
        told.append(str(caught.value))
    captured = capfd.readouterr()
    logged = [record.getMessage() for record in caplog.records]
    assert key not in "".join([*told, captured.out, captured.err, *logged])
    assert "***" in "".join(told) and logged
