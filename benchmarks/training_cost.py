"""The cost part of `benchmarks.training`: time, tokens and memory of a window of each procedure.

- `plain`: mixed-domain batches without weights, one AdamW, at several micro-batch sizes.
- `ours`: `Bilevel` with one-domain micro-batches and `inner_product`, at each of plain's sizes:
  the same number of trajectories in a step, of fewer domains where micro-batches are larger. The
  meta batch is as large as a lower step; it is taken in chunks of a micro-batch, of which all but
  one are scored twice, or (`meta at once`) in one piece.
- `paper`: see `benchmarks.training_paper`.

Encoding is done before any clock runs, once for all; moving a batch to the device is inside.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.training_paper import LastBatchDifference, PrefixPasses
from benchmarks.training_setup import CANDIDATES, Setting, make_data, make_model
from dreamprm.bilevel import Bilevel
from dreamprm.bilevel.parameters import trainable
from dreamprm.prm.layout import Batch
from dreamprm.prm.lora import unwrapped
from dreamprm.prm.model import PRM
from dreamprm.training.batches import LowerBatch, MetaBatch
from dreamprm.training.config import TrainConfig, preset
from dreamprm.training.data import Pair, TrainData
from dreamprm.training.learned import make_weights
from dreamprm.training.losses import trajectory_losses
from dreamprm.training.problem import PRMProblem
from dreamprm.training.run import make_loop

Unit = Callable[[], None]
"""A piece of training: a window of ours or plain's, `steps` windows of the paper's."""


@dataclass(frozen=True)
class Procedure:
    """One way to train.

    Attributes:
        name: in the results.
        start: makes a fresh optimiser and returns the unit.
        trajectories: that the lower level sees in a unit; of the paper, rows.
        labelled_steps: of those.
    """

    name: str
    start: Callable[[], Unit]
    trajectories: int
    labelled_steps: int


class Bench:
    """A model, its data and the batches of a window, encoded."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.model: PRM = make_model(setting)
        self.data: TrainData = make_data(setting)
        self.labels, self.labelled = self.data.label_table()
        base = self.config()
        problem = self.problem = PRMProblem(self.model, self.data, base)
        self.steps = [problem.lower_batches(step) for step in range(setting.window)]
        self.grouped = {size: self._one_domain(size) for size in self.sizes()}
        self.mixed = {
            size: [self._regrouped(step, size) for step in range(setting.window)]
            for size in setting.plain_micro_batches
        }
        self.meta = {
            size: PRMProblem(
                self.model, self.data, self.config(per_device_meta_batch_size=size)
            ).meta_batch(0)
            for size in (*self.sizes(), 0)
        }
        self.rows = self._prefix_rows()
        self.prefix_meta = self._prefix_meta(self.data.meta[0][0])

    def sizes(self) -> list[int]:
        """Micro-batches that one domain can fill and a step is made of."""
        s = self.setting
        found = {size for size in s.plain_micro_batches if s.micro_batch < size <= s.per_domain}
        return sorted({s.micro_batch} | {size for size in found if s.batch % size == 0})

    def _one_domain(self, size: int) -> list[list[LowerBatch]]:
        config = self.config(
            per_device_train_batch_size=size,
            gradient_accumulation_steps=self.setting.batch // size,
        )
        problem = PRMProblem(self.model, self.data, config)
        return [problem.lower_batches(step) for step in range(self.setting.window)]

    def config(self, **changes: Any) -> TrainConfig:
        """Settings of ours."""
        s = self.setting
        settings: dict[str, Any] = {
            "max_steps": 10**9,
            "per_device_train_batch_size": s.micro_batch,
            "gradient_accumulation_steps": s.domains,
            "unroll_steps": s.window,
            "meta_batch_questions": s.batch // CANDIDATES,
            "meta_batch_candidates": CANDIDATES,
            "per_device_meta_batch_size": s.micro_batch,
            "bf16": s.bf16,
        }
        return TrainConfig(**settings | changes)

    def procedures(self) -> list[Procedure]:
        """All that are compared, in the order of their turns."""
        s = self.setting
        seen = s.window * s.batch
        ours = {f"ours, {size}": ("start", size, size) for size in self.sizes()}
        ours[f"ours, {s.micro_batch}, end"] = ("end", s.micro_batch, s.micro_batch)
        ours[f"ours, {s.micro_batch}, meta at once"] = ("start", s.micro_batch, 0)
        plain = [
            Procedure(f"plain, {size}", partial(self.plain, size), seen, seen * s.steps)
            for size in s.plain_micro_batches
        ]
        mine = [
            Procedure(name, partial(self.ours, *how), seen, seen * s.steps)
            for name, how in ours.items()
        ]
        rows = s.window * s.steps
        return [*plain, *mine, Procedure("paper", self.paper, rows, rows)]

    def plain(self, micro_batch: int) -> Unit:
        """Ordinary training in micro-batches of that size."""
        parameters = trainable(self.model)
        optimizer = torch.optim.AdamW(parameters, lr=self.config().learning_rate, weight_decay=0.0)

        def unit() -> None:
            for batches in self.mixed[micro_batch]:
                optimizer.zero_grad()
                for batch in [batch.to(self.model.device) for batch in batches]:
                    logits = self.problem._logits(batch.tokens)
                    losses = trajectory_losses(logits, batch.labels, batch.labelled)
                    (losses.sum() / self.setting.batch).backward()
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
            optimizer.zero_grad()

        return unit

    def ours(self, at: str, size: int, meta_chunk: int) -> Unit:
        """A window of the bi-level loop."""
        steps = self.grouped[size]
        config = self.config(
            estimator="inner_product", meta_gradient_at=at, per_device_meta_batch_size=meta_chunk
        )
        problem = PRMProblem(self.model, self.data, config)
        meta_batch = self.meta[meta_chunk].to(self.model.device)
        loop = make_loop(problem, *make_weights(config, self.data))
        return lambda: self._window(loop, lambda step: steps[step % len(steps)], meta_batch)

    def paper(self) -> Unit:
        """As many windows of batch 1 as a trajectory has steps, so that all prefixes come up."""
        s = self.setting
        config = preset("paper", max_steps=10**9, unroll_steps=s.window, bf16=s.bf16)
        problem = PrefixPasses(self.model, self.data, config)
        loop = make_loop(problem, *make_weights(config, self.data), LastBatchDifference)
        meta_batch = self.prefix_meta.to(self.model.device)

        def unit() -> None:
            for _ in range(s.steps):
                self._window(loop, lambda step: [self.rows[step % len(self.rows)]], meta_batch)

        return unit

    def _window(
        self, loop: Bilevel, batches: Callable[[int], Sequence[LowerBatch]], meta_batch: MetaBatch
    ) -> None:
        for _ in range(self.setting.window):
            device = self.model.device
            loop.step([batch.to(device) for batch in batches(loop.steps)], meta_batch)

    def _regrouped(self, step: int, size: int) -> list[LowerBatch]:
        """A step's trajectories in micro-batches of mixed domains."""
        items = torch.cat([batch.items for batch in self.steps[step]]).tolist()
        random.Random(step).shuffle(items)
        chunks = [items[i : i + size] for i in range(0, len(items), size)]
        return [self._encoded(chunk) for chunk in chunks]

    def _encoded(self, items: list[int]) -> LowerBatch:
        pairs = [self.data.items[i] for i in items]
        return LowerBatch(
            domain=-1,
            items=torch.tensor(items),
            tokens=self.problem.encode([(q, t.steps) for q, t in pairs]),
            labels=self.labels[items],
            labelled=self.labelled[items],
            images=tuple(len(q.images) for q, _ in pairs),
        )

    def _prefix_rows(self) -> list[LowerBatch]:
        """One labelled prefix per step; all lengths equally often, in random order."""
        s, rng = self.setting, random.Random(0)
        lengths = [n for n in range(1, s.steps + 1) for _ in range(s.window)]
        rng.shuffle(lengths)
        rows = []
        for n in lengths:
            item = rng.randrange(len(self.data.items))
            question, t = self.data.items[item]
            rows.append(
                LowerBatch(
                    domain=self.data.domains.index(question.domain),
                    items=torch.tensor([item]),
                    tokens=self._prefix(question, t.steps[:n]),
                    labels=self.labels[[item], n - 1 : n],
                    labelled=self.labelled[[item], n - 1 : n],
                    images=(len(question.images),),
                )
            )
        return rows

    def _prefix_meta(self, pair: Pair) -> MetaBatch:
        question, t = pair
        prefixes = [self._prefix(question, t.steps[:n]) for n in range(1, len(t.steps) + 1)]
        return MetaBatch(tuple(prefixes), torch.tensor([float(bool(t.outcome))]), torch.zeros(1))

    def _prefix(self, question: Any, steps: Sequence[str]) -> Batch:
        """One sequence, judged at its end alone: a row of the `prefix` layout without padding."""
        b = self.problem.encode([(question, steps)])
        return Batch(b.inputs, b.positions[:, -1:], b.rows[:, -1:], b.mask[:, -1:])


def measure_times(bench: Bench) -> dict[str, list[float]]:
    """Seconds per unit of each procedure, one figure per turn; turns go round."""
    times: dict[str, list[float]] = {}
    for _ in range(bench.setting.repeats):
        for procedure in bench.procedures():
            unit = procedure.start()
            unit()  # the optimiser gets its state, caches warm up
            _wait(bench)
            started = time.perf_counter()
            for _ in range(bench.setting.windows):
                unit()
            _wait(bench)
            took = (time.perf_counter() - started) / bench.setting.windows
            times.setdefault(procedure.name, []).append(took)
            del unit
            gc.collect()
    return times


def count_tokens(bench: Bench) -> dict[str, int]:
    """Tokens that pass through the backbone in a unit, those that are computed again included."""
    found: dict[str, int] = {}
    seen: list[Tensor] = []
    backbone = unwrapped(bench.model.backbone).base_model
    handle = backbone.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["attention_mask"].sum()), with_kwargs=True
    )
    try:
        for procedure in bench.procedures():
            unit = procedure.start()
            unit()
            seen.clear()
            unit()
            found[procedure.name] = int(torch.stack(seen).sum())
    finally:
        handle.remove()
    return found


def _wait(bench: Bench) -> None:
    if bench.model.device.type == "cuda":
        torch.cuda.synchronize()
