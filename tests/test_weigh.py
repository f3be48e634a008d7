"""What models say about trajectories, files of weights, and `dreamprm weigh`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch

from dreamprm.baselines.features import embeddings_and_quality, reference_losses
from dreamprm.baselines.selection import SELECTORS
from dreamprm.cli import main, weigh
from dreamprm.data.trajectory_weights import read_weights, write_weights
from dreamprm.errors import DataError
from dreamprm.prm.layout import LayoutConfig
from dreamprm.prm.model import PRMConfig
from dreamprm.prm.scorer import StepScorer
from dreamprm.records import Label, Question, Trajectory
from tests.cli_samples import make_project, read_rows, save_tiny_model
from tests.test_selection_baselines import SUBSETS, pair
from tests.tiny_models import STEPS, picture_question, random_prm

torch.set_num_threads(1)


def model_pairs() -> list[tuple[Question, Trajectory]]:
    found = []
    for i, count in enumerate((2, 5, 1)):
        question = picture_question(f"q{i}", i, images=int(i != 2))
        labels = tuple(Label.of(s % 3, 4) if s != 1 else None for s in range(count))
        t = Trajectory(question_id=question.id, steps=tuple(STEPS[:count]), labels=labels)
        found.append((question, t))
    return found


@pytest.mark.parametrize("layout", ["trajectory", "prefix"])
def test_embeddings_and_likelihoods_are_of_the_tokens_of_the_steps_alone(layout: str) -> None:
    model = random_prm(PRMConfig(layout=LayoutConfig(name=layout)))
    pairs = model_pairs()
    together, likely = embeddings_and_quality(model, pairs, 3)
    encode = random_prm().encoder()
    for i, (question, t) in enumerate(pairs):
        batch = encode([(question, t.steps)])
        ids = batch.inputs["input_ids"][0]
        length = sum(len(encode.tokenizer(s).input_ids) + 1 for s in t.steps)
        places = [p for p in range(len(ids) - length, len(ids)) if ids[p] != encode.tag_id]
        with torch.inference_mode():
            out = model.backbone(**batch.inputs, output_hidden_states=True)
        mean = out.hidden_states[-1][0, places].mean(dim=0)
        np.testing.assert_allclose(together[i], mean.numpy(), atol=1e-4)
        logs = out.logits[0].log_softmax(dim=-1)
        expected = np.mean([float(logs[p - 1, ids[p]]) for p in places])
        assert likely[i] == pytest.approx(expected, abs=1e-4)


def test_reference_losses_are_those_of_the_scores_against_the_labels() -> None:
    model, pairs = random_prm(), model_pairs()
    losses = reference_losses(model, pairs, 2)
    scores = {s.question_id: np.array(s.logits) for s in StepScorer(model).score(pairs)}
    for loss, (question, t) in zip(losses, pairs, strict=True):
        p = 1 / (1 + np.exp(-scores[question.id]))
        errors = [(p[i] - x.value) ** 2 for i, x in enumerate(t.labels or ()) if x is not None]
        assert loss == pytest.approx(np.mean(errors), abs=1e-5)


def test_weights_are_written_and_read_back(tmp_path: Path) -> None:
    pairs = [pair("q", [1]), pair("q", [2], index=1), pair("ü", [2])]
    write_weights(tmp_path / "w.jsonl", pairs, np.array([0.0, 1 / 3, 2.5]))
    assert read_weights(tmp_path / "w.jsonl") == {("q", 0): 0.0, ("q", 1): 1 / 3, ("ü", 0): 2.5}
    with pytest.raises(DataError, match="row 2, field 'weight'"):
        write_weights(tmp_path / "w.jsonl", pairs, np.array([1.0, np.nan, 1.0]))
    assert len(read_weights(tmp_path / "w.jsonl")) == 3
    write_weights(tmp_path / "w.jsonl", pairs, np.zeros(3))
    with pytest.raises(DataError, match="no weight above 0"):
        read_weights(tmp_path / "w.jsonl")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weight": -1.0}, "row 2, field 'weight'"),
        ({"weight": float("inf")}, "row 2, field 'weight'"),
        ({"weight": True}, "row 2, field 'weight'"),
        ({"sample_index": 0.5}, "row 2, field 'sample_index'"),
        ({"sample_index": 0}, "row 2, field 'sample_index': .* already in row 1"),
        ({"wieght": 1.0}, "row 2, field 'wieght'"),
    ],
)
def test_a_bad_weight_is_named(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    row = {"question_id": "q", "sample_index": 0, "domain": "d", "weight": 1.0}
    lines = [json.dumps(row), json.dumps(row | {"sample_index": 1} | changes)]
    (tmp_path / "w.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=f"w.jsonl, {said}"):
        read_weights(tmp_path / "w.jsonl")


def weigh_words(project: Path, *more: str) -> list[str]:
    return [
        *("weigh", "--questions", str(project / "train.jsonl")),
        *("--trajectories", str(project / "train_candidates.jsonl")),
        *("--output", str(project / "w.jsonl"), *more),
    ]


def test_weigh_runs_every_selector_and_says_what_is_left(
    tmp_path: Path, png: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    project = make_project(tmp_path / "project", png)
    backbone = save_tiny_model(tmp_path / "backbone")
    random_prm().save_pretrained(tmp_path / "prm")
    selectors = get_args(get_type_hints(weigh.Config)["selector"])
    assert set(selectors) == set(SELECTORS)
    for name in selectors:
        folder = {"car": backbone, "loss": str(tmp_path / "prm")}.get(name)
        more = ["--model_name_or_path", folder] if folder else []
        # Half of the project's trajectories are alike, and so are their losses.
        more += ["--budget", "0.75" if name == "loss" else "0.25"]
        assert main(weigh_words(project, "--selector", name, *more)) == 0
        found = read_weights(project / "w.jsonl")
        assert len(found) == 16
        assert sum(found.values()) == pytest.approx(16)
        said = capsys.readouterr().out
        assert "weights of 16 trajectories" in said and "bars (" in said
        if name in SUBSETS:
            assert sum(weight > 0 for weight in found.values()) == 4
    assert {row["domain"] for row in read_rows(project / "w.jsonl")} == {"bars", "dials"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--selector", "car"], "needs model_name_or_path"),
        (["--selector", "loss", "--model_name_or_path", "{folder}"], "not a PRM saved"),
        (["--budget", "0"], "budget is 0.0"),
        (["--trajectories", "{folder}/meta_candidates.jsonl"], "meta_candidates.jsonl"),
        (["--output", "{folder}/train.jsonl"], "would be overwritten"),
        (["--output", "{folder}/w.json"], "must be a .jsonl file"),
    ],
)
def test_weigh_refuses_in_one_line(
    tmp_path: Path, png: bytes, more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    project = make_project(tmp_path / "project", png)
    words = weigh_words(project, *(word.format(folder=project) for word in more))
    assert main(words) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error
    assert not (project / "w.jsonl").exists()
