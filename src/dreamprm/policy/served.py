"""A served model: any server that speaks OpenAI's chat completions.

What a server can do is found out once, before the work begins: a mistyped model name or a refused
setting should not be found by the first real request, and how a prefix is continued decides what
the samples are. Then an attempt that fails is made again where that can help, at another server if
there is one, and a run ends only when no server answers any more.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import logging
import math
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, cast

from dreamprm.errors import DreamPRMError
from dreamprm.policy import Reply, Request, RequestRefused
from dreamprm.policy.chat import (
    PREFILL_FIELDS,
    ChatMessages,
    Continuation,
    joined,
    part_seed,
    read_reply,
    with_estimates,
    without_prefix,
)
from dreamprm.policy.keys import Key
from dreamprm.policy.options import PolicyOptions
from dreamprm.policy.servers import (
    GREETING_S,
    Backoff,
    Call,
    Connection,
    Failure,
    Pool,
    check_url,
    one_line,
)
from dreamprm.prompts import MARKED, PROMPTS
from dreamprm.steps import starts_over, step_stops

Ask = Callable[[Mapping[str, Any] | None], Awaitable[bytes | Failure]]
"""Fields of a chat request -> body of the reply; None -> the list of models."""

_logger = logging.getLogger(__name__)

LATE_S = 10.0
"""How long the others are waited for once one server has answered."""

_KNOWN = ("vllm", "sglang")  # name themselves, and are documented to take PREFILL_FIELDS

UNBENT = {"top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0}
"""What plain sampling at a temperature has to say to known servers: where a request is silent they
follow the model's own `generation_config.json`, and top_k = 1 in one would make all samples of a
question the same."""

_HELLO = [{"role": "user", "content": "Answer with the word yes."}]
_HELLO_TOKENS = 16  # show that a server works; more cost
_LINE = "alpha bravo charlie delta echo foxtrot golf hotel"
_BEGUN = "alpha bravo charlie delta"
_BY_CHANCE = 2  # completions may start over on any server
_MOST_NAMED = 8
_COPIES, _LONG = 3, 80  # replies of one text several times, and its characters, that are told


class Server(NamedTuple):
    """A server that answers.

    Attributes:
        unbent: it may need `UNBENT` to sample from the model's own distribution, and takes it.
        continuation: how it continues a prefix; `prompt` where that was not to be found out.
        drops: it names itself a kind that takes `PREFILL_FIELDS`, and they have no effect.
    """

    unbent: bool
    continuation: Continuation
    drops: bool


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
    greeted = zip(tasks, ended, strict=True)
    servers = {url: server for url, server in greeted if isinstance(server, Server)}
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
    named = one_line(", ".join(names[:_MOST_NAMED]) + (", ..." if names[_MOST_NAMED:] else ""))
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
    return Server(unbent, way, find_continuation and kind in _KNOWN and way != "prefill")


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
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


async def _continuation(ask: Ask, kind: str | None) -> Continuation:
    """The first way in which the server continues what was begun, else `prompt`.

    Acceptance proves nothing: servers ignore what they do not know, and a proxy before one that
    knows may drop it. So a line has to be continued that any model can copy. Where a model of a
    known kind does not (it is weak, or thinks first), the count of prompt tokens tells: the fields
    save those that close a turn and open the next.
    """

    async def copied(fields: Mapping[str, Any]) -> Reply | None:
        said = f"Copy this line and write nothing else:\n{_LINE}"
        messages = [{"role": "user", "content": said}, {"role": "assistant", "content": _BEGUN}]
        body = await ask({"messages": messages, "temperature": 0.0, **fields})
        reply = body if isinstance(body, Failure) else read_reply(body, 1)
        return None if isinstance(reply, Failure) else reply

    def goes_on(reply: Reply) -> bool:
        return reply.completions[0].text.split()[:2] == _LINE.removeprefix(_BEGUN).split()[:2]

    told = await copied(PREFILL_FIELDS)
    if told is not None and goes_on(told):
        return "prefill"
    untold = await copied({})
    if told is not None and kind in _KNOWN:
        counts = told.prompt_tokens, untold.prompt_tokens if untold is not None else 0
        if counts[0] < counts[1] if all(counts) else _BEGUN not in told.completions[0].text:
            return "prefill"
    return "assistant" if untold is not None and goes_on(untold) else "prompt"


_FIRST_ATTEMPTS = 3  # on connecting: a mistyped port should not take minutes to be told


class EndpointPolicy:
    """Samples from one or several servers of one model.

    `sample` connects by itself; with the continuation `auto`, `await policy.connect()` before
    `settings` are read. One object may be used from several event loops, one after the other.

    Args:
        options: their `extra_body` wins over our fields of a request, and is part of `settings`.
        backoff: pauses between attempts.

    Raises:
        DreamPRMError: an address is no URL, or the key has characters that no key has.
    """

    def __init__(self, options: PolicyOptions, *, backoff: Backoff | None = None) -> None:
        self.name, prompt = options.model_name_or_path, options.prompt_name()
        self._urls = list(dict.fromkeys(check_url(url) for url in options.base_urls))
        self.slots = options.concurrency * len(self._urls)
        self._key = Key.read(options.api_key_env)
        self._each, self._timeout_s = options.concurrency, options.timeout_s
        self._max_attempts, self._backoff = options.max_attempts, backoff or Backoff()
        self._give_up_after_s = options.give_up_after_s
        self._facts = options.settings_of_served()
        self._messages = ChatMessages(PROMPTS[prompt])
        self._continuation: Literal["auto"] | Continuation = options.continuation
        self._plain: dict[str, Any] = {}  # fields that plain sampling takes on these servers
        self._max_tokens_field = "max_tokens"
        self._seeded = options.seed is not None
        self._takes_seed: dict[str, bool] = {}  # of the servers that have answered
        self._max_n = options.max_n  # the smallest that is known to work, or what we were told
        self._connected = False
        self._stops: bool | None = None  # do the servers stop where they are told to?
        self._silent: set[str] = set()  # servers that did not answer in time on connecting
        self._told: set[tuple[str, str]] = set()  # (server, what is odd about it)
        self._copies: dict[str, float] = dict.fromkeys(self._urls, 0)  # see `_read`
        self._restarts = self._goes_on = 0  # completions that start over, that do not
        self._here: _Here | None = None

    @property
    def settings(self) -> Mapping[str, Any]:
        """All that decides what it writes; with `auto`, known once `connect` has been awaited.

        It is what was asked for, not what had to be sent to get it: a rerun that finds other
        servers alive has the same settings.
        """
        if self._continuation == "auto":
            raise RuntimeError("await connect() before settings are read")
        return self._facts | {"continuation": self._continuation}

    async def connect(self) -> None:
        """See that the model is served as asked, and find out what the servers can do.

        A server that does not answer, or late, is left to the pool as long as another one does.

        Raises:
            DreamPRMError: no server answers, or one does not serve the model, take the key or
                accept the settings.
        """
        here = self._state()
        async with here.connecting:
            if self._connected:
                return
            look = self._continuation == "auto"
            async with self._greeting() as asker:
                servers = await greet_all(
                    {
                        url: greet(asker(url), self.name, find_continuation=look)
                        for url in self._urls
                    }
                )
            self._silent = set(self._urls) - servers.keys()
            here.pool.doubt(self._silent)
            if all(server.unbent for server in servers.values()):
                self._plain = UNBENT
            if self._continuation == "auto":
                ways = {server.continuation for server in servers.values()}
                self._continuation = ways.pop() if len(ways) == 1 else "prompt"
            for url in (url for url, server in servers.items() if server.drops):
                _logger.warning(
                    "%s does not go on in an answer that is begun, though its kind of server does "
                    "(a proxy may drop continue_final_message); steps are continued by '%s'",
                    url,
                    self._continuation,
                )
            self._connected = True

    async def sample(self, request: Request, n: int, seed: int) -> Reply:
        """See `Writer.sample`. A server may give fewer than n; the caller asks again for the rest.

        Raises:
            DataError: an image of the question cannot be read.
            RequestRefused, DreamPRMError: see `Writer.sample`.
        """
        if not self._connected:
            await self.connect()
        here = self._state()
        way = self._continuation
        assert way != "auto"
        way = "prompt" if self._restarts > max(self._goes_on, _BY_CHANCE) else way
        reply = await self._sample_by(here, request, way, n, seed)
        if way == "prompt" or not request.steps:
            return reply
        good = [done for done in reply.completions if not starts_over(done.text, request.steps)]
        self._goes_on += len(good)
        self._restarts += len(reply.completions) - len(good)
        if len(good) == len(reply.completions):
            return reply
        where = " or ".join(self._urls)
        if (where, "restarts") not in self._told:
            self._told.add((where, "restarts"))
            _logger.warning(
                "%s: a completion starts over at the first step, though it was to go on behind the "
                "given ones (a proxy may drop continue_final_message); such completions are not "
                "kept, and are asked for again with the steps in the prompt",
                where,
            )
        if good:
            return replace(reply, completions=tuple(good))
        again = await self._sample_by(here, request, "prompt", n, seed)
        return joined([again], [reply, again])

    async def _sample_by(
        self, here: _Here, request: Request, way: Continuation, n: int, seed: int
    ) -> Reply:
        """Samples of a request whose steps are continued in this way."""
        messages = [*request.before, *self._messages.build(request, way)]
        body: dict[str, Any] = {"messages": messages, **request.fields}
        if request.steps and way == "prefill":
            body |= PREFILL_FIELDS
        stops: Sequence[str] = ()  # that end a step; a `stop` of `fields` ends the whole
        if request.one_step and await self._takes_stops(here):
            body["stop"] = stops = step_stops(request.steps, self._facts["prompt"] in MARKED)
        reply = await self._sample_in_parts(here, body, stops, n, seed)
        if not request.steps:
            return reply
        cut = (
            replace(done, text=without_prefix(done.text, request.steps, way))
            for done in reply.completions
        )
        return replace(reply, completions=tuple(cut))

    async def close(self) -> None:
        """Close the connections of this event loop."""
        here, self._here = self._here, None
        if here is not None and here.loop is asyncio.get_running_loop():
            await here.connection.aclose()

    async def _sample_in_parts(
        self, here: _Here, body: dict[str, Any], stops: Sequence[str], n: int, seed: int
    ) -> Reply:
        """N samples in as many requests as the servers' limit asks for.

        Where one of them fails, the samples before it are the reply; if it was not by chance, the
        next call will tell.
        """
        paid: list[Reply] = []
        while True:
            size = min(n, self._max_n or n)
            parts = await asyncio.gather(
                *(
                    self._complete(here, body, stops, min(size, n - start), part_seed(seed, start))
                    for start in range(0, n, size)
                ),
                return_exceptions=True,
            )
            paid += [part for part in parts if isinstance(part, Reply)]
            if not isinstance(error := parts[0], BaseException):
                first = itertools.takewhile(lambda part: isinstance(part, Reply), parts)
                return joined(cast(Iterable[Reply], first), paid)
            if size == 1 or type(error) is not RequestRefused:
                raise error
            # Was it the number? One request with n = 1 tells; the others wait for what it says.
            async with here.counting:
                if self._max_n is None or self._max_n >= size:
                    paid.append(await self._complete(here, body, stops, 1, part_seed(seed, 0)))
                    self._max_n = max(1, size // 2)

    async def _complete(
        self, here: _Here, body: dict[str, Any], stops: Sequence[str], n: int, seed: int
    ) -> Reply:
        read = functools.partial(self._read, n, body, stops)
        while True:
            limit = self._max_tokens_field
            call = self._call(self._plain | body, n, seed)
            hello = self._call(self._plain | {"messages": _HELLO, limit: _HELLO_TOKENS}, 1, 0)
            outcome = await here.connection.until_answered(here.pool, call, read, hello)
            if not isinstance(outcome, Failure):
                return outcome
            if not self._learned_from(outcome, limit):
                raise outcome.error()

    def _read(
        self, n: int, body: Mapping[str, Any], stops: Sequence[str], answer: bytes, url: str
    ) -> Reply | Failure:
        """The reply of a server, without the key; what is odd about it is told once per server."""

        def tell(name: str, sentence: str) -> None:
            if (url, name) not in self._told:
                self._told.add((url, name))
                _logger.warning("%s %s", url, one_line(self._key.mask(sentence)))

        reply = read_reply(answer, n, stops, self.name, tell)
        if isinstance(reply, Failure):
            return reply
        counted = with_estimates(reply, body["messages"])
        if counted != reply:
            tell("uncounted", "does not count tokens; usage and budgets are estimates")
        texts = [done.text for done in reply.completions]
        if len(texts) > 1:
            same = len(set(texts)) == 1 and len(texts[0]) >= _LONG
            self._copies[url] = self._copies[url] + 1 if same else -math.inf
            if self._copies[url] == _COPIES:
                tell(
                    "copies",
                    "gives the same text for all samples that are asked for at once; max_n 1 asks "
                    "for each by itself",
                )
        masked = [self._key.mask_sample(text) for text in texts]
        if masked == texts:
            return counted
        tell("key", "has written the API key into a sample; what is kept has *** in its place")
        completions = zip(counted.completions, masked, strict=True)
        return replace(counted, completions=tuple(replace(c, text=text) for c, text in completions))

    def _call(self, body: Mapping[str, Any], n: int, seed: int) -> Call:
        fields = {
            "model": self.name,
            "temperature": self._facts["temperature"],
            self._max_tokens_field: body.get("max_tokens", self._facts["max_new_tokens"]),
            "n": n,
            **({"seed": seed} if self._seeded else {}),
        }
        rest = {name: value for name, value in body.items() if name != "max_tokens"}
        return Call("chat/completions", {**fields, **rest, **self._facts["extra_body"]})

    def _learned_from(self, failure: Failure, limit: str) -> bool:
        """Newer OpenAI models refuse `max_tokens` and name what they want instead."""
        wanted = "max_completion_tokens"
        if failure.kind != "refused" or limit == wanted or wanted not in failure.message:
            return False
        self._max_tokens_field = wanted
        return True

    async def _takes_stops(self, here: _Here) -> bool:
        """Can the servers be told where to stop? Found out when that is first wanted."""
        async with here.connecting:
            if self._stops is None:
                urls = [url for url in self._urls if url not in self._silent]
                async with self._greeting() as asker:
                    self._stops = all([await takes_stops(asker(url)) for url in urls])
        return self._stops

    @asynccontextmanager
    async def _greeting(self) -> AsyncIterator[Callable[[str], Ask]]:
        """What asks one server, by its URL, a few times at most."""
        quick = min(self._timeout_s, GREETING_S)
        attempts = min(_FIRST_ATTEMPTS, self._max_attempts)

        def masked(body: bytes, _: str) -> bytes:  # names of models are told
            return self._key.mask_sample(body.decode(errors="replace")).encode()

        def asker(url: str) -> Ask:
            pool = Pool([url], self._each, self._give_up_after_s, self._backoff)

            async def ask(body: Mapping[str, Any] | None) -> bytes | Failure:
                while True:
                    limit = self._max_tokens_field
                    call = Call("models") if body is None else self._call(body, 1, 0)
                    asked = functools.partial(connection.until_answered, pool, call, masked)
                    reply = await asked()
                    if not isinstance(reply, Failure) or not self._learned_from(reply, limit):
                        return await self._without_seed_if_need_be(url, call, reply, asked)

            return ask

        connection = self._connection(quick, attempts)
        async with aclosing(connection):
            yield asker

    async def _without_seed_if_need_be(
        self,
        url: str,
        call: Call,
        reply: bytes | Failure,
        ask: Callable[[], Awaitable[bytes | Failure]],
    ) -> bytes | Failure:
        """Some servers break at a seed or refuse it; that is found out with their first answer."""
        if "seed" not in call.fields or url in self._takes_seed:
            return reply
        if not isinstance(reply, Failure):
            self._takes_seed[url] = True
        elif reply.kind in ("again", "refused"):
            self._takes_seed[url] = False
            unseeded = await ask()
            if not isinstance(unseeded, Failure):
                _logger.warning(
                    "%s; it answers without a seed, so none is sent to it, and what it writes "
                    "cannot be repeated",
                    reply.message,
                )
                return unseeded
            del self._takes_seed[url]
            if reply.status is None:  # vLLM 0.32 on a CPU dies
                hint = "; if the seed is what it breaks at, --seed none sends none"
                reply = replace(reply, message=reply.message + hint)
        return reply

    def _connection(self, timeout_s: float, max_attempts: int) -> Connection:
        seeds = self._takes_seed
        return Connection(self._key, self.name, timeout_s, max_attempts, self._backoff, seeds)

    def _state(self) -> _Here:
        """What belongs to the running event loop; made anew for each."""
        loop = asyncio.get_running_loop()
        if self._here is None or self._here.loop is not loop:
            connection = self._connection(self._timeout_s, self._max_attempts)
            pool = Pool(self._urls, self._each, self._give_up_after_s, self._backoff)
            pool.doubt(self._silent)
            self._here = _Here(loop, connection, pool)
        return self._here


@dataclass
class _Here:
    """Sockets, slots and locks: all that an event loop owns."""

    loop: asyncio.AbstractEventLoop
    connection: Connection
    pool: Pool
    connecting: asyncio.Lock = field(default_factory=asyncio.Lock)
    counting: asyncio.Lock = field(default_factory=asyncio.Lock)
