"""What is done and what is left: progress of the verbs that fill a store, for `dreamprm status`.

A job is one output file. It lies in the store beside the completions, so that any process can read
it while the work goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from dreamprm.rollouts.store import RolloutStore, lock_path

_WRITE_EVERY_S = 0.5


class Job(NamedTuple):
    """One output under way or finished.

    Attributes:
        output: the file that it makes.
        verb: `sample`, `label`, ...
        policy: name of the policy.
        unit: what is counted.
        total, done: of units; `done_before` of them were there when the last run began.
        started, updated: of the last run, in seconds of the epoch.
        state: `running`, `finished`, or why it stopped.
    """

    output: str
    verb: str
    policy: str
    unit: str
    total: int
    done: int
    done_before: int
    started: float
    updated: float
    state: str

    @property
    def rate(self) -> float | None:
        """Units per second in the last run; None before the first."""
        seconds = self.updated - self.started
        units = self.done - self.done_before
        return units / seconds if seconds > 0 and units > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """At the rate of the last run."""
        return None if self.rate is None else (self.total - self.done) / self.rate


def jobs(store: RolloutStore) -> list[Job]:
    """All jobs, the last begun first."""
    rows = store.read(f"SELECT {', '.join(Job._fields)} FROM jobs ORDER BY started DESC")
    return [Job(*row) for row in rows]


class JobWriter:
    """Keeps the progress of one job in the store.

    Units that end before the policy has answered anything were in the store already; they do not
    count for the rate.

    Args:
        store: open for writing.
        output, verb, policy, unit, total: see `Job`.
        calls: tells how many calls of the policy have ended.
    """

    def __init__(
        self,
        store: RolloutStore,
        *,
        output: str,
        verb: str,
        policy: str,
        unit: str,
        total: int,
        calls: Callable[[], int],
    ) -> None:
        self._store, self.output = store, output
        self._calls, self._calls_before = calls, calls()
        self.done = self.done_before = 0
        self._last = self.started = time.time()
        values = (output, verb, policy, unit, total, 0, 0, self.started, self._last, "running")
        self._store.write(f"INSERT OR REPLACE INTO jobs VALUES ({', '.join('?' * 10)})", values)

    def advance(self, units: int = 1) -> None:
        """So many more units are done."""
        self.done += units
        if self._calls() == self._calls_before:
            self.done_before, self.started = self.done, time.time()
        if time.time() - self._last >= _WRITE_EVERY_S:
            self._write("running")

    def finish(self, state: str = "finished") -> None:
        """The run is over."""
        self._write(state)

    def _write(self, state: str) -> None:
        self._last = time.time()
        self._store.write(
            "UPDATE jobs SET done = ?, done_before = ?, started = ?, updated = ?, state = ? "
            "WHERE output = ?",
            (self.done, self.done_before, self.started, self._last, state, self.output),
        )


def is_being_written(path: Path) -> bool:
    """Does a process hold the store open for writing? (False in a folder that is read-only.)"""
    if not lock_path(path).exists():
        return False
    lock = FileLock(lock_path(path))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False
