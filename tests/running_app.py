"""An application behind uvicorn, in a thread, as `dreamprm serve` runs it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def running(app: Any) -> Iterator[str]:
    """Its URL; it is stopped as by a signal, and must end."""
    from dreamprm.serve.server import server

    listening = server(app, "127.0.0.1", 0, log_level="warning")
    thread = threading.Thread(target=listening.run)
    thread.start()
    try:
        while not listening.started and thread.is_alive():
            time.sleep(0.01)
        port = listening.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        listening.should_exit = True
        thread.join(20)
    assert not thread.is_alive()
