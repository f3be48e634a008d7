"""What sampling may cost, in tokens and in money, and the stop before it costs more.

The limit holds for a store as a whole: what earlier runs have spent counts, so that a job that is
killed and resumed ten times does not spend ten budgets. A call is begun only if the limit leaves
room for it and for all calls in flight, each at the cost of the dearest call so far; near the limit
fewer calls are in flight, and the last ones wait for each other. So the limit is overshot only by
what a call costs more than any before it. While no call has ended nothing is known, and one goes
first.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from dreamprm.errors import DreamPRMError
from dreamprm.policy import Reply, Request, Writer
from dreamprm.rollouts.store import RolloutStore


class BudgetSpent(DreamPRMError):
    """The budget leaves no room for another call; what is in flight is still kept."""


@dataclass
class Budget:
    """A limit on tokens and money; without limits it only counts.

    Attributes:
        max_tokens: prompt and completion tokens together, as the server counts them.
        max_cost: in the currency of the prices.
        prompt_price, completion_price: of a million tokens.
        tokens, cost, calls: so far, by earlier runs too.
    """

    max_tokens: int | None = None
    max_cost: float | None = None
    prompt_price: float = 0.0
    completion_price: float = 0.0
    tokens: int = field(default=0, init=False)
    cost: float = field(default=0.0, init=False)
    calls: int = field(default=0, init=False)
    _dearest: tuple[int, float] = field(default=(0, 0.0), init=False)  # tokens, cost of one call
    _in_flight: int = field(default=0, init=False)
    _ended: asyncio.Condition = field(default_factory=asyncio.Condition, init=False)

    def count_on(self, store: RolloutStore) -> None:
        """Begin with what a store has cost so far."""
        spent = store.usage().values()
        self.tokens = sum(usage.prompt_tokens + usage.completion_tokens for usage in spent)
        self.cost = sum(usage.cost for usage in spent)
        self.calls = sum(usage.calls for usage in spent)
        self._dearest = store.dearest_call()

    def price(self, reply: Reply) -> float:
        """What a reply costs."""
        return (
            reply.prompt_tokens * self.prompt_price
            + reply.completion_tokens * self.completion_price
        ) / 1e6

    async def sample(self, policy: Writer, request: Request, n: int, seed: int) -> Reply:
        """`policy.sample`, counted; near the limit it waits for other calls to end first.

        Raises:
            BudgetSpent: there is no room, and nothing in flight that could leave some.
        """
        async with self._ended:
            while not self._has_room():
                if self._in_flight == 0:
                    raise BudgetSpent(self._account())
                await self._ended.wait()
            self._in_flight += 1
        try:
            reply = await policy.sample(request, n, seed)
            tokens, cost = reply.prompt_tokens + reply.completion_tokens, self.price(reply)
            self.calls += 1
            self.tokens += tokens
            self.cost += cost
            self._dearest = max(self._dearest[0], tokens), max(self._dearest[1], cost)
        finally:
            self._in_flight -= 1
            async with self._ended:
                self._ended.notify_all()
        return reply

    def _has_room(self) -> bool:
        if self.max_tokens is None and self.max_cost is None:
            return True
        if self._in_flight >= max(1, self.calls):
            return False  # so few calls say little about the next ones
        tokens, cost = ((self._in_flight + 1) * each for each in self._dearest)
        return (self.max_tokens is None or self.tokens + tokens <= self.max_tokens) and (
            self.max_cost is None or self.cost + cost <= self.max_cost
        )

    def _account(self) -> str:
        tokens, cost = self._dearest
        if self.max_tokens is not None and self.tokens + tokens > self.max_tokens:
            said = f"{self.tokens:,} of budget_tokens {self.max_tokens:,} are spent and a call may "
            said += f"take {tokens:,}"
        else:
            said = f"{self.cost:.2f} of budget_cost {self.max_cost:.2f} is spent and a call may "
            said += f"cost {cost:.2f}"
        return f"{said}; what is sampled is kept: raise the limit and run the same command to go on"


class Metered:
    """A policy whose texts are not kept (a judge), but whose calls cost like any other's."""

    def __init__(self, policy: Writer, budget: Budget, store: RolloutStore) -> None:
        self.policy, self.budget, self.store = policy, budget, store
        self.name, self.slots = policy.name, policy.slots
        self.settings = policy.settings

    async def sample(self, request: Request, n: int, seed: int) -> Reply:
        """See `Writer.sample`; raises BudgetSpent when there is no room for the call."""
        reply = await self.budget.sample(self.policy, request, n, seed)
        self.store.add_call(self.name, reply, self.budget.price(reply))
        return reply

    async def close(self) -> None:
        await self.policy.close()
