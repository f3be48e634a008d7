"""Monte Carlo labels: completions sampled from each step prefix; how many reach the right answer.

Candidates of one question share prefixes (the first steps above all). A distinct prefix is
completed once, and its counts serve every trajectory that begins with it. How many completions a
prefix gets is the plan's business: a fixed K here, what the label needs in `adaptive`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from dreamprm.policy import RequestRefused
from dreamprm.records import Label, Question, Trajectory
from dreamprm.rollouts.sampler import Sampler
from dreamprm.rollouts.work import Outcome, all_of, work_through

Steps = tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """A question and all trajectories about it that are to be labelled."""

    question: Question
    trajectories: tuple[Trajectory, ...]

    def prefixes(self) -> list[Steps]:
        """The distinct prefixes, shorter ones first."""
        found = dict.fromkeys(p for t in self.trajectories for p in prefixes(t))
        return sorted(found, key=len)


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
        found = group.prefixes()
        counts = await all_of(count(sampler, group.question, prefix, k) for prefix in found)
        labels = dict(zip(found, counts, strict=True))
        return [with_labels(t, labels) for t in group.trajectories]


async def count(sampler: Sampler, question: Question, prefix: Steps, k: int) -> Label | None:
    """Label of one prefix from its first k completions; None when the policy refuses it."""
    try:
        sampled = await sampler.rollouts(question, prefix, k)
    except RequestRefused as error:
        sampler.refusals.append(f"question '{question.id}', {len(prefix)} steps: {error}")
        return None
    return Label.of(sum(rollout.correct for rollout in sampled), k)


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
        found = await plan.label(sampler, group)
        for t in found:
            extra = {**t.extra, "labelled_by": source}
            labelled[t.question_id, t.sample_index] = t.model_copy(update={"extra": extra})
        progress(len(found))

    outcome = await work_through(grouped(questions, trajectories), do, sampler.alive)
    keys = ((t.question_id, t.sample_index) for t in trajectories)
    return outcome, [labelled[key] for key in keys if key in labelled]


def grouped(questions: Mapping[str, Question], trajectories: Iterable[Trajectory]) -> list[Group]:
    """Trajectories by their question, both in the order of first appearance."""
    found: dict[str, list[Trajectory]] = {}
    for trajectory in trajectories:
        found.setdefault(trajectory.question_id, []).append(trajectory)
    return [Group(questions[name], tuple(group)) for name, group in found.items()]


def prefixes(trajectory: Trajectory) -> Iterator[Steps]:
    """The prefixes of a trajectory, from the first step to all of them."""
    return (trajectory.steps[:i] for i in range(1, len(trajectory.steps) + 1))


def with_labels(trajectory: Trajectory, labels: Mapping[Steps, Label | None]) -> Trajectory:
    """The trajectory with those of `labels` that are its own."""
    return trajectory.model_copy(
        update={"labels": tuple(labels.get(prefix) for prefix in prefixes(trajectory))}
    )
