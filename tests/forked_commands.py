"""Runs `dreamprm` commands one after another, each in a process of its own that may be killed.

Importing torch and transformers takes far longer than a short training run. Here it happens once,
in a process that forks a child per command (`python -m tests.forked_commands`), or several that
train together. One line of JSON on standard input is a command; two lines come back: the (first)
child's process id at its start, and at its end its exit code (minus the signal, if a signal ended
it) and the memory that it took.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import dreamprm
from tests.cli_samples import save_tiny_model

POLL_S = 0.001
HEAVY = ("transformers.models.qwen2_vl.modeling_qwen2_vl", "peft", "openai.resources.chat")


class ForkedCommands:
    """The other end of this file: starts the process that forks.

    Attributes:
        said: what the last command wrote to standard error.
        memory: bytes that it held at its largest, over those of a process that does nothing.
    """

    said = ""
    memory = 0

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forked_commands"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=Path(__file__).parents[1],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def run(
        self,
        words: Sequence[str],
        kill_now: Callable[[], bool] = lambda: False,
        largest_file: int | None = None,
        largest_memory: int | None = None,
        stdout: str = os.devnull,
        program: str = "dreamprm.cli",
        environments: Sequence[Mapping[str, str]] = ({},),
    ) -> int:
        """Exit code of a command; -9 if it was killed because `kill_now` said so.

        Args:
            words: of the command.
            kill_now: asked every millisecond.
            largest_file: bytes beyond which no file can be written: a disk that runs full.
            largest_memory: bytes that it may ask for.
            stdout: file that stands for standard output.
            program: module with the `main` that takes the words.
            environments: variables of each process, where several run together.
        """
        replies = _pipe(self._process.stdout)
        with tempfile.TemporaryDirectory() as folder:  # a pipe of its own: helpers end later
            stderr = f"{folder}/stderr"
            os.mkfifo(stderr)
            errors = os.open(stderr, os.O_RDWR | os.O_NONBLOCK)
            try:
                request = {"words": list(words), "largest_file": largest_file}
                request |= {"largest_memory": largest_memory}
                request |= {"stdout": stdout, "stderr": stderr, "program": program}
                request["environments"] = list(map(dict, environments))
                return self._wait_for(request, replies, errors, kill_now)
            finally:
                os.close(errors)

    def _wait_for(
        self, request: object, replies: IO[bytes], errors: int, kill_now: Callable[[], bool]
    ) -> int:
        _pipe(self._process.stdin).write(json.dumps(request).encode() + b"\n")
        child, said, killed = int(replies.readline()), b"", False
        while True:
            ready = select.select([replies, errors], [], [], POLL_S)[0]
            if errors in ready:
                said += os.read(errors, 1 << 16)
            elif replies in ready:
                break
            if not killed and kill_now():
                os.kill(child, signal.SIGKILL)
                killed = True
        self.said = said.decode(errors="replace")
        code, self.memory = map(int, replies.readline().split())
        return code

    def run_together(self, words: Sequence[str], processes: int, **variables: str) -> int:
        """Exit code of a training run in a group of processes, as torch's launcher starts it."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        size = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        environments = [
            {"RANK": str(rank), "LOCAL_RANK": str(rank)} | size | address | variables
            for rank in range(processes)
        ]
        return self.run(words, program="tests.distributed_run", environments=environments)

    def close(self) -> None:
        _pipe(self._process.stdin).close()
        self._process.wait()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


def _serve() -> None:
    for module in pkgutil.walk_packages(dreamprm.__path__, "dreamprm."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in HEAVY:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:  # transformers prepares its first saving
        save_tiny_model(Path(folder))
    gc.freeze()  # children need not look through what is here already
    if (idle := os.fork()) == 0:
        os._exit(0)
    least = os.wait4(idle, 0)[2].ru_maxrss
    for line in sys.stdin:
        request = json.loads(line)
        children = []
        for environment in request.pop("environments"):
            children.append(os.fork())
            if children[-1] == 0:
                os.environ.update(environment)
                os._exit(_run(**request))
        print(children[0], flush=True)
        ends = [os.wait4(child, 0)[1:] for child in children]
        codes = [os.waitstatus_to_exitcode(status) for status, _ in ends]
        largest = max(used.ru_maxrss for _, used in ends)
        print(next((code for code in codes if code), 0), (largest - least) * 1024, flush=True)


def _run(
    words: list[str],
    largest_file: int | None,
    largest_memory: int | None,
    stdout: str,
    stderr: str,
    program: str,
) -> int:
    os.dup2(os.open(stdout, os.O_WRONLY), 1)
    os.dup2(os.open(stderr, os.O_WRONLY), 2)
    if largest_file is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a failed write, not a signal
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    if largest_memory is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (largest_memory, largest_memory))
    try:
        code: int = importlib.import_module(program).main(words)
    except Exception:
        traceback.print_exc()
        code = 1
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    _serve()
