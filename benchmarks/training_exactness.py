"""The exactness part of `benchmarks.training`: every estimator against the unrolled oracle.

A model is warmed up in float64. Its parameters and AdamW's moments, rounded to the precision that
is looked at, are what the oracle (in float64) and every estimator start from, so that nothing but
the estimator differs. Compared are the hypergradients of a window, by domain and, where an
estimator tells them apart, by trajectory: their cosine after removing the mean, which weights of
mean 1 cannot follow.

`bf16 compute` is autocast on fp32 parameters; `bf16 parameters` holds the parameters, gradients and
moments in bf16 too, as the paper's code holds its model.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.training_setup import wide_model
from dreamprm.bilevel import Bilevel, Estimator
from dreamprm.prm.model import PRM
from dreamprm.training.config import TrainConfig
from dreamprm.training.data import TrainData
from dreamprm.training.learned import make_weights
from dreamprm.training.problem import PRMProblem
from dreamprm.training.run import make_loop
from tests.prm_data import small_data
from tests.unrolled import Unrolled

DOMAINS = ("clean", "inverted", "noise", "clean too", "clean as well")
ESTIMATORS = [
    ("inner_product", "end"),
    ("inner_product", "start"),
    ("jvp", "end"),
    ("ghost", "end"),
    ("ghost", "start"),
    ("finite_difference", "end"),
]
IN_BF16 = [("inner_product", "end"), ("inner_product", "start"), ("finite_difference", "end")]


@dataclass(frozen=True)
class Precision:
    """How an estimator computes.

    Attributes:
        name: in the results.
        parameters: dtype of what is trained.
        autocast: compute in bf16.
    """

    name: str
    parameters: torch.dtype = torch.float32
    autocast: bool = False


FP32 = Precision("fp32")
BF16_COMPUTE = Precision("bf16 compute", autocast=True)
BF16_PARAMETERS = Precision("bf16 parameters", torch.bfloat16)
EXACT = Precision("float64", torch.float64)


@dataclass(frozen=True)
class Start:
    """A model in the middle of training, in float64.

    Attributes:
        model: with its parameters.
        optimizer: AdamW's state.
        data: what both levels see.
        step: of the lower level.
    """

    model: PRM
    optimizer: dict[str, Any]
    data: TrainData
    step: int


@dataclass(frozen=True)
class OfWindow:
    """D meta loss / d w.

    Attributes:
        domains: (domains,).
        trajectories: of every trajectory of the window's micro-batches, (seen,); None: not known.
    """

    domains: Tensor
    trajectories: Tensor | None


def settings(**changes: Any) -> TrainConfig:
    """Of a window here. Momentum is cut at the window's end if it can be, as the oracle does."""
    chosen: dict[str, Any] = {
        "max_steps": 10**9,
        "gradient_accumulation_steps": len(DOMAINS),
        "per_device_train_batch_size": 4,
        "meta_batch_questions": 6,
        "meta_batch_candidates": 3,
        "max_grad_norm": 0.0,
    }
    chosen |= changes
    # The start of a window knows no momentum but the whole.
    chosen["momentum"] = "window" if chosen.get("meta_gradient_at") == "end" else "whole"
    return TrainConfig(**chosen)


def warmed_up(model: PRM, data: TrainData, steps: int) -> Start:
    """Train plainly in float64."""
    model = model.double().train()
    loop, problem = _loop(model, data, settings(learn_weights=False))
    for step in range(steps):
        loop.step(problem.lower_batches(step))
    return Start(model, loop.lower_optimizer.state_dict(), data, steps)


def rounded(start: Start, dtype: torch.dtype) -> Start:
    """The same with parameters and moments that the dtype can hold, still in float64."""
    model = copy.deepcopy(start.model)
    optimizer = copy.deepcopy(start.optimizer)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.to(dtype))
    for state in optimizer["state"].values():
        for name in ("exp_avg", "exp_avg_sq"):
            state[name] = state[name].to(dtype).double()
    return Start(model, optimizer, start.data, start.step)


def hypergradient(
    start: Start, estimator: str | type[Estimator], at: str, window: int, precision: Precision
) -> OfWindow:
    """What an estimator says of the window that begins there."""
    by_domain = estimator == "inner_product"
    config = settings(
        meta_gradient_at=at,
        unroll_steps=window,
        weighting="domain" if by_domain else "instance_table",
        bf16=precision.autocast,
        **({"estimator": estimator} if isinstance(estimator, str) else {}),
    )
    model = copy.deepcopy(start.model).to(precision.parameters)
    other = None if isinstance(estimator, str) else estimator
    loop, problem = _loop(model, start.data, config, other, precision is EXACT)
    loop.lower_optimizer.load_state_dict(copy.deepcopy(start.optimizer))
    loop.steps = start.step
    for step in range(start.step, start.step + window):
        result = loop.step(problem.lower_batches(step), problem.meta_batch(0))
    assert result.hypergradient is not None, "AdamW has no state"
    of_weights = result.hypergradient.weights
    domains = torch.zeros(len(start.data.domains), dtype=torch.float64)
    for of_batch, micro in zip(of_weights, result.window, strict=True):
        domains[micro.batch.domain] += of_batch.double().sum()
    return OfWindow(domains, None if by_domain else torch.cat(of_weights).double())


def cosine(a: Tensor, b: Tensor) -> float:
    """After removing the means."""
    return float(F.cosine_similarity(a - a.mean(), b - b.mean(), dim=0))


def compare(
    starts: Sequence[Start],
    window: int,
    precisions: Sequence[Precision],
    estimators: Sequence[tuple[str, str]],
) -> list[dict[str, Any]]:
    """A row for each precision and estimator; figures are over the starts."""
    rows = []
    for precision in precisions:
        begun = [rounded(start, precision.parameters) for start in starts]
        exact = [hypergradient(start, Unrolled, "end", window, EXACT) for start in begun]
        for estimator, at in estimators:
            found = [hypergradient(start, estimator, at, window, precision) for start in begun]
            domains = [cosine(f.domains, e.domains) for f, e in zip(found, exact, strict=True)]
            singly = [
                cosine(f.trajectories, e.trajectories)
                for f, e in zip(found, exact, strict=True)
                if f.trajectories is not None and e.trajectories is not None
            ]
            rows.append(
                {
                    "estimator": estimator,
                    "meta_gradient_at": at,
                    "precision": precision.name,
                    "window": window,
                    "domains": _figures(domains),
                    "trajectories": _figures(singly) if singly else None,
                }
            )
    return rows


def exactness_of_estimators(
    windows: Sequence[int], seeds: int, warm_steps: int
) -> list[dict[str, Any]]:
    """All estimators on the embedded model, in fp32 and with bf16 compute."""
    starts = [_start(PRM.from_backbone("tiny"), seed, warm_steps) for seed in range(seeds)]
    return [
        row
        for window in windows
        for row in compare(starts, window, (FP32, BF16_COMPUTE), ESTIMATORS)
    ]


def exactness_by_size(widths: Sequence[int], seeds: int, warm_steps: int) -> list[dict[str, Any]]:
    """One step with bf16 parameters, on models of growing width with random weights."""
    rows = []
    for width in widths:
        starts = []
        for seed in range(seeds):
            torch.manual_seed(seed)
            starts.append(_start(wide_model(width), seed, warm_steps))
        size = sum(p.numel() for p in starts[0].model.parameters())
        found = compare(starts, 1, (FP32, BF16_PARAMETERS), IN_BF16)
        rows += [{"width": width, "parameters": size} | row for row in found]
    return rows


def _start(model: PRM, seed: int, warm_steps: int) -> Start:
    torch.manual_seed(seed)
    assert isinstance(model.head, nn.Linear)
    nn.init.normal_(model.head.weight, std=0.1 * (128 / model.head.in_features) ** 0.5)
    return warmed_up(model, small_data(DOMAINS, 8, seed), warm_steps)


def _loop(
    model: PRM,
    data: TrainData,
    config: TrainConfig,
    estimator: type[Estimator] | None = None,
    double: bool = False,
) -> tuple[Bilevel, PRMProblem]:
    problem = PRMProblem(model, data, config)
    weights, _ = make_weights(config, data)
    return make_loop(problem, weights.double() if double else weights, None, estimator), problem


def _figures(cosines: list[float]) -> dict[str, float]:
    return {"median": statistics.median(cosines), "lowest": min(cosines)}
