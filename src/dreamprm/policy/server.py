"""What a server can do, found out once before the work begins.

The first real request should not be the one that finds a mistyped model name or a refused setting,
and how a prefix is continued decides what the samples are.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from dreamprm.errors import DreamPRMError
from dreamprm.policy.messages import PREFILL_FIELDS, Continuation
from dreamprm.policy.replies import read_reply
from dreamprm.policy.retrying import Failure

Ask = Callable[[Mapping[str, Any] | None], Awaitable[bytes | Failure]]
"""Fields of a chat request -> body of the reply; None -> the list of models."""

_KNOWN = ("vllm", "sglang")  # name themselves, and are documented to take PREFILL_FIELDS

UNBENT = {"top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0}
"""Sent to known servers: where a request is silent they follow the model's own
`generation_config.json`, and top_k = 1 in one would make all samples of a question the same."""

_LINE = "alpha bravo charlie delta echo foxtrot golf hotel"
_BEGUN = "alpha bravo charlie delta"
_MOST_NAMED = 8


class Server(NamedTuple):
    """A server that answers.

    Attributes:
        kind: its `owned_by` of the model: `vllm`, `sglang`, `llamacpp`, ...; "" where it says none.
        continuation: how it continues a prefix; `prompt` where that was not to be found out.
    """

    kind: str
    continuation: Continuation

    @property
    def bends(self) -> bool:
        """Does it need, and take, `UNBENT` to sample from the model's own distribution?"""
        return self.kind in _KNOWN


async def greet(ask: Ask, model: str, *, find_continuation: bool) -> Server | Failure:
    """Look at one server.

    Returns:
        The server, or a failure where it does not answer.

    Raises:
        DreamPRMError: it answers, but not with this model, key and settings.
    """
    listed = await ask(None)
    if isinstance(listed, Failure) and (listed.status is None or listed.status in (401, 403)):
        return _alive(listed, "")
    kinds = {} if isinstance(listed, Failure) else _kinds(listed)
    # Lists are no proof: some servers load what is asked for and name nothing, or other names.
    names = sorted(kinds)
    named = ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")
    first = await ask({"messages": [{"role": "user", "content": "Answer with the word yes."}]})
    if isinstance(first, Failure):
        return _alive(first, f"; models served there: {named}" if named else "")
    kind = kinds.get(model, "")
    way: Continuation = await _continuation(ask, kind) if find_continuation else "prompt"
    return Server(kind, way)


def _alive(failure: Failure, hint: str) -> Failure:
    """A failure that time may mend; others are errors."""
    if failure.kind in ("refused", "fatal"):
        raise DreamPRMError(failure.message + hint)
    return failure


def _kinds(body: bytes) -> dict[str, str]:
    """Model name -> who owns it, as far as the list can be read."""
    try:
        rows = json.loads(body)["data"]
        return {str(row["id"]): str(row.get("owned_by") or "").lower() for row in rows}
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}


async def _continuation(ask: Ask, kind: str) -> Continuation:
    """The first way in which the server continues what was begun, else `prompt`.

    Servers ignore what they do not know, so that acceptance proves nothing, except with kinds that
    document it. Others have to continue a line that any model can: one that begins it anew was not
    given its beginning as its own words.
    """
    ways: tuple[tuple[Continuation, Mapping[str, Any]], ...] = (
        ("prefill", PREFILL_FIELDS),
        ("assistant", {}),
    )
    for way, fields in ways:
        body = await ask(
            {
                "messages": [
                    {"role": "user", "content": f"Copy this line and write nothing else:\n{_LINE}"},
                    {"role": "assistant", "content": _BEGUN},
                ],
                "temperature": 0.0,
                **fields,
            }
        )
        reply = body if isinstance(body, Failure) else read_reply(body, 1)
        if isinstance(reply, Failure):
            continue
        if kind in _KNOWN and way == "prefill":
            return way
        if reply.completions[0].text.split()[:2] == _LINE.removeprefix(_BEGUN).split()[:2]:
            return way
    return "prompt"
