"""Inputs that go out of their way to break something, and what must hold whatever they are.

    python -m tests.attack                     # all of it; whole kinds go into docs/RELIABILITY.md
    python -m tests.attack files --scale 0.1   # a tenth of one kind
    python -m tests.attack files --only 'row 3'   # the cases whose name holds this

A kind of attack is a module here with `TRIED` (what it does, in a line of the table), `COUNT` and
`cases(folder, count, rng)`, which yields that many cases, each made when it is its turn. A case is
a command; it ends well, or with one line that says what is wrong. It takes no more than `LONGEST_S`
and `LARGEST` bytes. A kind may ask more of its cases (`Case.check`).
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.forked_commands import ForkedCommands

LONGEST_S = 10.0
LARGEST = 2**30
LONGEST_LINE = 700
"""Characters of an error: 500 of what was wrong, and where it was."""

_KILLED_AT = 3 * LARGEST
_ERROR = "dreamprm: error: "


@dataclass(frozen=True)
class Result:
    """How a command ended.

    Attributes:
        code: its exit code.
        said: its standard error.
        seconds, memory: what it took; bytes over those of a process that does nothing.
    """

    code: int
    said: str
    seconds: float
    memory: int


Check = Callable[[Result], str | None]
"""What is wrong with how a command ended, None where nothing is."""


@dataclass(frozen=True)
class Case:
    """One attack.

    Attributes:
        name: what was done to which input, enough to find it again.
        words: the command.
        check: what must hold besides what always must.
        kill_now: asked every millisecond whether to kill the command; it may end before.
        longest_s: what it may take, where it has work to do.
    """

    name: str
    words: Sequence[str]
    check: Check = lambda _: None
    kill_now: Callable[[], bool] | None = None
    longest_s: float = LONGEST_S


class Kind(Protocol):
    """A module of attacks."""

    TRIED: str
    COUNT: int

    def cases(self, folder: Path, count: int, rng: random.Random) -> Iterator[Case]:
        """That many cases; each may leave its input in the folder."""


@dataclass
class Tally:
    """How the cases of a kind ended: well, with one line, or in a way that must not be."""

    well: int = 0
    refused: int = 0
    broken: list[str] = field(default_factory=list)
    longest_s: float = 0.0
    largest: int = 0

    @property
    def tried(self) -> int:
        return self.well + self.refused + len(self.broken)


def attack(
    kind: Kind, commands: ForkedCommands, folder: Path, count: int, seed: int = 0, only: str = ""
) -> Tally:
    """Try the cases of a kind."""
    tally = Tally()
    run(commands, Case("", ["--version"]))  # the first one waits for the imports
    for case in kind.cases(folder, count, random.Random(seed)):
        if only not in case.name:
            continue
        result = run(commands, case)
        was_killed = result.code == -signal.SIGKILL and case.kill_now is not None
        wrong = complaint(result, case) or case.check(result)
        if wrong:
            tally.broken.append(f"{case.name}: {wrong}\n    {' '.join(map(str, case.words))}")
        elif result.code and not was_killed:
            tally.refused += 1
        else:
            tally.well += 1
        tally.longest_s = max(tally.longest_s, result.seconds)
        tally.largest = max(tally.largest, result.memory)
    return tally


def run(commands: ForkedCommands, case: Case) -> Result:
    """Run a command, which is ended where it takes too long or asks for too much."""
    start = time.monotonic()
    kill_now = case.kill_now or (lambda: False)
    code = commands.run(
        [str(word) for word in case.words],
        kill_now=lambda: time.monotonic() > start + case.longest_s or kill_now(),
        largest_memory=_KILLED_AT,
    )
    return Result(code, commands.said, time.monotonic() - start, commands.memory)


def complaint(result: Result, case: Case) -> str | None:
    """What is wrong with the end of any command."""
    lines = result.said.strip().splitlines()
    last = lines[-1] if lines else ""
    if "Traceback (most recent call last)" in result.said:
        return f"traceback, {last[:200]}"
    if result.seconds > case.longest_s:
        return f"still running after {result.seconds:.0f} s"
    if result.code == -signal.SIGKILL and case.kill_now is not None:
        return None
    if result.code not in (0, 1, 2):
        return f"ended with {result.code}, {last[:200]}"
    if result.memory > LARGEST:
        return f"took {result.memory / 2**20:.0f} MiB"
    if result.code and not last.startswith(_ERROR):
        return f"no line says what is wrong, {last[:200]!r}"
    if sum(line.startswith(_ERROR) for line in lines) > 1:
        return "more than one line says what is wrong"
    if result.code and len(last) > LONGEST_LINE:
        return f"a line of {len(last)} characters, {last[:100]}"
    return None
