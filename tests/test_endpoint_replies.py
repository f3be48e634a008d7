"""Replies of servers that are odd, malformed, too long, or hold the key."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from dreamprm.cli import main
from dreamprm.data import read_trajectories, write_questions
from dreamprm.errors import DreamPRMError
from dreamprm.policy import http
from dreamprm.policy.keys import Key
from dreamprm.rollouts.sampler import Outcome, Sampler, sample_candidates
from dreamprm.rollouts.store import RolloutStore
from tests.fake_endpoint import FakeEndpoint
from tests.faults import Fault, always, scripted
from tests.test_endpoint import policy_of, question, run

HEAD = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
TEXT = "Step 1: it is so, as is shown in the picture, and the sum of all is 8.\nFinal answer: 8"


def reply(texts: Sequence[str] = ("Final answer: 1",), **changed: Any) -> str:
    """The body of a good reply, with fields in place of its own."""
    choices = [{"message": {"content": text}, "finish_reason": "stop"} for text in texts]
    usage = {"prompt_tokens": 9, "completion_tokens": 9}
    return json.dumps({"model": "fake", "choices": choices, "usage": usage} | changed)


def told(caplog: pytest.LogCaptureFixture, *bodies: str, n: int = 2, count: int = 4) -> list[str]:
    """What is told of a server that replies so to each question; it is told once."""
    with FakeEndpoint(plan=lambda number, _: Fault("200", body=bodies[number % len(bodies)])) as s:
        run(policy_of(s, continuation="prompt", concurrency=1), count, n)
        assert all(line.startswith(f"{s.url} ") for line in caplog.messages)
        return [line.removeprefix(f"{s.url} ") for line in caplog.messages]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (reply("a"), "gives fewer samples than are asked for; the rest is asked for by itself"),
        (reply("abc"), "gives more samples than are asked for; the first are kept"),
        (reply("ab", model="other"), "says that model 'other' wrote; what it writes is kept as "),
        (reply([TEXT, TEXT]), "gives the same text for all samples that are asked for at once"),
        (reply([[{"text": "a"}], "b"]), "hands out a text in parts; they are joined"),  # type: ignore[list-item]
        (reply([None, "b"]), "counts tokens and hands out no text for them; that is kept as an "),  # type: ignore[list-item]
        (
            reply(choices=2 * [{"message": {"content": "a", "reasoning_content": "hm"}}]),
            "hands out what the model thinks apart from its answer; both are kept",
        ),
    ],
)
def test_what_is_odd_about_a_server_is_told_once(
    body: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    [line] = told(caplog, body)
    assert line.startswith(said)


def test_nothing_is_told_of_short_answers_that_agree_and_of_texts_that_agree_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert told(caplog, reply("88")) == []
    assert told(caplog, reply("ab"), reply([TEXT, TEXT])) == []


def packed(text: str) -> bytes:
    body = gzip.compress(text.encode())
    return f"{HEAD}content-encoding: gzip\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    "fault",
    [
        Fault("200", body='{"a":' * 5000),
        Fault("200", body="[" * 900 + "]" * 900),
        Fault("500", body='{"error":' * 900 + "1" + "}" * 900),
        Fault("429", body="[" * 900 + "]" * 900),
        Fault("200", body=reply(["\ud800"])),
        Fault("200", body=reply(choices=[1, None, [], "a", {"message": 7}])),
        Fault("200", body=reply(usage={"completion_tokens": 10**30})),
        Fault("200", body=reply(["é"]).replace("\\u00e9", "é").encode("latin-1")),
        Fault("raw", body=f"{HEAD}content-type: text/plain; charset=hex\r\n\r\n{{"),
        Fault("raw", body=f"{HEAD}content-encoding: gzip\r\n\r\nno gzip"),
        Fault("raw", body=packed(" " * (http.LARGEST_REPLY + 1))),
        Fault("endless", body=f"{HEAD}\r\n{' ' * 70_000}"),
        Fault("endless", body=HEAD.replace("200", "500") + f"\r\n{'x' * 70_000}"),
        Fault("307", {"location": "http://127.0.0.1:9/v1/chat/completions"}),
        Fault("307", {"location": "http://[::1"}),
    ],
    ids=lambda fault: f"{fault.kind} {fault.content[-40:]!r:.50}",
)
def test_a_malformed_reply_is_a_failed_attempt(fault: Fault) -> None:
    with FakeEndpoint(plan=scripted({1: fault, 2: fault})) as server:
        texts = run(policy_of(server, continuation="prompt"), 1)
        assert texts == [[text for seen in server.answered[1:] for text in seen.texts]]
        assert len(server.seen) == 4


def test_redirects_are_followed_within_one_origin_only() -> None:
    with FakeEndpoint() as other, FakeEndpoint() as server:
        server.plan = always(Fault("308", {"location": f"{other.url}/chat/completions"}))
        with pytest.raises(
            DreamPRMError, match=rf"308, a redirect to {other.url}/\S+, which is not followed"
        ):
            run(policy_of(server, max_attempts=2))
        assert not other.seen
        server.forget()
        server.plan = scripted({0: Fault("308", {"location": f"{server.url}/chat/completions"})})
        assert len(run(policy_of(server, continuation="prompt"), 1)) == 1
        assert len(server.seen) == 3


KEY = 'sk-0123/45+6"789_secret'
BASE64 = [base64.b64encode(f"{before}{KEY}".encode()).decode() for before in ("", "u", "u:", "usr")]
FORMS = [
    KEY,
    quote(KEY),
    quote(KEY, safe=""),
    quote(KEY, safe="").replace("%2F", "%2f").replace("%2B", "%2b"),
    json.dumps(KEY),
    "".join(f"\\u{ord(letter):04x}" for letter in KEY),
    *BASE64,
    *(form.rstrip("=") for form in BASE64),
    base64.urlsafe_b64encode(KEY.encode()).decode(),
]


def test_a_key_is_masked_in_all_its_forms() -> None:
    key = Key(KEY, "MY_KEY")
    for form in FORMS:
        masked = key.mask(f"Basic {form} was refused")
        assert "***" in masked, form
        assert len(masked) <= len("Basic *** was refused") + 8, form  # what shares a letter stays
    assert KEY not in repr(key)


def test_a_key_that_a_model_repeats_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = "sk-0123456789"
    monkeypatch.setenv("MY_KEY", key)
    caplog.set_level(logging.DEBUG)
    body = reply([f"Bearer {key} it is", "b"], model=key)
    with FakeEndpoint(plan=always(Fault("200", body=body)), key=key) as server:
        assert run(policy_of(server, api_key_env="MY_KEY"), 1) == [["Bearer *** it is", "b"]]
    assert "has written the API key into a sample; what is kept has ***" in caplog.text
    assert key not in "".join(record.getMessage() for record in caplog.records)


def test_a_key_of_a_few_letters_changes_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "answer")
    with FakeEndpoint(plan=always(Fault("200", body=reply("ab", model="answer")))) as server:
        assert run(policy_of(server, api_key_env="MY_KEY"), 1) == [["a", "b"]]
    with FakeEndpoint(model="an answer") as server, pytest.raises(DreamPRMError) as caught:
        asyncio.run(policy_of(server, api_key_env="MY_KEY").connect())
    assert "model `fake` does not exist" in str(caught.value)


def test_a_question_without_a_reply_is_left_behind_and_asked_again_only_when_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_questions(tmp_path / "q.jsonl", [question(i) for i in range(4)])
    empty = Fault("200", body=reply(choices=[], usage=None))
    words = ["sample", "--questions", str(tmp_path / "q.jsonl"), "--num_candidates", "2"]
    words += ["--output", str(tmp_path / "c.jsonl"), "--model_name_or_path", "fake"]
    words += ["--continuation", "prompt", "--max_attempts", "2"]
    with FakeEndpoint(plan=lambda _, body: empty if "is 2?" in str(body) else None) as server:
        words += ["--base_urls", server.url]

        def asked(*more: str) -> tuple[int, int, str]:
            """Exit code, requests about the question, and what is told."""
            server.forget()
            code = main([*words, *more])
            about = sum("is 2?" in str(seen.body) for seen in server.seen)
            return code, about, capsys.readouterr().err

        for times in (2, 0):
            code, about, said = asked()
            assert (code, about) == (1, times)
            assert "1 questions or prefixes got no reply that could be used" in said
            assert "--ask_again true" in said
            assert "1 questions were left out" in said
            assert len(read_trajectories(tmp_path / "c.jsonl")) == 6
        assert main(["status", "--store", str(tmp_path / "rollouts.db")]) == 0
        assert "1 questions or prefixes got no reply" in capsys.readouterr().out
        server.plan = None
        assert asked()[:2] == (1, 0)
        assert asked("--ask_again", "true")[:2] == (0, 1)
        assert len(read_trajectories(tmp_path / "c.jsonl")) == 8


def test_a_server_without_any_reply_to_use_ends_the_run(tmp_path: Path) -> None:
    questions = [question(i) for i in range(50)]
    empty = Fault("200", body=reply(choices=[], usage=None))

    async def story(server: FakeEndpoint) -> Outcome:
        with RolloutStore(tmp_path / "rollouts.db") as store:
            policy = policy_of(server, max_attempts=1, continuation="prompt", concurrency=4)
            outcome = await sample_candidates(Sampler(policy, store), questions, 1)
            await policy.close()
            return outcome

    with FakeEndpoint(plan=always(empty)) as server:
        outcome = asyncio.run(story(server))
    assert "gave no reply to use to the first 20 requests" in str(outcome.stopped)
