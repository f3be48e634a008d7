"""What learning the weights costs over plain training, and how exact each hypergradient is.

    python -m benchmarks.training [--parts cost exactness] [--quick]
    python -m benchmarks.training --parts cost --model qwen2-vl-2b --device cuda --bf16 \
        --gradient-checkpointing [--lora] --image-tokens 576 --words 40

Cost (`benchmarks.training_cost`): plain training at its fastest micro-batch size, ours, and the
paper's procedure, on the same data and model, taking turns in one run; medians. Memory
(`benchmarks.training_memory`) is measured in a pass of its own, each procedure in a fresh process.
Exactness (`benchmarks.training_exactness`): every estimator against the unrolled oracle.

Time and memory depend on the micro-batch; ours is set against plain at the size that is fastest
for plain, and at our default. The part that is not asked for stays in
the output as it was.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.training_cost import Bench, Procedure, count_tokens, measure_times
from benchmarks.training_exactness import exactness_by_size, exactness_of_estimators
from benchmarks.training_memory import measure_memory, peak_bytes
from benchmarks.training_setup import CANDIDATES, Setting
from benchmarks.training_table import render
from dreamprm.data.files import atomic_write

PAPER = "paper"
QUICK: dict[str, Any] = {
    "domains": 2,
    "micro_batch": 2,
    "plain_micro_batches": (2, 4),
    "window": 2,
    "per_domain": 4,
    "image_tokens": 4,
    "words": 4,
    "steps": 3,
    "repeats": 1,
}


def measure_cost(setting: Setting, *, fresh: bool = True) -> dict[str, Any]:
    """The cost part.

    Args:
        setting: what is trained, and how often.
        fresh: measure memory in processes of their own; otherwise here, which is quicker.
    """
    bench = Bench(setting)
    procedures = bench.procedures()
    trained = sum(p.numel() for p in bench.model.parameters() if p.requires_grad)
    whole = sum(p.numel() for p in bench.model.parameters())
    tokens, times = count_tokens(bench), measure_times(bench)
    del bench  # its memory is wanted on a GPU
    if setting.device == "cuda":
        torch.cuda.empty_cache()
    rows = {}
    for procedure in procedures:
        name = procedure.name
        peak = measure_memory(setting, name) if fresh else peak_bytes(Bench(setting), name)
        rows[name] = _row(procedure, setting, times[name], tokens[name], peak)
    return {
        "setting": asdict(setting),
        "parameters": whole,
        "trained_parameters": trained,
        "procedures": rows,
    } | compare_costs(rows, setting.micro_batch)


def compare_costs(rows: dict[str, dict[str, Any]], default: int) -> dict[str, Any]:
    """Ratios of the procedures, at the same micro-batch size and each at its own fastest."""
    field = "seconds_per_trajectory"
    plain = {n: f"plain, {n}" for n in _micro_batches(rows, "plain")}
    ours = {n: f"ours, {n}" for n in _micro_batches(rows, "ours")}
    fastest = min(plain.values(), key=lambda name: rows[name][field])
    best = min(ours.values(), key=lambda name: rows[name][field])
    ratios = {"ours / plain, seconds per trajectory, each at its fastest": (best, fastest, field)}
    for n in sorted(plain.keys() & ours.keys()):
        what = f"micro-batches of {n}"
        ratios[f"ours / plain, seconds per trajectory, {what}"] = (ours[n], plain[n], field)
        ratios[f"ours / plain, peak memory, {what}"] = (ours[n], plain[n], "peak_bytes")
    for unit in ("seconds", "tokens"):
        name = f"paper / ours, {unit} per labelled step"
        ratios[name] = (PAPER, ours[default], f"{unit}_per_labelled_step")
    return {
        "fastest_plain": fastest,
        "fastest_ours": best,
        "ratios": {name: _ratio(rows, *which) for name, which in ratios.items()},
    }


def _micro_batches(rows: dict[str, Any], procedure: str) -> list[int]:
    names = [name.split(", ") for name in rows]
    return [int(name[1]) for name in names if name[0] == procedure and len(name) == 2]


def measure_exactness(
    windows: Sequence[int], widths: Sequence[int], seeds: int, warm_steps: int
) -> dict[str, Any]:
    """The exactness part."""
    return {
        "seeds": seeds,
        "warm_steps": warm_steps,
        "estimators": exactness_of_estimators(windows, seeds, warm_steps),
        "by_size": exactness_by_size(widths, seeds, warm_steps),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    defaults = Setting()
    parser.add_argument("--parts", nargs="+", choices=["cost", "exactness"])
    parser.add_argument("--quick", action="store_true", help="a minute, to see that it runs")
    parser.add_argument("--model", default=defaults.model, help="a backbone, or qwen2-vl-2b")
    parser.add_argument("--device", default=defaults.device, choices=["cpu", "cuda"])
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    for name in ("micro-batch", "per-domain", "image-tokens", "words", "steps", "domains"):
        parser.add_argument(
            f"--{name}", type=int, default=getattr(defaults, name.replace("-", "_"))
        )
    parser.add_argument("--repeats", type=int, default=defaults.repeats)
    parser.add_argument("--windows", type=int, default=defaults.windows, help="timed in a turn")
    parser.add_argument("--threads", type=int, default=defaults.threads)
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--seeds", type=int, default=3, help="of the exactness part")
    parser.add_argument("--warm-steps", type=int, default=15, help="of the exactness part")
    parser.add_argument("--output", type=Path, default=Path("docs/results/training.json"))
    args = parser.parse_args()
    batch = args.domains * args.micro_batch
    if batch % CANDIDATES:
        parser.error(f"domains times micro-batch must be a multiple of {CANDIDATES}, not {batch}")
    setting = Setting(
        **{name: value for name, value in vars(args).items() if name in asdict(defaults)},
        plain_micro_batches=_sizes(args.micro_batch, batch),
    )
    exactness: dict[str, Any] = {
        "windows": (1, 5),
        "widths": args.widths,
        "seeds": args.seeds,
        "warm_steps": args.warm_steps,
    }
    if args.quick:
        setting = replace(setting, **QUICK)
        exactness = {"windows": (1,), "widths": [32], "seeds": 1, "warm_steps": 3}
    torch.set_num_threads(setting.threads)
    result: dict[str, Any] = json.loads(args.output.read_text()) if args.output.is_file() else {}
    parts = args.parts or ["cost", "exactness"]
    if "cost" in parts:
        result["cost"] = measure_cost(setting, fresh=not args.quick) | _machine(setting.device)
    if "exactness" in parts:
        result["exactness"] = measure_exactness(**exactness) | _machine("cpu")
    with atomic_write(args.output) as file:
        file.write((json.dumps(result, indent=2) + "\n").encode())
    table = render(result)
    with atomic_write(args.output.with_suffix(".md")) as file:
        file.write(table.encode())
    print(table)


def _row(
    procedure: Procedure, setting: Setting, times: list[float], tokens: int, peak: int
) -> dict[str, Any]:
    seconds = statistics.median(times)
    row: dict[str, Any] = {
        "seconds_per_labelled_step": seconds / procedure.labelled_steps,
        "tokens_per_labelled_step": tokens / procedure.labelled_steps,
        "peak_bytes": peak,
        "all_seconds": times,
    }
    if procedure.name != PAPER:  # which never sees a whole trajectory
        row["seconds_per_trajectory"] = seconds / procedure.trajectories
        row["tokens_per_trajectory"] = tokens / procedure.trajectories
    return row


def _ratio(rows: dict[str, dict[str, Any]], above: str, below: str, field: str) -> float:
    return float(rows[above][field] / rows[below][field])


def _sizes(micro_batch: int, batch: int) -> tuple[int, ...]:
    """What plain training may choose from: ours, half of it, and larger up to the whole step."""
    wanted = {max(1, micro_batch // 2), micro_batch, batch // 2, batch}
    return tuple(sorted(wanted))


def _machine(device: str) -> dict[str, Any]:
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


if __name__ == "__main__":
    main()
