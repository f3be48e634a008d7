"""Two processes do what one does with the same global batch: replicated (DDP) and sharded (FSDP2).

Gloo on the CPU. Models are in float64: the claim is about what is computed, and in float32 the
first steps of AdamW divide rounding errors by gradients of their own size.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SETTINGS: dict[str, Any] = {
    "gradient_accumulation_steps": 3,
    "unroll_steps": 2,
    "meta_batch_questions": 4,
    "meta_batch_candidates": 2,
    "learning_rate": 1e-3,
}
SHARDED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
REPOSITORY = Path(__file__).parent.parent


def run(
    output: Path, processes: int, environment: dict[str, str] | None = None, **changes: Any
) -> dict[str, Any]:
    """Train on so many processes; 4 trajectories in a micro-batch, all processes together."""
    settings = SETTINGS | {"per_device_train_batch_size": 4 // processes} | changes
    words = [sys.executable]
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words += ["-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
        words += ["--master_addr=127.0.0.1", f"--master_port={port}"]
    words += [str(REPOSITORY / "tests" / "distributed_run.py"), str(output), json.dumps(settings)]
    variables = os.environ | {
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "src"))),
    }
    done = subprocess.run(
        words,
        env=variables | (environment or {}),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(output.read_text()) if output.exists() else {}
    return result


@functools.cache
def alone(folder: Path, changes: str = "{}") -> dict[str, Any]:
    return run(folder / f"one-{abs(hash(changes))}.json", 1, **json.loads(changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("distributed")


def largest_difference(a: dict[str, Any], b: dict[str, Any]) -> float:
    """Of weights and step logits."""
    differences = [abs(a["weights"][name] - b["weights"][name]) for name in a["weights"]]
    for key, logits in a["scores"].items():
        differences += [abs(x - y) for x, y in zip(logits, b["scores"][key], strict=True)]
    return max(differences)


@pytest.mark.parametrize("environment", [{}, SHARDED], ids=["ddp", "fsdp2"])
def test_two_processes_give_the_weights_and_scores_of_one(
    folder: Path, environment: dict[str, str], request: pytest.FixtureRequest
) -> None:
    one = alone(folder)
    name = request.node.callspec.id
    two = run(folder / f"{name}.json", 2, environment)
    assert max(abs(w - 1.0) for w in one["weights"].values()) > 0.01
    assert largest_difference(one, two) < 1e-5
    for ours, theirs in zip(one["history"], two["history"], strict=True):
        assert ours["lower_loss"] == pytest.approx(theirs["lower_loss"], rel=1e-6)
        assert ours["trajectories"] == theirs["trajectories"]


def test_two_processes_share_a_table_of_instance_weights(folder: Path) -> None:
    changes = {"weighting": "instance_table"}
    one = alone(folder, json.dumps(changes))
    two = run(folder / "table.json", 2, **changes)
    assert max(abs(w - 1.0) for w in one["instances"]) > 0.01
    assert one["instances"] == pytest.approx(two["instances"], abs=1e-5)


def test_sharded_lora_that_was_stopped_resumes_to_what_one_process_gives(folder: Path) -> None:
    changes = {"lora": True, "meta_gradient_at": "end"}
    one = alone(folder, json.dumps(changes))
    target = folder / "lora.json"
    assert run(target, 2, SHARDED, **changes, stop=4) == {}
    assert (folder / "lora" / "checkpoints" / "checkpoint-2").is_dir()
    two = run(target, 2, SHARDED, **changes)
    assert largest_difference(one, two) < 1e-5
