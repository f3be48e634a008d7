"""Several servers of one model: which one is asked, when it is asked again, what its failures mean.

Failures are of five kinds: this attempt went wrong and another may not (`again`), the server has
too much to do (`busy`), it will never answer this request (`refused`), it will answer none of ours
(`fatal`: key, address, model), or no server has answered anything for too long (`silent`).

A request goes to the server with most free slots. A server that fails again and again is rested,
longer each time, and then asked for a word before it gets requests again; one that says it has too
much to do is left alone for as long as it asks, by all requests. So a request's own failures are
those at a server that works otherwise: `max_attempts` of them, and the request is left out while
the run goes on. That no server answers is no request's fault, and ends the run after
`give_up_after_s`.

The openai client's own retries (`max_retries`) do not do that: they stay at one server, keep their
slot while they wait, pause one request where the server meant all of them, and drop a `Retry-After`
of more than two minutes.

Every error that a user may see is made here, and the key is never part of it, not even where a
server repeats it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

from dreamprm.errors import DreamPRMError
from dreamprm.policy import NoReply, RequestRefused
from dreamprm.policy.keys import NO_KEY, Key

if TYPE_CHECKING:
    from openai import AsyncOpenAI

GREETING_S = 60.0
"""Longest attempt of a greeting, which asks for a word or two; real requests may take longer."""

_LONGEST_WAIT_S = 1e8  # three years; clocks end somewhere
_LONGEST_MESSAGE = 300

Kind = Literal["again", "busy", "refused", "fatal", "silent"]


OK = 200
"""Status of a failure that is a reply which cannot be used."""


class RequestFailed(RequestRefused):
    """One request that failed in each of its attempts, at servers that answered others."""


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
        if self.kind == "again":
            return (NoReply if self.status == OK else RequestFailed)(self.message)
        return DreamPRMError(
            f"{self.message}; what is done is kept: run the same command again to go on"
        )


def failure_of_status(status: int, headers: Mapping[str, str], body: object) -> Failure:
    """What an HTTP reply other than 2xx means.

    Args:
        status: of the reply.
        headers: of the reply; any case if the mapping does not care.
        body: parsed JSON, its `error` object, or the raw text.
    """
    message = f"{status} {server_message(body)}".rstrip()
    if 300 <= status < 400:
        target = headers.get("location", "nowhere")
        return Failure("again", f"{status}, a redirect to {target}, which is not followed", status)
    wait = read_wait(headers)
    if status == 429 and "insufficient_quota" in _text(body):
        return Failure("fatal", f"{message}; the account has no quota left", status)  # nor later
    if status in (408, 409, 429) or status >= 500:
        busy = status == 429 or wait is not None
        return Failure("busy" if busy else "again", message, status, wait)
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
        if 0 < seconds < float("inf"):  # one that is over asks for nothing
            return min(seconds, _LONGEST_WAIT_S)
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
    return "" if body is None else _text(body)


def _text(body: object) -> str:
    try:
        return str(body)
    except RecursionError:
        return "(nested too deeply)"


def one_line(text: str) -> str:
    """Text without line breaks, shortened."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]} ..."


_logger = logging.getLogger(__name__)

_REST_AFTER = 3  # failures in a row; single ones happen to healthy servers too
_WORTH_TELLING_S = 30.0  # crowded servers pause for seconds all the time


class Endpoint:
    """One server, as the pool sees it. Times are those of the event loop.

    Attributes:
        url: its base URL.
        in_flight: requests that it is working on.
        row: failures since its last answer.
        doubted: it has to say a word before it gets requests, and is asked by one at a time.
        paused_until: before then nobody is sent there.
        struck_at: when it was last paused; what began before then says nothing new: when a server
            dies, all that it worked on fails at once.
        away_since: its first failure since its last answer; None where there is none.
        failure: its last one.
        told_at, told: when the user was last told of its pauses, and whether its return is news.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.in_flight = self.row = 0
        self.doubted = self.told = False
        self.paused_until = self.struck_at = 0.0
        self.away_since: float | None = None
        self.told_at: float | None = None
        self.failure = Failure("again", f"{url}: no answer yet")


class Pool:
    """Slots of all endpoints; lives in one event loop.

    Args:
        urls: base URLs.
        slots: requests in flight at each.
        give_up_after_s: how long no endpoint may answer before all requests are given up.
        backoff: length of the pauses.
    """

    def __init__(
        self, urls: Sequence[str], slots: int, give_up_after_s: float, backoff: Backoff
    ) -> None:
        self.endpoints = [Endpoint(url) for url in urls]
        self.slots, self.give_up_after_s, self.backoff = slots, give_up_after_s, backoff
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._asking = 0

    @contextmanager
    def asking(self) -> Iterator[None]:
        """While a request is asked; where it is the only one, no silence before it counts."""
        if not self._asking:
            for endpoint in self.endpoints:
                if endpoint.away_since is not None:
                    endpoint.away_since = self._loop.time()
        self._asking += 1
        try:
            yield
        finally:
            self._asking -= 1

    async def take(self, failed: Mapping[Endpoint, int], url: str = "") -> Endpoint | None:
        """Wait for a slot; `release` gives it back. None once the pool gives up.

        Args:
            failed: how often this request has failed at an endpoint; others are preferred.
            url: of the endpoint that is asked first, where it has a slot.
        """
        while (endpoint := self._choose(failed, url)) is None:
            if self.gives_up():
                return None
            await self._changed.wait()
        endpoint.in_flight += 1
        return endpoint

    def doubt(self, urls: Collection[str]) -> None:
        """Ask these servers, which have not answered, for a word before they get requests."""
        for endpoint in self.endpoints:
            endpoint.doubted = endpoint.doubted or endpoint.url in urls

    def release(self, endpoint: Endpoint) -> None:
        """Give a slot back."""
        endpoint.in_flight -= 1
        self._wake()

    def trust(self, endpoint: Endpoint) -> None:
        """Note that it has said a word; only a request's answer shows that nothing is wrong."""
        endpoint.doubted = False
        self._wake()

    def answered(self, endpoint: Endpoint) -> None:
        """Note an answer: whatever was wrong with this endpoint is over."""
        endpoint.row, endpoint.away_since = 0, None
        if endpoint.told:
            _logger.warning("%s answers again", endpoint.url)
            endpoint.told = False
        if endpoint.doubted:
            endpoint.doubted, endpoint.paused_until = False, 0.0
            self._wake()

    def failed(self, endpoint: Endpoint, started: float, failure: Failure) -> None:
        """Note a failure.

        Args:
            endpoint: where.
            started: when the attempt began.
            failure: `busy` pauses the endpoint, several others in a row rest it.
        """
        now = self._loop.time()
        endpoint.failure = failure
        if endpoint.away_since is None:
            endpoint.away_since = now
        pause = failure.wait_s or 0.0
        if started >= endpoint.struck_at:
            endpoint.row += 1
            rests = endpoint.row - _REST_AFTER + 1
            if failure.kind == "busy" and failure.wait_s is None:
                pause = self.backoff.pause(endpoint.row)
            elif failure.kind != "busy" and rests > 0:
                endpoint.doubted = True
                pause = (self.backoff.bound(rests) + self.backoff.pause(rests)) / 2
        if not pause:
            return
        until, end = now + pause, self._end()
        if end is not None and failure.wait_s is None and now < end:
            until = min(until, end)  # for a last try before giving up
        endpoint.struck_at = now
        endpoint.paused_until = max(endpoint.paused_until, until)
        self._loop.call_at(endpoint.paused_until + 1e-3, self._wake)
        if failure.kind != "busy" or until - endpoint.away_since > _WORTH_TELLING_S:
            self._tell(endpoint)

    def gives_up(self) -> bool:
        """Has no endpoint answered for so long, or is none to be asked before that time is over?"""
        end = self._end()
        if end is None or any(endpoint.in_flight for endpoint in self.endpoints):
            return False
        return end <= self._loop.time() or end < min(e.paused_until for e in self.endpoints)

    def silence(self) -> Failure:
        """What those who wait are told once it has given up."""
        causes = "; ".join(
            f"{endpoint.failure.message}{self._asks_for_pause(endpoint)}"
            for endpoint in self.endpoints
        )
        limit = f"give_up_after_s {self.give_up_after_s:g}"
        return Failure("silent", f"{causes}; given up because no server answers ({limit})")

    def _end(self) -> float | None:
        """When the pool gives up; None while an endpoint works."""
        since = [endpoint.away_since for endpoint in self.endpoints]
        known = [at for at in since if at is not None]
        return max(known) + self.give_up_after_s if len(known) == len(since) else None

    def _choose(self, failed: Mapping[Endpoint, int], url: str) -> Endpoint | None:
        now = self._loop.time()
        usable = [e for e in self.endpoints if self._free(e) > 0 and e.paused_until <= now]
        return min(
            usable,
            key=lambda e: (failed.get(e, 0), e.url != url, -self._free(e)),
            default=None,
        )

    def _free(self, endpoint: Endpoint) -> int:
        return (1 if endpoint.doubted else self.slots) - endpoint.in_flight

    def _tell(self, endpoint: Endpoint) -> None:
        """Say that an endpoint is paused: at once, then each time that took as long again."""
        now, away_since = self._loop.time(), endpoint.away_since or 0.0
        if endpoint.told_at is not None and now < endpoint.told_at + max(
            60.0, endpoint.told_at - away_since
        ):
            return
        endpoint.told_at, endpoint.told = now, True
        again = self._asks_for_pause(endpoint)
        if not again:
            again = f"; it is asked again at {self._clock(endpoint.paused_until)}"
            again += f", then at least every {self.backoff.longest_s:g} s"
        end = self._end()
        if any(not e.doubted and e.paused_until <= now for e in self.endpoints) or end is None:
            rest = "the others go on"
        else:
            rest = f"no server answers, and the run gives up at {self._clock(end)}"
            rest += f" (give_up_after_s {self.give_up_after_s:g})"
        _logger.warning("%s%s; %s", endpoint.failure.message, again, rest)

    def _asks_for_pause(self, endpoint: Endpoint) -> str:
        wait = endpoint.failure.wait_s
        if wait is None:
            return ""
        length = f"{wait / 3600:.1f} hours" if wait > 3600 else f"{wait:g} s"
        return f"; it asks for a pause of {length}, until {self._clock(endpoint.paused_until)}"

    def _clock(self, moment: float) -> str:
        """A time of the loop as one of the wall clock."""
        then = datetime.now() + timedelta(seconds=min(moment - self._loop.time(), _LONGEST_WAIT_S))
        return f"{then:%H:%M:%S}" if then.date() == datetime.now().date() else f"{then:%F %H:%M}"

    def _wake(self) -> None:
        """Let all who wait for a slot look again, the first to come first."""
        self._changed.set()
        self._changed = asyncio.Event()


T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """One request: `models` has no fields, `chat/completions` and `pooling` (beside /v1) have."""

    path: str
    fields: Mapping[str, Any] = field(default_factory=dict)


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


def _some_json(body: bytes, _: str) -> bytes | Failure:
    """What shows that a server is there, and not a page that stands in for it."""
    is_object = body.lstrip().startswith(b"{")
    return body if is_object else Failure("again", "the reply is no JSON object")


class Connection:
    """Clients of the servers; lives in one event loop.

    Args:
        key: sent to all of them.
        model: named in errors.
        timeout_s: of one attempt.
        max_attempts: failures of one request after which it is given up.
        backoff: pauses between the attempts of one request.
        takes_seed: base URL -> is it sent the seed of a call; those that it lacks are.
    """

    def __init__(
        self,
        key: Key,
        model: str,
        timeout_s: float,
        max_attempts: int,
        backoff: Backoff,
        takes_seed: Mapping[str, bool],
    ) -> None:
        self._key, self._model, self._takes_seed = key, model, takes_seed
        self._timeout_s, self._max_attempts, self._backoff = timeout_s, max_attempts, backoff
        self._clients: dict[str, AsyncOpenAI] = {}

    async def aclose(self) -> None:
        """Close all sockets."""
        clients = list(self._clients.values())
        self._clients.clear()
        for client in clients:
            await client.close()

    async def until_answered(
        self,
        pool: Pool,
        call: Call,
        read: Callable[[bytes, str], T | Failure],
        hello: Call | None = None,
        first: str = "",
    ) -> T | Failure:
        """Ask until there is an answer.

        Args:
            pool: where.
            call: what.
            read: the body of a reply of status 200, and the base URL it came from; a `Failure`
                means that it is not whole.
            hello: what a server in doubt is asked first; None asks it `call` at once.
            first: base URL of the server that has what this request needs in its caches, perhaps.

        Returns:
            What `read` gave, or the failure that no further attempt would mend.
        """
        loop = asyncio.get_running_loop()
        failed: Counter[Endpoint] = Counter()
        pauses = 0
        with pool.asking():
            while (endpoint := await pool.take(failed, first)) is not None:
                started = loop.time()
                try:
                    outcome = await self._ask(pool, endpoint, call, read, hello)
                finally:
                    pool.release(endpoint)  # a slot is not held while backing off
                if not isinstance(outcome, Failure) or outcome.kind in ("refused", "fatal"):
                    pool.answered(endpoint)
                    return outcome
                # What a full server or one in doubt does is not this request's failure.
                if outcome.kind == "again" and (hello is None or not endpoint.doubted):
                    failed[endpoint] += 1
                pool.failed(endpoint, started, outcome)
                if failed.total() >= self._max_attempts:
                    message = f"{outcome.message} (given up after {failed.total()} failed attempts)"
                    return Failure("again", message, outcome.status)
                if not pool.gives_up():
                    pauses += 1
                    await asyncio.sleep(self._backoff.pause(pauses))
            return pool.silence()

    async def _ask(
        self,
        pool: Pool,
        endpoint: Endpoint,
        call: Call,
        read: Callable[[bytes, str], T | Failure],
        hello: Call | None,
    ) -> T | Failure:
        if hello is not None and endpoint.doubted:
            limit_s = min(self._timeout_s, GREETING_S)
            word = await self._attempt(endpoint.url, hello, _some_json, limit_s)
            if isinstance(word, Failure) and word.kind != "refused":
                return word
            pool.trust(endpoint)
        return await self._attempt(endpoint.url, call, read, self._timeout_s)

    async def _attempt(
        self, url: str, call: Call, read: Callable[[bytes, str], T | Failure], limit_s: float
    ) -> T | Failure:
        """One request; failures are returned, so that no exception of the client's, which may hold
        the key in a reply, is ever in an error's history.
        """
        import openai

        from dreamprm.policy.http import ReplyTooLong

        try:
            async with asyncio.timeout(limit_s):
                body = await self._send(url, call)
            outcome = read(body, url)
        except TimeoutError:
            outcome = Failure("again", f"no reply within {limit_s:g} s")
        except ReplyTooLong as error:
            outcome = Failure("again", str(error))
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

    async def _send(self, url: str, call: Call) -> bytes:
        client = self._client(url)
        if call.path == "models":
            return (await client.models.with_raw_response.list()).content
        if call.path == "pooling":  # not of OpenAI's interface
            address = f"{url.removesuffix('/v1')}/pooling"
            return await client.post(address, body=dict(call.fields), cast_to=bytes)
        # All through extra_body: it takes fields that OpenAI's own interface does not have, and
        # spares a walk over the messages that costs a sixth of the whole call.
        fields = dict(call.fields)
        if not self._takes_seed.get(url, True):
            fields.pop("seed", None)
        raw = await client.chat.completions.with_raw_response.create(
            model=self._model, messages=(), extra_body=fields
        )
        return raw.content

    def _told(self, failure: Failure, url: str) -> Failure:
        """The failure as it may be shown: where, what, how to mend it, and no key."""
        message = f"{url}: {one_line(self._key.mask(failure.message))}"
        if failure.status in (401, 403):
            unset = " (it is unset)" if self._key.value == NO_KEY else ""
            message += f"; the server does not take the key in {self._key.variable}{unset}"
        elif failure.status == 404:
            message += f"; is the model '{self._model}' served there, and does the URL end in /v1?"
        return Failure(failure.kind, message, failure.status, failure.wait_s)

    def _client(self, url: str) -> AsyncOpenAI:
        if url not in self._clients:
            from openai import AsyncOpenAI, Timeout

            from dreamprm.policy.http import BoundedClient

            # Our own HTTP client, because the default one closes itself when it is collected, by
            # then in another event loop. Reading is bounded by the deadline of the attempt.
            timeout = Timeout(self._timeout_s, connect=min(self._timeout_s, 30.0))
            self._clients[url] = AsyncOpenAI(
                api_key=self._key.value,
                base_url=url,
                max_retries=0,
                timeout=timeout,
                http_client=BoundedClient(timeout=timeout),
            )
        return self._clients[url]
