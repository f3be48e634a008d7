"""Fixtures shared by all tests."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from hypothesis import settings
from PIL import Image

from tests.cli_fixtures import model, project, refused  # noqa: F401 - for all test files

settings.register_profile("default", deadline=None, max_examples=100)
settings.load_profile("default")


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
    Image.new("RGB", (4, 4), "red").save(buffer, "PNG")
    return buffer.getvalue()
