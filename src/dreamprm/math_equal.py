"""Are two mathematical expressions equal? math-verify, in a helper process.

Computer algebra can run for ever or eat all memory on a short input ("9^9^9^9"), and math-verify's
own time limit relies on signals: it works in the main thread only and cannot stop a computation in
C. So one helper process answers all questions; its alarm ends it when one takes too long, and the
next question starts a new one. This works from any thread, and sympy is never loaded here.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from functools import lru_cache

SECONDS_PER_QUESTION = 5
_BYTES_OF_MEMORY = 4 << 30
_LONGEST = 500  # characters; longer texts are prose, not answers

_lock = threading.Lock()
_helper: subprocess.Popen[str] | None = None
_helper_owner = 0


@lru_cache(maxsize=65536)
def math_equal(answer: str, gold: str) -> bool:
    """True when math-verify finds the two equal; False also when it needs too long."""
    if max(len(answer), len(gold)) > _LONGEST:
        return False
    global _helper, _helper_owner
    with _lock:
        if _helper is None or _helper.poll() is not None or _helper_owner != os.getpid():
            # A forked child must not talk over its parent's pipe, hence the owner.
            _helper, _helper_owner = _start(), os.getpid()
        assert _helper.stdin is not None and _helper.stdout is not None
        try:
            _helper.stdin.write(json.dumps([gold, answer]) + "\n")
            _helper.stdin.flush()
            reply = _helper.stdout.readline()
        except OSError:
            reply = ""
        if not reply:  # the alarm ended it
            _end(_helper)
            _helper = None
    return reply == "1\n"


def _start() -> subprocess.Popen[str]:
    return subprocess.Popen(
        # -P: the names of our modules must not shadow others
        [sys.executable, "-P", __file__, str(SECONDS_PER_QUESTION)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        start_new_session=True,  # Ctrl-C is for the caller to handle
    )


def _end(helper: subprocess.Popen[str]) -> None:
    with suppress(OSError), helper:  # leaving the block closes the pipes and waits
        helper.kill()


@atexit.register
def stop() -> None:
    """End the helper process; the next question starts a new one."""
    global _helper
    if _helper is not None and _helper_owner == os.getpid():
        _end(_helper)
    _helper = None


def _serve() -> None:
    """Read [gold, answer] lines, reply 1 or 0; leave when the caller is gone."""
    import logging
    import signal

    logging.disable(logging.WARNING)  # math-verify warns that its own time limit is off
    if hasattr(signal, "alarm"):
        import resource

        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_AS, (_BYTES_OF_MEMORY, _BYTES_OF_MEMORY))
    from math_verify import parse, verify

    for line in sys.stdin:
        if hasattr(signal, "alarm"):
            signal.alarm(int(sys.argv[1]))
        equal = False
        with suppress(Exception):  # whatever sympy stumbles over is no equal pair
            gold, answer = (parse(f"${text}$", parsing_timeout=None) for text in json.loads(line))
            equal = verify(gold, answer, timeout_seconds=None)
        if hasattr(signal, "alarm"):
            signal.alarm(0)
        print(int(equal), flush=True)


if __name__ == "__main__":
    _serve()
