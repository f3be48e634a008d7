"""Several servers of one model as one pool of slots.

A request takes a slot at the server that has most of them free. A server that fails again and
again is rested: nobody is sent there for a pause that grows, then one request tries it, and only an
answer opens it for all. A server that says it has too much to do is left alone for as long as it
asks; the others take the work meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Collection, Mapping, Sequence

from dreamprm.policy.retrying import Backoff, Failure

_logger = logging.getLogger(__name__)

_REST_AFTER = 3  # failures in a row; single ones happen to healthy servers too


class Endpoint:
    """One server, as the pool sees it.

    Attributes:
        url: its base URL.
        in_flight: requests that it is working on.
        answers: requests that it has answered; tells a crowded server from a dead one.
        row: failures since its last answer.
        strikes: rests since its last answer, or 1 for a server that has not answered yet; with any
            it gets one request at a time.
        paused_until: loop time before which nobody is sent there.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.in_flight = self.answers = self.row = self.strikes = 0
        self.paused_until = self.struck_at = 0.0


class Pool:
    """Slots of all endpoints; lives in one event loop.

    Args:
        urls: base URLs.
        slots: requests in flight at each.
        max_attempts: failures of one request at an endpoint, or rests in a row of an endpoint,
            after which it is given up.
        backoff: length of the rests.
    """

    def __init__(
        self, urls: Sequence[str], slots: int, max_attempts: int, backoff: Backoff
    ) -> None:
        self.endpoints = [Endpoint(url) for url in urls]
        self.slots, self.max_attempts, self.backoff = slots, max_attempts, backoff
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self, failed: Mapping[Endpoint, int]) -> Endpoint:
        """Wait for a slot; `release` gives it back.

        Args:
            failed: how often this request has failed at an endpoint; others are preferred.
        """
        again = False
        while (endpoint := self._choose(failed)) is None:
            turn: asyncio.Future[None] = self._loop.create_future()
            (self._waiting.appendleft if again else self._waiting.append)(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():  # woken and cancelled at once: another takes this turn
                    self._wake()
                elif turn in self._waiting:
                    self._waiting.remove(turn)
                raise
            again = True
        endpoint.in_flight += 1
        return endpoint

    def doubt(self, urls: Collection[str]) -> None:
        """Let one request try each of these servers, which have not answered, before others do."""
        for endpoint in self.endpoints:
            if endpoint.url in urls:
                endpoint.strikes = 1

    def release(self, endpoint: Endpoint) -> None:
        """Give a slot back."""
        endpoint.in_flight -= 1
        self._wake()

    def answered(self, endpoint: Endpoint) -> None:
        """Note an answer: whatever was wrong with this endpoint is over."""
        endpoint.answers += 1
        endpoint.row = 0
        if endpoint.strikes:
            endpoint.strikes, endpoint.paused_until = 0, 0.0
            self._wake()

    def failed(self, endpoint: Endpoint, started: float, failure: Failure) -> None:
        """Note a failure.

        Args:
            endpoint: where.
            started: loop time at which the attempt began. What began before the last rest says
                nothing new: when a server dies, all that it worked on fails at once.
            failure: `busy` pauses the endpoint, several others in a row rest it.
        """
        endpoint.row += 1
        if failure.kind == "busy" or failure.wait_s is not None:
            wait = failure.wait_s
            self._pause(endpoint, self.backoff.pause(endpoint.row) if wait is None else wait)
        elif endpoint.row >= _REST_AFTER and started >= endpoint.struck_at:
            endpoint.strikes += 1
            endpoint.struck_at = self._loop.time()
            bound = self.backoff.bound(endpoint.strikes)
            rest = (bound + self.backoff.pause(endpoint.strikes)) / 2
            _logger.warning("%s; that server rests for %.1f s", failure.message, rest)
            self._pause(endpoint, rest)

    def given_up(self, failed: Mapping[Endpoint, int]) -> bool:
        """Is there no endpoint left that a request with these failures could go to?"""
        return all(
            max(failed.get(endpoint, 0), endpoint.strikes) >= self.max_attempts
            for endpoint in self.endpoints
        )

    def _choose(self, failed: Mapping[Endpoint, int]) -> Endpoint | None:
        now = self._loop.time()
        best, order = None, (0, 0)
        for endpoint in self.endpoints:
            failures = failed.get(endpoint, 0)
            free = self._free(endpoint)
            if free <= 0 or endpoint.paused_until > now or failures >= self.max_attempts:
                continue
            if best is None or (failures, -free) < order:
                best, order = endpoint, (failures, -free)
        return best

    def _free(self, endpoint: Endpoint) -> int:
        return (1 if endpoint.strikes else self.slots) - endpoint.in_flight

    def _pause(self, endpoint: Endpoint, seconds: float) -> None:
        endpoint.paused_until = max(endpoint.paused_until, self._loop.time() + seconds)
        self._loop.call_at(endpoint.paused_until + 1e-3, self._wake)

    def _wake(self) -> None:
        """Let as many look again as there are slots."""
        now = self._loop.time()
        free = sum(max(0, self._free(e)) for e in self.endpoints if e.paused_until <= now)
        while free > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                free -= 1
