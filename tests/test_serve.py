"""`dreamprm serve`: scores over HTTP, and what becomes of requests that ask for too much."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

import torch
from starlette.testclient import TestClient

from dreamprm.errors import DataError
from dreamprm.images import encode_image
from dreamprm.policy import RequestRefused
from dreamprm.prm.model import PRM
from dreamprm.prm.scorer import Logits, Plain, Steps, StepScorer
from dreamprm.prm.served import ServedPRM
from dreamprm.records import Question
from dreamprm.serve.app import Served, make_app
from dreamprm.serve.pictures import picture
from dreamprm.serve.scoring import QueueFull, Scoring, told
from dreamprm.serve.wire import Limits
from tests.conftest import Refused
from tests.running_app import running
from tests.tiny_models import random_prm

KEY = "a key of many letters"
LIMITS = Limits(
    max_body_bytes=100_000,
    max_images=2,
    max_candidates=4,
    max_steps=5,
    max_characters=2000,
)


@pytest.fixture(scope="module")
def prm() -> PRM:
    """The embedded architecture, whose step tag is a special token, with a head that tells."""
    torch.manual_seed(0)
    model = PRM.from_backbone("tiny")
    torch.nn.init.normal_(model.head.weight)
    return model


@pytest.fixture(scope="module")
def client(prm: PRM) -> Iterator[TestClient]:
    app = make_app(Served(prm, "prm", "min"), key=KEY, limits=LIMITS)
    headers = {"authorization": f"Bearer {KEY}"}
    with TestClient(app, headers=headers, raise_server_exceptions=False) as client:
        yield client


def expected(prm: PRM, text: str, images: Sequence[bytes], candidates: Any) -> list[list[float]]:
    question = Question(id="q", domain="d", text=text, images=tuple(images), answer="?")
    return [list(row) for row in StepScorer(prm).score_steps(question, candidates)]


def test_candidates_are_scored_as_in_process(client: TestClient, prm: PRM, png: bytes) -> None:
    candidates = [["it is red", "so 3"], ["it is blue"], ["it is", "red", "so 4"]]
    body = {"question": "What is it?", "images": [encode_image(png)], "candidates": candidates}
    reply = client.post("/v1/score", json=body).json()
    logits = expected(prm, "What is it?", [png], candidates)
    for scored, z in zip(reply["candidates"], logits, strict=True):
        assert scored["step_logits"] == pytest.approx(z, abs=1e-5)
        assert scored["score"] == min(scored["step_logits"]), "the model's own aggregation"
        assert all(0 < p < 1 for p in scored["step_scores"])
    scores = [scored["score"] for scored in reply["candidates"]]
    assert reply["chosen"] == scores.index(max(scores))


def test_a_text_is_split_into_its_steps(client: TestClient) -> None:
    text = "Step 1: look\nStep 2: add\nFinal answer: 5"
    body = {"question": "2 + 3?", "candidates": [text], "aggregation": "last"}
    [scored] = client.post("/v1/score", json=body).json()["candidates"]
    assert scored["steps"] == ["Step 1: look", "Step 2: add"] and scored["answer"] == "5"
    assert scored["score"] == scored["step_logits"][-1]


def test_pooling_answers_as_vllm_does(client: TestClient, prm: PRM, png: bytes) -> None:
    layout = prm.config.layout
    picture = {"type": "image_url", "image_url": {"url": encode_image(png)}}
    text = {"type": "text", "text": f"What is it?\n{layout.instruction}"}
    steps = ["it is red", "so 3"]
    told = "".join(f"{step}{layout.step_tag}" for step in steps)
    body = {
        "model": "prm",
        "task": "token_classify",
        "messages": [
            {"role": "user", "content": [picture, text]},
            {"role": "assistant", "content": told},
        ],
        "add_generation_prompt": False,
    }
    reply = client.post("/pooling", json=body).json()
    assert "data" in reply, reply
    [z] = expected(prm, "What is it?", [png], [steps])
    assert [row[0] for row in reply["data"][0]["data"]] == pytest.approx(z, abs=1e-5)
    assert reply["object"] == "list" and reply["model"] == "prm"


def test_a_served_prm_scores_through_it_as_in_process(prm: PRM, tmp_path: Path, png: bytes) -> None:
    prm.save_pretrained(tmp_path / "prm")
    prm = PRM.from_pretrained(tmp_path / "prm")
    candidates = [["it is red", "so 3"], ["it is blue"], ["it is", "red", "so 4"]]
    questions = [asked("What is red?"), asked("What is it?").model_copy(update={"images": (png,)})]
    with (
        running(make_app(Served(prm, "prm", "min"))) as url,
        closing(ServedPRM(tmp_path / "prm", [f"{url}/v1"])) as served,
    ):
        for question in questions:
            found = StepScorer(served).score_steps(question, candidates)
            for z, row in zip(
                StepScorer(prm).score_steps(question, candidates), found, strict=True
            ):
                assert row == pytest.approx(z, abs=1e-5)
        front = make_app(Served(served, "prm", "min"))  # a gateway before another server
        body = {"question": "What is red?", "candidates": candidates}
        with TestClient(front, base_url="http://localhost") as client:
            scored = client.post("/v1/score", json=body).json()["candidates"]
        for z, row in zip(expected(prm, "What is red?", [], candidates), scored, strict=True):
            assert row["step_logits"] == pytest.approx(z, abs=1e-5)
    with TestClient(make_app(Served(prm, "prm", "min")), base_url="http://localhost") as client:
        tag = prm.encoder().tag_id
        picture = prm.backbone.config.image_token_id
        for ids in ([], [1, 2], [tag, 1], [10**6, tag], [-1, tag], [1, picture, tag]):
            assert client.post("/pooling", json={"input": ids}).status_code == 400


BODY = {"question": "2 + 3?", "candidates": [["5"]]}


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"question": " "}, 400, "text is empty"),
        ({"question": "secret" * 400}, 400, "characters"),
        ({"question": None}, 400, "question"),
        ({"candidates": []}, 400, "candidates"),
        ({"candidates": [["5"]] * 5}, 400, "4 are the limit"),
        ({"candidates": [["5"] * 6]}, 400, "5 are the limit"),
        ({"candidates": [["5", " "]]}, 400, "candidates.0"),
        ({"images": ["/etc/hostname"]}, 400, "data URL"),
        ({"images": ["file:///etc/hostname"]}, 400, "data URL"),
        ({"images": ["http://127.0.0.1:1/a.png"]}, 400, "data URL"),
        ({"images": ["http://169.254.169.254/latest/meta-data"]}, 400, "data URL"),
        ({"images": ["data:image/png;base64,AAAA"]}, 400, "none of PNG"),
        ({"images": ["data:image/png;base64,AAAA"] * 3}, 400, "2 are the limit"),
        ({"aggregation": "best"}, 400, "unknown aggregation"),
        ({"model": "gpt-4"}, 404, "/v1/models"),
        ({"temperature": 1}, 400, "temperature"),
        ({f"secretsecret{i}": 1 for i in range(100)}, 400, "102 fields"),
    ],
)
def test_a_request_that_cannot_be_served_is_told_why(
    client: TestClient, change: dict[str, Any], status: int, said: str
) -> None:
    reply = client.post("/v1/score", json=BODY | change)
    error = reply.json()["error"]
    assert reply.status_code == status, error
    assert error["type"] == "invalid_request_error" and error.keys() >= {"param", "code"}
    assert said in error["message"] and "secretsecret" not in reply.text


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 400),
        (b"[" * 50_000, 400),
        (b"\xff\xfe", 400),
        (b'{"question": "\\ud800", "candidates": [["5"]]}', 400),
        (b'{"question": "q", "candidates": [["\\udc00"]]}', 400),
        (b'{"question": "q", "candidates": [["5"]], "aggregation": NaN}', 400),
        (b"x" * 100_001, 413),
    ],
)
def test_bytes_that_are_no_request_are_refused(
    client: TestClient, content: bytes, status: int
) -> None:
    headers = {"content-type": "application/json"}
    assert client.post("/v1/score", content=content, headers=headers).status_code == status
    parts = iter([content[:7], content[7:]])  # without a length
    assert client.post("/v1/score", content=parts, headers=headers).status_code == status


def test_a_wrong_method_is_told_which_is_right(client: TestClient) -> None:
    reply = client.get("/v1/score")
    assert reply.status_code == 405 and reply.headers["allow"] == "POST"
    assert reply.json()["error"]["type"] == "invalid_request_error"


def test_a_web_page_cannot_post_without_being_asked_first(client: TestClient) -> None:
    headers = {"content-type": "text/plain"}
    content = b'{"question": "q", "candidates": [["5"]]}'
    assert client.post("/v1/score", content=content, headers=headers).status_code == 400


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x"])
def test_a_wrong_key_is_refused_before_the_body_is_read(client: TestClient, header: str) -> None:
    reply = client.post("/v1/score", content=b"x" * 200_000, headers={"authorization": header})
    assert reply.status_code == 401 and reply.json()["error"]["code"] == "invalid_api_key"
    assert client.get("/metrics", headers={"authorization": header}).status_code == 401
    assert client.get("/health", headers={"authorization": header}).status_code == 200


def test_pooling_refuses_a_prompt_that_holds_the_tag() -> None:
    """As where that is a line's end: which of the tags are steps, nothing would tell."""
    turns = [{"role": "user", "content": "a\nb"}, {"role": "assistant", "content": "c\n"}]
    app = make_app(Served(random_prm(), "prm", "min"))
    with TestClient(app, base_url="http://localhost") as client:
        reply = client.post("/pooling", json={"messages": turns})
        assert reply.status_code == 400 and "step tag" in reply.text


def test_without_a_key_requests_must_name_this_machine(prm: PRM) -> None:
    app = make_app(Served(prm, "prm", "min"))
    with TestClient(app, base_url="http://localhost:8000") as client:
        assert client.get("/v1/models").json()["data"][0]["id"] == "prm"
        assert client.get("/v1/models", headers={"host": "127.0.0.1"}).status_code == 200
        for host in ("evil.example", "localhost.evil.example:80", "", "[::2]:80"):
            assert client.get("/v1/models", headers={"host": host}).status_code == 403


class Stub:
    """A reward model that waits until it may go on, and notes how many candidates it was given."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.busy, self.may_go_on = threading.Event(), threading.Event()

    def passes(self) -> tuple[Plain, None]:
        return self.plain, None

    def plain(self, pairs: Sequence[tuple[Question, Steps]]) -> list[Logits]:
        self.batches.append(len(pairs))
        self.busy.set()
        assert self.may_go_on.wait(10)
        if any("unreadable" in question.text for question, _ in pairs):
            raise DataError("the model cannot read it")
        if any("bug" in question.text for question, _ in pairs):
            raise RuntimeError("secret")
        return [(float(len(question.text)),) * len(steps) for question, steps in pairs]


def asked(text: str) -> Question:
    return Question(id=text, domain="d", text=text, answer="?")


@contextmanager
def scoring(**options: int) -> Iterator[tuple[Scoring, Stub]]:
    stub = Stub()
    work = Scoring(stub, **options)
    try:
        yield work, stub
    finally:
        stub.may_go_on.set()
        work.close()
    assert not work.alive


async def first(work: Scoring, stub: Stub) -> asyncio.Task[Any]:
    """A request that is being scored."""
    task = asyncio.create_task(work.score(asked("first"), [["s"]]))
    await asyncio.to_thread(stub.busy.wait, 10)
    return task


def test_requests_that_wait_are_scored_as_one_batch_and_one_that_fails_fails_alone() -> None:
    async def main() -> None:
        with scoring() as (work, stub):
            tasks = [await first(work, stub)]
            texts = ["a", "unreadable", "bb", "bug", "ccc"]
            tasks += [asyncio.create_task(work.score(asked(t), [["s"], ["t"]])) for t in texts]
            await asyncio.sleep(0)
            stub.may_go_on.set()
            _, one, bad, two, bug, three = await asyncio.gather(*tasks, return_exceptions=True)
            assert [one, two, three] == [[(1.0,)] * 2, [(2.0,)] * 2, [(3.0,)] * 2]
            assert isinstance(bad, DataError) and isinstance(bug, RuntimeError)
            assert stub.batches[:2] == [1, 10]

    asyncio.run(main())


def test_a_request_whose_client_went_away_is_not_scored() -> None:
    async def main() -> None:
        with scoring() as (work, stub):
            tasks = [await first(work, stub)]
            tasks += [asyncio.create_task(work.score(asked(t), [["s"]])) for t in ("a", "b")]
            await asyncio.sleep(0)
            tasks[1].cancel()
            await asyncio.sleep(0)
            stub.may_go_on.set()
            assert await tasks[2] == [(1.0,)]
            assert stub.batches == [1, 1] and work.waiting == 0

    asyncio.run(main())


def test_a_full_queue_is_told_at_once() -> None:
    async def main() -> None:
        with scoring(max_waiting=3) as (work, stub):
            tasks = [await first(work, stub)]
            tasks.append(asyncio.create_task(work.score(asked("a"), [["s"]] * 3)))
            await asyncio.sleep(0)
            with pytest.raises(QueueFull) as full:
                await work.score(asked("b"), [["s"]])
            assert 1 <= full.value.wait_s <= 60
            stub.may_go_on.set()
            await asyncio.gather(*tasks)
            assert await work.score(asked("b"), [["s"]]) == [(1.0,)]

    asyncio.run(main())


def served_stub(limits: Limits) -> tuple[Stub, TestClient]:
    stub = Stub()
    app = make_app(Served(stub, "prm", "min"), limits=limits)
    url = "http://localhost"
    return stub, TestClient(app, base_url=url, raise_server_exceptions=False)


def test_too_much_at_once_is_429_and_a_bug_500_without_its_text() -> None:
    stub, client = served_stub(Limits(max_waiting=1))
    with client, ThreadPoolExecutor() as clients:
        one = clients.submit(client.post, "/v1/score", json=BODY)
        stub.busy.wait(10)
        reply = client.post("/v1/score", json={"question": "q", "candidates": [["5"], ["6"]]})
        assert reply.status_code == 429 and int(reply.headers["retry-after"]) >= 1
        assert reply.json()["error"]["type"] == "rate_limit_error"
        stub.may_go_on.set()
        assert one.result().status_code == 200
        reply = client.post("/v1/score", json={"question": "a bug", "candidates": [["5"]]})
        assert reply.status_code == 500 and "secret" not in reply.text
        assert 'status="429"} 1.0' in client.get("/metrics").text


def test_a_request_that_takes_too_long_is_given_up() -> None:
    stub, client = served_stub(Limits(timeout_s=0.1))
    with client:
        assert client.post("/v1/score", json=BODY).status_code == 504
        stub.may_go_on.set()


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("10.1.2.3", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        ("93.184.216.34", True),
    ],
)
def test_an_allowed_host_is_asked_at_public_addresses_alone(
    monkeypatch: pytest.MonkeyPatch, address: str, public: bool
) -> None:
    asked: list[str] = []

    def connect(where: tuple[str, int], *_: Any) -> socket.socket:
        asked.append(where[0])
        raise ConnectionRefusedError("nobody there")

    known = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: known)
    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setenv("DREAMPRM_REMOTE_IMAGES", "pictures.example")
    for scheme in ("http", "https"):
        with pytest.raises(DataError, match="cannot be fetched"):
            picture(f"{scheme}://pictures.example/a.png")
    assert asked == ([address] * 2 if public else [])


def test_a_server_beyond_this_machine_needs_a_key(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DREAMPRM_API_KEY", raising=False)
    assert "DREAMPRM_API_KEY" in refused(["serve", str(tmp_path), "--host", "0.0.0.0"])
    assert "UNSET holds no key" in refused(["serve", str(tmp_path), "--api_key_env", "UNSET"])


def test_a_refusal_is_told_without_the_address_of_the_server_behind() -> None:
    error = RequestRefused("question 'a': http://10.0.0.7:8001/v1: 400 too long")
    refusal = told(error, "reward model")
    message = str(refusal)
    assert "10.0.0.7" not in message and message.endswith("question 'a': its server: 400 too long")
