"""The body of a chat completion as completions, or what is wrong with it.

Behind load balancers a reply of status 200 may still be an error page, half a body or a message
without text, so nothing about it is believed unseen. Replies cost money, so what was paid for is
counted, where a server does not count it too, and handed on as far as it can be.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from dreamprm.errors import DreamPRMError
from dreamprm.policy import Completion, Reply
from dreamprm.policy.retrying import Failure, server_message
from dreamprm.prompts import split_steps

_CHARACTERS_PER_TOKEN = 4  # of English text; what servers count for it differs by a third
_TOKENS_PER_IMAGE = 1000  # some hundreds to some thousands, by model and size


def read_reply(body: bytes, n: int, stops: Sequence[str] = ()) -> Reply | Failure:
    """At most n completions; a `Failure` that may be asked again where there is not one.

    Args:
        stops: texts that end a step; a completion that stopped at one has the finish reason `step`.
    """
    try:
        found = json.loads(body)
    except ValueError:
        return Failure("again", "the reply is no JSON")
    if not isinstance(found, dict):
        return Failure("again", "the reply is no JSON object")
    choices = found.get("choices")
    if not isinstance(choices, list) or not choices:
        said = server_message(found.get("error")) if found.get("error") else "it has no choices"
        return Failure("again", f"the reply is not complete: {said}")
    good = [done for choice in choices if (done := _completion(choice, stops)) is not None]
    if not good:
        return Failure("again", "the reply is not complete: no choice has any text")
    usage = found.get("usage")
    prompt, completion = (_count(usage, f"{part}_tokens") for part in ("prompt", "completion"))
    return Reply(tuple(good[:n]), prompt, completion)


def with_estimates(reply: Reply, messages: Iterable[Mapping[str, Any]]) -> Reply:
    """The reply with token counts from the texts where its server gave none (or 0).

    A rough count stops a budget somewhere near its limit; none would never stop it.
    """
    if reply.prompt_tokens and reply.completion_tokens:
        return reply
    written = sum(len(done.text) for done in reply.completions)
    return replace(
        reply,
        prompt_tokens=reply.prompt_tokens or _prompt_tokens(messages),
        completion_tokens=reply.completion_tokens or -(-written // _CHARACTERS_PER_TOKEN),
    )


def _prompt_tokens(messages: Iterable[Mapping[str, Any]]) -> int:
    characters = images = 0
    for message in messages:
        content = message["content"]
        for part in [{"text": content}] if isinstance(content, str) else content:
            characters += len(part.get("text", ""))
            images += "image_url" in part
    return -(-characters // _CHARACTERS_PER_TOKEN) + _TOKENS_PER_IMAGE * images


def part_seed(seed: int, start: int) -> int:
    """Seed of the request that begins at this sample of a call.

    Servers count on from a request's seed for its further samples (vLLM: seed + index), so the
    seeds of two requests must not be neighbours.
    """
    if start == 0:
        return seed % 2**31
    return int.from_bytes(hashlib.sha256(f"{seed}/{start}".encode()).digest()[:4], "big") >> 1


class Parts(NamedTuple):
    """What became of the parts of one request.

    Attributes:
        first: replies up to the first part that failed.
        lost: replies behind that; paid for, but the samples before them are missing.
        error: of the part that failed.
    """

    first: list[Reply]
    lost: list[Reply]
    error: DreamPRMError | None


async def finished_parts(parts: Iterable[Coroutine[Any, Any, Reply]]) -> Parts:
    """Await parts of a request, all at once; after a failure those behind it are called off."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    first: list[Reply] = []
    failed = None
    try:
        for task in tasks:
            first.append(await task)
    except DreamPRMError as error:
        failed = error
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    lost = [reply for reply in ended[len(first) :] if isinstance(reply, Reply)]
    return Parts(first, lost, failed)


def joined(first: Sequence[Reply], lost: Sequence[Reply]) -> Reply:
    """One reply with the completions of the first ones and the cost of all."""
    return Reply(
        tuple(done for reply in first for done in reply.completions),
        sum(reply.prompt_tokens for reply in [*first, *lost]),
        sum(reply.completion_tokens for reply in [*first, *lost]),
    )


def _completion(choice: Any, stops: Sequence[str]) -> Completion | None:
    """None for a choice without text; an empty text is one."""
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        return None
    reason = choice.get("finish_reason")
    reason = reason if isinstance(reason, str) else "stop"
    content = message.get("content")
    # A server with a reasoning parser splits off what the model thought, under the newer or the
    # older name; `content` is null when the thinking was cut at the limit.
    thought = message.get("reasoning") or message.get("reasoning_content")
    if isinstance(thought, str) and thought:
        content = content if isinstance(content, str) else ""
        glued = not content or thought.endswith("\n") or content.startswith("\n")
        content = thought + ("" if glued else "\n") + content
    if content is None:
        content = message.get("refusal")
        if content is None and reason == "content_filter":
            content = ""
    if not isinstance(content, str):
        return None
    return _step(content, reason, choice, stops) if stops else Completion(content, reason)


def _step(text: str, reason: str, choice: Mapping[str, Any], stops: Sequence[str]) -> Completion:
    """Did it end at one of these texts? vLLM and SGLang name the text; other servers do not.

    Unnamed, a text counts as a step: if the model had ended there, its next one will be empty.
    Nothing that states an answer is to be gone on with.
    """
    if reason != "stop" or split_steps(text)[1] is not None:
        return Completion(text, reason)
    ended_at = next((stop for stop in stops if text.endswith(stop)), None)
    if ended_at is not None:  # a server told to hand the stop out too
        return Completion(text.removesuffix(ended_at), "step")
    told = [choice[name] for name in ("stop_reason", "matched_stop") if name in choice]
    stopped = isinstance(told[0], str) if told else bool(text.strip())
    return Completion(text, "step" if stopped else "stop")


def _count(usage: Any, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and value >= 0 else 0
