"""`dreamprm serve` under load, against `StepScorer` in process on the same candidates.

    python -m benchmarks.serving [--output docs/results/serving.json]

64 clients send 2,000 requests to `/v1/score`, each a question with a picture and 8 candidates of 4
steps, all different. The model is the embedded one. Server and scorer have one thread for torch
each. The scorer runs before and after the service, so that a machine that has other work to do
counts for both; the ratio is also given in seconds of CPU time, which other work touches less.

Then all of it once more with a short queue, and the server is killed with -9 in the middle and
started again: the clients try again where the connection fails and where they are told to (429),
and at the end each has all its scores, equal to those of the scorer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import torch
from openai import DefaultAsyncHttpxClient

from dreamprm.images import encode_image
from dreamprm.prm.model import PRM
from dreamprm.prm.scorer import StepScorer
from dreamprm.records import Question, Trajectory
from dreamprm.tiny.scene import random_scene, render, to_png

CANDIDATES, STEPS, WORDS = 8, 4, ("red", "blue", "is", "plus", "look", "3", "5", "so", "it")
PORT = 8719
URL = f"http://127.0.0.1:{PORT}"
Logits = list[list[float]]


def make_requests(count: int) -> list[dict[str, Any]]:
    """Bodies of requests."""
    rng = random.Random(0)
    bodies = []
    for i in range(count):
        candidates = [
            [f"Step {s}: " + " ".join(rng.choices(WORDS, k=12)) for s in range(1, STEPS + 1)]
            for _ in range(CANDIDATES)
        ]
        picture = encode_image(to_png(render(random_scene(rng, "chart"))))
        text = f"what is {i} plus red ?"
        bodies.append({"question": text, "images": [picture], "candidates": candidates})
    return bodies


def in_process(folder: Path, bodies: Sequence[dict[str, Any]]) -> tuple[list[Logits], Any]:
    """Logits of all candidates, and the seconds that took: of the clock, and of CPU time."""
    scorer = StepScorer(PRM.from_pretrained(folder))
    pairs, places = [], {}
    for i, body in enumerate(bodies):
        question = Question(
            id=str(i), domain="d", text=body["question"], images=body["images"], answer="?"
        )
        for k, steps in enumerate(body["candidates"]):
            pairs.append((question, Trajectory(question_id=str(i), steps=steps, sample_index=k)))
            places[str(i), k] = len(places)
    start = time.perf_counter(), time.process_time()
    rows = sorted(scorer.score(pairs), key=lambda s: places[s.question_id, s.sample_index])
    took = time.perf_counter() - start[0], time.process_time() - start[1]
    flat = [list(row.logits) for row in rows]
    return [flat[i : i + CANDIDATES] for i in range(0, len(flat), CANDIDATES)], took


class Server:
    """`dreamprm serve` as a process of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        words = [sys.executable, "-m", "dreamprm", "serve", str(folder), "--port", str(PORT)]
        log = Path(os.devnull).open("w")  # noqa: SIM115  # the child's
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen([*words, *options], stderr=log, stdout=log, env=environment)

    def wait(self) -> None:
        """Until it answers."""
        while True:
            try:
                with urlopen(f"{URL}/health", timeout=5):
                    return
            except OSError:
                if self.process.poll() is not None:
                    raise
                time.sleep(0.2)

    def facts(self) -> tuple[float, float]:
        """Seconds of CPU time so far, and MiB of memory at most."""
        with urlopen(f"{URL}/metrics") as reply:
            cpu = re.search(rb"^process_cpu_seconds_total (\S+)", reply.read(), re.M)
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        peak = re.search(r"VmHWM:\s+(\d+)", status)
        assert cpu and peak
        return float(cpu[1]), int(peak[1]) / 1024


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Server]:
    server = Server(folder, *options)
    try:
        server.wait()
        yield server
    finally:
        server.process.terminate()
        server.process.wait(60)


@dataclass
class Load:
    """Clients that send all bodies once, trying again until each is answered.

    Attributes:
        logits: of each body's candidates.
        seconds: from a request's first try to its answer.
        statuses: of all tries; 0 where the connection failed.
    """

    bodies: Sequence[dict[str, Any]]
    clients: int
    logits: dict[int, Logits] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    at_half: Any = None

    async def run(self) -> float:
        """Send all; the seconds that took."""
        left = iter(range(len(self.bodies)))
        start = time.perf_counter()

        async def work() -> None:
            async with DefaultAsyncHttpxClient(base_url=URL, timeout=120) as client:
                for i in left:
                    began = time.perf_counter()
                    self.logits[i] = await self._ask(client, self.bodies[i])
                    self.seconds.append(time.perf_counter() - began)
                    if self.at_half and len(self.logits) >= len(self.bodies) // 2:
                        at_half, self.at_half = self.at_half, None
                        await asyncio.to_thread(at_half)

        await asyncio.gather(*(work() for _ in range(self.clients)))
        return time.perf_counter() - start

    async def _ask(self, client: Any, body: dict[str, Any]) -> Logits:
        while True:
            wait = 0.5
            try:
                reply = await client.post("/v1/score", json=body)
                self.statuses[reply.status_code] += 1
                if reply.status_code == 200:
                    return [c["step_logits"] for c in reply.json()["candidates"]]
                wait = float(reply.headers.get("retry-after", wait))
            except Exception as error:
                if not type(error).__module__.startswith("http"):
                    raise
                self.statuses[0] += 1
            await asyncio.sleep(wait * random.uniform(0.5, 1))


def difference(found: dict[int, Logits], expected: Sequence[Logits]) -> float:
    """The largest between two logits."""
    assert sorted(found) == list(range(len(expected))), "lost"
    pairs = ((torch.tensor(found[i]), torch.tensor(z)) for i, z in enumerate(expected))
    return max(float((a - b).abs().max()) for a, b in pairs)


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def measure(folder: Path, bodies: Sequence[dict[str, Any]], clients: int) -> Any:
    """Throughput, latency and memory; and the logits of the scorer."""
    expected, before = in_process(folder, bodies)
    with serving(folder) as server:
        asyncio.run(Load(bodies[:50], clients).run())  # warms up
        cpu = server.facts()[0]
        load = Load(bodies, clients)
        seconds = asyncio.run(load.run())
        used, peak = server.facts()
    _, after = in_process(folder, bodies)
    clock, cpu_s = ((a + b) / 2 for a, b in zip(before, after, strict=True))
    return {
        "requests": len(bodies),
        "clients": clients,
        "candidates": CANDIDATES,
        "statuses": dict(load.statuses),
        "seconds_in_process": [round(before[0], 1), round(after[0], 1)],
        "seconds_served": round(seconds, 1),
        "throughput_of_in_process": round(clock / seconds, 3),
        "throughput_of_in_process_by_cpu_time": round(cpu_s / (used - cpu), 3),
        "requests_per_second": round(len(bodies) / seconds, 1),
        "p50_s": round(percentile(load.seconds, 0.5), 3),
        "p99_s": round(percentile(load.seconds, 0.99), 3),
        "peak_mib": round(peak),
        "largest_logit_difference": difference(load.logits, expected),
        "load_average": os.getloadavg()[0],
    }, expected


def killed(
    folder: Path, bodies: Sequence[dict[str, Any]], clients: int, expected: Sequence[Logits]
) -> dict[str, Any]:
    """The same through a kill and a queue for a quarter of the clients."""
    options = ("--max_waiting", str(CANDIDATES * clients // 4))
    with serving(folder, *options) as server:

        def restart() -> None:
            server.process.kill()
            server.process.wait()
            server.process = Server(folder, *options).process

        load = Load(bodies, clients, at_half=restart)
        asyncio.run(load.run())
    assert set(load.statuses) <= {0, 200, 429}
    return {
        "statuses": dict(load.statuses),
        "lost": len(bodies) - len(load.logits),
        "largest_logit_difference": difference(load.logits, expected),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    bodies = make_requests(args.requests)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "prm"
        torch.manual_seed(0)
        model = PRM.from_backbone("tiny")
        torch.nn.init.normal_(model.head.weight, std=0.1)  # type: ignore[union-attr]
        model.save_pretrained(folder)
        result, expected = measure(folder, bodies, args.clients)
        result["killed"] = killed(folder, bodies, args.clients, expected)
    print(json.dumps(result, indent=2))
    if args.output:
        args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
