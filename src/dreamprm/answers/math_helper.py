"""The program that `math_equal` runs in its helper processes: math-verify behind a pipe.

    python -P math_helper.py CPU_SECONDS BYTES

It says "ready" once math-verify is loaded, then reads lines `[gold, answer]` and replies 1 or 0.
Where the system can measure CPU time, it is ended when a question takes too long; elsewhere the
caller ends it. It leaves when the caller is gone.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
from contextlib import suppress


def main() -> None:
    """Serve until the caller closes the pipe."""
    seconds, memory = int(sys.argv[1]), int(sys.argv[2])
    logging.disable(logging.WARNING)  # math-verify warns that its own time limit is off
    with suppress(ImportError, OSError, ValueError):  # Windows has no limits, macOS not this one
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    has_timer = hasattr(signal, "setitimer")
    if has_timer:
        # The default action ends the process whatever it is doing; a Python handler would wait for
        # a computation in C to return.
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
    from math_verify import parse, verify

    print("ready", flush=True)
    for line in sys.stdin:
        if has_timer:
            signal.setitimer(signal.ITIMER_PROF, seconds)
        equal = False
        with suppress(Exception):  # whatever sympy stumbles over is no equal pair
            gold, answer = (parse(f"${text}$", parsing_timeout=None) for text in json.loads(line))
            equal = verify(gold, answer, timeout_seconds=None)
        if has_timer:
            signal.setitimer(signal.ITIMER_PROF, 0)
        print(int(equal), flush=True)


if __name__ == "__main__":
    main()
