"""What `dreamprm train` says to bad data and settings: one clear line, and nothing is lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import Qwen2Config, Qwen2ForCausalLM

from dreamprm.cli import main
from tests.cli_samples import DOMAINS, read_rows, train_words
from tests.conftest import Refused

torch.set_num_threads(1)


Change = Callable[[dict[str, object]], dict[str, object] | None]


def rewrite(path: Path, change: Change) -> None:
    """Change every row of a JSONL file; None drops it."""
    rows = [changed for row in read_rows(path) if (changed := change(row)) is not None]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def into(words: list[str], output_dir: Path) -> list[str]:
    """The same command with another output folder."""
    changed = list(words)
    changed[changed.index("--output_dir") + 1] = str(output_dir)
    return changed


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# The model


def test_a_text_backbone_is_refused_where_questions_have_images(
    project: Path, refused: Refused, tmp_path: Path
) -> None:
    sizes = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    config = Qwen2Config(**sizes, num_attention_heads=1, num_key_value_heads=1)
    Qwen2ForCausalLM(config).save_pretrained(tmp_path / "text")
    line = refused(train_words(project, str(tmp_path / "text")))
    assert "has images, and the model" in line and "reads text alone" in line
    assert not (project / "prm").exists()


# Length


def test_steps_beyond_the_limit_are_told_and_have_no_part_in_the_loss(
    project: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The labels of the steps that are cut off are turned round, and nothing changes."""
    one_step = {True: ["Step 1: red is 3"], False: ["Step 1: red is 4"]}
    rewrite(
        project / "meta_candidates.jsonl", lambda r: r | {"steps": one_step[bool(r["outcome"])]}
    )
    rewrite(project / "train_candidates.jsonl", lambda r: r | {"labels": [[1, 4], r["labels"][1]]})
    words = train_words(project, model, "--max_length", "30")
    correcting = ["--weighting", "none", "--label_correction"]
    assert main(into(words, project / "one")) == 0
    said = "1 of 2 steps of a trajectory are beyond the limit of 30 tokens"
    assert said in capsys.readouterr().err
    assert main([*into(words, project / "corrected"), *correcting]) == 0
    corrected = read_rows(project / "corrected" / "corrected_labels.jsonl")
    assert any(row["labels"][0] != 0.25 for row in corrected)
    assert {row["labels"][1] for row in corrected} == {0.0, 1.0}, "as given: they have no score"

    def turned(row: dict[str, object]) -> dict[str, object]:
        labels = row["labels"]
        assert isinstance(labels, list)
        (first, (correct, total)) = labels
        return row | {"labels": [first, [total - correct, total]]}

    rewrite(project / "train_candidates.jsonl", turned)
    assert main(into(words, project / "two")) == 0
    one, two = tree(project / "one"), tree(project / "two")
    for name in ("model.safetensors", "weights.json", "history.jsonl"):
        assert one[name] == two[name], name
    unlimited = train_words(project, model)
    assert main(into(unlimited, project / "three")) == 0
    assert tree(project / "three")["history.jsonl"] != one["history.jsonl"]


@pytest.mark.parametrize("kind", ["train", "meta"])
def test_a_long_prompt_is_named(kind: str, project: Path, model: str, refused: Refused) -> None:
    """All of a set, because a run says so when it comes to the question."""
    path = project / f"{kind}.jsonl"
    rewrite(path, lambda row: row | {"text": "What is twice red? " * 20})
    line = refused(train_words(project, model, "--max_length", "60"))
    assert f"question '{kind}-" in line
    assert "its prompt and first step are" in line
    assert "the limit is 60" in line


# Data


def test_a_domain_with_one_trajectory_is_named(project: Path, model: str, refused: Refused) -> None:
    path = project / "train_candidates.jsonl"
    kept = [r for r in read_rows(path) if "dials" not in r["question_id"]]
    alone = next(r for r in read_rows(path) if "dials" in r["question_id"])
    path.write_text("".join(json.dumps(row) + "\n" for row in [*kept, alone]))
    line = refused(train_words(project, model))
    assert f"{path}: domain 'dials' has one labelled trajectory" in line
    assert main(train_words(project, model, "--learn_weights", "false")) == 0


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("train_candidates", {"labels": [[1, 2], [1, 2]]}, "all 32 labels are 0.5"),
        ("train_candidates", {"sample_index": 7}, "question train-bars-0, candidate 7 and 11 more"),
        (
            "meta",
            {"text": "What is twice red?"},
            "all 3 questions are also in the tr",
        ),
    ],
)
def test_what_validate_calls_an_error_is_refused(
    file: str, change: dict[str, object], said: str, project: Path, model: str, refused: Refused
) -> None:
    rewrite(project / f"{file}.jsonl", lambda row: row | change)
    assert said in refused(train_words(project, model))
    assert not (project / "prm").exists()


def test_a_meta_question_may_be_worded_like_a_training_question_about_another_picture(
    project: Path, model: str
) -> None:
    Image.linear_gradient("L").rotate(180).save(project / "grey.png")
    asked = {"text": "What is twice red?", "images": ["grey.png"]}
    rewrite(project / "meta.jsonl", lambda row: row | asked)
    assert main([*train_words(project, model), "--dry_run"]) == 0


@pytest.mark.parametrize(
    ("outcome", "said"), [(True, "only outcomes that are True"), (None, "no outcome")]
)
def test_a_meta_set_that_cannot_tell_right_from_wrong_is_refused(
    outcome: bool | None, said: str, project: Path, model: str, refused: Refused
) -> None:
    path = project / "meta_candidates.jsonl"
    rewrite(path, lambda row: row | {"outcome": outcome})
    assert f"{path}: the meta set has {said}" in refused(train_words(project, model))


def test_weights_and_trajectories_that_do_not_match_are_told(
    project: Path, model: str, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    words = train_words(project, model, "--weights_file", str(project / "w.jsonl"))
    write_weights(project, lambda row: None if row["sample_index"] == 3 else row)
    line = refused(words)
    assert "4 of 16 trajectories have none" in line
    assert "question 'train-bars-0', sample 3" in line
    write_weights(project, lambda row: row)
    rewrite(
        project / "train_candidates.jsonl", lambda row: None if row["sample_index"] == 3 else row
    )
    assert main(words) == 0
    told = capsys.readouterr().err
    assert "4 weights are of trajectories that the data does not have" in told
    assert "question 'train-bars-0', sample 3" in told


def write_weights(project: Path, change: Change) -> None:
    """w.jsonl: a weight for every training trajectory, but for what `change` makes of it."""
    path = shutil.copy(project / "train_candidates.jsonl", project / "w.jsonl")
    keys = ("question_id", "sample_index")
    rewrite(path, lambda row: {key: row[key] for key in keys} | {"domain": "d", "weight": 1.0})
    rewrite(path, change)


# Divergence


@pytest.mark.parametrize(
    "absurd",
    [
        ["--learning_rate", "1e4", "--max_grad_norm", "0"],
        ["--lower_loss", "bce", "--head_learning_rate", "1e6"],
    ],
    ids=["gradient", "exploding bce"],
)
def test_a_run_that_diverges_names_step_and_domain_and_keeps_its_checkpoint(
    absurd: list[str], project: Path, model: str, refused: Refused
) -> None:
    """The first steps are finite, and a checkpoint is written after each."""
    every_step = ["--unroll_steps", "1", "--save_steps", "1", "--max_steps", "12"]
    words = train_words(project, model, *every_step, *absurd)
    line = refused(words)
    assert "training has diverged" in line
    assert " at step " in line
    assert any(domain in line for domain in DOMAINS)
    checkpoints = project / "prm" / "checkpoints"
    before = tree(checkpoints)
    assert before
    assert not [name for name in before if "partial" in name]
    assert refused(words) == line, "the checkpoint is read, and the run goes on to the same end"
    assert tree(checkpoints) == before
    assert main(into(train_words(project, model, *every_step), project / "sane")) == 0


# Going on with other settings

WHOLE = {
    "--weighting instance_table": "weighting domain, now it is instance_table",
    "--lower_loss bce": "lower_loss mse, now it is bce",
    "--head vocab": "another head or layout",
}
ADAPTERS = {
    "--lora_r 8": "LoRA options",
    "--lora_dropout 0.5": "LoRA options",
    "--dtype bfloat16": "base model, or dtype of it",
}


@pytest.mark.parametrize(
    ("options", "changes"),
    [([], WHOLE), (["--use_peft"], ADAPTERS)],
    ids=["whole model", "adapters"],
)
def test_a_checkpoint_of_another_run_is_refused_naming_what_differs(
    options: list[str], changes: dict[str, str], project: Path, model: str, refused: Refused
) -> None:
    words = train_words(project, model, "--max_steps", "2", "--save_steps", "2", *options)
    assert main(words) == 0
    before = tree(project / "prm")
    for change, said in changes.items():
        line = refused([*words, *change.split()])
        assert "checkpoint-2" in line
        assert said in line
        assert "another output_dir" in line
        assert tree(project / "prm") == before
    assert main(words) == 0


# Settings that contradict each other


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--estimator", "ghost", "--label_correction"], "cannot correct the label of a step"),
        (["--push_to_hub"], "push_to_hub needs hub_model_id"),
        (["--report_to", "wandb"], "report_to 'wandb': not installed; pip install it"),
        (["--report_to", "a_tracker"], "report_to 'a_tracker': "),
        (["--step_tag", "<step ends>"], "step_tag '<step ends>' is"),
        (["--save_steps", "-1"], "save_steps is -1; it must be 0 or more"),
        (["--lr_step_size", "0"], "lr_step_size is 0; it must be above 0"),
        (["--device", "nowhere"], "device 'nowhere' cannot be used"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_written(
    words: list[str],
    said: str,
    project: Path,
    model: str,
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("accelerate.tracking.is_wandb_available", lambda: False)
    monkeypatch.setattr("accelerate.tracking._available_trackers", [])
    assert said in refused(train_words(project, model, *words))
    assert not (project / "prm").exists()


def test_upper_level_settings_do_not_matter_without_learning(project: Path, model: str) -> None:
    (project / "w.json").write_text('{"bars": 3, "dials": 1}')
    for more in (["--objective", "orm"], ["--weights_file", str(project / "w.json")]):
        words = into(train_words(project, model), project / more[0])
        assert main([*words, "--weighting", "none", *more]) == 0


def test_an_impossible_output_folder_is_refused_at_once(project: Path, refused: Refused) -> None:
    (project / "file").write_text("")
    words = into(train_words(project, "no/model"), project / "file" / "prm")
    assert f"{project / 'file'} is a file; give another folder" in refused(words)


def test_a_broken_image_in_a_worker_is_one_line(
    project: Path, model: str, refused: Refused
) -> None:
    (project / "broken.png").write_bytes(b"not an image")
    rewrite(project / "train.jsonl", lambda row: row | {"images": ["broken.png"]})
    line = refused(train_words(project, model, "--dataloader_num_workers", "1"))
    assert "broken.png cannot be read" in line
    assert "Traceback" not in line


def test_a_damaged_checkpoint_tells_how_to_go_on(
    project: Path, model: str, refused: Refused
) -> None:
    words = train_words(project, model)
    assert main(words) == 0
    whole = tree(project / "prm")
    newest = project / "prm" / "checkpoints" / "checkpoint-4"
    (newest / "state.safetensors").write_bytes(b"")
    assert "remove this folder to go on from an earlier one" in refused(words)
    shutil.rmtree(newest)
    assert main(words) == 0
    assert tree(project / "prm") == whole


def test_what_a_kill_left_half_written_is_removed(project: Path, model: str) -> None:
    rest = project / "prm" / "checkpoints" / ".checkpoint-3.partial"
    rest.mkdir(parents=True)
    (rest / "state.json").write_text("{")
    assert main(train_words(project, model)) == 0
    assert not rest.exists()
