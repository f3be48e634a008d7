"""The body of a chat completion as completions, or what is wrong with it.

Behind load balancers a reply of status 200 may still be an error page, half a body or a message
without text, so nothing about it is believed unseen.
"""

from __future__ import annotations

import json
from typing import Any

from dreamprm.policy import Completion, Reply
from dreamprm.policy.retrying import Failure, server_message


def read_reply(body: bytes, n: int) -> Reply | Failure:
    """At most n completions; a `Failure` that may be asked again where there is not one."""
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
    good = [done for choice in choices if (done := _completion(choice)) is not None]
    if not good:
        return Failure("again", "the reply is not complete: no choice has any text")
    usage = found.get("usage")
    prompt, completion = (_count(usage, f"{part}_tokens") for part in ("prompt", "completion"))
    return Reply(tuple(good[:n]), prompt, completion)


def _completion(choice: Any) -> Completion | None:
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
        return Completion(thought + ("" if glued else "\n") + content, reason)
    if content is None:
        content = message.get("refusal")
        if content is None and reason == "content_filter":
            content = ""
    return Completion(content, reason) if isinstance(content, str) else None


def _count(usage: Any, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and value >= 0 else 0
