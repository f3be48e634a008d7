"""Kill -9 of `dreamprm train` at many moments: the run that goes on ends as the unbroken one."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dreamprm.data import write_questions, write_trajectories
from tests.cli_samples import read_rows, save_tiny_model, train_words
from tests.forked_commands import ForkedCommands
from tests.prm_data import small_data

STEPS = 12
KillNow = Callable[[], bool]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of training and meta set, in which every trajectory differs, and a model."""
    folder = tmp_path_factory.mktemp("project")
    data = small_data(("clean", "noise"), per_domain=6)
    for name, pairs in (("train", data.items), ("meta", [p for g in data.meta for p in g])):
        questions = {question.id: question for question, _ in pairs}
        write_questions(folder / f"{name}.jsonl", list(questions.values()))
        write_trajectories(folder / f"{name}_candidates.jsonl", [t for _, t in pairs])
    save_tiny_model(folder / "model")
    return folder


def words_for(project: Path, output_dir: Path, *more: str) -> list[str]:
    words = train_words(project, str(project / "model"), "--max_steps", str(STEPS), *more)
    words[words.index("--output_dir") + 1] = str(output_dir)
    return words


def at_random(rng: random.Random, output_dir: Path) -> KillNow:
    """A moment for the kill: early, after some checkpoint, while one is written, or at the end."""
    start = time.monotonic()
    before = newest(output_dir)
    kind = rng.choice(["early", "between", "between", "writing", "writing", "ending"])
    steps, pause = rng.choice([2, 4]), rng.uniform(0.0, 0.2)
    if before == STEPS and rng.random() < 0.5:  # only the last files are missing: let it end
        return lambda: False
    reached: list[float] = []
    seen: set[Path] = set()

    def now() -> bool:
        if kind == "early":
            return time.monotonic() - start > 5 * pause
        if kind == "ending":  # the last files, one by one
            here = (output_dir / "prm_config.json").exists() or newest(output_dir) == STEPS
        else:
            here = newest(output_dir) >= min(before + steps, STEPS)
        if here and not reached:
            reached.append(time.monotonic())
            seen.update(output_dir.glob("checkpoints/*"))
        if kind == "writing" and newest(output_dir) < STEPS:
            return bool(reached) and any(p not in seen for p in output_dir.glob("checkpoints/*"))
        return bool(reached) and time.monotonic() - reached[0] > pause

    return now


def newest(output_dir: Path) -> int:
    """Step of the newest checkpoint; 0 without one."""
    found = [path.name.split("-")[1] for path in output_dir.glob("checkpoints/checkpoint-*")]
    return max(map(int, found), default=0)


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.parametrize(
    ("kills", "options", "written"),
    [
        (4, ["--use_peft", "--lora_dropout", "0.1"], "adapter_model.safetensors"),
        (3, ["--weighting", "instance_table"], "instance_weights.jsonl"),
        (3, ["--weighting", "none", "--label_correction"], "corrected_labels.jsonl"),
    ],
    ids=["domain", "instance_table", "label_correction"],
)
def test_a_run_killed_many_times_ends_with_the_files_of_an_unbroken_one(
    kills: int,
    options: list[str],
    written: str,
    project: Path,
    tmp_path: Path,
    commands: ForkedCommands,
) -> None:
    unbroken = tmp_path / "unbroken"
    assert commands.run(words_for(project, unbroken, *options)) == 0
    expected = files(unbroken)
    assert {"weights.json", "history.jsonl", written} <= set(expected)
    assert len(read_rows(unbroken / "history.jsonl")) == STEPS // 2

    rng = random.Random(written)
    killed = rounds = resumed = half_written = 0
    while killed < kills:
        output_dir = tmp_path / f"killed-{rounds}"
        words = words_for(project, output_dir, *options)
        while code := commands.run(words, at_random(rng, output_dir)):
            assert code == -9
            killed += 1
            resumed += newest(output_dir) > 0
            half_written += any(output_dir.glob("checkpoints/.*"))
        rounds += 1
        found = files(output_dir)
        assert set(found) == set(expected), "nothing is missing, no temporary file stays"
        assert [name for name in expected if found[name] != expected[name]] == []
    assert resumed > 0
    print(
        f"{killed} kills in {rounds} runs, {resumed} of them after a checkpoint, "
        f"{half_written} while one was written"
    )
