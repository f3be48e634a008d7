"""What `dreamprm train --dry_run` prints: the run's data, memory and time, before anything is done.

The loop of a real run takes two lower steps and a meta gradient on the largest batches of the data,
on tensors that have a shape and no contents (torch's `FakeTensorMode`): a laptop plans a model that
it could not hold. Storages that come and go are added up, and FLOPs are counted. Where the real run
fits the device and is short, a window of it with random weights gives the time, and on a GPU the
memory as its allocator sees it.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import peft
import psutil  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry

from dreamprm.errors import DreamPRMError
from dreamprm.models.loading import load_backbone, load_processor, reading
from dreamprm.prm.folder import PRMConfig, has_adapter, is_prm, read_config
from dreamprm.prm.lora import Lora
from dreamprm.prm.model import PRM
from dreamprm.training.batches import LowerBatch, MetaBatch
from dreamprm.training.config import TrainConfig
from dreamprm.training.data import TrainData
from dreamprm.training.learned import GivenWeights, make_weights, without_zeros
from dreamprm.training.power import what_can_be_found
from dreamprm.training.problem import PRMProblem, rough_length
from dreamprm.training.run import make_loop, warn_of_nothing_learned

SAMPLE = 32  # trajectories whose tokens are counted, half of them those that look longest
EFFICIENCY = 0.4  # of a large matrix product's speed, reached in training by models of a few B
MARGIN = 1.1  # an allocator's fragments and kernels' work space, which are not counted
PATIENCE = {"cuda": 60.0, "cpu": 15.0}  # seconds that the measured window may take, as expected


class Shadow(TorchDispatchMode):
    """Lets a training step run where parameters are fake and its integers are real.

    Positions, masks and image sizes decide about shapes, so they are computed. What meets a fake
    tensor becomes fake itself, and a number that is read from one is 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.held = self.peak = self.flops = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        aten = torch.ops.aten
        if func is torch.ops.prim.device.default:  # most calls are this one
            return args[0].fake_device if isinstance(args[0], FakeTensor) else args[0].device
        if any(isinstance(x, FakeTensor) for x in tree_iter((args, kwargs))):
            if func is aten._local_scalar_dense.default:
                return 0.0
            if func in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default):
                # Masks as positions: how many are True decides about the shape of the result.
                positions: list[Tensor | None] = []
                for x in args[1]:
                    mask = isinstance(x, Tensor) and x.dtype == torch.bool
                    positions += x.nonzero(as_tuple=True) if mask else (x,)
                args = (args[0], positions, *args[2:])
        result = func(*args, **kwargs)
        if func.overloadpacket in flop_registry:
            self.flops += flop_registry[func.overloadpacket](*args, **kwargs, out_val=result)
        for x in tree_iter(result):
            if isinstance(x, FakeTensor):
                self.watch(x.untyped_storage())
        return result

    def watch(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._seen:
            self._seen.add(storage)
            self.held += storage.nbytes()
            self.peak = max(self.peak, self.held)
            weakref.finalize(storage, self.free, storage.nbytes())

    def free(self, size: int) -> None:
        self.held -= size


def make_fake(module: nn.Module, shadow: Shadow, device: torch.device) -> None:
    """Replace parameters and buffers by fake ones on a device, in place."""
    fakes: dict[int, tuple[Tensor, Tensor]] = {}  # with what they replace, whose id must stay taken
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, t in tensors.items():
                if t is None:
                    continue
                if id(t) not in fakes:
                    with shadow.mode:
                        fake = torch.empty(t.shape, dtype=t.dtype, device=device)
                    if isinstance(t, nn.Parameter):
                        fake = nn.Parameter(fake, requires_grad=t.requires_grad)
                    shadow.watch(fake.untyped_storage())
                    fakes[id(t)] = fake, t
                tensors[name] = fakes[id(t)][0]  # type: ignore[assignment]


@dataclass(frozen=True)
class Plan:
    """What a run needs. Bytes and FLOPs are of one device, times of a lower step.

    Attributes:
        domains: of each, its name, trajectories, labelled steps and mean label.
        largest: sequences and tokens of the largest micro-batch.
        total, trainable: parameters.
        weights, moments, stored: bytes of the parameters, of AdamW's state, and of what the
            estimator keeps of a window.
        peak: the most bytes that are alive at once.
        flops: of a lower step of average length with its share of the meta gradient.
        meta_share: of the meta gradient in `flops`.
        memory, rate: bytes of the device, and FLOP/s that it reaches in a large matrix product.
        steps: lower steps of the run.
        shards: devices that share parameters, gradients and what is as large (FSDP2).
        seconds, measured_peak: of a real window; None: not measured.
        meta_set: what it can find, in words; empty where no weights of domains are learned.
    """

    domains: list[tuple[str, int, int, float]]
    largest: tuple[int, ...]
    total: int
    trainable: int
    weights: int
    moments: int
    stored: int
    peak: int
    flops: float
    meta_share: float
    memory: int
    rate: float
    steps: int
    shards: int = 1
    seconds: float | None = None
    measured_peak: int | None = None
    meta_set: str = ""

    @property
    def expected_peak(self) -> int:
        """Measured or counted; with shards, activations stay whole."""
        kept = self.weights + self.moments + self.stored
        return (self.measured_peak or self.peak) - kept * (self.shards - 1) // self.shards

    @property
    def fits(self) -> bool:
        return self.expected_peak * MARGIN <= self.memory

    @property
    def expected_seconds(self) -> float:
        return self.seconds or self.flops / (EFFICIENCY * self.rate)

    def __str__(self) -> str:
        sequences, tokens = self.largest
        whole = " before sharding" if self.shards > 1 else ""
        rest = self.peak - self.weights - self.moments - self.stored
        rows = [("data", "")]
        for name, count, steps, mean in self.domains:
            rows.append((f"  {name}", f"{count:,} trajectories, {steps:,} labels, mean {mean:.2f}"))
        rows += [
            ("longest micro-batch", f"{tokens:,} tokens, {sequences:,} sequences"),
            ("parameters", f"{_count(self.total)}, trainable {_count(self.trainable)}"),
            ("peak memory of a device", _bytes(self.expected_peak)),
            ("  weights", _bytes(self.weights) + whole),
            ("  AdamW's state", _bytes(self.moments) + whole),
            ("  estimator", _bytes(self.stored) + whole),
            ("  gradients, activations", _bytes(rest)),
            ("work of a step", f"{self.flops / 1e12:,.3g} TFLOP"),
            ("  meta gradient", f"{self.meta_share:.0%}"),
            ("time of a step", _time(self.expected_seconds)),
            (f"time of {self.steps:,} steps", _time(self.expected_seconds * self.steps)),
        ]
        width = max(len(name) for name, _ in rows) + 2
        lines = [f"{name:<{width}}{value}".rstrip() for name, value in rows]
        if self.meta_set:
            lines.append(f"Meta set: {self.meta_set}.")
        verdict = "fits" if self.fits else "does not fit"
        memory = _bytes(self.memory)
        lines.append(f"The peak and a tenth more {verdict} this device's {memory}.")
        if not self.fits:
            lines.append(
                "Less memory: gradient_checkpointing; a smaller per_device_meta_batch_size or "
                "per_device_train_batch_size; meta_gradient_at start; use_peft, dtype bfloat16."
            )
        counted = "counted on tensors without contents; a GPU's kernels may need other work space"
        lines.append(f"Memory: {'measured' if self.measured_peak else counted}.")
        guess = f"guessed: {EFFICIENCY:.0%} of this device's {self.rate / 1e12:.3g} TFLOP/s"
        lines.append(f"Time: {guess if self.seconds is None else 'measured over a window'}.")
        return "\n".join(lines)


def plan_run(
    name: str,
    facts: PRMConfig,
    data: TrainData,
    config: TrainConfig,
    *,
    lora: Lora | None = None,
    dtype: torch.dtype = torch.float32,
    weights: GivenWeights | None = None,
    device: torch.device | str = "cpu",
    world: int = 1,
    sharded: bool = False,
    measure: bool = True,
) -> Plan:
    """Plan a run, loading no weights.

    Args:
        name: of the backbone, or folder of a PRM to go on from.
        facts: head and layout of a new PRM.
        dtype: of what is not trained.
        weights: fixed weights, see `run.fit`.
        world: number of devices like `device`; `sharded`: they share parameters (FSDP2).
        measure: run a window on the device where it fits and is short.

    Raises:
        DreamPRMError: the backbone cannot be read, the data does not serve, or an operation of the
            model cannot be followed without contents.
    """
    device = torch.device(device)
    warn_of_nothing_learned(config, data)
    by_domain = config.learn_weights and config.weighting == "domain"
    meta_set = what_can_be_found(config, data)[1] if by_domain else ""
    data, weights = without_zeros(data, weights)
    config = replace(config, meta_batch_questions=-(-config.meta_batch_questions // world))
    order = [(len({t.outcome for _, t in g}), max(map(rough_length, g))) for g in data.meta]
    longest = sorted(range(len(order)), key=lambda i: order[i], reverse=True)  # both outcomes first
    data = replace(data, meta=[data.meta[i] for i in longest[: config.meta_batch_questions]])
    problem = PRMProblem(_untrained(name, facts, lora, dtype, config, "meta"), data, config)
    lower = _largest(problem)
    try:
        plan = _without_contents(problem, lower, weights, device, world if sharded else 1)
    except (RuntimeError, NotImplementedError, AssertionError) as error:
        raise DreamPRMError(
            "dry_run: this model has an operation that cannot be followed on tensors without "
            f"contents: {str(error).splitlines()[0]}; start the run and watch its first window"
        ) from error
    windows = 3 if device.type == "cuda" else 1
    expected = plan.expected_seconds * windows * config.unroll_steps
    fits = plan.peak * MARGIN <= plan.memory
    if measure and fits and expected <= PATIENCE.get(device.type, 0.0):
        model = _untrained(name, facts, lora, dtype, config, str(device))
        seconds, peak = _measured(PRMProblem(model, data, config), lower, weights, windows)
        plan = replace(plan, seconds=seconds, measured_peak=peak)
    return replace(plan, meta_set=meta_set)


def _untrained(
    name: str,
    facts: PRMConfig,
    lora: Lora | None,
    dtype: torch.dtype,
    config: TrainConfig,
    device: str,
) -> PRM:
    """The model of the run, with random weights."""
    if is_prm(name):
        facts = read_config(Path(name))
    with torch.device(device):
        backbone = load_backbone(name, dtype, weights=False)
        if has_adapter(name):
            with reading(f"the adapters of {name}"):
                adapters = peft.LoraConfig.from_pretrained(name)
                adapters.inference_mode = False  # as saved, they are frozen
                backbone = peft.get_peft_model(backbone, adapters)
        model = PRM(backbone, load_processor(name), facts)
        if lora is not None and not has_adapter(name):
            model.add_lora(lora)
    model.fp32_trainables()
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return model.to(device).train()


def _largest(problem: PRMProblem) -> LowerBatch:
    """The longest trajectories of the domain that has the longest."""
    data, size = problem.data, problem.config.per_device_train_batch_size
    items = [(d, i) for d, name in enumerate(data.domains) for i in range(len(data.lower[name]))]
    items.sort(key=lambda x: rough_length(data.lower[data.domains[x[0]]][x[1]]), reverse=True)
    tokens = {
        (d, i): problem.batch_of(d, [i]).tokens.inputs["input_ids"].shape[1]
        for d, i in {*items[: SAMPLE // 2], *items[:: -(-2 * len(items) // SAMPLE)]}
    }
    domain, _ = max(tokens, key=lambda item: tokens[item])
    own = [item for item in items if item[0] == domain]
    own.sort(key=lambda item: tokens.get(item, 0), reverse=True)
    return problem.batch_of(domain, [own[i % len(own)][1] for i in range(size)])


class _Watched(PRMProblem):
    """A problem that notes what is alive when a pass begins, and the FLOPs of meta gradients."""

    shadow: Shadow
    meta_flops = held = 0

    def lower_losses(
        self, batch: LowerBatch, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        self.held = self.held or self.shadow.held
        return super().lower_losses(batch, labels)

    def meta_backward(self, batch: MetaBatch, scale: float) -> float:
        before = self.shadow.flops
        loss = super().meta_backward(batch, scale)
        self.meta_flops += self.shadow.flops - before
        return loss


def _without_contents(
    whole: PRMProblem,
    lower: LowerBatch,
    given: GivenWeights | None,
    device: torch.device,
    shards: int,
) -> Plan:
    """Peak and FLOPs of a window, on the largest batches.

    Two micro-batches and two chunks of a meta batch need as much memory as many do. Where something
    of every step or domain is kept to the window's end, that of the others is added.
    """
    model, data, config = whole.model, whole.data, whole.config
    first = [batch.tokens.inputs["input_ids"].numel() for batch in whole.lower_batches(0)]
    usual = sum(first) / len(first) / lower.tokens.inputs["input_ids"].numel()
    at_end = config.meta_gradient_at == "end"
    micro, chunk = min(2, config.gradient_accumulation_steps), config.per_device_meta_batch_size
    window = min(config.unroll_steps, 2 if at_end or micro == 1 else 1)
    questions = -(-2 * chunk // config.meta_batch_candidates) if chunk else len(data.meta)
    short = replace(
        config,
        gradient_accumulation_steps=micro,
        unroll_steps=window,
        meta_batch_questions=max(1, min(questions, config.meta_batch_questions)),
        meta_warmup_steps=0 if at_end else window,  # the direction needs AdamW's state
        max_steps=4,
    )
    shadow = Shadow()
    make_fake(model, shadow, device)
    problem = _Watched(model, data, short)
    problem.shadow = shadow
    weighting, correction = make_weights(short, data, given)
    for module in filter(None, (weighting, correction)):
        make_fake(module, shadow, device)
    loop = make_loop(problem, weighting, correction)
    of_weights = shadow.held
    steps = window * (1 if at_end or not config.learn_weights else 2)
    with shadow:
        for step in range(steps):
            if step == steps - window:
                problem.meta_flops, before = 0, shadow.flops
            problem.held = 0
            meta_batch = problem.meta_batch(0).to(device) if loop.needs_meta_batch else None
            loop.step([lower.to(device)] * micro, meta_batch)
    state = [t for state in loop.lower_optimizer.state.values() for t in state.values()]
    moments = sum(t.untyped_storage().nbytes() for t in state)
    stored = max(0, problem.held - of_weights - moments)
    times, seen = 1, 1  # that it is kept: in a window of the run, and in this one
    if at_end and config.estimator_name == "inner_product":  # one vector per domain that came up
        times = min(config.gradient_accumulation_steps * config.unroll_steps, len(data.domains))
    elif at_end:  # something of every step
        times, seen = config.unroll_steps, window
    more = min(config.meta_batch_questions, len(data.meta)) / short.meta_batch_questions
    meta_flops = problem.meta_flops * more / config.unroll_steps
    in_window = shadow.flops - before - problem.meta_flops
    lower_flops = in_window / window / micro * config.gradient_accumulation_steps
    labels = {
        name: [x.value for _, t in data.lower[name] for x in t.labels or () if x is not None]
        for name in data.domains
    }
    cuda = device.type == "cuda"
    return Plan(
        domains=[(n, len(data.lower[n]), len(x), sum(x) / len(x)) for n, x in labels.items()],
        largest=tuple(lower.tokens.inputs["input_ids"].shape),
        total=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        weights=of_weights,
        moments=moments,
        stored=stored * times,
        peak=shadow.peak + stored * (times - seen),
        flops=(lower_flops + meta_flops) * usual,
        meta_share=meta_flops / (lower_flops + meta_flops),
        memory=torch.cuda.get_device_properties(device).total_memory
        if cuda
        else psutil.virtual_memory().total,
        rate=matmul_rate(device, torch.bfloat16 if config.bf16 else torch.float32),
        steps=config.max_steps,
        shards=shards,
    )


def _measured(
    problem: PRMProblem, lower: LowerBatch, given: GivenWeights | None, windows: int
) -> tuple[float, int | None]:
    """Seconds of a lower step, upper level included, and on a GPU the peak of its allocator.

    All windows but the last are of the largest micro-batches.
    """
    config, device = problem.config, problem.model.device
    cuda = device.type == "cuda"
    end = windows * config.unroll_steps
    problem.config = replace(  # rates so small that nothing diverges
        config, learning_rate=1e-12, head_learning_rate=0.0, max_steps=end
    )
    loop = make_loop(problem, *make_weights(problem.config, problem.data, given))
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    start = 0.0
    for step in range(end):
        if step == end - config.unroll_steps:
            start = time.perf_counter()
        meta_batch = problem.meta_batch(0).to(device) if loop.needs_meta_batch else None
        batches = (
            problem.lower_batches(step) if start else [lower] * config.gradient_accumulation_steps
        )
        loop.step([batch.to(device) for batch in batches], meta_batch)
        if cuda:
            torch.cuda.synchronize(device)
    seconds = (time.perf_counter() - start) / config.unroll_steps
    return seconds, torch.cuda.max_memory_allocated(device) if cuda else None


def matmul_rate(device: torch.device, dtype: torch.dtype, seconds: float = 0.2) -> float:
    """FLOP/s of a large matrix product."""
    n = 4096 if device.type == "cuda" else 512
    a = torch.randn(n, n, device=device, dtype=dtype)
    float((a @ a)[0, 0])  # the first call chooses a kernel
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        float((a @ a)[0, 0])  # waits for the device
        done += 1
    return 2 * n**3 * done / (time.perf_counter() - start)


def _count(number: int) -> str:
    if number < 100_000:
        return f"{number:,}"
    return f"{number / 1e6:,.1f} M" if number < 1e9 else f"{number / 1e9:,.3f} B"


def _bytes(number: float) -> str:
    return f"{number / 1e9:,.2f} GB" if number >= 1e8 else f"{number / 1e6:,.2f} MB"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
