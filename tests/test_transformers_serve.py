"""The endpoint policy against a server that we did not write: `transformers serve`.

It answers one request after the other and ignores n; unknown fields (`top_k`) are refused with 422.
"""

from __future__ import annotations

import asyncio
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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dreamprm.answers import extract_answer, verify_answer
from dreamprm.cli import main
from dreamprm.data import read_trajectories, write_questions
from dreamprm.errors import DreamPRMError
from dreamprm.models.loading import resolve
from dreamprm.policy import Reply, Request
from dreamprm.policy.options import PolicyOptions
from dreamprm.policy.served import EndpointPolicy
from dreamprm.policy.servers import Backoff
from dreamprm.records import Question
from dreamprm.steps import split_steps
from dreamprm.tiny.world import WorldSize, build_world

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


# All that the installed server lacks without torchvision is a processor for Qwen2-VL models.
LAUNCHER = """
from transformers import AutoProcessor, Qwen2VLConfig
from transformers.cli.transformers import app
from dreamprm.models.loading import ImageTextProcessor
AutoProcessor.register(Qwen2VLConfig, ImageTextProcessor, exist_ok=True)
app()
"""


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
    folder, name = tmp_path_factory.mktemp("serve"), "policy"
    _copy(Path(resolve("tiny/policy")), folder / name)
    (folder / "home" / "hub").mkdir(parents=True)  # /v1/models lists the cache
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "server.log"
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    environment = os.environ | {"HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, "serve", name, *options],
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
        "processor_config.json": {"processor_class": "ImageTextProcessor"},
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


@pytest.fixture(scope="module")
def questions() -> Sequence[Question]:
    return build_world(5, WorldSize(per_domain=1, meta=20, per_benchmark=1)).meta


def policy_at(server: Served, **options: Any) -> EndpointPolicy:
    usual: dict[str, Any] = {
        "model_name_or_path": server.model,
        "base_urls": [server.url],
        "prompt": "bare",
        "max_new_tokens": 48,
        "continuation": "assistant",
        "concurrency": 1,  # else texts depend on which request set the process's seed last
    }
    backoff = options.pop("backoff", None)
    return EndpointPolicy(PolicyOptions(**usual | options), backoff=backoff)


def sample(
    policy: EndpointPolicy, requests: Sequence[Request], n: int = 1, seed: int = 0
) -> list[Reply]:
    async def story() -> list[Reply]:
        try:
            calls = (policy.sample(request, n, seed + i) for i, request in enumerate(requests))
            return list(await asyncio.gather(*calls))
        finally:
            await policy.close()

    return asyncio.run(story())


def share_right(texts: Sequence[str], questions: Sequence[Question]) -> float:
    pairs = zip(texts, questions, strict=True)
    right = [verify_answer(extract_answer(text), question.answer) for text, question in pairs]
    return sum(right) / len(right)


@pytest.fixture(scope="module")
def replies(served: Served, questions: Sequence[Question]) -> list[Reply]:
    """Two replies to each question, each from a call that asks for four."""
    return sample(policy_at(served), [Request(question) for question in [*questions] * 2], n=4)


def test_it_answers_questions_about_pictures(
    replies: list[Reply], questions: Sequence[Question]
) -> None:
    assert {len(reply.completions) for reply in replies} == {1}  # this server ignores n
    assert all(reply.prompt_tokens > 0 and reply.completion_tokens > 0 for reply in replies)
    texts = [reply.completions[0].text for reply in replies]
    assert all(text.startswith("Step 1: look at ") and "<|" not in text for text in texts)
    assert all(2 <= len(split_steps(text)[0]) <= 7 for text in texts)
    assert 0.2 < share_right(texts, [*questions] * 2) < 0.8  # chance: one of some twenty numbers


def test_single_steps_become_whole_texts_where_the_server_fails_to_stop(
    served: Served,
    questions: Sequence[Question],
) -> None:
    """It takes `stop` and then answers 500; once it does stop, this test should ask for steps."""
    requests = [Request(question, ("Step 1: look at the picture",), True) for question in questions]
    policy = policy_at(served, backoff=Backoff(0.01, 0.02))
    for reply in sample(policy, requests[:4]):
        [done] = reply.completions
        assert done.finish_reason == "stop"
        assert done.text.startswith("Step 2: ")
        assert "Final answer: " in done.text


def test_a_server_that_refuses_to_prefill_is_prompted(
    served: Served,
) -> None:
    policy = policy_at(served, continuation="auto")
    asyncio.run(policy.connect())
    assert policy.settings["continuation"] == "prompt"


def test_what_the_server_refuses_is_told_before_the_work_begins(
    served: Served,
) -> None:
    with pytest.raises(DreamPRMError, match=r"400 Server is pinned to 'policy'; requested 'other'"):
        asyncio.run(policy_at(served, model_name_or_path="other").connect())
    with pytest.raises(DreamPRMError, match=r"422 Unexpected fields in the request: {'top_k'}"):
        asyncio.run(policy_at(served, extra_body={"top_k": 5}).connect())


def test_the_command_line_samples_and_labels_over_http(
    served: Served,
    questions: Sequence[Question],
    tmp_path: Path,
) -> None:
    asked = [
        question.model_copy(update={"images": (_on_disk(question, tmp_path),)})
        for question in questions[:4]
    ]
    write_questions(tmp_path / "questions.jsonl", asked)
    how = ["--model_name_or_path", served.model, "--base_urls", served.url, "--prompt", "bare"]
    how += ["--max_new_tokens", "48", "--continuation", "assistant", "--concurrency", "1"]
    how += ["--questions", str(tmp_path / "questions.jsonl")]
    sampled, labelled = tmp_path / "candidates.jsonl", tmp_path / "labelled.jsonl"
    sample_words = ["sample", *how, "--output", str(sampled), "--num_candidates", "2"]
    assert main(sample_words) == 0
    candidates = read_trajectories(sampled)
    assert [t.sample_index for t in candidates] == [0, 1] * 4
    assert all(t.steps[0].startswith("Step 1: look at ") for t in candidates)
    right = sum(bool(t.outcome) for t in candidates) / len(candidates)
    assert 0.1 < right < 0.9, "chance is one of some twenty numbers"

    label_words = ["label", *how, "--trajectories", str(sampled), "--output", str(labelled)]
    label_words += ["--num_completions", "3"]
    assert main(label_words) == 0
    found = read_trajectories(labelled)
    assert all(label and label.total == 3 for t in found for label in t.labels or (None,))
    last = [t.labels[-1].value for t in found if t.labels and t.labels[-1]]
    outcomes = [float(bool(t.outcome)) for t in found]
    agree = sum(abs(value - outcome) < 0.5 for value, outcome in zip(last, outcomes, strict=True))
    assert agree >= 0.8 * len(found), "with all steps given, the answer is almost decided"

    before = labelled.read_bytes()
    assert main(label_words) == 0
    assert labelled.read_bytes() == before


def _on_disk(question: Question, folder: Path) -> str:
    [image] = question.images
    assert isinstance(image, bytes)
    path = folder / f"{question.id}.png"
    path.write_bytes(image)
    return str(path)
