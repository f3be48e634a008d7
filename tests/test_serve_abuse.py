"""Hostile requests, slow clients, and clients that go away: see `tests.serve_abuse`."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

import dreamprm.serve.server
from dreamprm.policy.options import PolicyOptions
from dreamprm.prm.model import PRM
from dreamprm.serve.app import Served, make_app
from dreamprm.serve.wire import Limits
from tests.fake_endpoint import FakeEndpoint
from tests.running_app import running
from tests.serve_abuse import Canary, abuse, mutated
from tests.test_serve import Stub


def where(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port)


def test_mutated_requests_are_served_or_refused_and_nothing_is_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DREAMPRM_REMOTE_IMAGES", "localhost")
    with FakeEndpoint() as policy, Canary() as canary:
        options = PolicyOptions(policy.model, base_urls=[policy.url], prompt="bare")
        app = make_app(Served(PRM.from_backbone("tiny"), "prm", "min"), policy=options)
        with running(app) as url:
            tally = abuse(*where(url), mutated(100, 7, canary.port))
    assert not tally.broken
    assert tally.statuses[200] > 3, "some are good"
    assert tally.statuses[400] > 60
    assert not canary.visits


@pytest.fixture
def stub() -> Iterator[Stub]:
    stub = Stub()
    yield stub
    stub.may_go_on.set()


HEAD = b"POST /v1/score HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
BODY = b'{"question": "q", "candidates": [["s"]]}'


def test_slow_clients_are_cut_off(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dreamprm.serve.server, "HEAD_S", 0.2)
    with running(make_app(Served(stub, "prm", "min"), limits=Limits(body_timeout_s=0.2))) as url:
        with socket.create_connection(where(url), timeout=5) as client:
            client.sendall(HEAD)
            assert client.recv(1000) == b"", "half a head"
        with socket.create_connection(where(url), timeout=5) as client:
            client.sendall(HEAD + b"content-length: 40\r\n\r\n" + BODY[:7])
            assert client.recv(1000).startswith(b"HTTP/1.1 408"), "half a body"


def test_a_client_with_too_large_a_body_reads_why(stub: Stub) -> None:
    with running(make_app(Served(stub, "prm", "min"), limits=Limits(max_body_bytes=10**5))) as url:
        for head in (b"content-length: 8000000\r\n", b"transfer-encoding: chunked\r\n"):
            with socket.create_connection(where(url), timeout=5) as client:
                client.sendall(HEAD + head + b"\r\n")
                chunk = b"x" * 8_000_000
                client.sendall(
                    chunk if b"length" in head else b"7a1200\r\n" + chunk + b"\r\n0\r\n\r\n"
                )
                assert client.recv(1000).startswith(b"HTTP/1.1 413")


def test_what_a_client_that_went_away_asked_for_is_not_scored(stub: Stub) -> None:
    whole = HEAD + f"content-length: {len(BODY)}\r\n\r\n".encode() + BODY
    with running(make_app(Served(stub, "prm", "min"))) as url:
        first, second = (socket.create_connection(where(url), timeout=5) for _ in range(2))
        first.sendall(whole)
        assert stub.busy.wait(5)
        second.sendall(whole)
        time.sleep(0.2)
        second.close()
        time.sleep(0.2)
        stub.may_go_on.set()
        assert first.recv(1000).startswith(b"HTTP/1.1 200")
        first.close()
    assert stub.batches == [1]
