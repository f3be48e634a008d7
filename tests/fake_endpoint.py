"""An OpenAI-compatible server that misbehaves as told: what tests and benchmarks run the endpoint
policy against.

    with FakeEndpoint(plan=scripted({2: Fault("reset")}), slots=8, latency_s=0.01) as server:
        policy = Policy(server.model, base_urls=[server.url])

What it writes is a function of messages, seed and index (seed + index, as vLLM counts), so that a
disturbed run can be compared with an undisturbed one. It is written on bare asyncio, because a web
framework neither resets a connection nor stops in the middle of a body. It counts what it answered
and how long its slots were busy. No pytest here.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from tests.faults import Body, Fault, Plan


@dataclass
class Seen:
    """A chat request and what became of it.

    Attributes:
        body, headers: as received; header names in lower case.
        at: seconds since the server's start.
        fault: what was done to it.
        status: sent; 0 while there is none, and where the connection was cut.
        texts: that were sent whole.
    """

    body: Body
    headers: dict[str, str]
    at: float
    fault: str | None = None
    status: int = 0
    texts: tuple[str, ...] = ()


Writer = Callable[[str, str, int], str]
"""User's text, prefix of the answer ("" for none) and seed -> the rest of the answer."""


def write(prompt: str, begun: str, seed: int) -> str:
    """Three steps and an answer, of which `begun` holds the first ones; copies when told to."""
    if begun and begun.strip() in prompt:  # "copy this line": go on in it
        return prompt[prompt.index(begun.strip()) + len(begun.strip()) :]
    written = begun.count("Step ")
    digits = hashlib.sha256(f"{prompt}|{begun}|{seed}".encode()).hexdigest()
    steps = [f"Step {i}: {digits[4 * i : 4 * i + 6]}" for i in range(written + 1, 4)]
    return "\n".join([*steps, f"Final answer: {int(digits[:2], 16) % 4}"])


class FakeEndpoint:
    """A server in a thread of its own; a context manager.

    Args:
        model: the one it serves; others are 404.
        plan: what goes wrong.
        latency_s: of each answer, while a slot is held.
        slots: answers worked on at once; more requests wait. None for no limit.
        owned_by: what it says it is.
        continues: with which messages it continues a prefix: `prefill` (fields needed), `assistant`
            (without them) or never. Else a last message of the assistant is a finished one, which
            costs two tokens more; so it is with `owned_by` vllm and a proxy that drops the fields.
        largest_n: larger n is refused with 400; None takes all.
        ignores_n: gives one choice whatever n is.
        key: a bearer token that it wants; wrong ones come back in the 401's message.
        lists_models: else /v1/models is 404.
        stops: with which field it names the text that it stopped at, as vLLM (`stop_reason`) and
            SGLang (`matched_stop`) do; None tells nothing, as OpenAI does; `never` does not stop.
        writer: what it writes.
    """

    def __init__(
        self,
        *,
        model: str = "fake",
        plan: Plan | None = None,
        latency_s: float = 0.0,
        slots: int | None = None,
        owned_by: str = "fake",
        continues: Literal["prefill", "assistant", "never"] = "never",
        largest_n: int | None = None,
        ignores_n: bool = False,
        key: str | None = None,
        lists_models: bool = True,
        stops: Literal["stop_reason", "matched_stop", "never"] | None = "stop_reason",
        writer: Writer = write,
    ) -> None:
        self.model, self.plan, self.latency_s, self.writer = model, plan, latency_s, writer
        self.slots, self.owned_by, self.continues = slots, owned_by, continues
        self.largest_n, self.ignores_n, self.key = largest_n, ignores_n, key
        self.lists_models, self.stops = lists_models, stops
        self.seen: list[Seen] = []
        self.busy_s = 0.0
        self.in_flight = self.most_in_flight = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._started, self._connections = time.monotonic(), set[asyncio.Task[None]]()

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def answered(self) -> list[Seen]:
        """Requests that got a whole answer with text."""
        return [seen for seen in self.seen if seen.texts]

    def samples(self) -> Counter[str]:
        """How often each text was sent whole."""
        return Counter(text for seen in self.seen for text in seen.texts)

    def forget(self) -> None:
        """Start the account anew (after a policy has connected, say); the plan counts on from 0."""
        self.seen, self.busy_s, self.most_in_flight = [], 0.0, 0

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _open(self) -> None:
        self._gate = asyncio.Semaphore(self.slots) if self.slots else None
        self._server = await asyncio.start_server(
            self._connection, "127.0.0.1", self.port, limit=1 << 26
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client went, or the server is closing
        finally:
            self._connections.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; False when the connection is over."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ", 2)
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:] if line)}
        content = await reader.readexactly(int(headers.get("content-length", 0)))
        token = headers.get("authorization", "").removeprefix("Bearer ")
        if self.key is not None and token != self.key:
            return await _send(writer, 401, _error(f"Incorrect API key provided: {token}"))
        if (method, path) == ("GET", "/v1/models") and self.lists_models:
            rows = [{"id": self.model, "object": "model", "owned_by": self.owned_by}]
            return await _send(writer, 200, json.dumps({"object": "list", "data": rows}))
        if (method, path) != ("POST", "/v1/chat/completions"):
            return await _send(writer, 404, '{"detail": "Not Found"}')
        seen = Seen(json.loads(content), headers, time.monotonic() - self._started)
        fault = self.plan(len(self.seen), seen.body) if self.plan else None
        seen.fault = fault.kind if fault else None
        self.seen.append(seen)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._answer(seen, fault, writer)
        finally:
            self.in_flight -= 1

    async def _answer(self, seen: Seen, fault: Fault | None, writer: asyncio.StreamWriter) -> bool:
        kind = fault.kind if fault else ""
        if fault and kind.isdigit():
            seen.status = int(kind)
            return await _send(writer, seen.status, fault.content, fault.headers)
        if kind == "reset":
            writer.transport.abort()
            return False
        if fault and kind in ("raw", "endless"):
            writer.write(fault.content)
            while kind == "endless":
                await writer.drain()
                writer.write(fault.content[-(1 << 16) :])
            await writer.drain()
            return False
        if kind == "hang":
            await asyncio.Event().wait()
        refusal = self._refusal(seen.body)
        if refusal:
            seen.status = refusal[0]
            return await _send(writer, seen.status, _error(refusal[1]))
        texts = await self._texts(seen.body, fault)
        closes = seen.body["messages"][-1]["role"] == "assistant" and not self._begun(seen.body)
        body = json.dumps(_completion(texts, kind, seen.body, self.stops, 12 if closes else 10))
        if kind == "half":
            writer.write(_head(200, len(body)) + body[: len(body) // 2].encode())
            await writer.drain()
            writer.transport.abort()
            return False
        body = {"garbage": "{not json", "page": "<html>hello</html>"}.get(kind, body)
        await _send(writer, 200, body)
        seen.status = 200
        seen.texts = () if kind in ("null", "garbage", "page") else tuple(texts)
        return True

    def _refusal(self, body: Body) -> tuple[int, str] | None:
        if body.get("model") != self.model:
            return 404, f"The model `{body.get('model')}` does not exist."
        if self.largest_n is not None and body.get("n", 1) > self.largest_n:
            return 400, f"n must be at most {self.largest_n}"
        return None

    async def _texts(self, body: Body, fault: Fault | None) -> list[str]:
        if self._gate is not None:
            await self._gate.acquire()
        begun = time.monotonic()
        try:
            wait = self.latency_s + (fault.seconds if fault and fault.kind == "slow" else 0.0)
            if wait:
                await asyncio.sleep(wait)
        finally:
            self.busy_s += time.monotonic() - begun
            if self._gate is not None:
                self._gate.release()
        n = 1 if self.ignores_n else int(body.get("n", 1))
        kind = fault.kind if fault else ""
        n = {"empty": 0, "fewer": max(1, n // 2), "more": n + 2}.get(kind, n)
        prompt, begun = _text(body["messages"][0]["content"]), self._begun(body)
        return [self.writer(prompt, begun, int(body.get("seed", 0)) + i) for i in range(n)]

    def _begun(self, body: Body) -> str:
        """What it continues; "" for a new answer."""
        last, fields = body["messages"][-1], bool(body.get("continue_final_message"))
        takes = self.continues == "assistant" or (self.continues == "prefill" and fields)
        return str(last["content"]) if takes and last["role"] == "assistant" else ""


def _text(content: str | list[dict[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text") or part["image_url"]["url"] for part in content)


def _completion(
    texts: list[str], kind: str, body: Body, named_in: str | None, prompt_tokens: int
) -> Body:
    choices: list[dict[str, Any]] = []
    for i, written in enumerate(texts):
        text, stop = written, None
        if named_in != "never":
            text, stop = _stopped(written, body.get("stop", []))
        message = {"role": "assistant", "content": None if kind == "null" else text}
        choice = {"index": i, "message": message, "finish_reason": "stop"}
        # vLLM names no text where the model ended, SGLang the number of the token that ended it.
        told = {"stop_reason": stop, "matched_stop": stop or 2}
        choices.append(choice | {k: v for k, v in told.items() if k == named_in})
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": sum(len(t.split()) for t in texts),
    }
    counted = {} if kind in ("uncounted", "null") else {"usage": usage}
    return {"id": "1", "object": "chat.completion", "choices": choices, **counted}


def _stopped(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The text up to the first of these, and which one it was."""
    found = [(text.index(stop), stop) for stop in stops if stop in text]
    if not found:
        return text, None
    end, stop = min(found)
    return text[:end], stop


def _error(message: str) -> str:
    return json.dumps({"error": {"message": message}})


def _head(status: int, length: int, headers: Mapping[str, str] | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {length}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def _send(
    writer: asyncio.StreamWriter,
    status: int,
    body: str | bytes,
    headers: Mapping[str, str] | None = None,
) -> bool:
    content = body.encode() if isinstance(body, str) else body
    writer.write(_head(status, len(content), headers) + content)
    await writer.drain()
    return True
