"""Two processes do what one does with the same global batch: replicated (DDP) and sharded (FSDP2).

Gloo on the CPU. Models are in float64: the claim is about what is computed, and in float32 the
first steps of AdamW divide rounding errors by gradients of their own size.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.forked_commands import ForkedCommands

SETTINGS: dict[str, Any] = {
    "gradient_accumulation_steps": 3,
    "unroll_steps": 2,
    "meta_batch_questions": 2,
    "meta_batch_candidates": 2,
    "learning_rate": 1e-3,
    "meta_optimizer": "adamw",  # moves weights in so few steps; the effects are either's
}
SHARDED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}


class Trained:
    """Trains in groups of processes; 2 trajectories in a micro-batch, all processes together."""

    def __init__(self, commands: ForkedCommands, folder: Path) -> None:
        self.commands, self.folder = commands, folder

    def by(
        self, processes: int, name: str, variables: dict[str, str] | None = None, **changes: Any
    ) -> dict[str, Any]:
        """What `distributed_run` wrote; of one process, once for each name."""
        output = self.folder / f"{name}-{processes}.json"
        if processes > 1 or not output.exists():
            settings = SETTINGS | {"per_device_train_batch_size": 2 // processes} | changes
            words = [str(output), json.dumps(settings)]
            variables = {"ACCELERATE_USE_CPU": "true"} | (variables or {})
            code = self.commands.run_together(words, processes, **variables)
            assert code == 0, self.commands.said[-3000:]
        return json.loads(output.read_text()) if output.exists() else {}


@pytest.fixture(scope="module")
def trained(commands: ForkedCommands, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(commands, tmp_path_factory.mktemp("distributed"))


def largest_difference(a: dict[str, Any], b: dict[str, Any]) -> float:
    """Of weights and step logits."""
    differences = [abs(a["weights"][name] - b["weights"][name]) for name in a["weights"]]
    for key, logits in a["scores"].items():
        differences += [abs(x - y) for x, y in zip(logits, b["scores"][key], strict=True)]
    return max(differences)


@pytest.mark.parametrize("environment", [{}, SHARDED], ids=["ddp", "fsdp2"])
def test_two_processes_compute_what_one_does(trained: Trained, environment: dict[str, str]) -> None:
    one, two = trained.by(1, "plain"), trained.by(2, f"plain-{len(environment)}", environment)
    assert max(abs(w - 1.0) for w in one["weights"].values()) > 0.01
    assert largest_difference(one, two) < 1e-5
    for ours, theirs in zip(one["history"], two["history"], strict=True):
        assert ours["lower_loss"] == pytest.approx(theirs["lower_loss"], rel=1e-6)
        assert ours["trajectories"] == theirs["trajectories"]
        assert ours["effects"] == pytest.approx(theirs["effects"], rel=1e-4, abs=1e-9)
    assert any(one["history"][-1]["effects"].values())


def test_two_processes_share_a_table_of_instance_weights(trained: Trained) -> None:
    one, two = (trained.by(n, "table", weighting="instance_table") for n in (1, 2))
    assert max(abs(w - 1.0) for w in one["instances"]) > 0.01
    assert one["instances"] == pytest.approx(two["instances"], abs=1e-5)


def test_sharded_lora_that_was_stopped_resumes_to_what_one_process_gives(trained: Trained) -> None:
    changes = {"lora": True, "meta_gradient_at": "end"}
    one = trained.by(1, "lora", **changes)
    assert trained.by(2, "lora", SHARDED, **changes, stop=3) == {}
    assert (trained.folder / "lora-2" / "checkpoints" / "checkpoint-2").is_dir()
    two = trained.by(2, "lora", SHARDED, **changes)
    assert largest_difference(one, two) < 1e-5
