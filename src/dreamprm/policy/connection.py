"""Requests to the servers of a pool, made until one is answered.

Everything that a user may see of a failure goes through here, and the key is never part of it, not
even where a server repeats it.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from dreamprm.errors import DreamPRMError
from dreamprm.policy.pool import Endpoint, Pool
from dreamprm.policy.retrying import Backoff, Failure, failure_of_status, one_line

if TYPE_CHECKING:
    from openai import AsyncOpenAI

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

    async def close(self) -> None:
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
            if not isinstance(outcome, Failure):
                pool.answered(endpoint)
                return outcome
            if outcome.kind in ("refused", "fatal"):
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
