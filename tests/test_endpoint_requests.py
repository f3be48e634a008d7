"""What the endpoint policy sends and how it reads what comes back: n, seeds, pictures, prefixes."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageChops

from dreamprm.errors import DataError
from dreamprm.formats.files import decode_image
from dreamprm.images import load_image
from dreamprm.policy import Reply, Request
from dreamprm.policy.messages import ChatMessages, data_url, without_repetition
from dreamprm.policy.replies import read_reply
from dreamprm.policy.retrying import Failure, read_wait
from dreamprm.records import Question
from tests.fake_endpoint import FakeEndpoint
from tests.faults import Fault, scripted
from tests.test_endpoint import policy_of, question, run

STEPS = ("Step 1: red is 3", "Step 2: blue is 5")


def sample(server: FakeEndpoint, request: Request, n: int = 1, **options: Any) -> Reply:
    async def story() -> Reply:
        policy = policy_of(server, **options)
        try:
            return await policy.sample(request, n, 7)
        finally:
            await policy.close()

    return asyncio.run(story())


def resolved(server: FakeEndpoint, **options: Any) -> dict[str, Any]:
    policy = policy_of(server, **options)
    with pytest.raises(RuntimeError, match="connect"):
        assert policy.settings
    asyncio.run(policy.connect())
    settings = dict(policy.settings)
    assert json.loads(json.dumps(settings)) == settings
    return settings


def test_a_request_says_all_that_was_set() -> None:
    with FakeEndpoint() as server:
        reply = sample(
            server,
            Request(question(1)),
            3,
            temperature=0.7,
            extra_body={"top_p": 0.9},
            prompt="bare",
        )
        assert server.seen[-1].body == {
            "model": "fake",
            "messages": [{"role": "user", "content": "What is 1?"}],
            "temperature": 0.7,
            "max_tokens": 1024,
            "n": 3,
            "seed": 7,
            "top_p": 0.9,
        }
        assert (len(reply.completions), reply.prompt_tokens) == (3, 10)
        assert reply.completion_tokens > 0


def test_a_server_that_gives_more_than_n_is_cut_and_one_that_gives_fewer_is_not_lost() -> None:
    with FakeEndpoint(plan=scripted({1: Fault("more"), 2: Fault("fewer")})) as server:
        policy = policy_of(server, continuation="prompt", concurrency=1)
        assert [len(texts) for texts in run(policy, 3, n=6)] == [6, 3, 6]


def test_a_server_that_ignores_n_gives_one() -> None:
    with FakeEndpoint(ignores_n=True) as server:
        assert [len(texts) for texts in run(policy_of(server), 3, n=6)] == [1, 1, 1]


@pytest.mark.parametrize("largest", [1, 2, 3])
def test_a_server_that_refuses_n_is_asked_for_less_and_that_is_remembered(largest: int) -> None:
    with FakeEndpoint(largest_n=largest) as server:
        policy = policy_of(server)
        first = run(policy, 4, n=8)
        assert all(len(set(texts)) == 8 for texts in first)
        server.forget()
        assert run(policy, 4, n=8) == first
        assert {seen.body["n"] for seen in server.seen} == {min(largest, 2)}
        assert len(server.seen) == 4 * 8 // min(largest, 2)


def test_no_more_than_max_n_is_asked_for_at_once() -> None:
    with FakeEndpoint() as server:
        [texts] = run(policy_of(server, max_n=3, continuation="prompt"), 1, n=8)
        assert len(set(texts)) == 8
        assert [seen.body["n"] for seen in server.seen[1:]] == [3, 3, 2]


def test_a_server_that_wants_max_completion_tokens_gets_it() -> None:
    refusal = Fault("400", body='{"error": {"message": "use max_completion_tokens instead"}}')
    with FakeEndpoint(plan=lambda _, body: refusal if "max_tokens" in body else None) as server:
        assert len(run(policy_of(server, max_new_tokens=9))) == 20
        assert server.seen[-1].body["max_completion_tokens"] == 9
        assert sum(seen.status == 400 for seen in server.seen) == 1


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_known_servers_are_prefilled_and_kept_from_bending_the_distribution(kind: Any) -> None:
    with FakeEndpoint(owned_by=kind, continues="prefill", writer=lambda *_: "no copy") as server:
        settings = resolved(server, extra_body={"top_k": 40})
        assert settings["continuation"] == "prefill"
        assert settings["extra_body"] == {"top_p": 1.0, "top_k": 40, "repetition_penalty": 1.0}


def test_other_servers_are_tried() -> None:
    for continues, way in (("prefill", "prefill"), ("never", "prompt")):
        with FakeEndpoint(continues=continues) as server:  # type: ignore[arg-type]
            assert resolved(server)["continuation"] == way
            assert resolved(server)["extra_body"] == {}
    refuse = Fault("422")  # as `transformers serve` does with fields that it does not know
    with FakeEndpoint(
        continues="assistant", plan=lambda _, body: refuse if len(body) > 6 else None
    ) as server:
        assert resolved(server)["continuation"] == "assistant"


def test_servers_that_differ_are_all_prompted() -> None:
    with FakeEndpoint(continues="prefill") as one, FakeEndpoint() as other:
        policy = policy_of(one, other)
        asyncio.run(policy.connect())
        assert policy.settings["continuation"] == "prompt"


def test_a_prefix_is_put_into_the_models_mouth_exactly_as_it_was_written() -> None:
    with FakeEndpoint(continues="prefill") as server:
        for way, fields in (
            ("prefill", {"continue_final_message": True, "add_generation_prompt": False}),
            ("assistant", {}),
        ):
            sample(server, Request(question(1), STEPS), continuation=way)
            body = server.seen[-1].body
            said = {"role": "assistant", "content": "Step 1: red is 3\nStep 2: blue is 5\n"}
            assert body["messages"][1:] == [said]
            marks = ("continue_final_message", "add_generation_prompt")
            assert {name: body[name] for name in marks if name in body} == fields
        sample(server, Request(question(1)), continuation="prefill")  # nothing to continue
        assert len(server.seen[-1].body["messages"]) == 1
        assert "continue_final_message" not in server.seen[-1].body


def test_a_prefix_in_the_prompt_is_cut_off_where_the_model_repeats_it() -> None:
    with FakeEndpoint(
        writer=lambda *_: "Step 1: red is 3\n\nStep 2:  blue is 5\nStep 3: 8"
    ) as server:
        reply = sample(server, Request(question(1), STEPS), continuation="prompt")
        assert reply.completions[0].text == "Step 3: 8"
        [message] = server.seen[-1].body["messages"]
        assert message["content"].endswith("Step 1: red is 3\nStep 2: blue is 5")


def test_only_a_whole_repetition_is_cut_off() -> None:
    assert without_repetition("Step 2: blue is 5\nStep 3: 8", STEPS) == "Step 3: 8"
    assert without_repetition("Step 2: blue is 57\nStep 3: 8", STEPS).startswith(
        "Step 2: blue is 57"
    )
    assert without_repetition("Step 3: 8", STEPS) == "Step 3: 8"


@given(
    st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=4),
    st.sampled_from(["\n", "\n\n", "  "]),
)
def test_any_repeated_prefix_is_cut_off(steps: list[str], between: str) -> None:
    assert without_repetition(between.join(steps) + "\nSTEP 99: 8", steps) == "STEP 99: 8"


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


RGB = Image.linear_gradient("L").resize((40, 30)).convert("RGB")


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_pictures_are_sent_as_they_are(kind: str, tmp_path: Path) -> None:
    data = encoded(RGB, kind)
    (tmp_path / "a").write_bytes(data)
    for reference in (data, "a"):
        url = data_url(reference, tmp_path)
        assert url.startswith(f"data:image/{kind};base64,")
        assert decode_image(url) == data


@pytest.mark.parametrize(
    "data",
    [
        encoded(RGB, "gif"),
        encoded(RGB, "bmp"),
        encoded(RGB, "tiff"),
        encoded(Image.new("I;16", (9, 9), 30000), "png"),
        encoded(Image.new("RGBA", (9, 9), (0, 0, 0, 0)), "png"),
        encoded(Image.new("CMYK", (9, 9), (9, 9, 9, 9)), "jpeg"),
        encoded(Image.new("RGB", (2000, 2)), "png"),
    ],
    ids=["gif", "bmp", "tiff", "16 bit", "transparent", "cmyk", "thin"],
)
def test_other_pictures_are_sent_as_png_with_the_pixels_that_the_reward_model_sees(
    data: bytes,
) -> None:
    url = data_url(data)
    assert url.startswith("data:image/png;base64,")
    sent = Image.open(io.BytesIO(decode_image(url)))
    assert ImageChops.difference(sent.convert("RGB"), load_image(data)).getbbox() is None


def test_pictures_come_before_the_text_and_are_encoded_once(
    png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str | bytes] = []

    def counted(reference: str | bytes, root: Path | None) -> str:
        calls.append(reference)
        return data_url(reference, root)

    monkeypatch.setattr("dreamprm.policy.messages.data_url", counted)
    shown = Question(id="1", domain="d", text="Which?", images=(png, png), answer="1")
    messages = ChatMessages(lambda asked: asked.text, None)
    for steps in ((), STEPS):
        [first, *_] = messages.build(Request(shown, steps), "prefill")
        assert [part["type"] for part in first["content"]] == ["image_url", "image_url", "text"]
    assert len(calls) == 1


def test_the_cache_forgets_what_was_used_longest_ago(png: bytes) -> None:
    messages = ChatMessages(lambda asked: asked.text, None, cache_bytes=2 * len(data_url(png)) + 9)
    for image in (png, png + b"1", png, png + b"2"):
        messages.build(
            Request(Question(id="1", domain="d", text="?", images=(image,), answer="1")), "prompt"
        )
    assert list(messages._urls) == [png, png + b"2"]


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone.png cannot be read"):
        data_url("gone.png", tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        data_url(b"no picture")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": ""}, ""),
        ({"content": "yes"}, "yes"),
        ({"content": "\n\nyes", "reasoning": "hm"}, "hm\n\nyes"),
        ({"content": "yes", "reasoning_content": "hm"}, "hm\nyes"),
        ({"content": None, "reasoning_content": "hm, cut"}, "hm, cut"),
        ({"content": None, "refusal": "I cannot"}, "I cannot"),
        ({"content": None}, None),
        ({}, None),
    ],
)
def test_a_choice_is_read_for_all_the_text_it_has(message: Any, text: str | None) -> None:
    choices = [{"message": message, "finish_reason": "length"}, {"message": {"content": "b"}}]
    reply = read_reply(json.dumps({"choices": choices}).encode(), 2)
    assert isinstance(reply, Reply)
    found = [(done.text, done.finish_reason) for done in reply.completions]
    assert found == [*([(text, "length")] if text is not None else []), ("b", "stop")]


NAMES = st.sampled_from(
    ["choices", "message", "content", "usage", "finish_reason", "prompt_tokens"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_no_reply_is_an_exception(body: Any) -> None:
    reply = read_reply(json.dumps(body).encode(), 2)
    assert isinstance(reply, Failure) or 1 <= len(reply.completions) <= 2


@given(st.text())
def test_no_header_is_an_exception(text: str) -> None:
    wait = read_wait({"retry-after": text})
    assert wait is None or wait >= 0
