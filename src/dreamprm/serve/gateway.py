"""`/v1/chat/completions`: a policy that answers with the best of several reasonings.

The client sees one model. Behind it the policy's servers are asked for N reasonings, the reward
model scores their steps, and the best one is the answer. What the client says of sampling goes on
to the policy; what could not be honoured for the chosen answer is refused.
"""

from __future__ import annotations

import json
import re
import secrets
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

from pydantic import Field, model_validator

from dreamprm.errors import DreamPRMError, offer
from dreamprm.policy import Reply, Request
from dreamprm.policy.options import PolicyOptions
from dreamprm.policy.served import EndpointPolicy
from dreamprm.records import Question
from dreamprm.search.aggregation import aggregate, get_aggregation
from dreamprm.search.api import asearch
from dreamprm.search.choosing import METHODS, TREES
from dreamprm.search.search import Candidate, SearchResult
from dreamprm.serve.guard import Refused, no_model
from dreamprm.serve.metrics import Metrics
from dreamprm.serve.scoring import Scoring, told
from dreamprm.serve.wire import Body, Limits, Message, Text, Texts

N_CANDIDATES = 8
"""Reasonings that are sampled where a client does not say."""

_PASSED = (
    *("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty"),
    *("repetition_penalty", "logit_bias", "stop", "response_format", "reasoning_effort"),
    *("chat_template_kwargs", "structured_outputs", "user"),
)
"""Fields of a request that go on to the policy as they are."""


class StreamOptions(Body):
    """What a stream holds besides the answer."""

    include_usage: bool = False


class ChatRequest(Body):
    """OpenAI's request, and how the answer is chosen."""

    model: Text = Field(description="The policy's name; NAME@METHOD:N also says how to choose.")
    messages: list[Message] = Field(min_length=1, max_length=1024, fail_fast=True)
    method: Text | None = Field(None, description=f"One of {', '.join(METHODS)}.")
    n_candidates: int | None = Field(None, ge=1, description="Reasonings sampled, at most.")
    aggregation: Text | None = Field(None, description="Of step logits to one score.")
    n: int = Field(1, ge=1, description="So many of the candidates are answered, the best first.")
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=0, lt=2**63)
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = None
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0, le=2)
    logit_bias: Annotated[dict[Text, float], Field(max_length=1024)] | None = None
    stop: Text | Texts | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: Text | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    structured_outputs: dict[str, Any] | None = None
    user: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_what_asks_for_nothing(cls, body: Any) -> Any:
        """Clients send `"logprobs": false` and `"tools": null` of features that they do not use."""
        if not isinstance(body, dict):
            return body
        known = cls.model_fields
        return {k: v for k, v in body.items() if k in known or (v is not None and v is not False)}


@dataclass(frozen=True)
class _How:
    """How the answer to a request is found."""

    method: str
    n_candidates: int
    aggregation: str


@dataclass
class _Conversation:
    """A `policy.Writer` for one request: its earlier turns and fields go along, tokens are counted.

    The policy's own `settings` name it in the store, which lives as long as the request.
    """

    policy: EndpointPolicy
    before: tuple[Mapping[str, Any], ...]
    fields: Mapping[str, Any]
    prompt_tokens: int = field(default=0, init=False)
    completion_tokens: int = field(default=0, init=False)

    @property
    def name(self) -> str:
        return self.policy.name

    @property
    def slots(self) -> int:
        return self.policy.slots

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.policy.settings

    async def sample(self, request: Request, n: int, seed: int) -> Reply:
        """See `Writer`."""
        request = replace(request, before=self.before, fields=self.fields)
        reply = await self.policy.sample(request, n, seed)
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens
        return reply

    async def close(self) -> None:
        """The policy stays open."""


class Gateway:
    """Answers chat requests with what a search over the policy's reasonings finds.

    Args:
        options: of a served policy; where its seed is None, no seed is sent to it.
        scoring: the reward model at work.
        aggregation: that it was trained for.
    """

    def __init__(
        self,
        options: PolicyOptions,
        scoring: Scoring,
        aggregation: str,
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        self.name = options.model_name_or_path
        self._policy, self._seeded = EndpointPolicy(options), options.seed is not None
        self._scoring, self._aggregation = scoring, aggregation
        self._limits, self._metrics = limits, metrics

    @property
    def names(self) -> list[str]:
        """What clients may call it."""
        return [self.name, *(f"{self.name}@{method}" for method in METHODS)]

    async def close(self) -> None:
        """Close the connections to the policy's servers."""
        await self._policy.close()

    def check(self, body: ChatRequest) -> _How:
        """How a request is to be answered.

        Raises:
            Refused: it asks for what cannot be had.
        """
        name = re.fullmatch(rf"{re.escape(self.name)}(?:@(\w+)(?::(\d{{1,9}}))?)?", body.model)
        if name is None:
            raise no_model()
        method = body.method or name[1] or "best_of_n"
        if method not in METHODS:
            raise Refused(400, f"there is no such method; {offer(method, METHODS)}", "method")
        count = body.n_candidates or int(name[2] or max(N_CANDIDATES, body.n))
        how = _How(method, count, body.aggregation or self._aggregation)
        get_aggregation(how.aggregation)
        limits = self._limits
        if not 1 <= how.n_candidates <= limits.max_candidates:
            message = f"n_candidates must be from 1 to {limits.max_candidates}"
            raise Refused(400, message, "n_candidates")
        if body.n > how.n_candidates:
            message = f"n is {body.n}, of {how.n_candidates} candidates; raise n_candidates"
            raise Refused(400, message, "n")
        if (body.max_completion_tokens or body.max_tokens or 1) > limits.max_tokens:
            raise Refused(400, f"{limits.max_tokens} tokens are the limit", "max_tokens")
        if body.seed is not None and not self._seeded:
            raise Refused(400, "the policy's servers take no seed", "seed")
        whole = body.response_format or {"type": "text"}
        if how.method in TREES and (whole.get("type") != "text" or body.structured_outputs):
            message = f"{how.method} goes on behind steps, which a format of the whole rules out"
            raise Refused(400, message, "response_format")
        if how.method in TREES and body.stop:
            raise Refused(400, f"{how.method} has stops of its own, which end steps", "stop")
        _check_turns(body.messages)
        return how

    async def answer(self, body: ChatRequest, question: Question, how: _How) -> dict[str, Any]:
        """The answer to a request that has been checked.

        Args:
            question: its last turn.

        Raises:
            Refused: the policy refuses it, or does not answer.
        """
        before = [turn.model_dump(exclude_none=True) for turn in body.messages[:-1]]
        fields = body.model_dump(include=set(_PASSED), exclude_none=True)
        limit = body.max_completion_tokens or body.max_tokens
        fields |= {} if limit is None else {"max_tokens": limit}
        asked = _Conversation(self._policy, tuple(before), fields)
        try:
            await self._policy.connect()
            result = await asearch(
                question,
                asked,
                self._scoring,
                method=how.method,
                n=how.n_candidates,
                aggregation=how.aggregation,
                seed=secrets.randbelow(2**31) if body.seed is None else body.seed,
            )
        except DreamPRMError as error:
            raise told(error, "policy") from None
        finally:
            self._metrics.sampled(asked.prompt_tokens, asked.completion_tokens)
        return self._reply(body, how, result, asked)

    def _reply(
        self, body: ChatRequest, how: _How, result: SearchResult, asked: _Conversation
    ) -> dict[str, Any]:
        def score(candidate: Candidate) -> float:
            return aggregate(candidate.logits, how.aggregation)

        others = [c for c in result.candidates if c is not result.chosen]
        best = [result.chosen, *sorted(others, key=score, reverse=True)][: body.n]
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body.model,
            "choices": [
                {
                    "index": i,
                    "message": {"role": "assistant", "content": candidate.text},
                    "logprobs": None,
                    "finish_reason": candidate.trajectory.extra.get("finish_reason", "stop"),
                    "dreamprm": {
                        "steps": candidate.steps,
                        "step_scores": candidate.step_scores,
                        "score": score(candidate),
                        "answer": candidate.trajectory.answer,
                    },
                }
                for i, candidate in enumerate(best)
            ],
            "usage": {
                "prompt_tokens": asked.prompt_tokens,
                "completion_tokens": asked.completion_tokens,
                "total_tokens": asked.prompt_tokens + asked.completion_tokens,
            },
            "dreamprm": asdict(how) | {"completions": result.completions, "tied": result.tied},
        }


def chunks(reply: Mapping[str, Any], include_usage: bool) -> Iterator[str]:
    """An answer as server-sent events, line by line; what a choice says of itself comes last."""
    head = {name: reply[name] for name in ("id", "created", "model")}
    head["object"] = "chat.completion.chunk"

    def event(choices: list[Any], **rest: Any) -> str:
        return f"data: {json.dumps({**head, 'choices': choices, **rest})}\n\n"

    for choice in reply["choices"]:
        index, text = choice["index"], choice["message"]["content"]
        yield event([_piece(index, {"role": "assistant", "content": ""})])
        for line in text.splitlines(keepends=True):
            yield event([_piece(index, {"content": line})])
        end = _piece(index, {}, choice["finish_reason"])
        yield event([end | {"dreamprm": choice["dreamprm"]}], dreamprm=reply["dreamprm"])
    if include_usage:
        yield event([], usage=reply["usage"])
    yield "data: [DONE]\n\n"


def _piece(index: int, delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}


def _check_turns(messages: list[Message]) -> None:
    if messages[-1].role != "user":
        raise Refused(400, "the last message must be the user's; it is what is judged", "messages")
    if any(turn.images for turn in messages[:-1]):
        message = (
            "the reward model sees the last turn alone; put the pictures of earlier turns there"
        )
        raise Refused(400, message, "messages")
