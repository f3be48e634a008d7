"""The short form of `python -m tests.attack`: some cases of each kind."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import cast

import pytest

from tests.attack import Kind, attack
from tests.attack.__main__ import kinds
from tests.forked_commands import ForkedCommands

CASES = 10


@pytest.mark.parametrize("name", kinds())
def test_nothing_breaks(name: str, commands: ForkedCommands, tmp_path: Path) -> None:
    kind = cast(Kind, importlib.import_module(f"tests.attack.{name}"))
    tally = attack(kind, commands, tmp_path, min(CASES, kind.COUNT))
    assert tally.tried == min(CASES, kind.COUNT)
    assert not tally.broken
