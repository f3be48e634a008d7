"""Replies of a server: good ones with fields, bytes, headers or statuses changed, and made-up ones.

One of four questions gets them; the others are answered well. What was answered well is in the
store and was asked for once, and the same command against a good server does what is left.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import json
import random
import zlib
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from dreamprm.cli import main
from dreamprm.data import write_questions, write_trajectories
from dreamprm.records import Question, Trajectory
from dreamprm.rollouts.store import RolloutStore
from tests.attack import Case, Result
from tests.fake_endpoint import FakeEndpoint, Seen
from tests.faults import Body, Fault

TRIED = "replies of a server to `sample` and `label`"
COUNT = 160
QUESTIONS = 4
UNLUCKY = "What is 2?"

USAGE = {"prompt_tokens": 9, "completion_tokens": 9}
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "Final answer: 1"}}
GOOD: Body = {
    "id": "1",
    "model": "fake",
    "choices": [CHOICE | {"finish_reason": "stop"}, CHOICE | {"finish_reason": "length"}],
    "usage": USAGE,
}
VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 10**30, 1.5, float("nan"), "", "x", "\ud800", "\0", [], {}, [[]], [1]),
    *({"text": "x"}, [{"type": "text", "text": "x"}], [{"type": "thinking", "thinking": "x"}]),
    "x" * 10**6,
)
HEADERS = (
    *("content-encoding: gzip", "content-encoding: br", "content-encoding: gzip, gzip, deflate"),
    *("content-type: application/json; charset=hex", "content-type: text/html; charset=utf-16"),
    *("transfer-encoding: chunked", "content-length: 5", "content-length: -1", "x: \xff"),
    *("content-length: 99999", "set-cookie: =;;;=", "location: http://[::1", "no header"),
    "x: " + "y" * 200_000,
)
WAITS = ("-1", "nan", "inf", "1e9", "9" * 400, "Thu, 01 Jan 1970 00:00:00 GMT", "99 Foo 9999", "x")
STATUSES = (201, 204, 206, 301, 302, 304, 307, 400, 402, 408, 413, 418, 422, 429, 500, 503, 599)


def nested(depth: int, opened: str = "[", closed: str = "]") -> str:
    return opened * depth + closed * depth


def raw(*lines: str, body: bytes = json.dumps(GOOD).encode(), status: str = "200 OK") -> Fault:
    """A reply with these lines in its head."""
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *lines, ""))
    return Fault("raw", body=head.encode("latin-1") + body)


def packed(data: bytes, times: int = 1) -> Fault:
    for _ in range(times):
        data = gzip.compress(data)
    return raw("content-encoding: " + ", ".join(["gzip"] * times), body=data)


def known() -> Iterator[tuple[str, Fault]]:
    """Replies that have broken clients, the most telling first."""

    def changed(**fields: Any) -> Fault:
        return Fault("200", body=json.dumps(GOOD | fields))

    null = [{"message": {"content": None}, "finish_reason": "stop"}]
    yield "null without tokens", changed(choices=null, usage=None)
    yield "half a character", changed(choices=[{"message": {"content": "\ud800"}}])
    yield "counts of 10^30", changed(usage={"prompt_tokens": 10**30, "completion_tokens": 10**30})
    yield "deep lists", Fault("200", body=nested(100_000))
    yield "deep error", Fault("500", body=nested(900, '{"error":', "}").replace(":}", ":1}"))
    yield "packed 1 GiB", packed(b" " * 2**26)
    yield "endless", Fault("endless", body=f"HTTP/1.1 200 OK\r\n\r\n{' ' * 70_000}")
    yield "elsewhere", Fault("307", {"location": "http://127.0.0.1:9/v1/chat/completions"})
    yield "no dicts", changed(choices=[1, None, "a", [], {"message": 1}])
    yield "null with tokens", changed(choices=null)
    yield "deep objects", Fault("200", body='{"choices":' * 900 + "1" + "}" * 900)
    yield "deep content", Fault("200", body=json.dumps(GOOD).replace('"stop"', nested(500)))
    yield "packed three times", packed(b" " * 2**26, times=3)
    yield "endless error", Fault("endless", body=f"HTTP/1.1 500 X\r\n\r\n{'x' * 70_000}")
    yield "endless head", Fault("endless", body="HTTP/1.1 200 OK\r\n" + "x: y\r\n" * 20_000)
    yield (
        "endless chunks",
        Fault(
            "endless",
            body="HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + "1\r\nx\r\n" * 20_000,
        ),
    )
    yield "a million choices", changed(choices=[{}] * 10**6)
    yield "latin-1", Fault("200", body=json.dumps(GOOD).replace("Final", "\xe9").encode("latin-1"))
    yield "utf-16", Fault("200", body=json.dumps(GOOD).encode("utf-16"))
    yield "deflate", raw("content-encoding: deflate", body=zlib.compress(json.dumps(GOOD).encode()))
    yield "two replies", Fault("200", body=2 * json.dumps(GOOD))
    yield "a stream", raw("content-type: text/event-stream", body=b"data: {}\n\ndata: [DONE]\n\n")
    yield "nothing", Fault("raw", body="")
    yield "no HTTP", Fault("raw", body="220 smtp ready\r\n")
    yield "an upgrade", raw("upgrade: h2c", "connection: upgrade", status="101 Switching")
    yield "hints for ever", Fault("endless", body="HTTP/1.1 103 Early\r\n\r\n" * 4000)
    for kind in ("reset", "hang", "half", "garbage", "page", "empty", "fewer"):
        yield kind, Fault(kind)


def changed_at_random(rng: random.Random) -> Iterator[tuple[str, Fault]]:
    """Good replies with something in them changed."""
    paths: list[tuple[Any, ...]] = [("choices",), ("usage",), ("model",), ("choices", 0)]
    paths += [("choices", i, name) for i in (0, 1) for name in ("message", "finish_reason")]
    paths += [("usage", name) for name in USAGE]
    paths += [
        ("choices", 0, "message", name)
        for name in ("content", "reasoning", "reasoning_content", "refusal", "tool_calls")
    ]
    while True:
        kind = rng.choice(["field", "field", "field", "field", "bytes", "cut", "head", "status"])
        body = json.dumps(GOOD).encode()
        if kind == "field":
            fields, path, value = deepcopy(GOOD), rng.choice(paths), rng.choice(VALUES)
            inner: Any = fields
            for name in path[:-1]:
                inner = inner[name]
            inner[path[-1]] = value
            where = ".".join(map(str, path))
            yield f"{where} is {value!r:.20}", Fault("200", body=json.dumps(fields))
        elif kind == "bytes":
            data = bytearray(body)
            for _ in range(rng.randint(1, 9)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            yield "bytes", Fault("200", body=bytes(data))
        elif kind == "cut":
            end = rng.randrange(len(body))
            length = rng.choice([f"content-length: {len(body)}", "x: y"])
            yield f"cut at {end}, {length}", raw(length, body=body[:end])
        elif kind == "head":
            lines = rng.sample(HEADERS, 2)
            yield f"{lines[0]:.40}, {lines[1]:.40}", raw(*lines)
        else:
            status, wait = rng.choice(STATUSES), rng.choice(WAITS)
            headers = {"retry-after": wait, "location": rng.choice(["/v1/models", "x:", "//"])}
            text = rng.choice([b"", body, b'{"error": {}}', b'{"detail": [[]]}', b"\xff"])
            yield f"{status}, wait {wait:.20}", Fault(str(status), headers, text)


def cases(folder: Path, count: int, rng: random.Random) -> Iterator[Case]:
    questions = [
        Question(id=str(i), domain="d", text=f"What is {i}?", answer="1") for i in range(QUESTIONS)
    ]
    write_questions(folder / "questions.jsonl", questions)
    begun = [
        Trajectory(question_id=question.id, steps=("Step 1: one",), policy="p")
        for question in questions
    ]
    write_trajectories(folder / "begun.jsonl", begun)
    every = known(), changed_at_random(rng)
    with FakeEndpoint() as server:
        tried = itertools.islice(itertools.chain(*every), count)
        for number, (name, fault) in enumerate(tried):
            verb = "label" if number % 5 == 4 else "sample"
            out = folder / str(number)
            words = [verb, "--questions", str(folder / "questions.jsonl")]
            words += ["--output", str(out / "out.jsonl"), "--base_urls", server.url]
            words += ["--model_name_or_path", "fake", "--continuation", "prompt"]
            words += [
                "--max_attempts",
                str(1 + number % 2),
                "--give_up_after_s",
                "3",
                "--timeout_s",
                "2",
            ]
            if verb == "sample":
                words += ["--num_candidates", "2"]
            else:
                words += ["--trajectories", str(folder / "begun.jsonl"), "--num_completions", "2"]

            def plan(_: int, body: Body, fault: Fault = fault) -> Fault | None:
                return fault if UNLUCKY in str(body) else None

            def check(result: Result, words: list[str] = words, out: Path = out) -> str | None:
                return lost_or_twice(server, out) or undone(server, words, out)

            server.plan = plan
            server.forget()
            yield Case(f"{number} {name}", words, check)


def answered(server: FakeEndpoint) -> list[Seen]:
    return [seen for seen in server.answered if "What is" in str(seen.body)]


def lost_or_twice(server: FakeEndpoint, out: Path) -> str | None:
    texts = {text for seen in answered(server) for text in seen.texts}
    with RolloutStore(out / "rollouts.db", readonly=True) as store:
        kept = {text for (text,) in store._rows("SELECT text FROM rollouts")}
    if texts - kept:
        return f"{len(texts - kept)} samples that were answered are lost"
    times = Counter(json.dumps([s.body["messages"], s.body["seed"]]) for s in answered(server))
    return "a sample was asked for again" if max(times.values(), default=0) > 1 else None


def undone(server: FakeEndpoint, words: list[str], out: Path) -> str | None:
    """What the same command leaves undone, now that the server is well."""
    server.plan, said = None, io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main([*words, "--ask_again", "true"])
    if code:
        return f"against a good server it ended with {code}: {said.getvalue()[-300:]}"
    return lost_or_twice(server, out)
