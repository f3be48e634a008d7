"""The policy as users have it: a model by its name, served or loaded into this process.

torch is imported only for a model in this process: a client of a served one starts at once.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Coroutine, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Self, TypeVar

from dreamprm.policy import Reply, Request
from dreamprm.policy.options import PolicyOptions

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Policy(PolicyOptions):
    """A model that writes reasoning: served where `base_urls` are given, else in this process.

    Constructing it costs nothing; it connects or loads when it is first asked. Close it, or use it
    in a `with` or an `async with`. The arguments are the attributes of `PolicyOptions`.

    Raises:
        DreamPRMError: options that no policy can have.

    Example:
        >>> from dreamprm.records import Question
        >>> question = Question(id="q", domain="d", text="What is 2 + 2?", answer="4")
        >>> with Policy("tiny", max_new_tokens=32) as policy:
        ...     reply = wait_for(policy.sample(Request(question), n=2, seed=0))
        >>> len(reply.completions)
        2

        A served model: Policy("Qwen/Qwen2.5-VL-7B-Instruct",
        base_urls=["http://localhost:8000/v1"], temperature=0.7)
    """

    def __post_init__(self) -> None:
        if self.model_name_or_path == "tiny":
            object.__setattr__(self, "model_name_or_path", "tiny/policy")
        self.check()

    @classmethod
    def of(cls, options: PolicyOptions, **changed: Any) -> Policy:
        """The policy that the options of a verb describe."""
        given = {f.name: getattr(options, f.name) for f in fields(PolicyOptions)}
        return cls(**given | changed)

    @property
    def name(self) -> str:
        """See `Writer`."""
        return self.model_name_or_path

    @property
    def slots(self) -> int:
        """See `Writer`."""
        return int(self._writer.slots)

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Writer`; of a served model known once `connect` has been awaited."""
        settings: Mapping[str, Any] = self._writer.settings
        return settings

    async def connect(self) -> None:
        """Find out how a served model continues steps, where `continuation` is `auto`."""
        if self.base_urls and self.continuation == "auto":  # else it connects when first asked
            await self._writer.connect()

    async def sample(self, request: Request, n: int, seed: int) -> Reply:
        """See `Writer`."""
        reply: Reply = await self._writer.sample(request, n, seed)
        return reply

    async def close(self) -> None:
        """Give back connections and memory; asked again, it connects or loads again."""
        if "_writer" in self.__dict__:
            await self.__dict__.pop("_writer").close()

    @cached_property
    def _writer(self) -> Any:
        if self.base_urls:
            from dreamprm.policy.served import EndpointPolicy

            return EndpointPolicy(self)
        from dreamprm.policy.local import LocalPolicy

        return LocalPolicy(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        wait_for(self.close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, also for callers inside a running event loop."""
    return gathered([work])[0]


def gathered(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of coroutines; each begins as soon as it is taken from the iterable."""
    futures: list[Future[T]] = []
    try:
        for each in work:
            futures.append(asyncio.run_coroutine_threadsafe(each, _background_loop()))
        return [future.result() for future in futures]
    except BaseException:  # an interrupt or a failure: stop the others
        for future in futures:
            future.cancel()
        raise


@functools.cache
def _background_loop() -> asyncio.AbstractEventLoop:
    """One loop for all calls, in a thread of its own, so that a policy keeps its connections."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="dreamprm", daemon=True).start()
    return loop
