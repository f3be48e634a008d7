"""A reward model whose forward passes a server makes: vLLM, or `dreamprm serve`.

The server knows nothing of steps: it gives a logit at every step tag of what it is sent. So what it
reads must be, token by token, what the model was trained on. It is sent a conversation, which it
writes with its chat template: the same is done here, and where the tokens are other ones (a text
spells a control token, say) it is sent the tokens themselves, which vLLM takes of questions without
images. A reply must count as many tokens as expected, and have one logit per tag.
"""

from __future__ import annotations

import functools
import math
import threading
import zlib
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from dreamprm.errors import DataError, DreamPRMError
from dreamprm.images import data_url
from dreamprm.models.loading import load_processor, resolve, text_config
from dreamprm.models.plain_text import PlainText
from dreamprm.models.templates import write_chats
from dreamprm.policy.keys import Key
from dreamprm.policy.options import ServerLimits
from dreamprm.policy.policy import gathered, wait_for
from dreamprm.policy.servers import OK, Backoff, Call, Connection, Failure, Pool, check_url
from dreamprm.prm.folder import is_prm, read_config, serve_command
from dreamprm.prm.layout import Encoder, with_tag
from dreamprm.prm.scorer import Logits, Plain, Shared, Steps, score_question
from dreamprm.records import Question

NOT_FOUND = 404
_TASK = {"task": "token_classify", "use_activation": False}  # logits, not their sigmoid


class ServedPRM:
    """A PRM behind servers, with the methods of `PRM` that score.

    Its folder gives the tokenizer, the chat template and the layout; no weights are read.

    Args:
        path: the folder of the PRM that is served.
        urls: base URLs of servers, such as http://localhost:8000/v1; several share the work.
        api_key_env: environment variable that holds the servers' key.
        limits: those of `ServerLimits`, such as concurrency (requests in flight at each server).

    Attributes:
        at_once: several threads may ask it at once.

    Raises:
        DreamPRMError: there is no PRM, or one that judges steps elsewhere than at tags.

    Example:
        prm = ServedPRM("prm", ["http://localhost:8000/v1"])
        prm.score(question, [["2 + 3 = 5", "so it is 5"], ["it is 6"]])
    """

    at_once = True

    def __init__(
        self,
        path: str | Path,
        urls: Sequence[str],
        *,
        api_key_env: str = "OPENAI_API_KEY",
        backoff: Backoff | None = None,
        **limits: Any,
    ) -> None:
        folder = Path(path if is_prm(path) else resolve(str(path)))
        config = read_config(folder)
        self.urls = list(dict.fromkeys(check_url(url) for url in urls))
        if not self.urls:
            raise DreamPRMError("a served PRM needs urls, such as http://localhost:8000/v1")
        self._limits, self._backoff = ServerLimits(**limits), backoff or Backoff()
        self._limits.check_limits()
        if config.layout.name == "turns":
            raise DreamPRMError(
                f"{folder}: layout 'turns' judges steps where replies begin, and servers give "
                "logits at step tags; score with it in this process"
            )
        processor, text = load_processor(str(folder)), text_config(str(folder))
        layout = replace(with_tag(config.layout, processor, text.vocab_size), name="trajectory")
        self.config = replace(config, layout=layout)
        self.plain = PlainText(processor, layout.step_tag)
        context = getattr(text, "max_position_embeddings", None)
        self._encode = Encoder(processor, layout, None, context, self.plain)
        self._encode.warn_cut = False  # whoever asked for the scores sees that some are missing
        self._url = functools.lru_cache(maxsize=64)(data_url)
        self._name, self._command = folder.resolve().name, serve_command(folder)
        self._key = Key.read(api_key_env)
        self._preparing = threading.Lock()
        self._open: tuple[Connection, Pool] | None = None

    def score(
        self, question: Question | str, candidates: Sequence[Steps], batch_size: int = 0
    ) -> list[list[float]]:
        """See `PRM.score`; `batch_size` is by default what keeps the servers busy."""
        return score_question(self, question, candidates, batch_size or self.batch_size)

    @property
    def batch_size(self) -> int:
        """Trajectories of a batch that keeps the servers busy: one half waits for free slots."""
        return 2 * self._limits.concurrency * len(self.urls)

    def passes(self) -> tuple[Plain, Shared]:
        """See `scorer.StepModel`. Candidates of a question stand together in the second's."""

        def plain(pairs: Sequence[tuple[Question, Steps]]) -> list[Logits]:
            def asked() -> Iterator[Coroutine[Any, Any, Logits]]:
                for question, steps in pairs:
                    with self._preparing:
                        request = self._request(question, steps)
                    yield self._ask(request)

            return gathered(asked())

        def shared(groups: Sequence[tuple[Question, Sequence[Steps]]]) -> list[Logits]:
            return plain([(question, steps) for question, each in groups for steps in each])

        return plain, shared

    def close(self) -> None:
        """Close the connections; asked again, it connects again."""

        async def close() -> None:
            if self._open is not None:
                await self._open[0].aclose()
                self._open = None

        wait_for(close())

    async def _ask(self, request: _Request) -> Logits:
        """The logits of one trajectory. All of this runs in one event loop, that of `gathered`."""
        if self._open is None:
            most, backoff = self._limits, self._backoff
            self._open = (
                Connection(self._key, self._name, most.timeout_s, most.max_attempts, backoff, {}),
                Pool(self.urls, most.concurrency, most.give_up_after_s, backoff),
            )
        connection, pool = self._open
        # A question goes to one server, as long as that has a slot: its images are read once.
        first = self.urls[zlib.crc32(request.question.encode()) % len(self.urls)]
        call = Call("pooling", request.fields)
        reply = await connection.until_answered(pool, call, request.read, Call("models"), first)
        if isinstance(reply, Failure):
            message = f"question '{request.question}': {reply.message}"
            if reply.kind == "refused" and request.as_tokens:
                message = f"{request.as_tokens} (the server refuses tokens: {reply.message})"
            if reply.status == NOT_FOUND:
                message += f"; a PRM is served by: {self._command}"
            raise replace(reply, message=message).error()
        return reply

    def _request(self, question: Question, steps: Steps) -> _Request:
        """What the server is sent; refuses what it would read otherwise than it is meant."""
        laid, as_tokens = self._encode.lay_out(question, steps), ""
        prompt, tail = laid.prompt.tokens["input_ids"].tolist(), laid.tail
        try:
            fields, tail = self._conversation(question, steps[: len(laid.ends)], tail)
        except DataError as error:
            if question.images:
                raise
            as_tokens = str(error)
            fields = {"input": [*prompt, *tail], "add_special_tokens": False}
        ids = [*prompt, *tail]
        rows = [place for place, token in enumerate(ids) if token == self._encode.tag_id]
        steps_at = [rows.index(len(prompt) + end) for end in laid.ends]
        fields = _TASK | fields
        expected = (len(ids), len(rows), steps_at)
        return _Request(question.id, fields, *expected, self._command, as_tokens)

    def _conversation(
        self, question: Question, steps: Steps, tail: Sequence[int]
    ) -> tuple[dict[str, Any], list[int]]:
        """Fields of a request as a conversation, and the tail with the tokens that end its turn.

        Raises:
            DataError: a server would read it otherwise.
        """
        asked = self._encode.asked(question)
        for part in (asked, *steps):
            if self.plain.guard(part) != part:
                raise DataError(
                    f"question '{question.id}': it or a step spells a control token of the model, "
                    "which a server would obey; remove it, or score it in this process"
                )
        text = {"type": "text", "text": asked}
        answer = "".join(f"{step}{self.config.layout.step_tag}" for step in steps)
        reply = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
        user = {"role": "user", "content": [*[{"type": "image"}] * len(question.images), text]}
        [prompt] = write_chats(self.plain.processor, [[user]], True)
        [whole] = write_chats(self.plain.processor, [[user, reply]])
        special = self.plain.adds_special_tokens(prompt)
        begin, ids = (
            self.plain.tokenizer(chat, add_special_tokens=special).input_ids
            for chat in (prompt, whole)
        )
        if ids[: len(begin) + len(tail)] != [*begin, *tail]:
            raise DataError(
                f"question '{question.id}': a server would read other tokens than the PRM was "
                "trained on, because the chat template changes what the assistant said, or the "
                "tokenizer merges a step's beginning with what stands before it; score it in this "
                "process"
            )
        images = [
            {"type": "image_url", "image_url": {"url": self._url(image)}}
            for image in question.images
        ]
        fields = {
            "messages": [{"role": "user", "content": [*images, text]}, reply],
            "add_generation_prompt": False,
            "add_special_tokens": special,
        }
        return fields, ids[len(begin) :]


@dataclass(frozen=True)
class _Request:
    """One trajectory for a server, and what its reply must be like.

    Attributes:
        question: its id.
        fields: of the request.
        tokens: that the server must count, those of images among them.
        rows: that it must give: a step tag that is a line's end stands in prompts and steps too.
        steps: which of the rows are steps.
        command: starts the right server.
        as_tokens: why no conversation is sent; empty where one is.
    """

    question: str
    fields: dict[str, Any]
    tokens: int
    rows: int
    steps: Sequence[int]
    command: str
    as_tokens: str

    def read(self, body: bytes, _: str) -> Logits | Failure:
        """The logits in the body of a reply."""
        try:
            reply = _Reply.model_validate_json(body)
        except ValidationError:
            return Failure("again", "this is no reply of /pooling", OK)
        count, rows = reply.usage.prompt_tokens, reply.data[0].data
        if count and count != self.tokens:
            return Failure(
                "fatal",
                f"reads {count} tokens where the PRM's folder makes {self.tokens}; it serves "
                "another model, or with another tokenizer, chat template or size of images",
            )
        if [len(row) for row in rows] != [1] * self.rows:
            width = f" of {len(rows[0])} values" if rows else ""
            told = f"gives {len(rows)} rows{width} for {self.rows} step tags"
            return Failure("fatal", f"{told}; a PRM is served by: {self.command}")
        logits = tuple(rows[place][0] for place in self.steps)
        if not all(logit is not None and math.isfinite(logit) for logit in logits):
            return Failure("again", "gives logits that are not finite; it may need float32", OK)
        return cast(Logits, logits)


class _Rows(BaseModel):
    data: list[list[float | None]]  # vLLM writes null where a number is not finite


class _Usage(BaseModel):
    prompt_tokens: int = 0  # not counted by this server


class _Reply(BaseModel):
    """What is read of a reply of /pooling."""

    data: tuple[_Rows]
    usage: _Usage = _Usage()
