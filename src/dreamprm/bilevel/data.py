"""Training data: trajectories by domain, meta candidates by question, and their batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dreamprm.bilevel.config import BilevelConfig
from dreamprm.bilevel.losses import trajectory_losses
from dreamprm.bilevel.meta_loss import MetaLoss, aggregate, make_meta_loss
from dreamprm.bilevel.sampler import contrasting, items_at
from dreamprm.errors import DataError
from dreamprm.prm.layout import Batch
from dreamprm.prm.model import ProcessRewardModel
from dreamprm.records import Question, Trajectory

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


def prepare_data(
    questions: Sequence[Question],
    trajectories: Sequence[Trajectory],
    meta_questions: Sequence[Question] = (),
    meta_trajectories: Sequence[Trajectory] = (),
    *,
    source: str | Path = "training data",
    meta_source: str | Path = "meta set",
) -> TrainData:
    """Group and check the data.

    Raises:
        DataError: no labelled step, a domain with a single trajectory, a trajectory of an unknown
            question, a meta set without outcomes or with outcomes of one kind, or a question that
            is in both sets.
    """
    lower: dict[str, list[Pair]] = {}
    for pair in _join(questions, trajectories, source):
        if pair[1].labels is not None and any(label is not None for label in pair[1].labels):
            lower.setdefault(pair[0].domain, []).append(pair)
    if not lower:
        raise DataError("no trajectory has a step label; run `dreamprm label` first", file=source)
    for domain, pairs in lower.items():
        if len(pairs) < 2:
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
    by_id = {q.id: q for q in questions}
    for row, t in enumerate(trajectories, start=1):
        if t.question_id not in by_id:
            raise DataError(
                f"no question has the id '{t.question_id}'",
                file=source,
                row=row,
                field="question_id",
            )
    return [(by_id[t.question_id], t) for t in trajectories]


@dataclass(frozen=True)
class LowerBatch:
    """Trajectories of one domain: tokens, labels p and mask of labelled steps, both (B, steps)."""

    tokens: Batch
    labels: Tensor
    labelled: Tensor


@dataclass(frozen=True)
class MetaBatch:
    """Candidates: tokens, outcomes (B,) of 0.0 or 1.0, and the index of each's question (B,)."""

    tokens: Batch
    outcomes: Tensor
    question: Tensor


class PRMProblem:
    """A PRM and its data as a bi-level `Problem`."""

    def __init__(self, model: ProcessRewardModel, data: TrainData, config: BilevelConfig) -> None:
        self.model, self.data, self.config = model, data, config
        self.encode = model.encoder()
        self.profile: MetaLoss = make_meta_loss(config.meta_loss)
        self._contrast = [group for group in data.meta if len({t.outcome for _, t in group}) == 2]
        if config.learn_weights and not data.meta:
            raise DataError(
                "learning weights needs a meta set; give one or set learn_weights false"
            )
        self.ranking = config.meta_loss in ("pairwise", "listwise")
        if config.learn_weights and self.ranking and not self._contrast:
            raise DataError(
                f"meta_loss '{config.meta_loss}' compares right and wrong candidates of one, "
                "and the meta set has no question with both; use meta_loss affine_bce or mse"
            )

    def lower_batch(self, domain: int, visit: int) -> LowerBatch:
        name = self.data.domains[domain]
        pairs = self.data.lower[name]
        key = f"{self.config.seed}/{name}"
        chosen = items_at(visit, len(pairs), self.config.per_domain_batch_size, key)
        picked = [pairs[i] for i in chosen]
        tokens = self.encode([(q, t.steps) for q, t in picked])
        labels = torch.zeros(tokens.mask.shape)
        labelled = torch.zeros_like(tokens.mask)
        for row, (_, t) in enumerate(picked):
            for column, label in enumerate(t.labels or ()):
                if label is not None:
                    labels[row, column], labelled[row, column] = label.value, True
        device = self.model.device
        return LowerBatch(tokens.to(device), labels.to(device), labelled.to(device))

    def meta_batch(self, upper_step: int) -> MetaBatch:
        """A batch of questions.

        Questions with both outcomes say most about ranking (the paper picks them first): where
        there are enough of them to fill a batch, the others are left aside.
        """
        config = self.config
        enough = config.meta_candidates > 1 and len(self._contrast) >= config.meta_questions
        groups = self._contrast if self.ranking or enough else self.data.meta
        key = f"{config.seed}/meta"
        picked: list[Pair] = []
        question: list[int] = []
        count = min(config.meta_questions, len(groups))
        for number, i in enumerate(items_at(upper_step, len(groups), count, key)):
            outcomes = [bool(t.outcome) for _, t in groups[i]]
            chosen = contrasting(outcomes, config.meta_candidates, f"{key}/{upper_step}/{i}")
            picked += [groups[i][c] for c in chosen]
            question += [number] * len(chosen)
        tokens = self.encode([(q, t.steps) for q, t in picked]).to(self.model.device)
        outcome = torch.tensor([float(bool(t.outcome)) for _, t in picked])
        return MetaBatch(
            tokens, outcome.to(self.model.device), torch.tensor(question, device=self.model.device)
        )

    def lower_loss(self, batch: LowerBatch) -> Tensor:
        logits = self.model(batch.tokens)
        labels = batch.labels.to(logits.dtype)
        return trajectory_losses(logits, labels, batch.labelled, self.config.lower_loss).mean()

    def meta_loss(self, batch: MetaBatch) -> Tensor:
        aggregated = aggregate(
            self.model(batch.tokens), batch.tokens.mask, self.config.meta_aggregation
        )
        return self.profile(aggregated, batch.outcomes.to(aggregated.dtype), batch.question)
