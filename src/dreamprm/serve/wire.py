"""What clients send and get: the bodies of `/v1/score` and `/pooling`, and how they are read.

Pydantic makes the OpenAPI description from these. All limits on contents are here.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dreamprm.errors import DataError
from dreamprm.records import UNKNOWN_ANSWER, Question
from dreamprm.rollouts.store import question_key
from dreamprm.serve.pictures import picture
from dreamprm.steps import split_steps


@dataclass(frozen=True)
class Limits:
    """What one request may hold, and all of them together.

    Attributes:
        max_body_bytes: of a request's body.
        max_images: of a question.
        max_candidates: of a question, given or sampled.
        max_steps: of a candidate.
        max_characters: of a question and its candidates together.
        max_tokens: that a completion of the policy may be asked to have.
        max_requests: at hand at once; more get 429.
        max_waiting: candidates that wait to be scored; more get 429.
        body_timeout_s: until a request has come in.
        timeout_s: until it is answered.
    """

    max_body_bytes: int = 2**25
    max_images: int = 16
    max_candidates: int = 64
    max_steps: int = 256
    max_characters: int = 400_000
    max_tokens: int = 16_384
    max_requests: int = 512
    max_waiting: int = 4096
    body_timeout_s: float = 30.0
    timeout_s: float = 300.0


# Validation stops at the first mistake, and a list has an end: a body may hold a million of either.
# A text with a limit is also checked to be one: half a surrogate pair is none.
Text = Annotated[str, Field(max_length=2**25)]
Texts = Annotated[list[Text], Field(max_length=1024, fail_fast=True)]
_MOST_FIELDS = 64


class Body(BaseModel):
    """Base of all bodies: a field that is not known is refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _check_fields(cls, body: Any) -> Any:
        if isinstance(body, dict) and len(body) > _MOST_FIELDS:
            raise ValueError(f"it has {len(body):,} fields")
        return body


class Problem(BaseModel):
    """What is wrong with a request."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    """An error in OpenAI's form."""

    error: Problem


class TextPart(Body):
    """Text of a message."""

    type: Literal["text"]
    text: Text


class ImageURL(Body):
    """A picture: a data URL; an http(s) address where its host is allowed."""

    url: Text
    detail: Text | None = None


class ImagePart(Body):
    """A picture of a message."""

    type: Literal["image_url"]
    image_url: ImageURL


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]
Parts = Annotated[list[Part], Field(max_length=1024, fail_fast=True)]


class Message(Body):
    """A turn of a conversation, in OpenAI's form."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Parts
    name: Text | None = None

    @property
    def text(self) -> str:
        """Its text; of several parts, line by line."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def images(self) -> list[str]:
        """Addresses of its pictures."""
        parts = [] if isinstance(self.content, str) else self.content
        return [part.image_url.url for part in parts if isinstance(part, ImagePart)]


class ScoreRequest(Body):
    """Candidates of one question, to be scored."""

    model: Text | None = Field(None, description="The reward model's name; may be left out.")
    question: Text
    images: Texts = Field([], description="Data URLs.")
    options: Texts = Field([], description="Texts of the options, without letters.")
    candidates: list[Text | Texts] = Field(
        description="Each a list of steps, or a text, which is split into its steps.",
        min_length=1,
        max_length=256,
        fail_fast=True,
    )
    aggregation: Text | None = Field(
        None, description="Of step logits to one score; by default the model's own."
    )


class ScoredCandidate(BaseModel):
    """A candidate and its scores."""

    index: int
    steps: list[str]
    answer: str | None = Field(description="Final answer, where a text stated one.")
    step_scores: list[float] = Field(
        description="The probability that each step is right so far. Fewer than steps where these "
        "are beyond the model's context."
    )
    step_logits: list[float]
    score: float = Field(description="Aggregated, as a logit: candidates are ranked by it.")


class ScoreResponse(BaseModel):
    """All candidates, and which has the highest score."""

    id: str = Field(default_factory=lambda: f"score-{uuid.uuid4().hex}")
    object: Literal["score"] = "score"
    created: int = Field(default_factory=lambda: int(time.time()))
    model: str
    aggregation: str
    candidates: list[ScoredCandidate]
    chosen: int = Field(description="Index of the candidate with the highest score, the first one.")


class PoolingRequest(Body):
    """vLLM's request for step logits: a user's turn and an assistant's with the steps, or tokens.

    Each step ends with the model's step tag. Fields that other servers need and that change nothing
    are taken.
    """

    model: Text | None = None
    task: Literal["token_classify"] | None = None
    messages: Annotated[list[Message], Field(min_length=2, max_length=2)] | None = None
    input: Annotated[list[int], Field(max_length=2**20, fail_fast=True)] | None = Field(
        None, description="Tokens, of a question without pictures."
    )
    add_generation_prompt: Literal[False] = False
    continue_final_message: bool = False
    add_special_tokens: bool = False
    encoding_format: Literal["float"] = "float"
    use_activation: bool = Field(False, description="Probabilities in place of logits.")
    cache_salt: Text | None = None
    priority: int = 0
    request_id: Text | None = None
    user: Text | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.messages is None) == (self.input is None):
            raise ValueError("give messages or input")
        return self


class PoolingData(BaseModel):
    """Of each step, a list of one number."""

    index: int = 0
    object: Literal["pooling"] = "pooling"
    data: list[list[float]]


class PoolingResponse(BaseModel):
    """vLLM's reply."""

    id: str = Field(default_factory=lambda: f"pool-{uuid.uuid4().hex}")
    object: Literal["list"] = "list"
    created: int = Field(default_factory=lambda: int(time.time()))
    model: str
    data: list[PoolingData]
    usage: dict[str, int]


def read_question(
    text: str, images: Sequence[str], options: Sequence[str], limits: Limits
) -> Question:
    """A question whose id is made from its contents; its pictures are bytes that were looked at.

    Raises:
        DataError: it has too much of something, or a picture that cannot be used.
    """
    _check_count("images", images, limits.max_images)
    question = Question.parse(
        {
            "id": "request",
            "domain": "request",
            "text": text,
            "images": tuple(picture(url) for url in images),
            "options": tuple(options),
            "answer": UNKNOWN_ANSWER,  # nothing is to be verified
        }
    )
    return question.model_copy(update={"id": question_key(question)})


def read_candidates(
    given: Sequence[str | list[str]], limits: Limits
) -> list[tuple[list[str], str | None]]:
    """Steps and final answer of each candidate; the answer of a list of steps is not looked for.

    Raises:
        DataError: too many candidates or steps, or none.
    """
    _check_count("candidates", given, limits.max_candidates)
    candidates = []
    for i, candidate in enumerate(given):
        steps, answer = (candidate, None)
        if isinstance(candidate, str):
            steps, answer = split_steps(candidate)
            steps = steps or [candidate.strip()]  # an answer alone
        _check_count(f"candidates.{i}", steps, limits.max_steps)
        if not steps or not all(step.strip() for step in steps):
            raise DataError("a candidate needs steps, none of them empty", field=f"candidates.{i}")
        candidates.append((list(steps), answer))
    return candidates


def check_characters(text: str, others: Sequence[str | Sequence[str]], limits: Limits) -> None:
    """Refuse a request with too much text.

    Raises:
        DataError: it has more than the limit.
    """
    count = len(text) + sum(
        len(one) if isinstance(one, str) else sum(map(len, one)) for one in others
    )
    if count > limits.max_characters:
        raise DataError(f"{count:,} characters of text; {limits.max_characters:,} are the limit")


def _check_count(field: str, values: Sequence[Any], most: int) -> None:
    if len(values) > most:
        raise DataError(f"there are {len(values):,}; {most:,} are the limit", field=field)
