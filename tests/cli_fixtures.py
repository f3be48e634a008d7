"""Fixtures of the tests that give `dreamprm` bad input; a test file imports what it uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from dreamprm.cli import main
from tests.cli_samples import make_project, save_tiny_model

Refused = Callable[[Sequence[str]], str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def project(tmp_path: Path, png: bytes) -> Path:
    return make_project(tmp_path / "project", png)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must fail; gives its one line."""

    def run(words: Sequence[str]) -> str:
        capsys.readouterr()
        assert main(words) == 1
        error = capsys.readouterr().err
        assert error.startswith("dreamprm: error: ")
        assert error.count("\n") == 1
        return error

    return run
