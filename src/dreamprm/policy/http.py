"""The HTTP client that asks servers: what a reply may make it do is bounded."""

from __future__ import annotations

from typing import Any

from openai import DefaultAsyncHttpxClient

LARGEST_REPLY = 2**24
"""Bytes of a reply, unpacked: 1,024 samples of 4,096 tokens of four letters."""

_LARGEST_ERROR = 2**16  # bytes that are read of the reply of a request that failed
_MOST_REDIRECTS = 3
_READ = ("retry-after", "retry-after-ms", "location")


class ReplyTooLong(Exception):
    """A reply of more than `LARGEST_REPLY` bytes."""


class BoundedClient(DefaultAsyncHttpxClient):
    """Stops reading at `LARGEST_REPLY` bytes, and follows redirects within one origin only.

    What a reply holds is its status, its bytes and the headers that are read: its charset and
    encoding are dealt with here.
    """

    async def send(self, request: Any, **options: Any) -> Any:
        """See the client of httpx; a reply is always read.

        Raises:
            ReplyTooLong: a good reply does not end in time.
        """
        options |= {"stream": True, "follow_redirects": False}
        for redirects in range(_MOST_REDIRECTS + 1):
            response = await super().send(request, **options)
            target = response.next_request
            if target is None or redirects == _MOST_REDIRECTS or _leaves(request.url, target.url):
                break
            await response.aclose()
            request = target
        try:
            body = await _read(response)
        finally:
            await response.aclose()
        headers = {name: value for name, value in response.headers.items() if name in _READ}
        kind = type(response)  # of httpx or httpx2, whichever openai uses
        return kind(response.status_code, headers=headers, content=body, request=request)


def _leaves(url: Any, target: Any) -> bool:
    """Is the target of another origin?"""
    return any(getattr(url, part) != getattr(target, part) for part in ("scheme", "host", "port"))


async def _read(response: Any) -> bytes:
    body = bytearray()
    limit = _LARGEST_ERROR if response.status_code >= 300 else LARGEST_REPLY
    async for part in response.aiter_bytes():
        body += part
        if len(body) > limit:
            if response.status_code >= 300:
                break
            raise ReplyTooLong(
                f"the reply is longer than {LARGEST_REPLY >> 20} MiB; ask for fewer samples at "
                "once (max_n)"
            )
    return bytes(body[:limit])
