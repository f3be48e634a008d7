"""Requests that go out of their way to break `dreamprm serve`, and what must hold for each.

    python -m tests.serve_abuse [--count 10000] [--seed 0]

starts a server on the embedded model, with a served policy behind it, and reports how the requests
ended and what they cost. Whatever is sent, the answer is a good one or an error of 4xx in OpenAI's
shape, without a traceback; an error comes within `LONGEST_S`; nothing on this machine is fetched,
though its name is an allowed host; and memory stays bounded.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import random
import socket
import struct
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

LONGEST_S = 1.0
_LARGEST = 8_000_000  # bytes of most bodies; of the others 40 million
ROUTES = ("/v1/score", "/pooling", "/v1/chat/completions")

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 10**30, 1.5, 1e308, float("nan"), float("inf"), "", " ", "x"),
    *("\ud800", "\0", "\u202e", "<|image_pad|>", "<|step|>", "\n" * 100, "-1", "x" * 10**5),
    *([], {}, [[]], [1], [None], {"a": 1}, {"text": "x"}, ["x"] * 1000, [["x"] * 300]),
    *({"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "data:,"}}),
)


def png(width: int, height: int, rows: int = 1) -> bytes:
    """A picture whose head may claim more than its rows hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress((b"\0" + b"\x7f" * 3 * min(width, 10**5)) * rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def as_url(data: bytes) -> str:
    """A data URL."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def pictures(port: int) -> list[str]:
    """Addresses that must not be fetched (a canary listens at the port), and odd data URLs."""
    hosts = (
        *(f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}", f"127.1:{port}"),
        *(f"2130706433:{port}", f"0x7f000001:{port}", f"[::ffff:127.0.0.1]:{port}", f"0:{port}"),
        *("169.254.169.254", "metadata.google.internal", f"localhost@127.0.0.1:{port}"),
        *(f"127.0.0.1:{port}#localhost", f"localhost%00:{port}", "localhost:99999", "[", ""),
    )
    schemes = ("http", "https", "HTTP", "ftp", "file", "gopher", "jar:http")
    urls = [f"{scheme}://{host}/a.png" for scheme in schemes for host in hosts]
    files = ["/etc/passwd", "file:///etc/passwd", "../../etc/passwd", "/dev/zero", "\\\\h\\s", "."]
    good = png(28, 28, 28)
    datas = [
        *(as_url(good[:n]) for n in (0, 10, 40, len(good) - 5)),
        *(as_url(png(*size)) for size in ((10**5, 10**5), (2**31 - 1, 1), (0, 0), (1, 10**6))),
        *(as_url(png(4000, 4000, 4000)), as_url(png(5000, 5000)), as_url(b"GIF89a" + b"\xff" * 99)),
        *("data:", "data:,", "data:image/png;base64", "data:image/png;base64,\x00", "data:x,%zz"),
        *("DATA:image/svg+xml;base64," + base64.b64encode(b"<svg onload='x'/>").decode(),),
        *(as_url(b"%!PS\n(/etc/passwd) run"), "data:image/png;base64," + "A" * 300_000),
    ]
    return [*urls, *files, *datas]


def good_bodies() -> dict[str, dict[str, Any]]:
    """A request that is served, of each route; small ones."""
    picture = as_url(png(28, 28, 28))
    part = {"type": "image_url", "image_url": {"url": picture}}
    turn = {"role": "user", "content": [part, {"type": "text", "text": "what is red ?"}]}
    steps = {"role": "assistant", "content": "it is<|step|>so 3<|step|>"}
    return {
        "/v1/score": {
            "question": "what is red ?",
            "images": [picture],
            "options": ["3", "4"],
            "candidates": [["it is", "so 3"], "Step 1: red\nFinal answer: 4"],
            "aggregation": "min",
        },
        "/pooling": {"task": "token_classify", "messages": [turn, steps], "use_activation": False},
        "/v1/chat/completions": {
            "model": "fake@best_of_n:2",
            "messages": [{"role": "system", "content": "be brief"}, turn],
            "n": 1,
            "seed": 3,
            "temperature": 0.7,
            "stop": ["END"],
            "max_tokens": 20,
            "stream": False,
        },
    }


@dataclass(frozen=True)
class Sent:
    """A request."""

    method: str
    path: str
    headers: dict[str, str]
    content: bytes


def mutated(count: int, seed: int, canary: int) -> Iterator[Sent]:
    """Requests with one to three things wrong, most of them in one field."""
    rng = random.Random(seed)
    bodies, shown = good_bodies(), pictures(canary)
    for _ in range(count):
        path = rng.choice(ROUTES)
        body: Any = deepcopy(bodies[path])
        method, headers = "POST", {"content-type": "application/json"}
        for _ in range(rng.choice((1, 1, 2, 3))):
            body = _changed(body, rng, shown)
        content = json.dumps(body).encode() if _size(body) < _LARGEST else b"[1, " * 10**7
        if (kind := rng.random()) < 0.1:  # bytes
            cut = rng.randrange(len(content) + 1)
            junk = rng.choice((b"", b"\xff", b"[" * 10**5, b'"', rng.randbytes(20)))
            content = content[:cut] + junk + content[cut + rng.randrange(9) :]
        elif kind < 0.13:
            content = rng.choice((b"", b"null", b"[]", b"1e999", b"[" * 10**6, b" " * 10**6))
        elif kind < 0.17:
            headers["content-type"] = rng.choice(("text/plain", "", "multipart/form-data", "a/b;c"))
        elif kind < 0.2:
            method = rng.choice(("GET", "PUT", "DELETE", "OPTIONS", "HEAD", "TRACE", "BREW"))
        elif kind < 0.23:
            path = rng.choice(("/v1/scores", "//pooling", "/../etc/passwd", "/%00", "/v1/score/"))
        yield Sent(method, path, headers, content)


def _size(value: Any) -> int:
    """About how many bytes; a list of a list of a list may be multiplied thrice."""
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        total = 0
        for part in parts:
            total += 4 + _size(part)
            if total > _LARGEST:
                break
        return total
    return len(value) if isinstance(value, str) else 1


def _changed(body: Any, rng: random.Random, shown: list[str]) -> Any:
    """The body with a value replaced, left out, repeated or added somewhere."""
    places = list(_places(body))
    holder, key = rng.choice(places)
    how = rng.random()
    if how < 0.35:
        holder[key] = deepcopy(rng.choice(VALUES))
    elif how < 0.6:
        images = [(h, k) for h, k in places if k == "url" or (k == 0 and "data:" in str(h[k])[:5])]
        holder, key = rng.choice(images) if images else (holder, key)
        holder[key] = rng.choice(shown)
    elif how < 0.7:
        del holder[key]
    elif how < 0.8 and isinstance(holder, list):
        holder *= rng.choice((2, 50, 500))
    elif how < 0.9 and isinstance(holder, dict):
        name = rng.choice(("x", "logprobs", "tools", "input", "images", "\ud800"))
        holder[name] = deepcopy(rng.choice(VALUES))
    elif isinstance(holder[key], str):
        holder[key] = holder[key] * rng.choice((0, 2, 1000))
    else:
        holder[key] = [holder[key]]
    return body


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list) and value[key]:
            yield from _places(value[key])


class Canary:
    """Listens on this machine, and counts who comes."""

    def __init__(self) -> None:
        self.visits = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.visits += 1
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


@dataclass
class Tally:
    """How requests ended."""

    statuses: Counter[int] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    slowest: str = ""

    def note(self, sent: Sent, status: int, reply: bytes, seconds: float) -> None:
        """Count an answer."""
        self.statuses[status] += 1
        wrong = _wrong(sent, status, reply)
        told = (
            f"{status} to {sent.method} {sent.path}, {len(sent.content):,} bytes, {reply[:200]!r}"
        )
        if status >= 400 and seconds > self.slowest_s:
            self.slowest_s, self.slowest = seconds, told
        if wrong:
            self.broken.append(f"{wrong}: {told}; {sent.content[:300]!r}")


def _wrong(sent: Sent, status: int, reply: bytes) -> str | None:
    if status != 200 and not 400 <= status < 500:
        return "neither served nor refused"
    if b"Traceback" in reply or b'File "' in reply:
        return "a traceback"
    if status >= 400 and sent.method != "HEAD":
        error = json.loads(reply)["error"]
        if set(error) != {"message", "type", "param", "code"} or len(error["message"]) > 1000:
            return "not of OpenAI's shape"
    return None


def abuse(host: str, port: int, sents: Iterator[Sent], clients: int = 4) -> Tally:
    """Send all; a connection for each client, and a new one after an error of the connection."""
    tally, lock = Tally(), threading.Lock()

    def work() -> None:
        connection = http.client.HTTPConnection(host, port, timeout=30)
        while True:
            with lock:
                sent = next(sents, None)
            if sent is None:
                return connection.close()
            for _ in range(2):  # an idle connection may be closed just when it is used again
                start = time.monotonic()
                try:
                    connection.request(sent.method, sent.path, sent.content, sent.headers)
                    response = connection.getresponse()
                    status, reply = response.status, response.read()
                    break
                except (OSError, http.client.HTTPException) as error:
                    connection.close()
                    status, reply = 0, repr(error).encode()
            with lock:
                tally.note(sent, status, reply, time.monotonic() - start)

    with ThreadPoolExecutor(clients) as pool:
        for each in [pool.submit(work) for _ in range(clients)]:
            each.result()
    return tally


def main() -> int:
    """Abuse a server in a process of its own."""
    from benchmarks.serving import PORT, serving
    from dreamprm.prm.model import PRM
    from tests.fake_endpoint import FakeEndpoint

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, FakeEndpoint() as policy, Canary() as canary:
        folder = Path(name) / "prm"
        PRM.from_backbone("tiny").save_pretrained(folder)
        options = ["--policy_model", policy.model, "--policy_urls", policy.url]
        options += ["--allowed_image_hosts", "localhost"]
        with serving(folder, *options) as server:
            abuse("127.0.0.1", PORT, mutated(200, args.seed + 1, canary.port))
            _, before = server.facts()
            start = time.monotonic()
            tally = abuse("127.0.0.1", PORT, mutated(args.count, args.seed, canary.port))
            _, peak = server.facts()
    print(*tally.broken, sep="\n")
    print(f"{args.count} requests in {time.monotonic() - start:.0f} s: {dict(tally.statuses)}")
    print(f"broken {len(tally.broken)}, slowest error {tally.slowest_s:.2f} s: {tally.slowest}")
    print(f"memory at most {before:.0f} MiB after 200, {peak:.0f} MiB at the end")
    print(f"fetched from this machine: {canary.visits}")
    return 1 if tally.broken or canary.visits else 0


if __name__ == "__main__":
    sys.exit(main())
