"""A server of /pooling in a thread, as vLLM serves a PRM: it reads tokens or a conversation, knows
nothing of steps, and gives a logit at each token that is the step tag.

    with FakePooling(prm) as server:
        ServedPRM(folder, [server.url])
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import torch

from dreamprm.images import load_image
from dreamprm.models.templates import write_chats
from dreamprm.prm.model import PRM

Answer = tuple[int, dict[str, Any] | bytes]
Spoil = Callable[[int, dict[str, Any]], Answer | None]
"""Number and body of a request -> status and body in place of the right ones."""


class FakePooling:
    """A context manager.

    Args:
        prm: what it serves.
        spoil: what goes wrong.

    Attributes:
        seen: headers and body of each request.
    """

    def __init__(self, prm: PRM, spoil: Spoil | None = None) -> None:
        self.prm, self.spoil = prm, spoil
        self.seen: list[tuple[dict[str, str], dict[str, Any]]] = []
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Self:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.reply(200, {"data": [{"id": "prm"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    number = len(outer.seen)
                    headers = {name.lower(): v for name, v in self.headers.items()}
                    outer.seen.append((headers, body))
                    spoilt = outer.spoil and outer.spoil(number, body)
                    right = self.path == "/pooling"
                    self.reply(*(spoilt or ((200, outer.answer(body)) if right else (404, {}))))

            def reply(self, status: int, body: dict[str, Any] | bytes) -> None:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @torch.inference_mode()
    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """What vLLM replies."""
        assert body["task"] == "token_classify"
        assert body["use_activation"] is False
        inputs = self.read(body)
        ids = inputs["input_ids"]  # (1, tokens)
        hidden = self.prm.backbone.base_model(**inputs, use_cache=False).last_hidden_state
        tag = self.prm.encoder().tag_id
        rows = self.prm.judge(hidden[ids == tag])[:, None].tolist()
        return {"data": [{"index": 0, "data": rows}], "usage": {"prompt_tokens": ids.shape[1]}}

    def read(self, body: dict[str, Any]) -> dict[str, Any]:
        """The inputs of the backbone."""
        if "input" in body:
            ids = torch.tensor([body["input"]])
            return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        assert body["add_generation_prompt"] is False
        pictures, chat = [], []
        for message in body["messages"]:
            parts = []
            for part in message["content"]:
                if part["type"] == "image_url":
                    pictures.append(load_image(part["image_url"]["url"]))
                parts.append({"type": "image"} if part["type"] == "image_url" else part)
            chat.append(message | {"content": parts})
        [text] = write_chats(self.prm.processor, [chat])
        special = body["add_special_tokens"]
        images = {"images": [pictures]} if pictures else {}
        return dict(
            self.prm.processor(
                text=[text], return_tensors="pt", add_special_tokens=special, **images
            )
        )
