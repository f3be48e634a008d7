"""Several servers of one model: which one is asked, when it is asked again, what its failures mean.

Failures are of four kinds: this attempt went wrong and another may not (`again`), the server has
too much to do (`busy`), it will never answer this request (`refused`), or it will answer none of
ours (`fatal`: key, address, model).

A request goes to the server with most free slots. A server that fails again and again is rested,
longer each time, and then tried by one request; one that says it has too much to do is left alone
for as long as it asks, by all requests. The openai client's own retries (`max_retries`) do not do
that: they stay at one server, keep their slot while they wait, pause one request where the server
meant all of them, and drop a `Retry-After` of more than two minutes.

Every error that a user may see is made here, and the key is never part of it, not even where a
server repeats it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

from dreamprm.errors import DreamPRMError
from dreamprm.policy import RequestRefused

if TYPE_CHECKING:
    from openai import AsyncOpenAI

LONGEST_WAIT_S = 3600.0
"""A server that asks for a longer pause (a daily quota, say) ends the run instead of hiding it."""

_LONGEST_MESSAGE = 300

Kind = Literal["again", "busy", "refused", "fatal"]


@dataclass(frozen=True)
class Backoff:
    """Exponential back-off with full jitter, so that clients that failed together part again.

    Attributes:
        first_s: upper bound of the first pause; it doubles with each failure.
        longest_s: bound of all pauses.
    """

    first_s: float = 0.5
    longest_s: float = 60.0

    def bound(self, failures: int) -> float:
        """The longest pause after so many failures (1 and up)."""
        return min(self.longest_s, self.first_s * 2.0 ** min(failures - 1, 30))

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures (1 and up)."""
        return random.uniform(0.0, self.bound(failures))


@dataclass(frozen=True)
class Failure:
    """Why one attempt gave nothing.

    Attributes:
        kind: see the module.
        message: one line for the user.
        status: HTTP status; None when no reply came.
        wait_s: the pause that the server asks for.
    """

    kind: Kind
    message: str
    status: int | None = None
    wait_s: float | None = None

    def error(self) -> DreamPRMError:
        """What the caller of a policy is told."""
        if self.kind == "refused":
            return RequestRefused(self.message)
        return DreamPRMError(f"{self.message}; what was sampled before is kept")


def failure_of_status(status: int, headers: Mapping[str, str], body: object) -> Failure:
    """What an HTTP reply other than 2xx means.

    Args:
        status: of the reply.
        headers: of the reply; any case if the mapping does not care.
        body: parsed JSON, its `error` object, or the raw text.
    """
    message = f"{status} {server_message(body)}".rstrip()
    wait = read_wait(headers)
    if wait is not None and wait > LONGEST_WAIT_S:
        pause = f"asks for a pause of {wait / 3600:.1f} hours; run again then"
        return Failure("fatal", f"{message}; the server {pause}", status, wait)
    if status == 429:
        if "insufficient_quota" in json.dumps(body, default=str):  # time does not mend this one
            return Failure("fatal", f"{message}; the account has no quota left", status)
        return Failure("busy", message, status, wait)
    if status in (408, 409) or status >= 500:
        return Failure("again", message, status, wait)
    return Failure("refused" if status in (400, 413, 422) else "fatal", message, status)


def read_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that `retry-after-ms` or `retry-after` (seconds or an HTTP date) ask for."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        if not text:
            continue
        try:
            seconds = float(text) * unit
        except ValueError:
            seconds = _until(text)
        if 0 <= seconds < float("inf"):
            return seconds
    return None


def _until(date: str) -> float:
    """Seconds from now to an HTTP date, 0 for a past one; -1 where it cannot be read."""
    try:
        moment = parsedate_to_datetime(date)
    except ValueError:
        return -1.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def server_message(body: object) -> str:
    """The sentence in an error body; servers keep it in `error`, `message` or `detail`."""
    while isinstance(body, dict):
        inner = body.get("error") or body.get("message") or body.get("detail")
        if inner is None:
            break
        body = inner
    if isinstance(body, list) and body:  # FastAPI: one entry per bad field
        entry: Any = body[0]
        body = f"{entry.get('loc')}: {entry.get('msg')}" if isinstance(entry, dict) else entry
    return "" if body is None else str(body)


def one_line(text: str) -> str:
    """Text without line breaks, shortened."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]} ..."


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
        self._changed = asyncio.Event()

    async def take(self, failed: Mapping[Endpoint, int]) -> Endpoint:
        """Wait for a slot; `release` gives it back.

        Args:
            failed: how often this request has failed at an endpoint; others are preferred.
        """
        while (endpoint := self._choose(failed)) is None:
            await self._changed.wait()
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
        usable = [
            endpoint
            for endpoint in self.endpoints
            if self._free(endpoint) > 0
            and endpoint.paused_until <= now
            and failed.get(endpoint, 0) < self.max_attempts
        ]
        return min(usable, key=lambda e: (failed.get(e, 0), -self._free(e)), default=None)

    def _free(self, endpoint: Endpoint) -> int:
        return (1 if endpoint.strikes else self.slots) - endpoint.in_flight

    def _pause(self, endpoint: Endpoint, seconds: float) -> None:
        endpoint.paused_until = max(endpoint.paused_until, self._loop.time() + seconds)
        self._loop.call_at(endpoint.paused_until + 1e-3, self._wake)

    def _wake(self) -> None:
        """Let all who wait for a slot look again, the first to come first."""
        self._changed.set()
        self._changed = asyncio.Event()


T = TypeVar("T")

NO_KEY = "EMPTY"
"""What servers without keys are usually sent."""


@dataclass(frozen=True)
class Call:
    """One request: `models` has no fields, `chat/completions` has."""

    path: str
    fields: Mapping[str, Any] = field(default_factory=dict)


def read_key(variable: str) -> str:
    """The key in an environment variable, `NO_KEY` where it is unset.

    Raises:
        DreamPRMError: it has characters that an HTTP header cannot carry.
    """
    key = os.environ.get(variable, "").strip() or NO_KEY
    if not (key.isascii() and key.isprintable()):
        raise DreamPRMError(
            f"environment variable {variable} holds characters that no key has (a line break or "
            "an accent, say); set it again"
        )
    return key


def check_url(url: str) -> str:
    """A base URL in one spelling.

    Raises:
        DreamPRMError: it is no URL of a server, or holds what may be a secret: addresses are shown
            and logged.
    """
    url = url.strip()
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # read, because only reading checks it
    except ValueError as error:
        # Not even parsed, so a secret cannot be told from the rest of it.
        said = "a base URL cannot be read" if "@" in url or "?" in url else f"'{url}': {error}"
        raise DreamPRMError(f"{said}; write it like http://localhost:8000/v1") from None
    if parts.username or parts.password or parts.query or parts.fragment:
        raise DreamPRMError(
            f"the base URL of {parts.hostname} has more in it than scheme, host, port and path; a "
            "key belongs into the environment variable"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DreamPRMError(f"'{url}' is no base URL; write it like http://localhost:8000/v1")
    return url.rstrip("/")


class Connection:
    """Clients of the servers; lives in one event loop.

    Args:
        key: sent to all of them.
        key_variable: where it came from.
        model: named in errors.
        timeout_s: of one attempt.
        backoff: pauses between the attempts of one request.
    """

    def __init__(
        self, key: str, key_variable: str, model: str, timeout_s: float, backoff: Backoff
    ) -> None:
        self._key, self._key_variable, self._model = key, key_variable, model
        self._timeout_s, self._backoff = timeout_s, backoff
        self._clients: dict[str, AsyncOpenAI] = {}

    async def aclose(self) -> None:
        """Close all sockets."""
        clients = list(self._clients.values())
        self._clients.clear()
        for client in clients:
            await client.close()

    async def until_answered(
        self, pool: Pool, call: Call, read: Callable[[bytes, str], T | Failure]
    ) -> T | Failure:
        """Ask until there is an answer.

        Args:
            pool: where.
            call: what.
            read: the body of a reply of status 200, and the base URL it came from; a `Failure`
                means that it is not whole.

        Returns:
            What `read` gave, or the failure that no further attempt would mend.
        """
        loop = asyncio.get_running_loop()
        failed: Counter[Endpoint] = Counter()
        answers: dict[Endpoint, int] = {}
        attempts = 0
        while True:
            endpoint = await pool.take(failed)
            started = loop.time()
            try:
                outcome = await self._attempt(endpoint.url, call, read)
            finally:
                pool.release(endpoint)  # a slot is not held while backing off
            if not isinstance(outcome, Failure) or outcome.kind in ("refused", "fatal"):
                pool.answered(endpoint)
                return outcome
            attempts += 1
            failed[endpoint] += 1
            # A full server that has answered others meanwhile is alive: wait however long it takes.
            if (
                outcome.kind == "busy"
                and answers.get(endpoint, endpoint.answers) < endpoint.answers
            ):
                failed[endpoint] = 0
            answers[endpoint] = endpoint.answers
            pool.failed(endpoint, started, outcome)
            if pool.given_up(failed):
                message = f"{outcome.message} (given up after {attempts} failed attempts)"
                return Failure("again", message, outcome.status)
            await asyncio.sleep(self._backoff.pause(attempts))

    async def _attempt(
        self, url: str, call: Call, read: Callable[[bytes, str], T | Failure]
    ) -> T | Failure:
        """One request; failures are returned, so that no exception of the client's, which may hold
        the key in a reply, is ever in an error's history.
        """
        import openai

        try:
            async with asyncio.timeout(self._timeout_s):
                body = await self._send(self._client(url), call)
            outcome = read(body, url)
        except TimeoutError:
            outcome = Failure("again", f"no reply within {self._timeout_s:g} s")
        except openai.APIStatusError as error:
            said = error.body if error.body is not None else error.response.text
            outcome = failure_of_status(error.status_code, error.response.headers, said)
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            outcome = Failure("again", f"{type(cause).__name__} {cause}".rstrip())
        except Exception as error:
            if type(error).__name__ != "InvalidURL":  # of httpx or httpx2, whichever openai uses
                raise
            outcome = Failure("fatal", f"{error}; correct the base URL")
        return self._told(outcome, url) if isinstance(outcome, Failure) else outcome

    async def _send(self, client: AsyncOpenAI, call: Call) -> bytes:
        if call.path == "models":
            return (await client.models.with_raw_response.list()).content
        # All through extra_body: it takes fields that OpenAI's own interface does not have, and
        # spares a walk over the messages that costs a sixth of the whole call.
        raw = await client.chat.completions.with_raw_response.create(
            model=self._model, messages=(), extra_body=dict(call.fields)
        )
        return raw.content

    def _told(self, failure: Failure, url: str) -> Failure:
        """The failure as it may be shown: where, what, how to mend it, and no key."""
        message = failure.message
        if self._key != NO_KEY:
            message = message.replace(self._key, "***")
        message = f"{url}: {one_line(message)}"
        if failure.status in (401, 403):
            unset = " (it is unset)" if self._key == NO_KEY else ""
            message += f"; the server does not take the key in {self._key_variable}{unset}"
        elif failure.status == 404:
            message += f"; is the model '{self._model}' served there, and does the URL end in /v1?"
        return Failure(failure.kind, message, failure.status, failure.wait_s)

    def _client(self, url: str) -> AsyncOpenAI:
        if url not in self._clients:
            from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout

            # Our own HTTP client, because the default one closes itself when it is collected, by
            # then in another event loop. Reading is bounded by the deadline of the attempt.
            timeout = Timeout(self._timeout_s, connect=min(self._timeout_s, 30.0))
            self._clients[url] = AsyncOpenAI(
                api_key=self._key,
                base_url=url,
                max_retries=0,
                timeout=timeout,
                http_client=DefaultAsyncHttpxClient(timeout=timeout),
            )
        return self._clients[url]
