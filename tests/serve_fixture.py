"""A real server that we did not write: `transformers serve` with an embedded checkpoint.

    from tests.serve_fixture import Served, served  # noqa: F401

    def test_something(served: Served) -> None:
        policy = Policy(served.model, base_urls=[served.url], prompt="bare", max_new_tokens=48,
                        continuation="assistant")

Import the fixture into a test file (or conftest.py); it starts once per session, about ten seconds
after the first test asks for it, and skips only where fastapi or uvicorn is not installed. What the
server can and cannot do: it takes pictures as data URLs; it answers one request after the other,
ignores n (one choice each), and sets its seed per process, so texts repeat only with one request in
flight; unknown fields (`continue_final_message`, `top_k`) are refused with 422. Hence `assistant`:
the chat template of the served copy leaves a last message of the assistant open.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dreamprm.models.loading import resolve

_START_UP_S = 120

# Without one of its own, a checkpoint of this type gets the server's for Qwen's chat marks, which
# finds no such marks here and hands out the prompt as part of the reply. With this one a prefix
# still comes back before its continuation; the endpoint policy cuts it off.
_RESPONSE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|assistant|>",
    "fields": {"content": {"close_pattern": r"<\|end\|>", "content": "text"}},
}

_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' }}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{% if m['role'] == 'assistant' and not loop.last %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt and messages[-1]['role'] != 'assistant' %}<|assistant|>{% endif %}"
)


class Served(NamedTuple):
    """A running server: base URL, name of its model, and what it has printed so far."""

    url: str
    model: str
    log: Path


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The embedded policy behind `transformers serve`."""
    for module in ("fastapi", "uvicorn"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed; it comes with the extra 'dev'")
    with serve("tiny/policy", tmp_path_factory.mktemp("serve")) as server:
        yield server


@contextmanager
def serve(checkpoint: str, folder: Path) -> Iterator[Served]:
    """Serve a copy of an embedded checkpoint until the block ends.

    Args:
        checkpoint: `tiny/policy`, say; its last part becomes the model's name.
        folder: empty; takes the copy, the server's log and its (empty) model cache.
    """
    name = Path(checkpoint).name
    _copy(Path(resolve(checkpoint)), folder / name)
    (folder / "home" / "hub").mkdir(parents=True)  # /v1/models lists the cache
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "server.log"
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    environment = os.environ | {"HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                sys.executable,
                Path(__file__).with_name("serve_launcher.py"),
                "serve",
                name,
                *options,
            ],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait(f"http://127.0.0.1:{port}/health", process, log)
        yield Served(f"http://127.0.0.1:{port}/v1", name, log)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _copy(source: Path, target: Path) -> None:
    """The checkpoint as one that is meant to be served would be published."""
    shutil.copytree(source, target)
    changes: dict[str, dict[str, Any]] = {
        "processor_config.json": {"processor_class": "ImageTextProcessor"},  # see the launcher
        "generation_config.json": {"do_sample": True, "top_k": 0, "top_p": 1.0},  # else greedy
        "tokenizer_config.json": {"response_template": _RESPONSE},
    }
    for file, fields in changes.items():
        facts = json.loads((target / file).read_text())
        (target / file).write_text(json.dumps(facts | fields))
    (target / "chat_template.jinja").write_text(_TEMPLATE)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_UP_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"transformers serve did not start:\n{log.read_text()[-3000:]}")
