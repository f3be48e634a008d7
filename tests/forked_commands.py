"""Runs `dreamprm` commands one after another, each in a process of its own that may be killed.

Importing torch and transformers takes far longer than a short training run. Here it happens once,
in a process that forks a child per command (`python -m tests.forked_commands MODULE ...` preloads
the modules). One line of JSON on standard input is a command; two lines come back: the child's
process id at its start, and its exit code at its end (minus the signal, if a signal ended it).
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from dreamprm.cli import main

POLL_S = 0.001


class ForkedCommands:
    """The other end of this file: starts the process that forks.

    Args:
        preload: modules that commands need.
        log: file that gets what the commands print.
    """

    def __init__(self, preload: Sequence[str], log: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forked_commands", *preload],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("wb"),
            bufsize=0,
            cwd=Path(__file__).parents[1],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def run(self, words: Sequence[str], kill_now: Callable[[], bool] = lambda: False) -> int:
        """Exit code of a command; -9 if it was killed because `kill_now` said so."""
        requests, replies = _pipe(self._process.stdin), _pipe(self._process.stdout)
        requests.write(json.dumps(list(words)).encode() + b"\n")
        child = int(replies.readline())
        while not select.select([replies], [], [], POLL_S)[0]:
            if kill_now():
                os.kill(child, signal.SIGKILL)
                break
        return int(replies.readline())

    def close(self) -> None:
        _pipe(self._process.stdin).close()
        self._process.wait()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


def _serve() -> None:
    for name in sys.argv[1:]:
        importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os.dup2(2, 1)  # what the command prints belongs into the log
            os._exit(main(json.loads(line)))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
