"""Mathematics is compared in helper processes that nobody has to wait for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dreamprm.answers import Verdict, math_equal, verdict, verify_answer
from dreamprm.errors import DreamPRMError

ENDLESS = ("9^{9^{9^{9}}}", "9^{9^{9^{8}}}")


@pytest.fixture(autouse=True)
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[math_equal._Pool]:
    """A pool of its own with two processes, and nothing remembered."""
    pool = math_equal._Pool(2)
    monkeypatch.setattr(math_equal, "_pool", pool)
    monkeypatch.setattr(math_equal, "SECONDS_PER_QUESTION", 2)
    math_equal.math_equal.cache_clear()
    yield pool
    pool.stop()
    math_equal.math_equal.cache_clear()


def test_mathematics_is_compared_in_any_thread() -> None:
    pairs = [(f"{i}*x + sqrt({i * i})", f"{i}x + {i}") for i in range(2, 8)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda pair: verify_answer(*pair), pairs)) == [True] * 6


def test_a_computation_without_end_is_stopped_and_the_next_one_works() -> None:
    started = time.monotonic()
    assert not verify_answer("9^{9^{9^{9}}}", "9^{9^{9^{8}}}")
    assert time.monotonic() - started < 20
    assert verify_answer("y + 1", "1 + y")
    math_equal.stop()


def test_a_comparison_that_took_too_long_is_no_verdict_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert verdict(*ENDLESS) == Verdict(False, "timeout")
    monkeypatch.setattr(math_equal._Pool, "ask", lambda *_: b"1\n")
    assert verdict(*ENDLESS) == Verdict(True, "math")  # so the time-out is not remembered
    monkeypatch.setattr(math_equal._Pool, "ask", lambda *_: b"0\n")
    assert verdict(*ENDLESS) == Verdict(True, "math")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="CPU time has no limit here")
@pytest.mark.parametrize(
    ("occupied", "expected"),
    [
        ("time.sleep(1.5)", Verdict(True, "math")),  # as on a machine that does other things
        ("sum(iter(int, 1))", Verdict(False, "timeout")),
    ],
)
def test_only_time_that_the_comparison_itself_uses_counts(
    occupied: str, expected: Verdict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "math_verify.py").write_text(
        "import time\ndef parse(text, **_): return text\n"
        f"def verify(*_, **__): {occupied}; return 1"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(math_equal, "SECONDS_PER_QUESTION", 1)
    assert verdict("b + 1", "1 + b") == expected


def test_a_helper_that_sleeps_is_ended_by_the_clock_on_the_wall(
    pool: math_equal._Pool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asleep = tmp_path / "asleep.py"
    asleep.write_text("import time; print('ready', flush=True); time.sleep(60)")
    monkeypatch.setattr(math_equal, "_SERVER", str(asleep))
    monkeypatch.setattr(math_equal, "WALL_SECONDS_PER_QUESTION", 0.5)
    started = time.monotonic()
    assert verdict("b + 3", "3 + b") == Verdict(False, "timeout")
    assert time.monotonic() - started < 20
    assert not pool._all


def test_processes_are_started_when_needed_and_not_more_than_allowed(
    pool: math_equal._Pool,
) -> None:
    assert len(pool._all) == 0
    assert verify_answer("x + 1", "1 + x")
    assert verify_answer("x + 2", "2 + x")
    assert len(pool._all) == 1
    with ThreadPoolExecutor(6) as threads:
        pairs = [(f"{i}x + {i}", f"{i}(x + 1)") for i in range(2, 40)]
        assert all(threads.map(lambda pair: verify_answer(*pair), pairs))
    assert 1 <= len(pool._all) <= 2


def test_a_slow_question_keeps_nobody_waiting_but_who_asked_it() -> None:
    assert verify_answer("y + 2", "2 + y")
    slow = threading.Thread(target=verify_answer, args=ENDLESS)
    slow.start()
    assert verify_answer("y + 3", "3 + y")
    assert slow.is_alive()
    slow.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_asks_processes_of_its_own(pool: math_equal._Pool) -> None:
    slow = threading.Thread(target=verify_answer, args=ENDLESS)
    slow.start()  # so that the fork happens while a thread waits for a reply
    assert verify_answer("z + 1", "1 + z")
    mine = set(pool._all)
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # a child that waits for a lock for ever fails, and does not hang
        fine = math_equal._pool is not pool and verify_answer("z + 2", "2 + z")
        math_equal.stop()
        os._exit(0 if fine else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    slow.join()
    assert verify_answer("z + 3", "3 + z")
    assert mine & pool._all  # the child has not ended its parent's processes


def test_stopping_while_a_question_is_asked_changes_no_verdict(pool: math_equal._Pool) -> None:
    with ThreadPoolExecutor(2) as threads:
        pairs = [(f"{i}a + {i}", f"{i}(a + 1)") for i in range(2, 60)]
        found = threads.map(lambda pair: verify_answer(*pair), pairs)
        for _ in range(3):
            time.sleep(0.3)
            math_equal.stop()
        assert all(found)


def test_the_interpreter_ends_at_once_and_takes_its_processes_along() -> None:
    code = (
        "import threading; from dreamprm.answers import math_equal as m;"
        "m.SECONDS_PER_QUESTION = 60; m.math_equal('x + 1', '1 + x');"
        f"t = threading.Thread(target=m.math_equal, args={ENDLESS!r}, daemon=True); t.start();"
        "t.join(0.5); print(*[h._process.pid for h in m._pool._all])"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.monotonic() - started < 30
    for pid in done.stdout.split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
    assert done.stdout.split()
    assert done.stderr == ""


def test_a_helper_that_cannot_start_is_an_error_and_no_verdict(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import no_such_package")
    monkeypatch.setattr(math_equal, "_SERVER", str(broken))
    with pytest.raises(DreamPRMError, match="math-verify cannot be started"):
        verify_answer("w + 1", "1 + w")
