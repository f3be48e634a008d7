"""Pictures, prefixes and replies of the endpoint policy, without a server."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageChops

from dreamprm.errors import DataError
from dreamprm.images import decode_image, load_image
from dreamprm.policy import Completion, Reply, Request
from dreamprm.policy.chat import ChatMessages, data_url, read_reply, without_prefix
from dreamprm.policy.servers import Failure, read_wait
from dreamprm.records import Question

STEPS = ("Step 1: red is 3", "Step 2: blue is 5")


def test_only_whole_steps_are_cut_off() -> None:
    for text, rest in (
        ("Step 2: blue is 5\nStep 3: 8", "Step 3: 8"),
        ("Step 2: blue is 57\nStep 3: 8", "Step 2: blue is 57\nStep 3: 8"),
        ("Step 3: 8", "Step 3: 8"),
    ):
        assert without_prefix(text, STEPS, "prompt") == rest


def test_a_server_that_hands_out_the_prefix_too_is_cut_and_a_model_is_not() -> None:
    said = "Step 1: red is 3\nStep 2: blue is 5\n"
    assert without_prefix(said + "Step 3: 8", STEPS, "prefill") == "Step 3: 8"
    assert without_prefix("Step 2: blue is 5\n", STEPS, "prefill") == "Step 2: blue is 5\n"


@given(
    st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=4),
    st.sampled_from(["\n", "\n\n", "  "]),
)
def test_any_repeated_prefix_is_cut_off(steps: list[str], between: str) -> None:
    assert without_prefix(between.join(steps) + "\nSTEP 99: 8", steps, "prompt") == "STEP 99: 8"


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def deep_png() -> bytes:
    """One pixel of three times 16 bits, which Pillow reads and does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    pixel = zlib.compress(b"\0" + struct.pack(">HHH", 9000, 20000, 65535))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def palette_png() -> bytes:
    """Colours from a palette of which one is transparent."""
    image = RGB.quantize(4)
    buffer = io.BytesIO()
    image.save(buffer, "png", transparency=0)
    return buffer.getvalue()


RGB = Image.linear_gradient("L").resize((40, 30)).convert("RGB")


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_pictures_are_sent_as_they_are(kind: str, tmp_path: Path) -> None:
    data = encoded(RGB, kind)
    (tmp_path / "a").write_bytes(data)
    for reference in (data, str(tmp_path / "a")):
        url = data_url(reference)
        assert url.startswith(f"data:image/{kind};base64,")
        assert decode_image(url) == data


@pytest.mark.parametrize(
    "data",
    [
        encoded(RGB, "gif"),
        encoded(RGB, "bmp"),
        encoded(RGB, "tiff"),
        encoded(Image.new("I;16", (9, 9), 30000), "png"),
        deep_png(),
        encoded(Image.new("RGBA", (9, 9), (0, 0, 0, 0)), "png"),
        palette_png(),
        encoded(Image.new("CMYK", (9, 9), (9, 9, 9, 9)), "jpeg"),
        encoded(Image.new("RGB", (2000, 2)), "png"),
    ],
    ids=["gif", "bmp", "tiff", "grey 16", "rgb 16", "alpha", "transparent", "cmyk", "thin"],
)
def test_other_pictures_are_sent_as_png_with_the_pixels_that_the_reward_model_sees(
    data: bytes,
) -> None:
    url = data_url(data)
    assert url.startswith("data:image/png;base64,")
    assert decode_image(url) != data
    sent = Image.open(io.BytesIO(decode_image(url)))
    assert ImageChops.difference(sent.convert("RGB"), load_image(data)).getbbox() is None


def test_pictures_come_before_the_text_and_are_encoded_once(
    png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str | bytes] = []

    def counted(reference: str | bytes) -> str:
        calls.append(reference)
        return data_url(reference)

    monkeypatch.setattr("dreamprm.policy.chat.data_url", counted)
    shown = Question(id="1", domain="d", text="Which?", images=(png, png), answer="1")
    messages = ChatMessages(lambda asked: asked.text)
    for steps in ((), STEPS):
        [first, *_] = messages.build(Request(shown, steps), "prefill")
        assert [part["type"] for part in first["content"]] == ["image_url", "image_url", "text"]
    assert len(calls) == 1


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone.png does not exist"):
        data_url(str(tmp_path / "gone.png"))
    with pytest.raises(DataError, match="cannot be read"):
        data_url(b"no picture")


THOUGHT = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": ""}, ""),
        ({"content": "yes"}, "yes"),
        ({"content": "\n\nyes", "reasoning": "hm"}, "hm\n\nyes"),
        ({"content": "yes", "reasoning_content": "hm"}, "hm\nyes"),
        ({"content": None, "reasoning_content": "hm, cut"}, "hm, cut"),
        ({"content": [{"type": "text", "text": "ye"}, {"type": "text", "text": "s"}]}, "yes"),
        ({"content": [*THOUGHT, {"type": "text", "text": "yes"}]}, "hm\nyes"),
        ({"content": None, "refusal": "I cannot"}, "I cannot"),
        ({"content": None}, None),
        ({"content": "half an emoji \ud83d"}, None),
        ({"content": {"text": "yes"}}, None),
        ({}, None),
    ],
)
def test_a_choice_is_read_for_all_the_text_it_has(message: Any, text: str | None) -> None:
    choices = [{"message": message, "finish_reason": "length"}, {"message": {"content": "b"}}]
    reply = read_reply(json.dumps({"choices": choices}).encode(), 2)
    assert isinstance(reply, Reply)
    found = [(done.text, done.finish_reason) for done in reply.completions]
    assert found == [*([(text, "length")] if text is not None else []), ("b", "stop")]


def test_a_sample_that_was_paid_for_and_has_no_text_is_an_empty_one() -> None:
    """SGLang replies so where a model stops at once; asked again, it stops at once again."""
    choice = {"message": {"content": None}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 1.0}  # some proxies make floats of counts
    reply = read_reply(json.dumps({"choices": [choice], "usage": usage}).encode(), 1)
    assert reply == Reply((Completion(""),), 10, 1)


@pytest.mark.parametrize("count", ["1e30", "1" + 30 * "0", "-1", "1.5", "NaN", '"7"', "[]"])
@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens"])
def test_a_count_of_tokens_that_is_none_makes_no_reply(count: str, name: str) -> None:
    body = f'{{"choices": [{{"message": {{"content": "a"}}}}], "usage": {{"{name}": {count}}}}}'
    assert read_reply(body.encode(), 1) == Failure(
        "again", f"the reply is not sound: its {name} are no count", 200
    )


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
