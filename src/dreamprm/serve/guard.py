"""What stands before every route: key, host, sizes, time-outs, clients that go away, bugs.

It reads a body to its end before any other code sees the request, so it can be refused at once
where it is too large, comes too slowly, or has no key. While the request is worked on, it waits for
the client to go, which cancels the work. Errors have OpenAI's shape; none of them repeats what was
sent, and a bug is an error without its traceback, which the log has.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dreamprm.errors import shortened
from dreamprm.serve.wire import Limits

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from dreamprm.serve.metrics import Metrics

OPEN = ("/", "/health")
"""Paths that need no key."""
LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")

_BODIES_AT_HAND = 16  # of the largest size, in memory at once
_RETRY_S = 1
_DRAIN_S = 0.8
_logger = logging.getLogger(__name__)

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class Refused(Exception):
    """A request that is answered with an error.

    Args:
        status: of the reply.
        message: for the client.
        param: the field that is wrong.
        retry_after: seconds.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, {"content-type": "application/json"}
        if retry_after is not None:
            self.headers["retry-after"] = str(retry_after)
        if status == 401:
            self.headers["www-authenticate"] = "Bearer"
        kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
        self.content = {"error": {"message": message, "type": kind, "param": param, "code": code}}


class Guard:
    """ASGI middleware, see the module.

    Args:
        key: that clients send as a bearer token; None: no key, and then requests must be for this
            machine by name, so that no web page can send them here under a name of its own.
    """

    def __init__(self, app: ASGIApp, key: str | None, limits: Limits, metrics: Metrics) -> None:
        self.app, self._key, self._limits, self._metrics = app, key, limits, metrics
        self._requests = self._bytes = 0  # at hand

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        reply, start = _Reply(send), time.monotonic()
        self._requests += 1
        try:
            await self._answer(scope, receive, reply)
        except Refused as refused:
            await reply.error(refused)
        except Exception as error:
            frames = "".join(traceback.format_tb(error.__traceback__))
            _logger.error("%s in %s\n%s", type(error).__name__, scope["path"], frames)
            await reply.error(Refused(500, "internal error; the server's log tells more"))
        finally:
            self._requests -= 1
            self._bytes -= reply.held
            path = getattr(scope.get("route"), "path", "other")
            self._metrics.request(path, reply.status, time.monotonic() - start)

    async def _answer(self, scope: Scope, receive: Receive, reply: _Reply) -> None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        self._check_sender(scope["path"], headers)
        if scope["method"] == "POST" and self._requests > self._limits.max_requests:
            raise Refused(429, "the server has too much to do", retry_after=_RETRY_S)
        body: bytes | None = await self._body(headers, receive, reply)
        gone = asyncio.ensure_future(_until_gone(receive))

        async def replay() -> Message:
            nonlocal body
            if body is not None:
                whole, body = body, None
                return {"type": "http.request", "body": whole, "more_body": False}
            await asyncio.shield(gone)
            return {"type": "http.disconnect"}

        work = asyncio.ensure_future(self.app(scope, replay, reply.send))
        try:
            await asyncio.wait(
                {work, gone},
                timeout=self._limits.timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if work.done() or reply.complete:
                return await work
            if not gone.done():
                raise Refused(504, f"no answer within {self._limits.timeout_s:g} s", code="timeout")
            reply.status = reply.status or 499  # as nginx calls it; nobody gets it
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    def _check_sender(self, path: str, headers: Mapping[bytes, bytes]) -> None:
        if self._key is None:
            host = headers.get(b"host", b"").decode("latin-1").lower()
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if name not in LOCAL_HOSTS:
                raise Refused(403, "without a key this server is for localhost alone")
        elif path not in OPEN:
            scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
            known = hmac.compare_digest(token.strip(), self._key.encode())
            if scheme.lower() != b"bearer" or not known:
                raise Refused(401, "the API key is missing or wrong", code="invalid_api_key")

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive, reply: _Reply) -> bytes:
        most = self._limits.max_body_bytes
        said = headers.get(b"content-length", b"0")
        if said.isdigit() and int(said[:20]) > most:
            await _drain(receive)
            raise _too_large(most)
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                while (message := await receive())["type"] == "http.request":
                    part = message.get("body", b"")
                    body += part
                    self._bytes += len(part)
                    reply.held += len(part)
                    if len(body) > most:
                        body.clear()
                        await _drain(receive)
                        raise _too_large(most)
                    if self._bytes > _BODIES_AT_HAND * most:
                        raise Refused(429, "the server has too much to do", retry_after=_RETRY_S)
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            raise Refused(408, "the request did not come in within time") from None
        return bytes(body)


class _Reply:
    """What is sent to a client, and the bytes that its request holds in memory."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = self.held = 0
        self.complete = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.complete = not message.get("more_body", False)
        await self._send(message)

    async def error(self, refused: Refused) -> None:
        """Answer with an error, where no answer has been begun."""
        if self.status:
            return
        headers = [(name.encode(), value.encode()) for name, value in refused.headers.items()]
        status = refused.status
        if status in (408, 413):  # the rest of the body is not read
            headers.append((b"connection", b"close"))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send(
            {"type": "http.response.body", "body": json.dumps(refused.content).encode()}
        )


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _drain(receive: Receive) -> None:
    """Let a client finish sending, for a while: one that is cut off does not read the answer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_S):
            while (await receive()).get("more_body"):
                pass


def _too_large(most: int) -> Refused:
    return Refused(413, f"the body is larger than {most:,} bytes")


def first_problem(errors: Sequence[Any]) -> Refused:
    """What pydantic found wrong first with a body, without what it was."""
    # Of a field that takes several types, pydantic tells what each would want, and names it.
    same = [error for error in errors if error["loc"][:2] == errors[0]["loc"][:2]]
    first = max(same, key=lambda error: len(error["loc"]))
    parts = [str(p) for p in first["loc"] if isinstance(p, int) or p.isidentifier()]
    where = ".".join(parts[1:])  # behind "body"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"].startswith("union_tag"):  # else it repeats what was sent
        message = f"type must be one of {first['ctx'].get('expected_tags', 'those known')}"
    message = shortened(f"{where}: {message}" if where else message)
    return Refused(400, message, shortened(where, 100) or None)


def no_model() -> Refused:
    """The error for a name that is none of the served ones."""
    message = "no model of this name is served; see /v1/models"
    return Refused(404, message, "model", "model_not_found")
