"""Training data: labelled trajectories by domain, meta candidates by question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dreamprm.data import check_references
from dreamprm.errors import DataError
from dreamprm.records import Question, Trajectory, domain_of

Pair = tuple[Question, Trajectory]


@dataclass(frozen=True)
class TrainData:
    """What the two levels are fitted on.

    Attributes:
        domains: names, in the order of the weight vector.
        lower: labelled trajectories of each domain.
        meta: candidates with outcomes, grouped by question; empty for plain training.
    """

    domains: tuple[str, ...]
    lower: dict[str, list[Pair]]
    meta: list[list[Pair]]

    @property
    def items(self) -> list[Pair]:
        """All labelled trajectories, domain after domain: the order of instance weights."""
        return [pair for name in self.domains for pair in self.lower[name]]

    def first_item(self, domain: int) -> int:
        """Index of a domain's first trajectory in `items`."""
        return sum(len(self.lower[name]) for name in self.domains[:domain])

    def label_table(self) -> tuple[Tensor, Tensor]:
        """Labels p and mask of labelled steps of all items, (trajectories, steps) each."""
        items = self.items
        size = (len(items), max(len(t.steps) for _, t in items))
        labels, labelled = torch.zeros(size), torch.zeros(size, dtype=torch.bool)
        for row, (_, t) in enumerate(items):
            for column, label in enumerate(t.labels or ()):
                if label is not None:
                    labels[row, column], labelled[row, column] = label.value, True
        return labels, labelled


def prepare_data(
    questions: Sequence[Question],
    trajectories: Sequence[Trajectory],
    meta_questions: Sequence[Question] = (),
    meta_trajectories: Sequence[Trajectory] = (),
    *,
    source: str | Path = "training data",
    meta_source: str | Path = "meta set",
    learn_weights: bool = True,
) -> TrainData:
    """Group and check the data.

    Args:
        questions, trajectories: the training set.
        meta_questions, meta_trajectories: the meta set; none for plain training.
        source, meta_source: files to name in messages.
        learn_weights: a domain must have enough trajectories for a weight to be learned.

    Raises:
        DataError: no labelled step, a domain with a single trajectory, a trajectory of an unknown
            question, a meta set without outcomes or with outcomes of one kind, or a question that
            is in both sets.
    """
    lower: dict[str, list[Pair]] = {}
    for pair in _join(questions, trajectories, source):
        if pair[1].labels is not None and any(label is not None for label in pair[1].labels):
            lower.setdefault(domain_of(*pair), []).append(pair)
    if not lower:
        raise DataError("no trajectory has a step label; run `dreamprm label` first", file=source)
    for domain, pairs in lower.items():
        if learn_weights and len(pairs) < 2:
            raise DataError(
                f"domain '{domain}' has one labelled trajectory, too few to learn a weight; "
                "add more, or merge it into another domain",
                file=source,
            )
    groups: dict[str, list[Pair]] = {}
    for pair in _join(meta_questions, meta_trajectories, meta_source):
        if pair[1].outcome is not None:
            groups.setdefault(pair[0].id, []).append(pair)
    outcomes = {pair[1].outcome for group in groups.values() for pair in group}
    if meta_trajectories and len(outcomes) < 2:
        known = "no outcome" if not outcomes else f"only outcomes that are {outcomes.pop()}"
        raise DataError(
            f"the meta set has {known}; the upper level needs right and wrong ones",
            file=meta_source,
        )
    shared = {q.id for q in questions} & groups.keys()
    if shared:
        raise DataError(
            f"{len(shared)} questions are also training questions (the first: '{min(shared)}'); "
            "the meta set must be disjoint from the training set",
            file=meta_source,
        )
    return TrainData(tuple(lower), lower, list(groups.values()))


def _join(
    questions: Sequence[Question], trajectories: Sequence[Trajectory], source: str | Path
) -> list[Pair]:
    check_references(questions, trajectories, source)
    by_id = {q.id: q for q in questions}
    return [(by_id[t.question_id], t) for t in trajectories]
