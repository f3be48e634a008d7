"""Bad input and a failing environment: one clear line, exit code not 0, nothing written is lost."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dreamprm.cli import main
from dreamprm.data import read_questions, read_scores, write_questions
from dreamprm.prm.layout import Batch
from dreamprm.prm.model import PRM
from dreamprm.rollouts.store import RolloutStore
from tests.cli_fixtures import Refused
from tests.cli_samples import (
    DOMAINS,
    paper_meta_rows,
    paper_train_rows,
    read_rows,
    train_words,
)

torch.set_num_threads(1)


def edit_row(path: Path, row: int, **changes: object) -> None:
    """Change some fields of one row (from 1) of a JSONL file."""
    rows = read_rows(path)
    rows[row - 1] |= changes
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def test_a_missing_image_is_named_before_any_model_is_loaded(
    project: Path, refused: Refused
) -> None:
    edit_row(project / "test.jsonl", 2, images=["gone.png"])
    words = ["--model_name_or_path", "no/model", "--output", str(project / "out.jsonl")]
    line = refused(["sample", "--questions", str(project / "test.jsonl"), *words])
    assert "test.jsonl, row 2" in line
    assert "gone.png does not exist" in line
    assert not (project / "out.jsonl").exists()


def test_an_image_that_is_damaged_is_named_and_what_was_scored_before_stays(
    project: Path, model: str, refused: Refused
) -> None:
    assert main(train_words(project, model)) == 0
    (project / "broken.png").write_bytes(b"not an image")
    edit_row(project / "test.jsonl", 6, images=["broken.png"], text="What is twice red, and red?")
    words = [
        *("score", "--model_name_or_path", str(project / "prm"), "--per_device_batch_size", "4"),
        *("--questions", str(project / "test.jsonl"), "--output", str(project / "s.jsonl")),
        *("--trajectories", str(project / "test_candidates.jsonl")),
    ]
    assert "broken.png cannot be read" in refused(words)
    assert len(read_rows(project / "s.jsonl")) == 20  # longest questions come last


@pytest.mark.parametrize("verb", ["label", "score"])
def test_truncated_jsonl_is_named_with_its_row(
    verb: str, project: Path, model: str, refused: Refused
) -> None:
    path = project / "test_candidates.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    words = ["--questions", str(project / "test.jsonl"), "--trajectories", str(path)]
    more = ["--model_name_or_path", model, "--output", str(project / "out.jsonl")]
    line = refused([verb, *words, *more])
    assert "test_candidates.jsonl, row 24" in line
    assert "cut off" in line
    assert not (project / "out.jsonl").exists()


def test_truncated_json_in_the_papers_format_is_named(
    project: Path, model: str, refused: Refused
) -> None:
    text = json.dumps(paper_train_rows("red.png"))
    (project / "train.json").write_text(text[: len(text) // 2])
    line = refused(paper_words(project, model))
    assert "train.json: not JSON" in line
    assert "cut off" in line


def test_a_label_outside_0_to_1_is_named_with_row_and_field(
    project: Path, model: str, refused: Refused
) -> None:
    edit_row(project / "train_candidates.jsonl", 3, labels=[[2, 4], [5, 4]])
    line = refused(train_words(project, model))
    assert "train_candidates.jsonl, row 3" in line
    assert "label of step 2 is 5 of 4, outside 0-1" in line

    rows = paper_train_rows("red.png")
    rows[4] = rows[4] | {"accuracy": 1.5}
    del rows[4]["score"], rows[4]["times"]
    (project / "train.json").write_text(json.dumps(rows))
    line = refused(paper_words(project, model))
    assert "row 5, field 'accuracy'" in line
    assert "label 1.5 is outside 0-1" in line


def test_a_trajectory_without_steps_is_named_with_its_row(
    project: Path, model: str, refused: Refused
) -> None:
    edit_row(project / "train_candidates.jsonl", 7, steps=[], labels=None)
    line = refused(train_words(project, model))
    assert "train_candidates.jsonl, row 7" in line
    assert "a trajectory without steps" in line


def test_an_unknown_domain_in_a_weights_file_is_answered_with_the_nearest(
    project: Path, model: str, refused: Refused
) -> None:
    (project / "w.json").write_text('{"bars": 1, "dails": 1}')
    line = refused(train_words(project, model, "--weights_file", str(project / "w.json")))
    assert "unknown domain 'dails'" in line
    assert "dials" in line.split("'dails'")[1]


@pytest.mark.parametrize("text", ["[1, 2]", '{"bars": "much"}', '{"bars": 1,', "{}"])
def test_a_weights_file_that_holds_no_weights_is_refused(
    text: str, project: Path, model: str, refused: Refused
) -> None:
    (project / "w.json").write_text(text)
    assert "w.json" in refused(
        train_words(project, model, "--weights_file", str(project / "w.json"))
    )


def test_nan_in_training_names_step_and_domain_and_keeps_the_last_checkpoint(
    project: Path, model: str, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, calls = PRM.forward, []

    def poisoned(self: PRM, batch: Batch) -> Tensor:
        calls.append(1)
        return forward(self, batch) * (float("nan") if len(calls) > calm else 1.0)

    calm = 10**9  # count the forward passes of half the run, then break the rest
    monkeypatch.setattr(PRM, "forward", poisoned)
    half = train_words(project, model, "--max_steps", "2")
    half[half.index("--output_dir") + 1] = str(project / "half")
    assert main(half) == 0
    calm = len(calls)
    calls.clear()

    line = refused(train_words(project, model))
    assert "step 3" in line
    assert any(domain in line for domain in DOMAINS)
    checkpoints = project / "prm" / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["checkpoint-2"]

    calm = 10**9
    assert main(train_words(project, model)) == 0  # and the run can go on from there
    assert (project / "prm" / "weights.json").is_file()


def test_a_full_disk_during_sampling_keeps_what_was_sampled(project: Path, model: str) -> None:
    out, store = project / "out.jsonl", project / "rollouts.db"
    asked = [
        question.model_copy(update={"text": f"{question.text} {i}"})
        for i, question in enumerate(read_questions(project / "test.jsonl"))
    ]
    write_questions(project / "test.jsonl", asked)
    words = [
        *("sample", "--questions", str(project / "test.jsonl"), "--model_name_or_path", model),
        *("--output", str(out), "--max_new_tokens", "6", "--num_candidates", "2"),
        *("--per_device_batch_size", "2"),
    ]
    assert main(words) == 0
    whole = out.read_bytes()
    for path in (out, *project.glob("rollouts.db*")):
        path.unlink()

    full = run_with_file_limit(words, 130_000)  # the journal of the store grows to more
    assert_one_line(full, "rollouts.db: cannot write: ")
    assert "free space" in full.stderr
    with RolloutStore(store, readonly=True) as kept:
        assert 0 < kept.counts()["rollouts"] < 12
    assert main(words) == 0
    assert out.read_bytes() == whole


def test_a_full_disk_during_scoring_keeps_every_whole_record(project: Path, model: str) -> None:
    assert main(train_words(project, model)) == 0
    out = project / "s.jsonl"
    words = [
        *("score", "--model_name_or_path", str(project / "prm"), "--output", str(out)),
        *("--questions", str(project / "test.jsonl")),
        *("--trajectories", str(project / "test_candidates.jsonl")),
    ]
    assert main(words) == 0
    whole = out.read_bytes()
    out.unlink()

    full = run_with_file_limit(words, len(whole) // 2)
    assert_one_line(full, "s.jsonl: cannot write: ")
    lines = out.read_bytes().splitlines(keepends=True)
    assert len(lines) > 1
    assert whole.startswith(b"".join(lines))  # the last one may be cut; a rerun mends it
    assert main(words) == 0
    assert len(read_scores(out)) == len(whole.splitlines())


def test_a_full_disk_during_training_keeps_the_last_checkpoint(project: Path, model: str) -> None:
    words = train_words(project, model)
    head = [*words, "--max_steps", "2", "--meta_gradient_at", "end"]
    assert main(head) == 0
    state = project / "prm" / "checkpoints" / "checkpoint-2" / "state.safetensors"
    before = state.read_bytes()

    again = [*head, "--resume_from_checkpoint", "false"]
    assert_one_line(run_with_file_limit(again, len(before) // 2), "")
    assert state.read_bytes() == before


def test_a_full_disk_during_evaluate_leaves_the_old_results(project: Path) -> None:
    words = [
        *("evaluate", "--questions", str(project / "test.jsonl"), "--n", "4"),
        *("--trajectories", str(project / "test_candidates.jsonl")),
        *("--output", str(project / "results.json")),
    ]
    assert main(words) == 0
    before = (project / "results.json").read_bytes()
    assert_one_line(run_with_file_limit(words, 100), "results.json: cannot write: ")
    assert (project / "results.json").read_bytes() == before
    assert not list(project.glob(".results.json*"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_behind_standard_output_is_one_line(project: Path) -> None:
    words = [
        *("evaluate", "--questions", str(project / "test.jsonl"), "--n", "4"),
        *("--trajectories", str(project / "test_candidates.jsonl")),
    ]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "dreamprm.cli", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert_one_line(done, "No space left on device")


def test_the_papers_meta_set_is_refused_with_its_rows_without_a_response(
    project: Path, model: str, real_data: Path, refused: Refused
) -> None:
    meta = real_data / "dreamprm" / "meta.json"
    words = train_words(project, model, "--meta_file", str(meta))
    first = words.index("--meta_questions")
    del words[first : first + 4]
    line = refused(words)
    assert "371 rows without a response" in line
    assert "all 251 of 251 false rows" in line
    assert not (project / "prm").exists()


def paper_words(project: Path, model: str) -> list[str]:
    """`dreamprm train` on train.json and meta.json."""
    (project / "meta.json").write_text(json.dumps(paper_meta_rows("red.png")))
    words = train_words(project, model)
    first = words.index("--train_questions")
    words[first : first + 8] = [
        *("--train_file", str(project / "train.json"), "--meta_file", str(project / "meta.json"))
    ]
    return words


def run_with_file_limit(
    words: Sequence[str], largest_file: int
) -> subprocess.CompletedProcess[str]:
    """Run a command for which files beyond a size cannot be written: a disk that runs full."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a failed write, not a signal
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    return subprocess.run(
        [sys.executable, "-m", "dreamprm.cli", *words],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def assert_one_line(done: subprocess.CompletedProcess[str], said: str) -> None:
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("dreamprm: error: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
