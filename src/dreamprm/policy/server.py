"""What a server can do, found out once before the work begins.

The first real request should not be the one that finds a mistyped model name or a refused setting,
and how a prefix is continued decides what the samples are.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, NamedTuple

from dreamprm.errors import DreamPRMError
from dreamprm.policy.messages import PREFILL_FIELDS, Continuation
from dreamprm.policy.replies import read_reply
from dreamprm.policy.retrying import Failure

Ask = Callable[[Mapping[str, Any] | None], Awaitable[bytes | Failure]]
"""Fields of a chat request -> body of the reply; None -> the list of models."""

_logger = logging.getLogger(__name__)

GREETING_S = 60.0
"""Longest attempt of a greeting, which asks for a word or two; real requests may take longer."""

LATE_S = 10.0
"""How long the others are waited for once one server has answered."""

_KNOWN = ("vllm", "sglang")  # name themselves, and are documented to take PREFILL_FIELDS

UNBENT = {"top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0}
"""What plain sampling at a temperature has to say to known servers: where a request is silent they
follow the model's own `generation_config.json`, and top_k = 1 in one would make all samples of a
question the same."""

_HELLO = [{"role": "user", "content": "Answer with the word yes."}]
_LINE = "alpha bravo charlie delta echo foxtrot golf hotel"
_BEGUN = "alpha bravo charlie delta"
_MOST_NAMED = 8


class Server(NamedTuple):
    """A server that answers.

    Attributes:
        unbent: it may need `UNBENT` to sample from the model's own distribution, and takes it.
        continuation: how it continues a prefix; `prompt` where that was not to be found out.
    """

    unbent: bool
    continuation: Continuation


async def greet_all(
    greetings: Mapping[str, Coroutine[Any, Any, Server | Failure]],
) -> dict[str, Server]:
    """The servers that answer, by URL; those that take long once one has are not waited for.

    Args:
        greetings: base URL -> `greet` of that server.

    Raises:
        DreamPRMError: none answers, or one answers, but not with this model, key and settings.
    """
    tasks = {url: asyncio.ensure_future(greeting) for url, greeting in greetings.items()}
    try:
        async with asyncio.timeout(None) as patience:
            for task in asyncio.as_completed(tasks.values()):
                if isinstance(await task, Server) and patience.when() is None:
                    patience.reschedule(asyncio.get_running_loop().time() + LATE_S)
    except TimeoutError:
        late = ", ".join(url for url, task in tasks.items() if not task.done())
        _logger.warning("no answer yet from %s; the work begins without", late)
    finally:
        for unfinished in tasks.values():
            unfinished.cancel()
        ended = await asyncio.gather(*tasks.values(), return_exceptions=True)
    found = dict(zip(tasks, ended, strict=True))
    servers = {url: server for url, server in found.items() if isinstance(server, Server)}
    if not servers:
        causes = "; ".join(each.message for each in ended if isinstance(each, Failure))
        raise DreamPRMError(f"no endpoint answers: {causes}; start it or correct its URL")
    return servers


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
    hello = {"messages": _HELLO}
    kind = kinds.get(model)
    # A list that fails once must not change the samples, so who may be a known kind is tried.
    unbent = kind is None or kind in _KNOWN
    first = await ask(hello | UNBENT if unbent else hello)
    if unbent and isinstance(first, Failure) and first.kind == "refused":
        unbent, refusal = False, first
        first = await ask(hello)
        if not isinstance(first, Failure):
            _logger.warning("%s; asked without, what it sets by itself holds", refusal.message)
    if isinstance(first, Failure):
        return _alive(first, f"; models served there: {named}" if named else "")
    way: Continuation = await _continuation(ask, kind) if find_continuation else "prompt"
    return Server(unbent, way)


async def takes_stops(ask: Ask) -> bool:
    """Can a server be told a text to stop at?

    `transformers serve` (5.23) takes the field and then fails on it; a server that is not there
    decides nothing.
    """
    reply = await ask({"messages": _HELLO, "stop": ["\n\n"]})
    if isinstance(reply, Failure) and reply.status is not None:
        _logger.warning(
            "%s, when told a text to stop at; single steps are not to be had there, and whole "
            "continuations are sampled",
            reply.message,
        )
        return False
    return True


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


async def _continuation(ask: Ask, kind: str | None) -> Continuation:
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
