"""The service: a reward model behind HTTP, and the routes that ask it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from dreamprm import __version__
from dreamprm.errors import DataError, DreamPRMError
from dreamprm.policy.options import PolicyOptions
from dreamprm.prm.model import PRM
from dreamprm.prm.scorer import Logits, StepModel, Steps
from dreamprm.records import Question
from dreamprm.search.aggregation import aggregate, get_aggregation, step_scores
from dreamprm.serve.gateway import ChatRequest, Gateway, chunks
from dreamprm.serve.guard import Guard, Refused, first_problem, no_model
from dreamprm.serve.metrics import Metrics
from dreamprm.serve.pooling import Reader
from dreamprm.serve.scoring import Scoring, told
from dreamprm.serve.wire import (
    ErrorReply,
    Limits,
    PoolingData,
    PoolingRequest,
    PoolingResponse,
    ScoredCandidate,
    ScoreRequest,
    ScoreResponse,
    check_characters,
    read_candidates,
    read_question,
)

T = TypeVar("T")
_PAGE_MAY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_SEARCHES = 64  # that wait for scores at once


@dataclass(frozen=True)
class Served:
    """The reward model that is served.

    Attributes:
        name: that clients call it by.
        check: refuses a question that the model cannot read.
        aggregation: that it was trained for.
    """

    model: StepModel
    name: str
    aggregation: str
    check: Callable[[Question], None] = lambda question: None


@dataclass
class Service:
    """What all routes share."""

    served: Served
    limits: Limits
    metrics: Metrics
    scoring: Scoring
    # Few: a large picture takes much memory while it is looked at.
    readers: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(4, thread_name_prefix="dreamprm-read")
    )

    async def question(
        self, text: str, images: Sequence[str], options: Sequence[str] = ()
    ) -> Question:
        """A question that the model can read; in a thread, because pictures take a while."""
        question = await self.in_thread(read_question, text, images, options, self.limits)
        self.served.check(question)
        return question

    async def in_thread(self, read: Callable[..., T], *arguments: Any) -> T:
        """What a function gives, called in one of the threads that read."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.readers, read, *arguments)

    async def score(self, question: Question, candidates: Sequence[Steps]) -> list[Logits]:
        """See `Scoring.score`; what the reward model cannot help is told without its reasons."""
        try:
            return await self.scoring.score(question, candidates)
        except DreamPRMError as error:
            raise told(error, "reward model") from None

    def check_model(self, name: str | None) -> None:
        """Refuse a reward model that is not served."""
        if name not in (None, self.served.name):
            raise no_model()


def make_app(
    served: Served,
    *,
    key: str | None = None,
    limits: Limits | None = None,
    batch_size: int = 16,
    policy: PolicyOptions | None = None,
) -> FastAPI:
    """The application, for uvicorn or any other ASGI server.

    Args:
        key: see `Guard`.
        batch_size: candidates in one forward pass.
        policy: a served policy, whose answers `/v1/chat/completions` chooses among.
    """
    limits, metrics = limits or Limits(), Metrics()
    scoring = Scoring(served.model, batch_size, limits.max_waiting, metrics.scored)
    service = Service(served, limits, metrics, scoring)
    gateway = policy and Gateway(policy, scoring, served.aggregation, limits, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Searches wait in threads for their scores.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_SEARCHES))
        yield
        if gateway:
            await gateway.close()
        await asyncio.to_thread(scoring.close)
        service.readers.shutdown()

    app = FastAPI(
        title="dreamprm serve",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        responses={"4XX": {"model": ErrorReply}, "5XX": {"model": ErrorReply}},
    )
    app.add_middleware(Guard, key=key, limits=limits, metrics=metrics)
    _handle_errors(app)
    _add_routes(app, service, gateway.names if gateway else [])
    if gateway:
        _add_chat(app, service, gateway)
    return app


def _add_chat(app: FastAPI, service: Service, gateway: Gateway) -> None:
    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest) -> Response:
        """Answer with the best of several reasonings; in OpenAI's form."""
        how, turn = gateway.check(body), body.messages[-1]
        check_characters("", [message.text for message in body.messages], service.limits)
        question = await service.question(turn.text, turn.images)
        reply = await gateway.answer(body, question, how)
        if not body.stream:
            return JSONResponse(reply)
        usage = body.stream_options is not None and body.stream_options.include_usage
        return Response("".join(chunks(reply, usage)), media_type="text/event-stream")


def _add_routes(app: FastAPI, service: Service, policies: Sequence[str]) -> None:
    served, limits = service.served, service.limits
    reader = None
    if isinstance(served.model, PRM) and served.model.config.layout.name != "turns":
        reader = Reader(served.model)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> Response:
        text = files("dreamprm.serve").joinpath("page.html").read_text("utf-8")
        return HTMLResponse(text, headers={"content-security-policy": _PAGE_MAY})

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Is the server at work? Needs no key."""
        if not service.scoring.alive:
            raise Refused(503, "the reward model's worker has ended; start the server again")
        return {"status": "ok"}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> bytes:
        """Counters for Prometheus."""
        service.metrics.waiting.set(service.scoring.waiting)
        return service.metrics.text()

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """What is served, in OpenAI's form."""
        facts = {"object": "model", "created": 0, "owned_by": "dreamprm"}
        return {"object": "list", "data": [{"id": n} | facts for n in (served.name, *policies)]}

    @app.post("/v1/score")
    async def score(body: ScoreRequest) -> ScoreResponse:
        """Score candidates of one question, and choose among them."""
        service.check_model(body.model)
        aggregation = body.aggregation or served.aggregation
        get_aggregation(aggregation)
        check_characters(body.question, [*body.options, *body.candidates], limits)

        candidates = await service.in_thread(read_candidates, body.candidates, limits)
        question = await service.question(body.question, body.images, body.options)
        logits = await service.score(question, [steps for steps, _ in candidates])
        scored = [
            ScoredCandidate(
                index=i,
                steps=steps,
                answer=answer,
                step_scores=step_scores(z),
                step_logits=list(z),
                score=aggregate(z, aggregation),
            )
            for i, ((steps, answer), z) in enumerate(zip(candidates, logits, strict=True))
        ]
        chosen = max(scored, key=lambda c: (c.score, -c.index))
        return ScoreResponse(
            model=served.name, aggregation=aggregation, candidates=scored, chosen=chosen.index
        )

    @app.post("/pooling")
    async def pooling(body: PoolingRequest) -> PoolingResponse:
        """Step logits of one candidate, as vLLM gives them."""
        service.check_model(body.model)
        if reader is None:
            raise Refused(400, "this server has no model of its own that is asked so; /v1/score is")
        if body.input is not None:
            check_characters("", [[""] * len(body.input)], limits)
            read = await service.in_thread(reader.tokens, body.input)
        else:
            user, assistant = body.messages or []
            if (user.role, assistant.role) != ("user", "assistant") or assistant.images:
                raise Refused(400, "give a user's turn and an assistant's with steps", "messages")
            check_characters(user.text, [assistant.text], limits)
            asked = user.text.removesuffix(f"\n{reader.instruction}")
            question = await service.question(asked, user.images)
            read = await service.in_thread(reader.conversation, question, assistant.text)
        [logits] = await service.score(read.question, [read.steps])
        values = step_scores(logits) if body.use_activation else logits
        usage = {"prompt_tokens": read.tokens, "total_tokens": read.tokens, "completion_tokens": 0}
        data = [PoolingData(data=[[z] for z in values])]
        return PoolingResponse(model=served.name, data=data, usage=usage)


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        return JSONResponse(error.content, error.status, error.headers)

    @app.exception_handler(DreamPRMError)
    async def wrong(request: Request, error: Exception) -> Response:
        field = error.field if isinstance(error, DataError) else None
        return await refused(request, Refused(400, str(error), field))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return await refused(request, first_problem(error.errors()))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        reply = Refused(error.status_code, str(error.detail))
        reply.headers |= dict(error.headers or {})  # `allow`, with 405
        return await refused(request, reply)
