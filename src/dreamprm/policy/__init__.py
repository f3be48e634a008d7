"""Who writes reasoning. A policy turns (question, first steps) into sampled continuations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dreamprm.records import Question


@dataclass(frozen=True)
class Request:
    """Continue this reasoning; with no steps, begin it."""

    question: Question
    steps: tuple[str, ...] = ()


class Policy(Protocol):
    """All that candidates and Monte Carlo labels need of a model.

    Attributes:
        name: goes into every record that it writes.
        batch_size: sequences that are best sampled in one call.
    """

    name: str
    batch_size: int

    def sample(self, requests: Sequence[Request], n: int, seed: int) -> list[list[str]]:
        """N continuations of each request, as text that follows the given steps.

        The same requests, n and seed give the same texts.
        """
        ...
