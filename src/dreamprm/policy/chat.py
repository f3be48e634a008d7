"""Chat completions: a question and its first steps as messages, and the reply as completions.

Pictures go out as data URLs before the text. A prefix is continued in one of three ways, because
servers differ (`Continuation`). Behind load balancers a reply of status 200 may still be an error
page, half a body or a message without text, so it is checked. Replies cost money: what was paid for
is counted, where a server does not count it too, and used as far as it can be.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from dreamprm.images import data_url
from dreamprm.policy import Completion, Reply, Request
from dreamprm.policy.servers import OK, Failure, server_message
from dreamprm.records import Question
from dreamprm.steps import opening, split_steps

Continuation = Literal["prefill", "assistant", "prompt"]
"""How a prefix is continued.

- `prefill`: the last message is the assistant's, and two fields say that it is to be continued
  (vLLM, SGLang, newer llama.cpp).
- `assistant`: the last message is the assistant's, and the server continues that by itself
  (llama.cpp, LMDeploy).
- `prompt`: the prefix stands in the user's message with the request to go on behind it.
"""

PREFILL_FIELDS = {"continue_final_message": True, "add_generation_prompt": False}

_GO_ON = """{prompt}

The solution has been begun below. Go on exactly behind its last line: do not repeat or change what
is there, and begin with what comes next.

{begun}"""


class ChatMessages:
    """Builds the messages of requests.

    Args:
        prompt: text of a question, one of `prompts.PROMPTS`.
    """

    def __init__(self, prompt: Callable[[Question], str]) -> None:
        self._prompt = prompt
        # K requests about a question come close together.
        self._url = functools.lru_cache(maxsize=64)(data_url)

    def build(self, request: Request, continuation: Continuation) -> list[dict[str, Any]]:
        """The messages that ask for what comes behind the request's steps.

        Raises:
            DataError: an image is missing or is none.
        """
        text = self._prompt(request.question)
        begun = opening(request.steps)
        if begun and continuation == "prompt":
            text, begun = _GO_ON.format(prompt=text, begun=begun.rstrip()), ""
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": self._url(image)}}
            for image in request.question.images
        ]
        content.append({"type": "text", "text": text})
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": content if request.question.images else text}
        ]
        if begun:
            messages.append({"role": "assistant", "content": begun})
        return messages


def without_prefix(text: str, steps: Sequence[str], continuation: Continuation) -> str:
    """A reply without the steps it was to go on behind, where they stand in it once more.

    A server that was given them as the model's own words may hand them out with the rest. A model
    that was only asked to go on may write them again, all or the last ones, with other spaces.

    Example:
        >>> text = "Step 1: red is 3\\nStep 2: 3 + 5 = 8"
        >>> without_prefix(text, ["Step 1: red is 3"], "prompt")
        'Step 2: 3 + 5 = 8'
    """
    if continuation != "prompt":
        return text.removeprefix(opening(steps))
    said, words = text.split(), " ".join(steps).split()
    for step in steps:
        if words and said[: len(words)] == words:
            return "".join(text.split(maxsplit=len(words))[len(words) :])
        words = words[len(step.split()) :]
    return text


_LONGEST_REASON = 40  # characters of a finish reason
_MOST_TOKENS = 10**9  # of one request
_CHARACTERS_PER_TOKEN = 4  # of English text; what servers count for it differs by a third
_TOKENS_PER_IMAGE = 1000  # some hundreds to some thousands, by model and size


Tell = Callable[[str, str], None]
"""Tells a user what is odd about a server: a name for it, and a sentence."""


def read_reply(
    body: bytes,
    n: int,
    stops: Sequence[str] = (),
    model: str = "",
    tell: Tell = lambda name, sentence: None,
) -> Reply | Failure:
    """At most n completions; a `Failure` that may be asked again where there is not one.

    A reply that cannot be what a server meant, in its form or its counts, is a failure as a whole.

    Args:
        stops: texts that end a step; a completion that stopped at one has the finish reason `step`.
        model: that was asked for.
        tell: is told what had to be done to the reply to use it.
    """
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        return Failure("again", "the reply is no JSON", OK)
    if not isinstance(reply, dict):
        return Failure("again", "the reply is no JSON object", OK)
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices:
        said = server_message(reply.get("error")) if reply.get("error") else "it has no choices"
        return Failure("again", f"the reply is not complete: {said}", OK)
    try:
        prompt, written = (_count(reply, f"{part}_tokens") for part in ("prompt", "completion"))
    except ValueError as error:
        return Failure("again", f"the reply is not sound: {error}", OK)
    read = (_completion(choice, stops, written > 0, tell) for choice in choices)
    good = tuple(itertools.islice((done for done in read if done is not None), n))
    if not good:
        return Failure("again", "the reply is not complete: no choice has any text", OK)
    if len(choices) > n:
        tell("more", "gives more samples than are asked for; the first are kept")
    elif len(choices) < n:
        tell("fewer", "gives fewer samples than are asked for; the rest is asked for by itself")
    if model and isinstance(answered := reply.get("model"), str) and answered != model:
        tell("model", f"says that model '{answered}' wrote; what it writes is kept as {model}'s")
    return Reply(good, prompt, written)


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


def joined(first: Iterable[Reply], paid: Sequence[Reply]) -> Reply:
    """One reply with the completions of the first ones and the cost of all that were paid."""
    return Reply(
        tuple(done for reply in first for done in reply.completions),
        sum(reply.prompt_tokens for reply in paid),
        sum(reply.completion_tokens for reply in paid),
    )


def _completion(choice: Any, stops: Sequence[str], written: bool, tell: Tell) -> Completion | None:
    """None for a choice without text; an empty text is one.

    Args:
        written: the server counts tokens that were written. Where it hands out no text for them
            (SGLang for a model that stops at once, others for a thought that was cut), the model
            is not to be asked for them once more.
    """
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        return None
    reason = choice.get("finish_reason")
    if not isinstance(reason, str) or len(reason) > _LONGEST_REASON or reason == "step":
        reason = "stop"
    said = message.get("content")
    content = _joined(said)
    # A server with a reasoning parser splits off what the model thought, under the newer or the
    # older name; `content` is null when the thinking was cut at the limit.
    thought = _joined(message.get("reasoning") or message.get("reasoning_content"))
    if isinstance(said, list):
        tell("parts", "hands out a text in parts; they are joined")
        thought = thought or _joined(said, "thinking")
    if thought:
        tell("thought", "hands out what the model thinks apart from its answer; both are kept")
        content = content or ""
        glued = not content or thought.endswith("\n") or content.startswith("\n")
        content = thought + ("" if glued else "\n") + content
    if content is None and said in (None, []):
        content = message.get("refusal")
        if content is None and (written or reason == "content_filter"):
            tell(
                "empty",
                "counts tokens and hands out no text for them; that is kept as an empty one",
            )
            content = ""
    if not isinstance(content, str) or not _is_storable(content + reason):
        return None
    return _step(content, reason, choice, stops) if stops else Completion(content, reason)


def _joined(value: Any, field: str = "text") -> str | None:
    """A text, which some servers hand out in parts; None where there is none."""
    if not isinstance(value, list):
        return value if isinstance(value, str) else None
    parts = [part.get(field) for part in value if isinstance(part, dict)]
    if field != "text":  # what was thought may be in parts itself
        parts = [_joined(part) for part in parts]
    texts = [part for part in parts if isinstance(part, str)]
    return "".join(texts) if texts else None


def _is_storable(text: str) -> bool:
    """Not with half a surrogate pair, which no file can hold."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


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


def _count(reply: Mapping[str, Any], name: str) -> int:
    """A count of tokens; 0 where the server gives none.

    Raises:
        ValueError: it is no count.
    """
    usage = reply.get("usage")
    value = usage.get(name) if isinstance(usage, dict) else None
    if value is None:
        return 0
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if not whole or not 0 <= value <= _MOST_TOKENS:
        raise ValueError(f"its {name} are no count")
    return int(value)
