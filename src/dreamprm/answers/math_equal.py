"""Are two mathematical expressions equal? math-verify, in a few worker processes.

Computer algebra can run for ever or eat all memory on a short input ("9^9^9^9"), and math-verify's
own time limit relies on signals: it works in the main thread only and cannot stop a computation in
C. So a process pool compares; a worker that needs too long or too much memory ends and is replaced.
This works from any thread, and sympy is never loaded in the calling process.

The limit is of CPU time, so that a busy machine gives the same verdicts as an idle one. Where a
system has no such limit, and for a worker that sleeps, a longer limit of wall-clock time ends it.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import threading
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import lru_cache
from importlib.machinery import ModuleSpec
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING, Any

from dreamprm.errors import DreamPRMError

if TYPE_CHECKING:
    from pebble import ProcessPool

SECONDS_PER_QUESTION = 5  # of CPU time
WALL_SECONDS_PER_QUESTION = 60
PROCESSES = min(8, os.cpu_count() or 1)
_BYTES_OF_MEMORY = 4 << 30  # of one worker
_LONGEST = 500  # characters; longer texts are prose, not answers
_ATTEMPTS = 3  # pools that are started before the error is told

_INEQUALITY = re.compile(r"[<>]|\\[lg](?:eq?|t)\b|\\in\b")

_pool: ProcessPool | None = None
_ending = False  # this process ends; a thread that still compares must not start workers anew
_lock = threading.Lock()
_starting = threading.Lock()


class NoReply(Exception):
    """A comparison took too long, or its process died: says nothing about the two formulas."""


@lru_cache(maxsize=65536)
def math_equal(answer: str, gold: str) -> bool:
    """True when math-verify finds the two equal. What took too long is asked again next time.

    Args:
        answer: in LaTeX, without delimiters.
        gold: likewise.

    Raises:
        NoReply: it needs too long, or this process ends.
        DreamPRMError: math-verify cannot be started.
    """
    if max(len(answer), len(gold)) > _LONGEST:
        return False
    from pebble import ProcessExpired

    question = (gold, answer, SECONDS_PER_QUESTION)
    for _ in range(_ATTEMPTS):
        pool = _running_pool()
        try:
            future = pool.schedule(_compare, question, timeout=WALL_SECONDS_PER_QUESTION)
            while pool.active and not future.done():  # a broken pool forgets what is in its queue
                wait([future], 1)
            if future.done():
                return bool(future.result())
        except (TimeoutError, ProcessExpired):
            raise NoReply from None
        except (BrokenProcessPool, RuntimeError):  # an idle worker was killed, or does not start
            pass
        _discard(pool)
    raise DreamPRMError(
        "math-verify cannot be started, so formulas cannot be compared; see what "
        f"'{sys.executable} -c \"import math_verify\"' says"
    )


class _Worker(SpawnProcess):
    """A new interpreter that does not run the caller's script again.

    multiprocessing imports `__main__` in its children unless that belongs to a package. Nothing of
    it is needed here, and a script without `if __name__ == "__main__"` would start over.
    """

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802 (the name of multiprocessing)
        main = sys.modules["__main__"]
        with _starting:
            spec, main.__spec__ = main.__spec__, ModuleSpec("dreamprm.__main__", None)
            try:
                return SpawnProcess._Popen(process_obj)
            finally:
                main.__spec__ = spec


class _Context(SpawnContext):
    Process = _Worker


def _running_pool() -> ProcessPool:
    from pebble import ProcessPool

    global _pool
    with _lock:
        if _ending:
            raise NoReply
        if _pool is None:
            _pool = ProcessPool(
                PROCESSES, initializer=_prepare, initargs=(_BYTES_OF_MEMORY,), context=_Context()
            )
            # A process of multiprocessing runs no atexit, and would wait for the workers for ever.
            Finalize(None, _end, exitpriority=0)
        return _pool


def stop() -> None:
    """End all workers; the next question starts new ones."""
    if _pool is not None:
        _discard(_pool)


def _end() -> None:
    global _ending
    _ending = True
    stop()


def _discard(pool: ProcessPool) -> None:
    global _pool
    with _lock:
        if _pool is not pool:
            return
        _pool = None
    pool.stop()
    pool.join()


def _after_fork() -> None:
    """A child must not use its parent's pipes, nor wait for a lock that no thread of its holds."""
    global _pool, _ending, _lock, _starting
    _pool, _ending, _lock, _starting = None, False, threading.Lock(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _prepare(memory: int) -> None:
    """In a worker: load math-verify under a limit of memory."""
    logging.disable(logging.WARNING)  # math-verify warns that its own time limit is off
    with suppress(ImportError, OSError, ValueError):  # Windows has no limits, macOS not this one
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    if hasattr(signal, "setitimer"):
        # The default action ends the process whatever it is doing; a Python handler would wait for
        # a computation in C to return.
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
    import math_verify  # noqa: F401


def _compare(gold: str, answer: str, seconds: float) -> bool:
    """In a worker: ask math-verify; the process ends when that takes too long."""
    from math_verify import parse, verify

    has_timer = hasattr(signal, "setitimer")
    if has_timer:
        signal.setitimer(signal.ITIMER_PROF, seconds)
    equal = False
    with suppress(Exception):  # whatever sympy stumbles over is no equal pair
        sides = [parse(f"${text}$", parsing_timeout=None) for text in (gold, answer)]
        # One way round an interval may be met by an inequality, the other way not.
        ways = (sides, sides[::-1]) if _INEQUALITY.search(gold + answer) else (sides,)
        equal = any(verify(*way, timeout_seconds=None) for way in ways)
        equal = _exactly(sides[0], sides[1], equal)
    if has_timer:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return equal


def _exactly(gold: list[Any], answer: list[Any], equal: bool) -> bool:
    """What math-verify says, but for two kinds of formulas.

    It rounds: fractions must be equal exactly. And it takes symbols for complex numbers: under a
    root they are positive, as everyone reads them.
    """
    import sympy

    left, right = gold[0], answer[0]
    if not isinstance(left, sympy.Expr) or not isinstance(right, sympy.Expr):
        return equal
    if equal:
        is_fraction = left.is_rational and right.is_rational and not (left + right).has(sympy.Float)
        return not is_fraction or sympy.simplify(left - right) == 0
    symbols = left.free_symbols | right.free_symbols
    if not symbols or not (left.has(sympy.Pow) and right.has(sympy.Pow)):
        return False
    positive = {symbol: sympy.Symbol(symbol.name, positive=True) for symbol in symbols}
    return bool(sympy.simplify((left - right).subs(positive)) == 0)
