"""Monte Carlo labels: completions sampled from each step prefix; how many reach the right answer.

Candidates of one question share prefixes; a distinct prefix is completed once, for all of them.
How many completions a prefix gets is up to the plan:

- `FixedCompletions`: K each, as in the paper.
- `SequentialStopping`: until the label's interval is narrow enough. It also counts completions of
  shorter prefixes that take the very same next steps, which are samples of the longer prefix too.
- `FirstErrorSearch`: bisection for the first step from which no completion succeeds (OmegaPRM,
  arXiv 2406.06592).

All depend on the completions with given indices alone, so a killed and resumed run asks for the
same completions and comes to the same labels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from dreamprm.policy import RequestRefused
from dreamprm.records import Label, Question, Trajectory
from dreamprm.rollouts.sampler import Outcome, Rollout, Sampler, all_of, work_through
from dreamprm.steps import split_steps

Steps = tuple[str, ...]
Paths = dict[Steps, list[tuple[Steps, bool]]]
"""Prefix -> steps of its completions, and whether each is right."""


@dataclass(frozen=True)
class Group:
    """A question and all trajectories about it that are to be labelled."""

    question: Question
    trajectories: tuple[Trajectory, ...]

    def prefixes(self) -> list[Steps]:
        """The distinct prefixes, shorter ones first."""
        distinct = dict.fromkeys(p for t in self.trajectories for p in prefixes(t))
        return sorted(distinct, key=len)


class Plan(Protocol):
    """How the prefixes of a question's trajectories come to their labels."""

    async def label(self, sampler: Sampler, group: Group) -> list[Trajectory]:
        """The group's trajectories with labels, in their order."""
        ...


@dataclass(frozen=True)
class FixedCompletions:
    """The same number of completions for each prefix (the paper's way).

    Attributes:
        completions: K.
        per_domain: domain -> K, where it differs.
    """

    completions: int
    per_domain: Mapping[str, int] = field(default_factory=dict)

    async def label(self, sampler: Sampler, group: Group) -> list[Trajectory]:
        k = self.per_domain.get(group.question.domain, self.completions)
        distinct = group.prefixes()
        counts = await all_of(count(sampler, group.question, prefix, k) for prefix in distinct)
        labels = dict(zip(distinct, counts, strict=True))
        return [with_labels(t, labels) for t in group.trajectories]


async def sampled(
    sampler: Sampler, question: Question, prefix: Steps, k: int
) -> list[Rollout] | None:
    """The first k completions of a prefix; None when the policy refuses it."""
    try:
        return await sampler.rollouts(question, prefix, k)
    except RequestRefused as error:
        sampler.refusals.append(f"question '{question.id}', {len(prefix)} steps: {error}")
        return None


async def count(sampler: Sampler, question: Question, prefix: Steps, k: int) -> Label | None:
    """Label of one prefix from its first k completions; None when the policy refuses it."""
    rollouts = await sampled(sampler, question, prefix, k)
    return None if rollouts is None else Label.of(sum(r.correct for r in rollouts), k)


async def label_trajectories(
    sampler: Sampler,
    questions: Mapping[str, Question],
    trajectories: Sequence[Trajectory],
    plan: Plan,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[Outcome, list[Trajectory]]:
    """Label every trajectory.

    Args:
        questions: by id.
        progress: called with the number of trajectories done.

    Returns:
        How it ended, and the trajectories that are labelled, in the order given. Their
        `extra["labelled_by"]` says by which policy, and how it was made to continue steps.
    """
    continuation = sampler.policy.settings.get("continuation")
    source = {"policy": sampler.policy.name, "continuation": continuation}
    labelled: dict[tuple[str, int], Trajectory] = {}

    async def do(group: Group) -> None:
        for t in await plan.label(sampler, group):
            extra = {**t.extra, "labelled_by": source}
            labelled[t.question_id, t.sample_index] = t.model_copy(update={"extra": extra})
        progress(len(group.trajectories))

    outcome = await work_through(grouped(questions, trajectories), do, sampler.alive)
    keys = ((t.question_id, t.sample_index) for t in trajectories)
    return outcome, [labelled[key] for key in keys if key in labelled]


def grouped(questions: Mapping[str, Question], trajectories: Iterable[Trajectory]) -> list[Group]:
    """Trajectories by their question, both in the order of first appearance."""
    groups: dict[str, list[Trajectory]] = {}
    for trajectory in trajectories:
        groups.setdefault(trajectory.question_id, []).append(trajectory)
    return [Group(questions[name], tuple(group)) for name, group in groups.items()]


def prefixes(trajectory: Trajectory) -> Iterator[Steps]:
    """The prefixes of a trajectory, from the first step to all of them."""
    return (trajectory.steps[:i] for i in range(1, len(trajectory.steps) + 1))


def with_labels(trajectory: Trajectory, labels: Mapping[Steps, Label | None]) -> Trajectory:
    """The trajectory with those of `labels` that are its own."""
    return trajectory.model_copy(
        update={"labels": tuple(labels.get(prefix) for prefix in prefixes(trajectory))}
    )


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
        """See `Plan`. A label's total counts all completions that it rests on."""
        question = group.question
        paths: Paths = {(): self._candidates(sampler, group)}
        labels: dict[Steps, Label | None] = {}

        async def sample(prefix: Steps, n: int) -> None:
            rollouts = await sampled(sampler, question, prefix, n)
            if rollouts is None:
                labels[prefix] = None
                paths.pop(prefix, None)
            else:
                paths[prefix] = _paths(rollouts)

        for _, level in itertools.groupby(group.prefixes(), key=len):
            unsettled = list(level)  # what short ones sample feeds longer ones
            while unsettled:
                wanted: dict[Steps, int] = {}
                for prefix in unsettled:
                    labels[prefix] = self._count(prefix, paths)
                    own = len(paths.get(prefix, ()))
                    if more := self._more(labels[prefix], own):
                        wanted[prefix] = own + more
                await all_of(sample(prefix, n) for prefix, n in wanted.items())
                unsettled = [prefix for prefix in wanted if prefix in paths]
        return [with_labels(t, labels) for t in group.trajectories]

    def _candidates(self, sampler: Sampler, group: Group) -> list[tuple[Steps, bool]]:
        """The question's own candidates as completions of the empty prefix.

        Only if the first n, without a gap, are to be labelled: had somebody picked some by their
        outcome, counting them would bring that choice into the labels.
        """
        n = len(group.trajectories)
        if not self.reuse or {t.sample_index for t in group.trajectories} != set(range(n)):
            return []
        return _paths(sampler.stored_rollouts(group.question, (), n) or [])

    def _count(self, prefix: Steps, paths: Paths) -> Label | None:
        outcomes: list[bool] = []
        for begun, completions in paths.items():
            if begun == prefix:
                outcomes += [right for _, right in completions]
            elif self.reuse and prefix[: len(begun)] == begun:
                outcomes += [
                    right for steps, right in completions if steps[: len(prefix)] == prefix
                ]
        return Label.of(sum(outcomes), len(outcomes)) if outcomes else None

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
        """See `Plan`. Prefixes that were not looked at have no label.

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
        extra = {**trajectory.extra, "first_error": low if low < len(path) else None}
        return with_labels(trajectory, labels).model_copy(update={"extra": extra})


def _paths(rollouts: Sequence[Rollout]) -> list[tuple[Steps, bool]]:
    """Steps and outcome of each."""
    return [(tuple(split_steps(rollout.text)[0]), rollout.correct) for rollout in rollouts]
