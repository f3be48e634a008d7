"""The endpoint policy against servers that misbehave: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from dreamprm.cli import main
from dreamprm.data import read_trajectories, write_questions
from dreamprm.errors import DreamPRMError
from dreamprm.policy import Reply, Request, RequestRefused
from dreamprm.policy.options import PolicyOptions
from dreamprm.policy.served import EndpointPolicy
from dreamprm.policy.servers import Backoff
from dreamprm.records import Question
from tests.fake_endpoint import FakeEndpoint
from tests.faults import Fault, at_random, scripted

DEAD = "http://127.0.0.1:9/v1"  # the discard port: refuses connections
KEPT = "what is done is kept: run the same command again to go on"
QUICK = Backoff(first_s=0.01, longest_s=0.1)
FAULTS = ("429", "408", "409", "500", "503", "reset", "half", "garbage", "page", "empty", "null")


def question(number: int) -> Question:
    return Question(id=str(number), domain="d", text=f"What is {number}?", answer="1")


def policy_of(*servers: FakeEndpoint | str, **options: Any) -> EndpointPolicy:
    urls = [server if isinstance(server, str) else server.url for server in servers]
    backoff = options.pop("backoff", QUICK)
    return EndpointPolicy(PolicyOptions("fake", base_urls=urls, **options), backoff=backoff)


async def ask(policy: EndpointPolicy, numbers: Sequence[int], n: int = 2) -> list[Reply]:
    """Reply i belongs to question i, whose seed is 100 * i."""
    calls = (policy.sample(Request(question(i)), n, 100 * i) for i in numbers)
    return list(await asyncio.gather(*calls))


def run(policy: EndpointPolicy, count: int = 20, n: int = 2) -> list[list[str]]:
    async def all_of_it() -> list[Reply]:
        try:
            return await ask(policy, range(count), n)
        finally:
            await policy.close()

    return [[done.text for done in reply.completions] for reply in asyncio.run(all_of_it())]


@pytest.fixture(scope="module")
def undisturbed() -> list[list[str]]:
    with FakeEndpoint() as server:
        return run(policy_of(server))


@pytest.mark.parametrize("kind", FAULTS)
def test_what_fails_is_asked_again_and_every_sample_comes_once(
    kind: str, undisturbed: list[list[str]]
) -> None:
    with FakeEndpoint(plan=lambda number, _: Fault(kind) if number % 3 == 0 else None) as server:
        policy = policy_of(server)
        asyncio.run(policy.connect())
        server.forget()
        assert run(policy) == undisturbed
        asked = [seen for seen in server.seen if "What is" in str(seen.body)]
        assert sum(not seen.fault for seen in asked) == 20
        assert sum(seen.fault == kind for seen in server.seen) > 5


def test_a_mixture_of_all_faults_and_hangs_loses_and_doubles_nothing(
    undisturbed: list[list[str]],
) -> None:
    plan = at_random(dict.fromkeys([*FAULTS, "hang", "slow"], 0.03), seed=3, seconds=0.05)
    with FakeEndpoint(plan=plan, latency_s=0.01) as server:
        policy = policy_of(server, timeout_s=0.3, concurrency=8)
        assert run(policy) == undisturbed
        assert set(server.samples()) >= {text for texts in undisturbed for text in texts}
        assert server.most_in_flight <= 8 + 2  # what timed out may still be in flight there


def test_a_connection_that_trickles_is_cut_off_too() -> None:
    """The deadline is of the whole attempt; reading a byte now and then does not extend it."""

    async def trickle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while True:
            writer.write(b" ")
            await asyncio.sleep(0.02)

    async def story() -> float:
        server = await asyncio.start_server(trickle, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        begun = asyncio.get_running_loop().time()
        with pytest.raises(DreamPRMError, match="no reply within 0.1 s"):
            await policy_of(url, timeout_s=0.1).connect()
        return asyncio.get_running_loop().time() - begun

    assert asyncio.run(story()) < 2


@pytest.mark.parametrize(
    "headers",
    [{"retry-after": "0.4"}, {"retry-after-ms": "400", "retry-after": "100"}, {"retry-after": ""}],
    ids=["seconds", "milliseconds", "date"],
)
def test_a_server_is_left_alone_for_as_long_as_it_asks(headers: dict[str, str]) -> None:
    if not headers["retry-after"]:  # an HTTP date has whole seconds
        moment = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
        headers = {"retry-after": format_datetime(moment, usegmt=True)}
    with FakeEndpoint(plan=scripted({1: Fault("429", headers)})) as server:
        assert len(run(policy_of(server, continuation="prompt", concurrency=1), 3)) == 3
        assert server.seen[1].status == 429
        assert server.seen[2].at - server.seen[1].at >= (0.39 if len(server.seen) == 5 else 1)


def test_a_pause_longer_than_is_waited_for_ends_the_run_at_once() -> None:
    full = lambda number, _: Fault("429", {"retry-after": "20000"}) if number else None  # noqa: E731
    with FakeEndpoint(plan=full) as server:
        policy = policy_of(server, continuation="prompt")
        for _ in range(2):  # also a later one
            with pytest.raises(
                DreamPRMError, match=r"asks for a pause of 5\.6 hours, until .*given"
            ):
                run(policy, 3)


def test_a_crowded_server_that_answers_others_is_waited_for() -> None:
    """More 429s per request than attempts that may fail, and no request gives up."""
    crowded = lambda number, _: Fault("429") if number % 10 and number < 400 else None  # noqa: E731
    with FakeEndpoint(plan=crowded) as server:
        policy = policy_of(server, max_attempts=5, backoff=Backoff(0.01, 0.02))
        assert len(run(policy, 50)) == 50
        assert sum(seen.status == 429 for seen in server.seen) > 5 * 50


def test_a_refused_request_is_not_made_again_and_others_go_on() -> None:
    refuse = Fault("400", body='{"error": {"message": "too long: ' + "x" * 5000 + '"}}')
    with FakeEndpoint(plan=lambda _, body: refuse if "7?" in str(body) else None) as server:

        async def story() -> tuple[list[Reply], str]:
            policy = policy_of(server)
            with pytest.raises(RequestRefused) as caught:
                await ask(policy, [7], n=1)
            return await ask(policy, [1, 2]), str(caught.value)

        replies, message = asyncio.run(story())
        assert len(replies) == 2
        assert "too long: xxx" in message and len(message) < 400
        assert sum(seen.status == 400 for seen in server.seen) == 1


def test_a_request_that_always_fails_is_left_out_where_the_server_works_otherwise() -> None:
    """Also when it is the last one, and no other could show that the server works."""
    broken = lambda _, body: Fault("500") if "7?" in str(body) else None  # noqa: E731
    with FakeEndpoint(plan=broken) as server:

        async def story() -> None:
            policy = policy_of(server, max_attempts=4, continuation="prompt")
            assert await ask(policy, [1])
            with pytest.raises(RequestRefused, match="127.*: 500 .*given up after 4 failed attem"):
                await ask(policy, [7])
            assert await ask(policy, [2])

        asyncio.run(story())
        assert sum("7?" in str(seen.body) for seen in server.seen) == 4


@pytest.mark.parametrize("kind", ["reset", "500", "429"])
def test_where_no_server_answers_the_run_stops_in_time_and_goes_on_later(
    kind: str, tmp_path: Path, capsys: Any, caplog: Any
) -> None:
    """It says when it will, that nothing is lost, and the same command asks for the rest only."""
    ended = lambda number, _: Fault(kind) if number > 5 else None  # noqa: E731
    write_questions(tmp_path / "q.jsonl", [question(i) for i in range(10)])
    with FakeEndpoint(plan=ended) as server:
        words = ["sample", "--questions", str(tmp_path / "q.jsonl"), "--num_candidates", "1"]
        words += ["--output", str(tmp_path / "c.jsonl"), "--concurrency", "1"]
        words += ["--model_name_or_path", "fake", "--base_urls", server.url, "--prompt", "bare"]
        words += ["--continuation", "prompt", "--give_up_after_s", "0.9"]
        begun = time.monotonic()
        assert main(words) == 1
        assert 0.9 <= time.monotonic() - begun < 5
        told = " ".join(capsys.readouterr().err.split())
        assert f"given up because no server answers (give_up_after_s 0.9); {KEPT}" in told
        assert ("no server answers, and the run gives up at " in caplog.text) == (kind != "429")
        assert len(server.answered) == 1 + 5
        assert len(read_trajectories(tmp_path / "c.jsonl")) == 5
        server.plan = None
        assert main(words) == 0
        assert len(read_trajectories(tmp_path / "c.jsonl")) == 10
        assert len(server.answered) == 2 + 10


def test_a_dead_server_leaves_its_work_to_the_others(undisturbed: list[list[str]]) -> None:
    with FakeEndpoint(latency_s=0.01) as server:
        policy = policy_of(DEAD, server, concurrency=2, max_attempts=3)
        assert policy.slots == 4
        assert run(policy) == undisturbed


def test_a_server_that_dies_on_the_way_is_rested_while_others_work(caplog: Any) -> None:
    dies = scripted({number: Fault("reset") for number in range(5, 10_000)})
    with FakeEndpoint(plan=dies, latency_s=0.01) as one, FakeEndpoint(latency_s=0.01) as other:
        policy = policy_of(
            one, other, concurrency=4, backoff=Backoff(0.5, 60), continuation="prompt"
        )
        asyncio.run(policy.connect())
        other.forget()
        assert len(run(policy, 100)) == 100
        assert sum(seen.fault == "reset" for seen in one.seen) < 12
        [line] = caplog.messages  # however often it is tried
        assert re.search("asked again at [0-9:]+, then at least every 60 s; the others go", line)
        assert set((one.samples() + other.samples()).values()) == {1}


def test_a_server_may_be_restarted_on_the_way(undisturbed: list[list[str]], caplog: Any) -> None:
    first, second = FakeEndpoint(latency_s=0.05), FakeEndpoint(latency_s=0.01)

    async def story() -> list[Reply]:
        policy = policy_of(first, concurrency=8)
        await policy.connect()
        work = asyncio.ensure_future(ask(policy, range(20)))
        while len(first.answered) < 8:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(first.__exit__)
        await asyncio.sleep(0.2)
        second.port = first.port
        with second:
            return await work

    with first:
        replies = asyncio.run(story())
    assert [[done.text for done in reply.completions] for reply in replies] == undisturbed
    died, returned = caplog.messages
    assert "no server answers, and the run gives up at " in died
    assert returned == f"{first.url} answers again"


def test_a_full_server_pauses_alone_and_that_is_told_once(caplog: Any) -> None:
    full = lambda number, _: Fault("429", {"retry-after": "20000"}) if number else None  # noqa: E731
    with FakeEndpoint(plan=full) as one, FakeEndpoint() as other:
        assert len(run(policy_of(one, other, continuation="prompt"), 40)) == 40
        assert any(seen.status == 429 for seen in one.seen)
        assert len(other.answered) > 20
        [line] = caplog.messages
        assert line.startswith(f"{one.url}: 429 ")
        assert re.search("pause of 5.6 hours, until [0-9: -]+; the others go on$", line)


def test_no_slot_is_held_while_a_request_backs_off() -> None:
    with FakeEndpoint(plan=scripted({1: Fault("500")})) as server:
        policy = policy_of(
            server, concurrency=1, continuation="prompt", backoff=Backoff(5, 5), timeout_s=5
        )

        async def story() -> None:
            unlucky = asyncio.ensure_future(ask(policy, [0]))
            while len(server.seen) < 2:
                await asyncio.sleep(0.01)
            await asyncio.wait_for(ask(policy, [1, 2, 3]), 2)
            unlucky.cancel()

        asyncio.run(story())


def test_one_policy_serves_several_event_loops(undisturbed: list[list[str]]) -> None:
    with FakeEndpoint() as server:
        policy = policy_of(server)
        assert run(policy) == undisturbed
        asyncio.run(ask(policy, [1]))  # and not closed
        assert run(policy) == undisturbed
