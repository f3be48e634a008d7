"""The program that `math_equal` runs in its helper processes: math-verify behind a pipe.

    python -P math_helper.py SECONDS BYTES

It says "ready" once math-verify is loaded, then reads lines `[gold, answer]` and replies 1 or 0. It
ends itself when a question takes too long, and leaves when the caller is gone.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
from contextlib import suppress

_SECONDS_TO_START = 120  # importing sympy on a machine that is busy with other things


def main() -> None:
    """Serve until the caller closes the pipe."""
    seconds, memory = int(sys.argv[1]), int(sys.argv[2])
    logging.disable(logging.WARNING)  # math-verify warns that its own time limit is off
    has_alarm = hasattr(signal, "alarm")
    if has_alarm:
        import resource

        # The default action ends the process whatever it is doing; a Python handler would wait for
        # a computation in C to return.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_SECONDS_TO_START)
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    from math_verify import parse, verify

    if has_alarm:
        signal.alarm(0)
    print("ready", flush=True)
    for line in sys.stdin:
        if has_alarm:
            signal.alarm(seconds)
        equal = False
        with suppress(Exception):  # whatever sympy stumbles over is no equal pair
            gold, answer = (parse(f"${text}$", parsing_timeout=None) for text in json.loads(line))
            equal = verify(gold, answer, timeout_seconds=None)
        if has_alarm:
            signal.alarm(0)
        print(int(equal), flush=True)


if __name__ == "__main__":
    main()
