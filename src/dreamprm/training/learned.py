"""What the upper level starts from and what it has learned: given weights in, results out."""

from __future__ import annotations

import difflib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamprm.bilevel.loop import Bilevel
from dreamprm.bilevel.weights import (
    DomainWeights,
    FixedWeights,
    InstanceNet,
    InstanceTable,
    LabelCorrection,
    Weights,
)
from dreamprm.data import trajectory_weights
from dreamprm.data.files import atomic_write
from dreamprm.data.trajectory_weights import DomainWeight, verdict
from dreamprm.errors import DataWarning, DreamPRMError
from dreamprm.records import domain_of
from dreamprm.training.config import TrainConfig
from dreamprm.training.data import Pair, TrainData
from dreamprm.training.meta_ranking import BeforeAfter
from dreamprm.training.problem import FEATURES, PRMProblem

Instance = tuple[str, int]  # question id, sample index
GivenWeights = Mapping[str, float] | Mapping[Instance, float]
"""Weight of each domain, or of each trajectory."""
Range = Sequence[float]  # low and high


@dataclass(frozen=True)
class TrainResult:
    """What a run has learned.

    Attributes:
        weights: of each domain; where trajectories have weights, their mean.
        instances: weight of each trajectory, mean 1, in the order of `TrainData.items`; None where
            domains have weights.
        labels: corrected labels of each trajectory, its unlabelled steps None; None: not corrected.
        history: one row per window: step, losses, weights of the domains, their intervals and more,
            see `data.trajectory_weights.Window`.
        is_main: this is the process that writes and prints.
        intervals: 95% interval of each of the weights; empty where they were given.
        corrections: mean correction of each domain's labels, with its 95% interval; empty where
            labels were not corrected.
        meta_ranking: of the meta set, before and after; None where no weights are learned.
    """

    weights: dict[str, float]
    instances: list[float] | None
    labels: list[list[float | None]] | None
    history: list[dict[str, Any]]
    is_main: bool = True
    intervals: dict[str, Range] = field(default_factory=dict)
    corrections: dict[str, DomainWeight] = field(default_factory=dict)
    meta_ranking: BeforeAfter | None = None

    @property
    def verdicts(self) -> dict[str, str]:
        """`up`, `down` or `not told apart` (from 1) of each learned weight."""
        return {name: verdict(*interval) for name, interval in self.intervals.items()}

    def domain_weights(self) -> dict[str, Any]:
        """What `weights.json` holds: numbers, or weight, low, high and verdict where learned."""
        if not self.intervals:
            return dict(self.weights)
        return {
            name: {"weight": w, "low": low, "high": high, "verdict": verdict(low, high)}
            for (name, w), (low, high) in zip(
                self.weights.items(), self.intervals.values(), strict=True
            )
        }


def make_weights(
    config: TrainConfig, data: TrainData, given: GivenWeights | None = None
) -> tuple[Weights, LabelCorrection | None]:
    """The upper-level variables that the settings ask for."""
    weighting: Weights
    if given is not None:
        by_domain = all(isinstance(key, str) for key in given)
        weighting = FixedWeights(_scaled(given, data), by_domain)
    elif not config.learn_weights or config.weighting == "none":
        weighting = FixedWeights(torch.ones(len(data.items)), by_domain=True)
    elif config.weighting == "domain":
        weighting = DomainWeights(data.domains)
    elif config.weighting == "instance_table":
        bounds = config.instance_weight_min, config.instance_weight_max
        weighting = InstanceTable(len(data.items), *bounds)
    else:
        weighting = InstanceNet(FEATURES)
    correction = None
    if config.learn_weights and config.label_correction:
        correction = LabelCorrection(data.label_table()[0])
    return weighting, correction


def read_weights(path: Path) -> GivenWeights:
    """Fixed weights: of domains (a JSON object), or of trajectories (JSON Lines).

    A folder that `dreamprm train` wrote stands for what was learned there.
    """
    if path.is_dir():
        instances = path / "instance_weights.jsonl"
        path = instances if instances.exists() else path / "weights.json"
    if path.suffix == ".jsonl":
        return trajectory_weights.read_weights(path)
    read = trajectory_weights.read_domain_weights(path)
    return {name: found.weight for name, found in read.items()}


def domain_weights(weighting: Weights, data: TrainData) -> dict[str, float]:
    """Weight of each domain as it is now; empty for an instance net, which has no table."""
    if isinstance(weighting, DomainWeights):
        return dict(zip(data.domains, weighting.table().tolist(), strict=True))
    if isinstance(weighting, InstanceTable):
        return _means(weighting.table().detach(), data)
    return _means(weighting.get_buffer("w"), data) if isinstance(weighting, FixedWeights) else {}


def intervals(loop: Bilevel, weights: dict[str, float]) -> dict[str, Range]:
    """95% intervals of the domains' learned weights; empty where none are learned."""
    if not weights or not any(True for _ in loop.weights.parameters()):
        return {}
    ends = zip(*loop.intervals(list(weights.values())), strict=True)
    return dict(zip(weights, map(list, ends), strict=True))


@torch.no_grad()
def learned(problem: PRMProblem, loop: Bilevel, history: list[dict[str, Any]]) -> TrainResult:
    """The upper level's result at the end of a run."""
    data, weighting = problem.data, loop.weights
    labels, corrections = None, {}
    if loop.labels is not None:
        corrected, labelled = loop.labels.table().cpu(), data.label_table()[1]
        labels = [
            [float(row[s]) if mask[s] else None for s in range(len(t.steps))]
            for row, mask, (_, t) in zip(corrected, labelled, data.items, strict=True)
        ]
        corrections = _corrections(loop, loop.labels, data)
    instances = None
    if weighting.by_domain:
        weights = domain_weights(weighting, data)
    else:
        if isinstance(weighting, InstanceNet):
            w = _of_net(problem, weighting, loop.labels)
        elif isinstance(weighting, InstanceTable):
            w = weighting.table().cpu()
        else:
            w = weighting.get_buffer("w").cpu()
        w = w / w.mean().clamp(min=1e-12)
        weights, instances = _means(w, data), w.tolist()
    return TrainResult(
        weights,
        instances,
        labels,
        history,
        problem.parallel.rank == 0,
        intervals(loop, weights),
        corrections,
    )


def _corrections(
    loop: Bilevel, labels: LabelCorrection, data: TrainData
) -> dict[str, DomainWeight]:
    """Mean correction of each domain's labels, with its 95% interval."""
    given, labelled = data.label_table()
    changed = torch.where(labelled, labels.table().cpu() - given, 0.0).sum(dim=1)
    counts = labelled.sum(dim=1)
    sizes = [len(data.lower[name]) for name in data.domains]
    pairs = zip(changed.split(sizes), counts.split(sizes), strict=True)
    means = torch.stack([c.sum() / n.sum().clamp(min=1) for c, n in pairs])
    lows, highs = loop.evidence_of_labels.interval(None, means.numpy())
    rows = zip(data.domains, means.tolist(), lows.tolist(), highs.tolist(), strict=True)
    return {
        name: DomainWeight(weight=mean, low=low, high=high, verdict=verdict(low, high, start=0.0))
        for name, mean, low, high in rows
    }


def _of_net(
    problem: PRMProblem, weighting: InstanceNet, correction: LabelCorrection | None
) -> Tensor:
    """What the final net says of every trajectory: one forward pass of all of them."""
    w = torch.zeros(len(problem.data.items))
    size = problem.config.per_device_train_batch_size
    for domain, name in enumerate(problem.data.domains):
        pairs = problem.data.lower[name]
        for start in range(0, len(pairs), size):
            batch = problem.batch_of(domain, list(range(start, min(start + size, len(pairs)))))
            batch = batch.to(problem.model.device)
            labels = None if correction is None else correction(batch)
            _, features = problem.lower_losses(batch, labels)
            w[batch.items.cpu()] = weighting(batch, features).cpu()
    return w


def write_learned(result: TrainResult, data: TrainData, folder: Path) -> None:
    """`weights.json`, and one row per trajectory where trajectories have weights or new labels."""
    _write_json(folder / "weights.json", result.domain_weights())
    if result.instances is not None:
        path = folder / "instance_weights.jsonl"
        trajectory_weights.write_weights(path, data.items, result.instances)
    if result.labels is not None:
        corrections = {name: c.model_dump() for name, c in result.corrections.items()}
        _write_json(folder / "label_corrections.json", corrections)
        with atomic_write(folder / "corrected_labels.jsonl") as file:
            for (question, t), labels in zip(data.items, result.labels, strict=True):
                row = {
                    "question_id": question.id,
                    "sample_index": t.sample_index,
                    "domain": domain_of(question, t),
                    "labels": labels,
                }
                file.write((json.dumps(row) + "\n").encode())


def _write_json(path: Path, value: dict[str, Any]) -> None:
    with atomic_write(path) as file:
        file.write((json.dumps(value, indent=2) + "\n").encode())


def without_zeros(
    data: TrainData, given: GivenWeights | None
) -> tuple[TrainData, GivenWeights | None]:
    """The same objective without the trajectories of weight 0, which would only fill batches.

    Domains are visited equally often, so a domain of which a tenth is left gets a tenth of the
    weight. A domain of which nothing is left is gone. Weights of domains stay as they are.
    """
    by_instance = {key: w for key, w in (given or {}).items() if not isinstance(key, str)}
    if not by_instance:
        return data, given
    if strangers := by_instance.keys() - {_key(pair) for pair in data.items}:
        question, sample = min(strangers)  # of more data, or of other data by mistake
        warnings.warn(
            f"weights: {len(strangers)} weights are of trajectories that the data does not have "
            f"(the first: question '{question}', sample {sample}); they are left out",
            DataWarning,
            stacklevel=2,
        )
    lower: dict[str, list[Pair]] = {}
    weights: dict[Instance, float] = {}
    for name, pairs in data.lower.items():
        kept = [pair for pair in pairs if by_instance.get(_key(pair), 1.0) != 0]
        if kept:
            lower[name] = kept
        share = len(kept) / len(pairs)
        weights |= {k: by_instance[k] * share for k in map(_key, kept) if k in by_instance}
    if not lower:
        raise DreamPRMError("weights: all are 0; at least one trajectory must count")
    return TrainData(tuple(lower), lower, data.meta), weights


def _key(pair: Pair) -> Instance:
    return pair[0].id, pair[1].sample_index


def _means(table: Tensor, data: TrainData) -> dict[str, float]:
    sizes = [len(data.lower[name]) for name in data.domains]
    parts = table.cpu().split(sizes)
    return {name: float(part.mean()) for name, part in zip(data.domains, parts, strict=True)}


def _scaled(given: GivenWeights, data: TrainData) -> Tensor:
    """Weight of each trajectory, scaled: to mean 1 over domains, each visited equally often."""
    by_domain = {key: value for key, value in given.items() if isinstance(key, str)}
    by_instance = {key: value for key, value in given.items() if not isinstance(key, str)}
    for key, value in given.items():
        if not 0 <= value < float("inf"):
            what = f"domain '{key}'" if isinstance(key, str) else f"trajectory {key}"
            raise DreamPRMError(f"weights: {what} has weight {value}; need 0 or more")
    if by_instance:
        keys = [_key(pair) for pair in data.items]
        missing = [key for key in keys if key not in by_instance]
        if missing:
            raise DreamPRMError(
                f"weights: {len(missing)} of {len(keys)} trajectories have none (the first: "
                f"question '{missing[0][0]}', sample {missing[0][1]}); give one for each"
            )
        w = torch.tensor([float(by_instance[key]) for key in keys])
    else:
        _check_domains(by_domain, data)
        w = torch.tensor([float(by_domain[n]) for n in data.domains for _ in data.lower[n]])
    means = list(_means(w, data).values())
    if not sum(means) > 0:
        kind = "trajectory" if by_instance else "domain"
        raise DreamPRMError(f"weights: all are 0; at least one {kind} must count")
    return w * len(means) / sum(means)


def _check_domains(given: Mapping[str, float], data: TrainData) -> None:
    for name in given:
        if name not in data.domains:
            near = difflib.get_close_matches(name, data.domains, n=3) or list(data.domains[:3])
            raise DreamPRMError(
                f"weights: unknown domain '{name}'; the data has, nearest first: {', '.join(near)}"
            )
    missing = [name for name in data.domains if name not in given]
    if missing:
        raise DreamPRMError(f"weights: no weight for domain '{missing[0]}'; give one for each")
