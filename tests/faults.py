"""What can go wrong at a server, and when: the plans of `fake_endpoint.FakeEndpoint`."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Body = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """One way to fail.

    Attributes:
        kind: a status such as "429", or
            `reset` (connection cut before a reply), `hang` (no reply at all), `half` (cut within
            the body), `garbage` (200 and no JSON), `page` (200 and HTML), `empty` (no choices),
            `null` (choices without text, and no count of tokens), `fewer` (half of n, at least
            one), `more` (n + 2), `slow` (right, after `seconds`), `uncounted` (right, without
            `usage`), `raw` (the body, head and all, and the connection closed), `endless` (the
            same, its end repeated for ever).
        headers: of the reply, `{"retry-after": "1"}` say.
        body: of a reply that is a status (200 too), or raw.
        seconds: of `slow`.
    """

    kind: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | bytes = '{"error": {"message": "a fault that was asked for"}}'
    seconds: float = 0.2

    @property
    def content(self) -> bytes:
        """The body as bytes."""
        return self.body.encode() if isinstance(self.body, str) else self.body


Plan = Callable[[int, Body], Fault | None]
"""Number of a chat request (0, 1, ... as they arrive) and its body -> what goes wrong with it."""


def scripted(faults: Mapping[int, Fault]) -> Plan:
    """These requests fail, the others do not."""
    return lambda number, _: faults.get(number)


def always(fault: Fault) -> Plan:
    """All fail."""
    return lambda _number, _body: fault


def at_random(rates: Mapping[str, float], seed: int = 0, **options: Any) -> Plan:
    """Each request fails in a way drawn with these rates; the rest are answered."""
    source = random.Random(seed)
    kinds, weights = list(rates), list(rates.values())

    def plan(_number: int, _body: Body) -> Fault | None:
        [kind] = source.choices([*kinds, ""], [*weights, 1 - sum(weights)])
        return Fault(kind, **options) if kind else None

    return plan
