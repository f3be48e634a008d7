"""Peak memory of one procedure of `benchmarks.training`, in a process that runs nothing else.

    python -m benchmarks.training_memory '{"setting": {...}, "procedure": "ours, start"}'

On CUDA: `torch.cuda.max_memory_allocated`. On the CPU: torch's profiler reports every allocation
and release of torch's allocator, so the running sum of these, on top of the parameters and buffers
that were there before, is exactly what all tensors hold: parameters, gradients, moments,
activations, what an estimator keeps, and what operations need inside. The size of the process is
not asked: it depends on what the allocator of the system gives back. Encoded batches are left out.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.training_cost import Bench
from benchmarks.training_setup import Setting


def measure_memory(setting: Setting, name: str) -> int:
    """Bytes at the peak of the procedure's first two units, measured in a fresh process."""
    job = json.dumps({"setting": asdict(setting), "procedure": name})
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.training_memory", job],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"memory of '{name}' was not measured:\n{done.stderr}")
    return int(done.stdout.splitlines()[-1])


def peak_bytes(bench: Bench, name: str) -> int:
    """Peak of two units: the first makes the optimiser's state."""
    start = next(p.start for p in bench.procedures() if p.name == name)
    if bench.model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        unit = start()
        unit()
        unit()
        return torch.cuda.max_memory_allocated()
    held = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for t in itertools.chain(bench.model.parameters(), bench.model.buffers())
    }
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        unit = start()
        unit()
        unit()
    return sum(held.values()) + highest_sum(allocations(profiler))


def allocations(profiler: profile) -> list[int]:
    """Bytes of each allocation (positive) and release (negative), in the order of time."""
    recorded: Any = profiler.profiler
    events = [e for e in recorded.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda e: e.start_ns())
    return [e.nbytes() for e in events]


def highest_sum(changes: list[int]) -> int:
    """The highest that the running sum gets."""
    return max(itertools.accumulate(changes), default=0)


def main() -> None:
    """Measure what the argument says, and print the bytes."""
    job = json.loads(sys.argv[1])
    job["setting"]["plain_micro_batches"] = tuple(job["setting"]["plain_micro_batches"])
    setting = Setting(**job["setting"])
    torch.set_num_threads(setting.threads)
    print(peak_bytes(Bench(setting), job["procedure"]))


if __name__ == "__main__":
    main()
