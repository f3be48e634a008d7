"""Training data: labelled trajectories by domain, meta candidates by question."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dreamprm.data import Records, check_references
from dreamprm.data.audit import errors_in_training
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


def checked_data(
    train: Records, meta: Records | None = None, *, learn_weights: bool = True
) -> TrainData:
    """`prepare_data`, where the data has nothing that `dreamprm validate` calls an error.

    Raises:
        DataError: see `prepare_data`; or one of `errors_in_training`.
    """
    data = prepare_data(train, meta, learn_weights=learn_weights)
    for error in errors_in_training(train, meta):
        raise error
    return data


def prepare_data(
    train: Records, meta: Records | None = None, *, learn_weights: bool = True
) -> TrainData:
    """Group and check the data.

    Args:
        train: questions and labelled trajectories.
        meta: questions and trajectories with outcomes; None for plain training.
        learn_weights: a domain must have enough trajectories for a weight to be learned.

    Raises:
        DataError: no labelled step, a domain with a single trajectory, a trajectory of an unknown
            question, a meta set without outcomes or with outcomes of one kind, or a question that
            is in both sets.
    """
    source = train.source or "training data"
    check_references(train.questions, train.trajectories, source)
    lower: dict[str, list[Pair]] = {}
    for pair in train.pairs:
        if any(label is not None for label in pair[1].labels or ()):
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
    if meta is not None:
        source = meta.source or "meta set"
        check_references(meta.questions, meta.trajectories, source)
        for pair in meta.pairs:
            if pair[1].outcome is not None:
                groups.setdefault(pair[0].id, []).append(pair)
        outcomes = {pair[1].outcome for group in groups.values() for pair in group}
        if len(outcomes) < 2:
            known = "no outcome" if not outcomes else f"only outcomes that are {outcomes.pop()}"
            raise DataError(
                f"the meta set has {known}; the upper level needs right and wrong ones",
                file=source,
            )
    if shared := {q.id for q in train.questions} & groups.keys():
        raise DataError(
            f"{len(shared)} questions are also training questions (the first: '{min(shared)}'); "
            "the meta set must be disjoint from the training set",
            file=source,
        )
    return TrainData(tuple(lower), lower, list(groups.values()))
