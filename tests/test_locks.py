"""Two runs on one output: one works, the other is told who does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dreamprm.cli import VERBS
from dreamprm.data import load
from dreamprm.data.files import locked
from dreamprm.errors import DreamPRMError
from dreamprm.prm.model import PRM
from dreamprm.training.config import TrainConfig
from dreamprm.training.run import train
from tests.conftest import Refused

HOLDS = """
import sys, time
from dreamprm.data.files import locked
with locked(sys.argv[1]):
    print("holds", flush=True)
    time.sleep(60)
"""

# What each verb writes, and the least that it needs besides to be asked for it.
WRITES = {
    "questions": ["output --source x"],
    "sample": ["output --questions x"],
    "label": ["output --questions x --trajectories x"],
    "meta": [
        "output_questions --output_trajectories y --questions x --trajectories x",
        "output_trajectories --output_questions y --questions x --trajectories x",
    ],
    "convert": ["output", "output_questions", "output_trajectories"],
    "weigh": ["output --questions x --trajectories x"],
    "train": ["output_dir"],
    "score": ["output --model_name_or_path x --questions x --trajectories x"],
    "select": [
        "output --questions x",
        "candidates_output --output y --questions x",
        "scores_output --output y --questions x",
        "result --output y --questions x",
    ],
    "evaluate": ["output --questions x --trajectories x"],
    "benchmark": [f"{o} --benchmark x" for o in ("output", "questions_output", "export")],
    "compare": ["output --results x"],
    "report": ["output"],
    "export": ["output --model_name_or_path x"],
    "push": ["model_name_or_path --repo_id x/y"],
    "demo": ["output_dir"],
}
CASES = [(verb, words) for verb, outputs in WRITES.items() for words in outputs]


def test_every_verb_that_writes_is_asked_below() -> None:
    assert set(VERBS) - set(WRITES) == {"serve", "status", "validate"}


@pytest.mark.parametrize(("verb", "words"), CASES)
def test_a_second_run_is_told_who_writes_its_output(
    verb: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    option, *rest = words.split()
    with locked("folder/out"):
        said = refused([verb, f"--{option}", str(tmp_path / "link" / "out"), *rest])
    assert f"link/out: is being written by process {os.getpid()} on " in said
    assert "since 20" in said and "wait for its end, or give another output" in said
    assert {path.name for path in tmp_path.rglob("*")} == {"folder", "link"}


def test_training_in_python_is_told_too(tmp_path: Path, project: Path, model: str) -> None:
    data = load(project / "train.jsonl", project / "train_candidates.jsonl")
    prm, config = PRM.from_backbone(model), TrainConfig(learn_weights=False, max_steps=1)
    with locked(tmp_path / "prm"), pytest.raises(DreamPRMError, match="is being written by"):
        train(prm, data, config=config, output_dir=tmp_path / "prm")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_run_blocks_nobody_and_no_lock_stays(tmp_path: Path) -> None:
    output = tmp_path / "new" / "out.jsonl"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(output)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "holds\n"
    with pytest.raises(DreamPRMError, match=f"by process {holder.pid} on"), locked(output):
        pass
    holder.kill()
    holder.wait()
    assert (output.parent / ".out.jsonl.lock").exists()
    with locked(output):
        output.write_text("result")
    assert list(output.parent.iterdir()) == [output]


def test_a_folder_that_was_made_for_a_lock_goes_with_it(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "b" / "out"):
        pass
    assert not list(tmp_path.iterdir())


def test_processes_of_one_training_run_share_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with locked(tmp_path / "prm"):
        monkeypatch.setenv("RANK", "1")
        with locked(tmp_path / "prm"):
            pass
    monkeypatch.setenv("RANK", "0")
    with locked(tmp_path / "prm"):
        pass
