"""Does the client keep a server's slots busy?

    python -m benchmarks.endpoint

A server of fixed latency and limited slots answers `dreamprm sample` and `dreamprm label`
(adaptive, whose next request depends on the last answer). Its own account of busy slot-seconds,
divided by slots times the time from its first request to its last answer, is what is reported.
Also: how long a store of 100,000 completions takes to open, and whether the memory of a run grows
with the store.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dreamprm.cli import main as dreamprm
from dreamprm.data import write_questions
from dreamprm.data.files import atomic_write
from dreamprm.policy import Completion, Reply
from dreamprm.records import Question
from dreamprm.rollouts.store import Generator, Prefix, RolloutStore, prefix_key
from tests.fake_endpoint import FakeEndpoint

ROLLOUTS = 100_000


def slots_busy(folder: Path, slots: int, latency_s: float, calls: int) -> dict[str, float]:
    """Verb -> share of the slots that were busy."""
    questions = [Question(id=f"q{i}", domain="d", text=f"t{i}", answer="1") for i in range(calls)]
    write_questions(folder / "questions.jsonl", questions)
    with FakeEndpoint(continues="prefill", slots=slots, latency_s=latency_s) as server:
        served = ["--model_name_or_path", "fake", "--base_urls", server.url, "--prompt", "bare"]
        served += ["--continuation", "prefill", "--concurrency", str(slots)]
        given = ["--questions", str(folder / "questions.jsonl")]
        sampled, labelled = str(folder / "candidates.jsonl"), str(folder / "labelled.jsonl")
        verbs = {
            "sample": [*given, "--output", sampled, "--num_candidates", "1"],
            "label": [
                *(*given, "--trajectories", sampled, "--output", labelled),
                *("--labels", "adaptive", "--label_precision", "0.15", "--max_completions", "4"),
            ],
        }
        shares = {}
        for verb, words in verbs.items():
            server.forget()
            with contextlib.redirect_stdout(io.StringIO()):
                assert dreamprm([verb, *words, *served]) == 0
            first = min(seen.at for seen in server.seen)
            last = max(seen.at for seen in server.seen) + latency_s
            shares[verb] = server.busy_s / (slots * (last - first))
    return shares


def fill(path: Path, count: int) -> None:
    """A store of so many completions of some 300 characters."""
    generator = Generator("m", "{}", 0)
    with RolloutStore(path) as store:
        for i in range(count // 8):
            key = prefix_key(str(i), (), generator)
            texts = tuple(Completion(f"{i} {j} " + "step " * 60) for j in range(8))
            store.add(Prefix(key, str(i), f"q{i}", (), generator), 0, Reply(texts))


def open_seconds(path: Path) -> float:
    """From nothing to the first completion read."""
    start = time.perf_counter()
    with RolloutStore(path) as store:
        assert store.completions(prefix_key("7", (), Generator("m", "{}", 0)), 1)
    return time.perf_counter() - start


def peak_mib(folder: Path, url: str) -> float:
    """Peak memory of a run that samples 100 questions into the folder's store (Linux)."""
    code = (
        "import re, sys; from dreamprm.cli import main; code = main(sys.argv[1:]); "
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]); sys.exit(code)"
    )
    questions = [Question(id=f"x{i}", domain="d", text=f"x{i}", answer="1") for i in range(100)]
    write_questions(folder / "few.jsonl", questions)
    words = ["sample", "--questions", str(folder / "few.jsonl"), "--num_candidates", "1"]
    words += ["--output", str(folder / "few.candidates.jsonl"), "--base_urls", url]
    words += ["--model_name_or_path", "fake", "--prompt", "bare", "--continuation", "prompt"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )
    return int(done.stdout.splitlines()[-1]) / 1024


def run() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--latency_s", type=float, default=0.5)
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--output", type=Path, default=Path("docs/results/endpoint.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        busy = slots_busy(folder, options.slots, options.latency_s, options.calls)
        (folder / "small").mkdir()
        (folder / "large").mkdir()
        fill(folder / "small" / "rollouts.db", 800)
        fill(folder / "large" / "rollouts.db", ROLLOUTS)
        opened = open_seconds(folder / "large" / "rollouts.db")
        with FakeEndpoint() as server:
            peaks = {size: peak_mib(folder / size, server.url) for size in ("small", "large")}
    result = {
        "slots": options.slots,
        "latency_s": options.latency_s,
        "questions": options.calls,
        "slots_busy": busy,
        "open_seconds": {str(ROLLOUTS): opened},
        "peak_mib": {"800 completions": peaks["small"], str(ROLLOUTS): peaks["large"]},
    }
    with atomic_write(options.output) as file:
        file.write(json.dumps(result, indent=2).encode() + b"\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    run()
