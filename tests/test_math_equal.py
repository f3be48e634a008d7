"""Mathematics is compared in worker processes that nobody has to wait for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from dreamprm.answers import Verdict, math_equal, verdict, verify_answer
from dreamprm.errors import DreamPRMError

ENDLESS = ("9^{9^{9^{9}}}", "9^{9^{9^{8}}}")


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two workers, short limits, and nothing remembered."""
    monkeypatch.setattr(math_equal, "PROCESSES", 2)
    monkeypatch.setattr(math_equal, "SECONDS_PER_QUESTION", 2)
    math_equal.math_equal.cache_clear()
    yield
    math_equal.math_equal.cache_clear()


@pytest.fixture
def new_pool() -> Iterator[None]:
    """A pool of this test's own."""
    math_equal.stop()
    yield
    math_equal.stop()


def workers() -> list[int]:
    assert math_equal._pool is not None
    return list(math_equal._pool._pool_manager.worker_manager.workers)


def test_mathematics_is_compared_in_any_thread() -> None:
    pairs = [(f"{i}*x + sqrt({i * i})", f"{i}x + {i}") for i in range(2, 40)]
    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(lambda pair: verify_answer(*pair), pairs))
    assert len(workers()) == 2


def test_a_hung_formula_is_no_verdict_keeps_nobody_waiting_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert verify_answer("y + 1", "1 + y")
    started = time.monotonic()
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(verdict, *ENDLESS)
        assert verify_answer("y + 2", "2 + y")
        assert not slow.done()
        assert slow.result() == Verdict(False, "timeout")
    assert time.monotonic() - started < 20
    assert verify_answer("y + 3", "3 + y")
    monkeypatch.setattr(math_equal, "SECONDS_PER_QUESTION", 1)
    assert verdict(*ENDLESS) == Verdict(False, "timeout")  # asked again: it raises, not remembered
    assert math_equal.math_equal.cache_info().misses == 5


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="CPU time has no limit here")
@pytest.mark.parametrize(
    ("occupied", "cpu_seconds", "wall_seconds", "expected"),
    [
        ("time.sleep(1.5)", 1, 60, Verdict(True, "math")),  # as on a machine that is busy
        ("sum(iter(int, 1))", 1, 60, Verdict(False, "timeout")),
        ("time.sleep(60)", 1, 0.5, Verdict(False, "timeout")),
        ("bytearray(5 << 30)", 9, 60, Verdict(False, "no_match")),
    ],
)
def test_cpu_time_wall_time_and_memory_are_limited(
    occupied: str,
    cpu_seconds: int,
    wall_seconds: float,
    expected: Verdict,
    new_pool: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "math_verify.py").write_text(
        "import time\ndef parse(text, **_): return text\n"
        f"def verify(*_, **__):\n    {occupied}\n    return 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(math_equal, "SECONDS_PER_QUESTION", cpu_seconds)
    monkeypatch.setattr(math_equal, "WALL_SECONDS_PER_QUESTION", wall_seconds)
    got = verdict("b + 1", "1 + b")
    assert got.correct == expected.correct
    assert (got.rule == "timeout") == (expected.rule == "timeout")


def test_killed_workers_are_replaced() -> None:
    assert verify_answer("k + 1", "1 + k")
    for number in range(2, 4):
        killed = workers()
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.3 * (number - 2))  # at once, and after the pool has seen it
        assert verify_answer(f"k + {number}", f"{number} + k")
        assert not set(killed) & set(workers())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_asks_workers_of_its_own() -> None:
    slow = threading.Thread(target=verdict, args=ENDLESS)
    slow.start()  # so that the fork happens while a thread waits for a reply
    assert verify_answer("z + 1", "1 + z")
    mine = set(workers())
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # a child that waits for a lock for ever fails, and does not hang
        fine = math_equal._pool is None and verify_answer("z + 2", "2 + z")
        math_equal.stop()
        os._exit(0 if fine else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    slow.join()
    assert verify_answer("z + 3", "3 + z")
    assert mine & set(workers())  # the child has not ended its parent's processes


def test_a_script_is_not_run_again_and_ends_at_once_with_its_workers(tmp_path: Path) -> None:
    script = tmp_path / "script.py"  # without `if __name__ == "__main__"`
    script.write_text(
        "print('start')\nimport threading; from dreamprm.answers import math_equal as m\n"
        "from multiprocessing.util import Finalize; from dreamprm.answers import verify_answer\n"
        # The end takes time enough for the thread to start new workers, if it would.
        "Finalize(None, threading.Event().wait, args=(2,), exitpriority=-1)\n"
        "m.SECONDS_PER_QUESTION = 60; m.PROCESSES = 2; m.math_equal('x + 1', '1 + x')\n"
        f"t = threading.Thread(target=verify_answer, args={ENDLESS!r}, daemon=True); t.start()\n"
        "t.join(0.5); print(*m._pool._pool_manager.worker_manager.workers)"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert time.monotonic() - started < 30
    first, pids = done.stdout.splitlines()
    assert first == "start"
    for pid in pids.split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
    assert pids
    assert done.stderr == ""


def test_a_process_of_multiprocessing_ends_with_its_workers() -> None:
    child = get_context("spawn").Process(target=verify_answer, args=("z + 1", "1 + z"))
    child.start()
    child.join(60)
    ended = child.exitcode
    child.kill()
    assert ended == 0


def test_workers_that_cannot_start_are_an_error_and_no_verdict(
    new_pool: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "math_verify.py").write_text("import no_such_package")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DreamPRMError, match="math-verify cannot be started"):
        verify_answer("w + 1", "1 + w")
