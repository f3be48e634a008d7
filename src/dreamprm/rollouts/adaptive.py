"""Labels that take as many completions as they need, and no more.

A fixed K spends as much on a prefix that always fails as on one that succeeds half the time. Two
plans do better:

- `SequentialStopping` samples a prefix until its label's interval is narrow enough. It also counts
  completions of shorter prefixes that happen to take the very same next steps: given that they did,
  they are samples of the longer prefix too. Where steps repeat word for word (short or formulaic
  reasoning) that saves more than the stopping does; where they never do it changes nothing.
- `FirstErrorSearch` looks for the first step from which no completion succeeds, by bisection
  (OmegaPRM, arXiv 2406.06592), in log2 of the number of steps.

Both are functions of the completions with given indices alone, so a killed and resumed run asks for
the same completions and comes to the same labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dreamprm.policy import RequestRefused
from dreamprm.prompts import split_steps
from dreamprm.records import Label, Question, Trajectory
from dreamprm.rollouts.label import Group, Steps, count, prefixes, with_labels
from dreamprm.rollouts.sampler import Rollout, Sampler
from dreamprm.rollouts.work import all_of

_FEWEST_AT_ONCE, _MOST_AT_ONCE = 2, 8


@dataclass(frozen=True)
class SequentialStopping:
    """Sample each prefix until its label is known well enough.

    Attributes:
        precision: the standard deviation, of the label's Beta posterior (Jeffreys prior), at which
            a prefix has enough completions. A fixed K of 8 leaves 0.16 at a label of one half and
            0.08 at 0 or 1.
        max_completions: at most so many are sampled from one prefix.
        reuse: count completions of shorter prefixes that take the same steps.
    """

    precision: float = 0.12
    max_completions: int = 32
    reuse: bool = True

    async def label(self, sampler: Sampler, group: Group) -> list[Trajectory]:
        """See `label.Plan`. A label's total counts all completions that it rests on."""
        question = group.question
        sampled: dict[Steps, list[tuple[Steps, bool]]] = {(): self._candidates(sampler, group)}
        labels: dict[Steps, Label | None] = {}
        by_length: dict[int, list[Steps]] = {}
        for prefix in group.prefixes():
            by_length.setdefault(len(prefix), []).append(prefix)
        for _, level in sorted(by_length.items()):  # what short ones sample feeds longer ones
            labels.update(await self._settle(sampler, question, level, sampled))
        return [with_labels(t, labels) for t in group.trajectories]

    async def _settle(
        self,
        sampler: Sampler,
        question: Question,
        level: Sequence[Steps],
        sampled: dict[Steps, list[tuple[Steps, bool]]],
    ) -> dict[Steps, Label | None]:
        """Labels of prefixes of one length; samples in rounds, and adds to `sampled`."""
        labels: dict[Steps, Label | None] = dict.fromkeys(level)
        unsettled = list(level)
        while unsettled:
            wanted = {}
            for prefix in unsettled:
                labels[prefix] = self._count(prefix, sampled)
                own = len(sampled.get(prefix, ()))
                if more := self._more(labels[prefix], own):
                    wanted[prefix] = own + more
            await all_of(
                self._sample(sampler, question, prefix, n, sampled) for prefix, n in wanted.items()
            )
            unsettled = [prefix for prefix in wanted if prefix in sampled]
            labels.update(dict.fromkeys(prefix for prefix in wanted if prefix not in sampled))
        return labels

    def _candidates(self, sampler: Sampler, group: Group) -> list[tuple[Steps, bool]]:
        """The question's own candidates as completions of the empty prefix.

        Only if the first n, without a gap, are to be labelled: had somebody picked some by their
        outcome, counting them would bring that choice into the labels.
        """
        n = len(group.trajectories)
        if not self.reuse or {t.sample_index for t in group.trajectories} != set(range(n)):
            return []
        return _paths(sampler.stored_rollouts(group.question, (), n) or [])

    async def _sample(
        self,
        sampler: Sampler,
        question: Question,
        prefix: Steps,
        n: int,
        sampled: dict[Steps, list[tuple[Steps, bool]]],
    ) -> None:
        try:
            sampled[prefix] = _paths(await sampler.rollouts(question, prefix, n))
        except RequestRefused as error:
            sampler.refusals.append(f"question '{question.id}', {len(prefix)} steps: {error}")
            sampled.pop(prefix, None)

    def _count(self, prefix: Steps, sampled: dict[Steps, list[tuple[Steps, bool]]]) -> Label | None:
        correct = total = 0
        for begun, paths in sampled.items():
            if begun == prefix:
                matching = [right for _, right in paths]
            elif self.reuse and prefix[: len(begun)] == begun:
                matching = [right for steps, right in paths if steps[: len(prefix)] == prefix]
            else:
                continue
            correct, total = correct + sum(matching), total + len(matching)
        return Label.of(correct, total) if total else None

    def _more(self, label: Label | None, own: int) -> int:
        """How many more completions to ask for now; 0 when the label is known well enough."""
        left = self.max_completions - own
        if label is None:
            return min(_FEWEST_AT_ONCE, left)
        if posterior_deviation(label) <= self.precision:
            return 0
        correct, total = label.counts()
        a, b = correct + 0.5, total - correct + 0.5
        needed = a * b / (a + b) ** 2 / self.precision**2 - 2 - total
        # Half of what the label seems to need: the next ones may show that it needs less.
        return min(left, max(_FEWEST_AT_ONCE, min(_MOST_AT_ONCE, math.ceil(needed / 2))))


def posterior_deviation(label: Label) -> float:
    """Standard deviation of Beta(correct + 1/2, wrong + 1/2), in (0, 0.36).

    Example:
        >>> round(posterior_deviation(Label.of(4, 8)), 2)
        0.16
    """
    correct, total = label.counts()
    a, b = correct + 0.5, total - correct + 0.5
    return math.sqrt(a * b / ((a + b) ** 2 * (a + b + 1)))


@dataclass(frozen=True)
class FirstErrorSearch:
    """Bisect for the first step from which none of k completions reaches the right answer.

    Attributes:
        completions: k, per prefix that is looked at.
    """

    completions: int = 8

    async def label(self, sampler: Sampler, group: Group) -> list[Trajectory]:
        """See `label.Plan`. Prefixes that were not looked at have no label.

        `extra["first_error"]` is the 0-based index of the first wrong step, None when there is none
        (as in ProcessBench, but for its -1).
        """
        return await all_of(self._search(sampler, group.question, t) for t in group.trajectories)

    async def _search(
        self, sampler: Sampler, question: Question, trajectory: Trajectory
    ) -> Trajectory:
        path = list(prefixes(trajectory))
        labels: dict[Steps, Label | None] = {}
        low, high = 0, len(path)  # the first wrong step is in [low, high]; len(path) means none
        while low < high:
            middle = (low + high) // 2
            label = await count(sampler, question, path[middle], self.completions)
            if label is None:  # refused: nothing is known of this step, so nothing is concluded
                return with_labels(trajectory, labels)
            labels[path[middle]] = label
            low, high = (middle + 1, high) if label.correct else (low, middle)
        found = with_labels(trajectory, labels)
        first_error = low if low < len(path) else None
        return found.model_copy(update={"extra": {**found.extra, "first_error": first_error}})


def _paths(rollouts: Sequence[Rollout]) -> list[tuple[Steps, bool]]:
    """Steps and outcome of each."""
    return [(tuple(split_steps(rollout.text)[0]), rollout.correct) for rollout in rollouts]
