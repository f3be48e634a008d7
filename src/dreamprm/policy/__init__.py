"""Who writes reasoning. A policy continues a question's first steps with sampled text.

The protocol is one coroutine, so that a served model with hundreds of requests in flight and a
local one that samples in batches look alike to those who ask: whoever wants k completions awaits
them, and the policy sees to it that its slots are full.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from dreamprm.errors import DreamPRMError
from dreamprm.records import Question


@dataclass(frozen=True)
class Request:
    """Continue this reasoning; with no steps, begin it.

    Attributes:
        one_step: stop where the next step ends instead of at the end of the reasoning. A policy
            that cannot stop there writes on; what it wrote is used all the same.
        before: of served policies: messages of a conversation that the question ends.
        fields: of served policies: further fields of the request, before the policy's own.
    """

    question: Question
    steps: tuple[str, ...] = ()
    one_step: bool = False
    before: tuple[Mapping[str, Any], ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Completion:
    """One continuation: the text that follows the given steps.

    Attributes:
        finish_reason: `stop` (the model ended it), `length` (cut at the limit), `step` (stopped at
            the end of a step, as asked; the reasoning goes on, and the text may hold the beginning
            of the next step, which showed the end), or what else a server says.
    """

    text: str
    finish_reason: str = "stop"


@dataclass(frozen=True)
class Reply:
    """What one call of a policy gave.

    Attributes:
        completions: at least one, at most as many as were asked for; who wants more asks again.
        prompt_tokens, completion_tokens: as the server counts them, for the whole call; 0 where
            nothing is known.
    """

    completions: tuple[Completion, ...]
    prompt_tokens: int = 0
    completion_tokens: int = 0


STEP_SETTING = {"until": "step"}
"""What `settings` say besides when single steps are sampled: such texts are no whole reasonings."""


class Writer(Protocol):
    """What candidates, Monte Carlo labels and judges need of a model that writes.

    Attributes:
        name: goes into every record that it writes.
        slots: calls of `sample` in flight that keep it busy.
        settings: all that decides what it writes, besides question, steps and seed: model, prompt,
            temperature, limits, how a prefix is continued. JSON values; part of the store's key, so
            no address of a server, no key, nothing that may change between two runs of one job.
    """

    @property
    def name(self) -> str: ...

    @property
    def slots(self) -> int: ...

    @property
    def settings(self) -> Mapping[str, Any]: ...

    async def sample(self, request: Request, n: int, seed: int) -> Reply:
        """Sample up to n continuations.

        The same request, n and seed give the same texts, whatever else is in flight (as far as the
        server keeps that promise).

        Raises:
            RequestRefused: this request cannot be answered (too long, say); others can.
            DreamPRMError: the policy cannot be used at all.
        """
        ...

    async def close(self) -> None:
        """Give back connections and memory."""
        ...


class RequestRefused(DreamPRMError):
    """One request that this policy will never answer; the run goes on without it."""


class NoReply(RequestRefused):
    """One request that is answered, but never with anything to use; each try may cost money."""
