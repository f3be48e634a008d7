"""Fixtures shared by all tests.

What imports torch is imported where it is needed: xdist's first process, which runs no test, reads
this file before it starts the others.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from hypothesis import settings
from PIL import Image

from dreamprm.cli import main

if TYPE_CHECKING:
    from dreamprm.rollouts.store import RolloutStore
    from tests.forked_commands import ForkedCommands

settings.register_profile("default", deadline=None, max_examples=100)
settings.load_profile("default")

# Files that take longest begin first, and each stays whole, so that workers end together and
# what a module prepares is prepared once.
SLOWEST = [
    *("attack", "hypergradient", "distributed", "dry_run", "answers_real", "benchmark_training"),
    *("examples", "bilevel", "bad_input", "kill", "public_api", "bad_training_input", "demo"),
    *("real_input", "answers", "local_policy", "cli_select_search", "overlap"),
]


class Refused(Protocol):
    """Runs a command that must fail with one line, which it gives."""

    def __call__(self, words: Sequence[str], code: int = 1) -> str: ...


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    names = [f"test_{name}" for name in SLOWEST]
    items.sort(key=lambda i: names.index(i.path.stem) if i.path.stem in names else len(names))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of unchanged public data: $DREAMPRM_REAL_DATA, or `shared/data` beside the repo."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DREAMPRM_REAL_DATA", beside))
    if not folder.is_dir():
        pytest.skip("real data is not here; set DREAMPRM_REAL_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def png() -> bytes:
    """A small image file."""
    buffer = io.BytesIO()
    Image.new("RGB", (28, 28), "red").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of the embedded architecture with random weights."""
    from tests.cli_samples import save_tiny_model

    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def prm(tmp_path_factory: pytest.TempPathFactory, model: str, png: bytes) -> Path:
    """Folder that `dreamprm train` wrote on `project`; not to be changed."""
    from tests.cli_samples import make_project, train_words

    folder = make_project(tmp_path_factory.mktemp("trained"), png)
    assert main(train_words(folder, model)) == 0
    return folder / "prm"


@pytest.fixture
def project(tmp_path: Path, png: bytes) -> Path:
    """Folder of questions, candidates and scores, see `make_project`."""
    from tests.cli_samples import make_project

    return make_project(tmp_path / "project", png)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RolloutStore]:
    """A new store, open for writing."""
    from dreamprm.rollouts.store import RolloutStore

    with RolloutStore(tmp_path / "rollouts.db") as opened:
        yield opened


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """See `Refused`."""

    def run(words: Sequence[str], code: int = 1) -> str:
        capsys.readouterr()
        assert main(words) == code
        lines = capsys.readouterr().err.splitlines(keepends=True)
        small = "dreamprm: warning: the meta set is small"  # that of the samples is
        error = "".join(line for line in lines if not line.startswith(small))
        assert error.startswith("dreamprm: error: ")
        assert error.count("\n") == 1
        return error

    return run


@pytest.fixture(scope="session")
def commands() -> Iterator[ForkedCommands]:
    """Runs commands in processes that may be killed or see a full disk."""
    from tests.forked_commands import ForkedCommands

    running = ForkedCommands()
    yield running
    running.close()
