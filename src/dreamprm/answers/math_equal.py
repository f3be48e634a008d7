"""Are two mathematical expressions equal? math-verify, in a few helper processes.

Computer algebra can run for ever or eat all memory on a short input ("9^9^9^9"), and math-verify's
own time limit relies on signals: it works in the main thread only and cannot stop a computation in
C. So helper processes answer the questions, one question each at a time; a helper ends when a
question takes too long, and another is started when it is needed. This works from any thread, and
sympy is never loaded here.

The limit is of CPU time, so that a busy machine gives the same verdicts as an idle one. Where a
system has no such limit, and for a helper that sleeps, a longer limit of wall-clock time ends it.
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
from pathlib import Path

from dreamprm.errors import DreamPRMError

SECONDS_PER_QUESTION = 5  # of CPU time
WALL_SECONDS_PER_QUESTION = 60
_WALL_SECONDS_TO_START = 300  # importing sympy on a machine that is busy with other things
PROCESSES = min(8, os.cpu_count() or 1)
_SERVER = str(Path(__file__).with_name("math_helper.py"))
_BYTES_OF_MEMORY = 4 << 30
_LONGEST = 500  # characters; longer texts are prose, not answers


class NoReply(Exception):
    """A comparison took too long, or its process died: says nothing about the two formulas."""


@lru_cache(maxsize=65536)
def math_equal(answer: str, gold: str) -> bool:
    """True when math-verify finds the two equal. What took too long is asked again next time.

    Args:
        answer: in LaTeX, without delimiters.
        gold: likewise.

    Raises:
        NoReply: it needs too long.
        DreamPRMError: math-verify cannot be started.
    """
    if max(len(answer), len(gold)) > _LONGEST:
        return False
    reply = _pool.ask(json.dumps([gold, answer]).encode() + b"\n")
    if not reply:
        raise NoReply
    return reply == b"1\n"


def stop() -> None:
    """End all helper processes; the next question starts a new one."""
    _pool.stop()


class _Helper:
    """One process that answers one question at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            # -P: the names of our modules must not shadow others
            [sys.executable, "-P", _SERVER, str(SECONDS_PER_QUESTION), str(_BYTES_OF_MEMORY)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,  # so that closing a pipe after a fork writes nothing into it
            start_new_session=True,  # Ctrl-C is for the caller to handle
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout

    def wait_until_ready(self) -> bool:
        """False when it died instead."""
        return self._read(_WALL_SECONDS_TO_START) == b"ready\n"

    def ask(self, line: bytes) -> bytes:
        """The reply; b"" when the process is dead, or needed too long and is dead now."""
        try:
            while line:
                line = line[self._input.write(line) :]
            return self._read(WALL_SECONDS_PER_QUESTION)
        except OSError:
            return b""

    def _read(self, seconds: float) -> bytes:
        """A line; after so many seconds the process is killed and b"" returned."""
        is_late = threading.Event()

        def kill() -> None:
            is_late.set()
            with suppress(OSError):
                self._process.kill()

        guard = threading.Timer(seconds, kill)
        guard.daemon = True
        guard.start()
        try:
            line = self._output.readline()
        finally:
            guard.cancel()
            guard.join()  # from here on it kills nothing
        return b"" if is_late.is_set() else line

    def end(self) -> None:
        """Kill it; whoever waits for its reply gets b""."""
        with suppress(OSError):
            self._process.kill()
        self._process.wait()

    def forget(self) -> None:
        """Give back what a fork copied; the process is the parent's."""
        self._input.close()
        self._output.close()
        self._process.returncode = 0  # or its destructor would look for a child that is not ours


class _Pool:
    """Helpers, started one by one as more threads ask at once."""

    def __init__(self, size: int) -> None:
        self._slots = threading.Semaphore(size)
        self._lock = threading.Lock()
        self._idle: list[_Helper] = []
        self._all: set[_Helper] = set()
        self._is_open = True

    def ask(self, line: bytes) -> bytes:
        """The reply of a helper; b"" when it needed too long."""
        with self._slots:
            while True:
                helper, reply = self._take(), b""
                try:
                    reply = helper.ask(line)
                finally:  # also on Ctrl-C: a reply still to come must not answer another question
                    was_stopped = not self._give(helper, is_well=bool(reply))
                if reply or not was_stopped:
                    return reply

    def stop(self, *, for_good: bool = False) -> None:
        with self._lock:
            self._is_open = not for_good
            helpers, self._all, self._idle = self._all, set(), []
        for helper in helpers:
            helper.end()

    def forget(self) -> None:
        for helper in self._all:
            helper.forget()

    def _take(self) -> _Helper:
        while True:
            with self._lock:
                if not self._is_open:
                    raise DreamPRMError("answers cannot be compared while Python is shutting down")
                if self._idle:
                    return self._idle.pop()
                helper = _Helper()
                self._all.add(helper)
            is_ready = False
            try:
                is_ready = helper.wait_until_ready()
            finally:
                was_stopped = not is_ready and not self._give(helper, is_well=False)
            if is_ready:
                return helper
            if not was_stopped:
                raise DreamPRMError(
                    "math-verify cannot be started, so formulas cannot be compared; see what "
                    f"'{sys.executable} -c \"import math_verify\"' says"
                )

    def _give(self, helper: _Helper, *, is_well: bool) -> bool:
        """Take a helper back; False where `stop` has ended it meanwhile."""
        with self._lock:
            is_ours = helper in self._all
            if is_ours and is_well:
                self._idle.append(helper)
                return True
            self._all.discard(helper)
        helper.end()
        return is_ours


_pool = _Pool(PROCESSES)


def _after_fork() -> None:
    """A child must not talk over its parent's pipes, nor wait for locks that no thread holds."""
    global _pool
    inherited, _pool = _pool, _Pool(PROCESSES)
    inherited.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _stop_at_exit() -> None:
    _pool.stop(for_good=True)
