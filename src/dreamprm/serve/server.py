"""The process that listens: uvicorn, with a bound on heads of requests that never end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from starlette.types import ASGIApp

HEAD_S = 20.0
"""Seconds in which a new connection must send a whole head; uvicorn waits for ever."""
STOP_S = 30
"""Seconds that requests at hand are given once the server is told to stop."""


class _Protocol(H11Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(HEAD_S, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


def serve(app: ASGIApp, host: str, port: int, **options: Any) -> None:
    """Listen until interrupted or told to stop; what is at hand then is finished."""
    server(app, host, port, **options).run()


def server(app: ASGIApp, host: str, port: int, **options: Any) -> uvicorn.Server:
    """The server of uvicorn; its access log names paths and statuses, no contents."""
    config = uvicorn.Config(
        app,
        host,
        port,
        http=_Protocol,
        ws="none",
        timeout_graceful_shutdown=STOP_S,
        server_header=False,
        **options,
    )
    return uvicorn.Server(config)
