"""The command line, verb by verb, on a small project and a model with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dreamprm.cli import main
from dreamprm.data import read_scores, read_trajectories, write_trajectories
from dreamprm.evaluation.results import read_result
from dreamprm.prm.folder import identity
from tests.cli_samples import (
    paper_meta_rows,
    paper_train_rows,
    read_rows,
    train_words,
)
from tests.conftest import Refused

torch.set_num_threads(1)


def sample_words(project: Path, model: str, *more: str) -> list[str]:
    return [
        *("sample", "--questions", str(project / "test.jsonl"), "--model_name_or_path", model),
        *("--output", str(project / "out.jsonl"), "--max_new_tokens", "6", "--prompt", "bare"),
        *("--num_candidates", "2", "--per_device_batch_size", "4", *more),
    ]


def evaluate_words(project: Path, verb: str, output: str) -> list[str]:
    return [
        *(verb, "--questions", str(project / "test.jsonl")),
        *("--trajectories", str(project / "test_candidates.jsonl"), "--n", "4"),
        *("--scores.dreamprm", str(project / "scores.jsonl"), "--output", str(project / output)),
    ]


def test_sample_goes_on_where_it_was_killed_with_the_same_settings_only(
    project: Path, model: str, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    out = project / "out.jsonl"
    assert main(sample_words(project, model)) == 0
    whole = out.read_bytes()
    assert len(read_trajectories(out)) == 12

    lines = whole.splitlines(keepends=True)  # killed inside line 4: half of question 2 is there
    out.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    assert main(sample_words(project, model)) == 0
    assert out.read_bytes() == whole

    monkeypatch.setattr("dreamprm.policy.local.load_backbone", None)  # loading would now fail
    assert main(sample_words(project, model)) == 0
    assert out.read_bytes() == whole
    line = refused(sample_words(project, model, "--temperature", "0.5"))
    assert "temperature 1.0, now it is 0.5" in line
    assert out.read_bytes() == whole


def test_label_labels_every_step_and_resumes(project: Path, model: str) -> None:
    test = str(project / "test_candidates.jsonl")
    candidates = read_trajectories(test)[:6]
    write_trajectories(test, candidates)
    words = [
        *("label", "--questions", str(project / "test.jsonl"), "--trajectories", test),
        *("--output", str(project / "labelled.jsonl"), "--model_name_or_path", model),
        *("--max_new_tokens", "4", "--num_completions", "3", "--domain_completions.vista", "2"),
    ]
    assert main(words) == 0
    labelled = read_trajectories(project / "labelled.jsonl")
    assert {(t.question_id, t.sample_index) for t in labelled} == {
        (t.question_id, t.sample_index) for t in candidates
    }
    assert all(label and label.total == 2 for t in labelled for label in t.labels or ())

    whole = (project / "labelled.jsonl").read_bytes()
    (project / "labelled.jsonl").write_bytes(whole[:-40])
    assert main(words) == 0
    assert (project / "labelled.jsonl").read_bytes() == whole


def test_train_learns_weights_and_score_reads_the_model(
    project: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*train_words(project, model), "--null_check"]) == 0
    told = capsys.readouterr()
    assert "right-wrong pairs of a question ranked right" in told.out
    assert "null check, outcomes permuted within questions, 1 run: 2 weights from" in told.out
    assert "the meta set is small" in told.err
    weights = json.loads((project / "prm" / "weights.json").read_text())
    assert set(weights) == {"bars", "dials"}
    assert sum(w["weight"] for w in weights.values()) == pytest.approx(2)
    assert all(w["low"] < w["weight"] < w["high"] for w in weights.values())
    assert read_rows(project / "prm" / "history.jsonl")

    words = [
        *("score", "--model_name_or_path", str(project / "prm")),
        *("--questions", str(project / "test.jsonl"), "--output", str(project / "s.jsonl")),
        *("--trajectories", str(project / "test_candidates.jsonl")),
    ]
    assert main(words) == 0
    scores = read_scores(project / "s.jsonl")
    assert len(scores) == 24
    assert all(len(s.logits) == 2 for s in scores)
    (project / "s.jsonl").write_bytes((project / "s.jsonl").read_bytes()[:-30])
    assert main(words) == 0
    again = {(s.question_id, s.sample_index): s.logits for s in read_scores(project / "s.jsonl")}
    for s in scores:
        assert again[s.question_id, s.sample_index] == pytest.approx(s.logits, abs=1e-5)


def test_scores_of_other_candidates_are_told_apart_by_their_text(
    project: Path, prm: Path, refused: Refused
) -> None:
    candidates, scores = project / "test_candidates.jsonl", project / "s.jsonl"
    words = [
        *("score", "--model_name_or_path", str(prm)),
        *("--questions", str(project / "test.jsonl"), "--output", str(scores)),
    ]
    assert main([*words, "--trajectories", str(candidates)]) == 0
    before = scores.read_bytes()
    others = project / "others.jsonl"
    changed = [
        t.model_copy(update={"steps": (*t.steps[:-1], t.steps[-1] + " indeed")})
        for t in read_trajectories(candidates)
    ]
    write_trajectories(others, changed)
    line = refused([*words, "--trajectories", str(others)])
    assert "or has other steps there; give another output" in line
    assert scores.read_bytes() == before
    asked = ["--questions", str(project / "test.jsonl"), "--trajectories", str(others)]
    for verb in (
        ["select", *asked, "--scores", str(scores), "--output", str(project / "c.jsonl")],
        ["evaluate", *asked, "--scores.prm", str(scores), "--n", "4"],
    ):
        assert "has other steps than were judged" in refused(verb)


def test_score_never_mixes_two_models_in_one_file(tmp_path: Path) -> None:
    prm = tmp_path / "prm"
    prm.mkdir()
    (prm / "prm_head.safetensors").write_bytes(b"one")
    first = identity(prm)
    (prm / "prm_head.safetensors").write_bytes(b"two")
    assert identity(prm) != first


def test_train_takes_files_in_the_papers_format_with_an_image_root(
    tmp_path: Path, model: str, png: bytes
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "red.png").write_bytes(png)
    (tmp_path / "train.json").write_text(json.dumps(paper_train_rows("red.png")))
    (tmp_path / "meta.json").write_text(json.dumps(paper_meta_rows("red.png")))
    words = train_words(tmp_path, model, "--image_root", str(tmp_path / "images"))
    first = words.index("--train_questions")
    words[first : first + 8] = [
        *("--train_file", str(tmp_path / "train.json"), "--meta_file", str(tmp_path / "meta.json"))
    ]
    assert main(words) == 0
    assert set(json.loads((tmp_path / "prm" / "weights.json").read_text())) == {"bars", "dials"}


def test_train_with_fixed_weights_or_for_outcomes_needs_no_meta_set(
    project: Path, model: str
) -> None:
    (project / "w.json").write_text('{"bars": 3, "dials": 1}')
    fixed = train_words(project, model, "--weights_file", str(project / "w.json"))
    first = fixed.index("--meta_questions")
    del fixed[first : first + 4]
    assert main(fixed) == 0
    weights = json.loads((project / "prm" / "weights.json").read_text())
    assert weights == pytest.approx({"bars": 1.5, "dials": 0.5})

    orm = [*fixed[: fixed.index("--weights_file")], "--objective", "orm"]
    orm[orm.index("--output_dir") + 1] = str(project / "orm")
    assert main(orm) == 0
    assert json.loads((project / "orm" / "weights.json").read_text()) == {"bars": 1, "dials": 1}


def test_select_takes_the_highest_score_and_tells_the_accuracy(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        *("select", "--questions", str(project / "test.jsonl")),
        *("--trajectories", str(project / "test_candidates.jsonl")),
        *("--scores", str(project / "scores.jsonl"), "--output", str(project / "c.jsonl")),
    ]
    assert main(words) == 0
    rows = read_rows(project / "c.jsonl")
    assert {row["sample_index"] for row in rows} == {2}
    assert rows[0]["score"] == pytest.approx(0.6)  # the mean of logits 0.0 and 1.2
    assert rows[0]["step_scores"] == pytest.approx([0.5, 0.7685], abs=1e-4)
    assert "accuracy 100.0%" in capsys.readouterr().out

    assert main([*words, "--n", "2"]) == 0
    assert {row["sample_index"] for row in read_rows(project / "c.jsonl")} == {0}
    assert main([*words, "--method", "weighted_vote"]) == 0
    assert {row["answer"] for row in read_rows(project / "c.jsonl")} == {"6"}
    assert "several best" not in capsys.readouterr().out
    assert main([*words, "--method", "self_consistency", "--n", "2"]) == 0
    ties = sum(row["tied"] == 2 for row in read_rows(project / "c.jsonl"))
    assert f"{ties} questions have several best" in capsys.readouterr().out


def test_evaluate_writes_json_and_prints_a_table(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(evaluate_words(project, "evaluate", "results.json")) == 0
    result = read_result(project / "results.json")
    assert result.metrics["dreamprm"]["vista"].value == 1.0
    assert result.details["curve"]["dreamprm"]["1"]["mean"] == pytest.approx(0.5)
    assert "dreamprm - self_consistency" in result.details["differences"]
    assert {row.sample_index for row in result.questions["dreamprm"]} == {2}
    assert f"self_consistency: {result.ties['self_consistency']}" in capsys.readouterr().out


def test_report_is_one_page_with_the_weights_of_a_training_run_and_says_that_a_toy_is_one(
    project: Path,
) -> None:
    prm = project / "prm"
    prm.mkdir()
    (prm / "weights.json").write_text('{"bars": 1.4, "dials": 0.6}')
    (prm / "history.jsonl").write_text(
        '{"step": 2, "lower_loss": 0.1, "meta_loss": 0.2, "weights": {"bars": 1.4, "dials": 0.6}}\n'
    )
    words = evaluate_words(project, "report", "r.html")
    assert main([*words, "--training_dir", str(prm), "--notice", "A <small> test."]) == 0
    page = (project / "r.html").read_text()
    assert "toy model" in page
    assert "A &lt;small&gt; test." in page
    assert '"dials"' in page


def test_an_interrupt_is_one_line_and_exit_code_130(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(config: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dreamprm.cli.evaluate.run", interrupt)
    assert main(evaluate_words(project, "evaluate", "r.json")) == 130
    assert "run the same command again" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(config: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr("dreamprm.cli.evaluate.run", bug)
    with pytest.raises(KeyError):
        main(evaluate_words(project, "evaluate", "r.json"))
