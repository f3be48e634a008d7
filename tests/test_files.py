"""Files that are there whole or not at all, whatever kills whoever writes them."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dreamprm.data.files import atomic_write

HANGS = """
import sys, time
from dreamprm.data.files import atomic_write
with atomic_write(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(60)
"""


def hanging_writer(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HANGS, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL and file locks")
@pytest.mark.parametrize("name", ["weights.json", "with [brackets]*.json"])
def test_what_a_killed_writer_left_is_removed_by_the_next_one(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")
    process = hanging_writer(path)
    assert len(list(tmp_path.iterdir())) == 2
    process.kill()
    process.wait()
    assert path.read_bytes() == b"old"
    with atomic_write(path) as file:
        file.write(b"new")
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert path.read_bytes() == b"new"


def test_the_temporary_file_of_a_living_writer_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    process = hanging_writer(path)
    with atomic_write(path) as file:
        file.write(b"mine")
    assert path.read_bytes() == b"mine"
    assert len(list(tmp_path.iterdir())) == 2
    process.kill()
    process.wait()


def test_many_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    failures: list[BaseException] = []

    def write(letter: bytes) -> None:
        try:
            for _ in range(50):
                with atomic_write(path) as file:
                    file.write(letter * 1000)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(bytes([97 + i]),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    content = path.read_bytes()
    assert len(content) == 1000 and len(set(content)) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
