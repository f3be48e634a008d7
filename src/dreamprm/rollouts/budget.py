"""What sampling may cost, in tokens and in money, and the stop before it costs more.

The limit holds for a store as a whole: what earlier runs have spent counts, so that a job that is
killed and resumed ten times does not spend ten budgets. A call is made only if what is spent, and
what the calls in flight are expected to add (the mean call so far), leave room for it. Nothing is
known of a store's first calls, so those go out unchecked; after them the limit is overshot by the
spread of a few calls at most.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dreamprm.errors import DreamPRMError
from dreamprm.policy import Policy, Reply, Request
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
        tokens, cost, calls: spent so far, by earlier runs too.
    """

    max_tokens: int | None = None
    max_cost: float | None = None
    prompt_price: float = 0.0
    completion_price: float = 0.0
    tokens: int = 0
    cost: float = 0.0
    calls: int = 0
    _in_flight: int = field(default=0, init=False)

    def count_on(self, store: RolloutStore) -> None:
        """Begin with what a store has cost so far."""
        spent = store.usage().values()
        self.tokens = sum(usage.prompt_tokens + usage.completion_tokens for usage in spent)
        self.cost = sum(usage.cost for usage in spent)
        self.calls = sum(usage.calls for usage in spent)

    def price(self, reply: Reply) -> float:
        """What a reply costs."""
        return (
            reply.prompt_tokens * self.prompt_price
            + reply.completion_tokens * self.completion_price
        ) / 1e6

    def begin_call(self) -> None:
        """Set room aside for a call.

        Raises:
            BudgetSpent: there is none.
        """
        expected = 1 + self._in_flight / self.calls if self.calls else 1.0
        if self.max_tokens is not None and self.tokens * expected >= self.max_tokens:
            raise BudgetSpent(
                f"stopped at {self.tokens:,} of budget_tokens {self.max_tokens:,}; what is sampled "
                "is kept: raise the limit and run the same command to go on"
            )
        if self.max_cost is not None and self.cost * expected >= self.max_cost:
            raise BudgetSpent(
                f"stopped at a cost of {self.cost:.2f} of budget_cost {self.max_cost:.2f}; what is "
                "sampled is kept: raise the limit and run the same command to go on"
            )
        self._in_flight += 1

    def end_call(self, reply: Reply | None) -> None:
        """Count a call that has ended; None when it failed."""
        self._in_flight -= 1
        if reply is not None:
            self.calls += 1
            self.tokens += reply.prompt_tokens + reply.completion_tokens
            self.cost += self.price(reply)


class Metered:
    """A policy whose texts are not kept (a judge), but whose calls cost like any other's."""

    def __init__(self, policy: Policy, budget: Budget, store: RolloutStore) -> None:
        self.policy, self.budget, self.store = policy, budget, store
        self.name, self.concurrency = policy.name, policy.concurrency
        self.settings = policy.settings

    async def sample(self, request: Request, n: int, seed: int) -> Reply:
        """See `Policy.sample`; raises BudgetSpent when there is no room for the call."""
        self.budget.begin_call()
        reply = None
        try:
            reply = await self.policy.sample(request, n, seed)
        finally:
            self.budget.end_call(reply)
        self.store.add_call(self.name, reply, self.budget.price(reply))
        return reply

    async def close(self) -> None:
        await self.policy.close()
