"""Chat templates are written by a child process that gets little time and memory.

A template comes with a model's folder and is a program. jinja's sandbox keeps it from the machine,
not from loops that never end or texts that fill all memory, and nothing in this process could stop
those. So one child is forked for all templates, and the system ends it where it passes its limits.
On systems other than Linux, templates run in this process, without limits.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from dreamprm.errors import DreamPRMError

SECONDS = 2.0  # of CPU time, for one call
_WALL_SECONDS = 60
_BYTES_OF_MEMORY = 256 << 20  # over what the process has when it begins
_TOO_MUCH = f"it takes more than {SECONDS:g} s of CPU time, or too much memory"
LONGEST = 1_000_000
"""Characters that a template may write beyond twice those of what it is asked."""


def tokenizer_of(reader: Any) -> Any:
    """The tokenizer of a processor; a text model's reader is its tokenizer."""
    return getattr(reader, "tokenizer", reader)


def write_chats(
    reader: Any, chats: Sequence[Sequence[dict[str, Any]]], reply_next: bool = False
) -> list[str]:
    """Write conversations with a model's chat template, as its `apply_chat_template` would.

    Args:
        reader: processor or tokenizer.
        chats: each a list of messages with `role` and `content`: a text, or a list of texts and
            images as processors take it. A tokenizer's template is given the texts alone.
        reply_next: end with what begins the assistant's next turn.

    Raises:
        DreamPRMError: there is no template, it fails, or it passes a limit.
    """
    template = reader.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if template is None:
        raise DreamPRMError("the model has no chat template; take its instruction-tuned variant")
    tokens: dict[str, str] = tokenizer_of(reader).special_tokens_map
    if tokenizer_of(reader) is reader:
        chats = [[m | {"content": _text_of(m["content"])} for m in chat] for chat in chats]
    asked = tokens | {
        "chat_template": template,
        "conversations": chats,
        "add_generation_prompt": reply_next,
    }
    answer = _writer.ask(asked) if sys.platform == "linux" else _render(asked)
    if isinstance(answer, str):
        raise DreamPRMError(f"the model's chat template does not write the conversation: {answer}")
    return answer


def _text_of(content: str | list[dict[str, str]]) -> str:
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def start_writer() -> None:
    """Fork the child, best before weights are loaded: it keeps the memory of its beginning."""
    if sys.platform == "linux":
        _writer.start()


class _Writer:
    """The child, as its parent sees it."""

    def __init__(self) -> None:
        self._lock, self._pid = threading.Lock(), 0
        self._refused: set[str] = set()  # templates that passed a limit, which are not run again

    def start(self) -> None:
        """Fork the child where it is not running."""
        with self._lock:
            if not self._pid:
                self._fork()

    def ask(self, asked: dict[str, Any]) -> list[str] | str:
        """The texts, or why there are none."""
        line, template = json.dumps(asked).encode() + b"\n", asked["chat_template"]
        with self._lock:
            if template in self._refused:
                return _TOO_MUCH
            if not self._pid:
                self._fork()
            try:
                self._socket.sendall(line)
                reply = self._replies.readline()
            except OSError:  # it is gone, or silent
                reply = b""
            if not reply.endswith(b"\n"):
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
                self._pid = 0
                self._refused.add(template)
                return _TOO_MUCH
        answer: list[str] | str = json.loads(reply)
        return answer

    def _fork(self) -> None:
        self._socket, theirs = socket.socketpair()
        with warnings.catch_warnings():  # of threads, none of which the child needs
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if self._pid == 0:
            _serve(theirs)
        theirs.close()
        self._socket.settimeout(_WALL_SECONDS)
        self._replies = self._socket.makefile("rb")


_writer = _Writer()


def _forget_parents_child() -> None:
    global _writer
    _writer = _Writer()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parents_child)


def _serve(requests: socket.socket) -> None:
    """In the child: write conversations until the parent is gone. Never returns."""
    try:
        descriptor = requests.fileno()
        os.closerange(3, descriptor)  # files of the parent, and the locks on them
        os.closerange(descriptor + 1, os.sysconf("SC_OPEN_MAX"))
        gc.freeze()  # nothing of the parent's is to be finalised here
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        _limit_memory()
        for line in requests.makefile("rb"):
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            answer = _render(json.loads(line))
            signal.setitimer(signal.ITIMER_PROF, 0)
            requests.sendall(json.dumps(answer).encode() + b"\n")
    finally:
        os._exit(0)


def _limit_memory() -> None:
    import resource  # not on Windows

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + _BYTES_OF_MEMORY
    if most == resource.RLIM_INFINITY or limit < most:
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))


def _render(asked: dict[str, Any]) -> list[str] | str:
    """The texts, or why there are none: a template may raise anything."""
    try:
        texts: list[str] = render_jinja_template(**asked)[0]  # type: ignore[assignment]  # wrong hint
        length, longest = sum(map(len, texts)), LONGEST + 2 * len(json.dumps(asked))
    except Exception as error:
        return f"{type(error).__name__}: {error}".removesuffix(": ")
    return texts if length <= longest else f"it writes {length:,} characters"
