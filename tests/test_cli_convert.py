"""`dreamprm convert`: one format into another, and nothing lost in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dreamprm.cli import main
from dreamprm.data import (
    known,
    read_questions,
    read_trajectories,
    write_questions,
    write_trajectories,
)
from dreamprm.records import Label, Question, Trajectory
from tests.conftest import Refused

QUESTION = Question(id="q", domain="charts", text="How many?", options=("7", "8"), answer="B")
STEPS = ("Step 1: read 3", "Step 2: it is 8")
SOFT = Trajectory(question_id="q", steps=STEPS, labels=(Label.of(3, 4), Label.of(2, 4)))
HARD = Trajectory(
    question_id="q",
    steps=STEPS,
    labels=(Label.of(4, 4), Label.of(0, 4)),
    outcome=False,
    policy="p",
    sample_index=1,
)


def ours(folder: Path, *trajectories: Trajectory) -> list[str]:
    """Our two files, as the options that name them."""
    write_questions(folder / "q.jsonl", [QUESTION])
    write_trajectories(folder / "t.jsonl", trajectories)
    return ["--questions", str(folder / "q.jsonl"), "--trajectories", str(folder / "t.jsonl")]


def stepwise(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(**other: Any) -> dict[str, Any]:
    return {"prompt": "How many?", "completions": ["a", "b"], "labels": [True, False]} | other


def test_our_records_become_another_format_and_what_is_left_out_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out" / "x.jsonl"
    words = ours(tmp_path, SOFT, HARD)
    assert main(["convert", *words, "--output", str(out), "--output_format", "trl_stepwise"]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [one["labels"] for one in rows] == [[0.75, 0.5], [True, False]]
    said = capsys.readouterr().out
    assert f"{out}: 2 trajectories of 1 questions as trl_stepwise" in said
    assert "trl_stepwise has no place for ids, domains, subjects, gold answers" in said
    assert [path.name for path in out.parent.iterdir()] == ["x.jsonl"]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_another_format_becomes_our_records(suffix: str, tmp_path: Path) -> None:
    path = stepwise(tmp_path, row(), row(completions=["c"], labels=[0.5]))
    outputs = [tmp_path / f"{name}{suffix}" for name in ("q", "t")]
    words = ["--output_questions", str(outputs[0]), "--output_trajectories", str(outputs[1])]
    assert main(["convert", "--input", str(path), "--domain", "mine", *words]) == 0
    expected = known.find("trl_stepwise").read(path, domain="mine")
    assert read_trajectories(outputs[1]) == expected.trajectories
    assert read_questions(outputs[0]) == expected.questions
    assert expected.questions[0].domain == "mine"


def test_a_record_that_cannot_be_held_is_one_error_and_no_file_is_left(
    tmp_path: Path, refused: Refused
) -> None:
    words = ours(tmp_path, HARD, SOFT)
    out, questions = tmp_path / "out" / "x.json", tmp_path / "out" / "q.jsonl"
    more = ["--output", str(out), "--output_format", "visualprm"]
    assert "trajectory 0 of question 'q' has a label of 0.75" in refused(
        ["convert", *words, *more, "--output_questions", str(questions)]
    )
    assert not out.parent.exists() or not list(out.parent.iterdir())


def test_a_failed_conversion_leaves_the_old_outputs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ours(tmp_path, SOFT)
    old = tmp_path / "old.jsonl"
    old.write_text("old")
    more = ["--output_questions", str(old), "--output", str(tmp_path / "x.csv")]
    assert main(["convert", *words, *more, "--output_format", "trajectories"]) == 1
    assert old.read_text() == "old"
    assert f"{tmp_path / 'x.csv'}: can be written as .jsonl" in capsys.readouterr().err


def test_bad_rows_are_refused_or_counted_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: Refused
) -> None:
    bad = [row(labels=[True]) for _ in range(7)]
    path = stepwise(tmp_path, row(), *bad)
    out = tmp_path / "t.jsonl"
    words = ["convert", "--input", str(path), "--output_trajectories", str(out)]
    assert "x.jsonl, row 2, field 'labels'" in refused(words)
    assert not out.exists()

    assert main([*words, "--skip_bad_rows", "true"]) == 0
    told = capsys.readouterr()
    assert "7 rows left out that cannot be read:" in told.err
    assert "row 6, field 'labels'" in told.err
    assert "and 2 more" in told.err
    assert "1 trajectories" in told.out
    assert "left out: 1 questions" in told.out

    path = stepwise(tmp_path, *bad)
    assert main([*words, "--skip_bad_rows", "true"]) == 1
    assert "no row could be read" in capsys.readouterr().err


def test_rows_without_a_response_are_refused_dropped_or_kept(
    tmp_path: Path, refused: Refused
) -> None:
    asked = "Question: How many?\nOptions: (A) 7 (B) 8"
    rows = [
        {"id": 1, "true_false": True, "input": f"{asked}\n\nStep 1: 8\nFinal answer: B"},
        {"id": 2, "true_false": False, "input": asked},
    ]
    path = tmp_path / "meta.json"
    path.write_text(json.dumps([one | {"image_path": "a.png"} for one in rows]))
    out = tmp_path / "again.json"
    words = ["convert", "--input", str(path), "--output", str(out)]
    words += ["--output_format", "dreamprm_meta"]
    assert "1 of 2 rows without a response" in refused(words)
    assert main([*words, "--without_response", "drop"]) == 0
    assert len(json.loads(out.read_text())) == 1
    assert main([*words, "--without_response", "keep"]) == 0
    assert len(json.loads(out.read_text())) == 1
    questions = tmp_path / "q.jsonl"
    kept = ["--without_response", "keep", "--output_questions", str(questions)]
    assert main(["convert", "--input", str(path), *kept]) == 0
    assert [question.id for question in read_questions(questions)] == ["1", "2"]

    other = stepwise(tmp_path, row())
    more = ["--without_response", "drop", "--output_trajectories", str(tmp_path / "t.jsonl")]
    assert "not for trl_stepwise" in refused(["convert", "--input", str(other), *more])


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        ([], "give --input, or --questions", 2),
        (["--input", "x", "--questions", "q"], "give --input, or --questions", 2),
        (["--input", "x"], "give --output and --output_format", 2),
        (["--input", "x", "--output", "y"], "--output and --output_format go together", 2),
        (["--input", "x", "--output", "y", "--output_format", "trl"], "unknown format 'trl'", 1),
        (
            ["--input", "x", "--output", "y", "--output_format", "processbench"],
            "'processbench' is only read; these are written: questions, trajectories, "
            "dreamprm_train, dreamprm_meta, visualprm, trl_stepwise",
            1,
        ),
        (
            ["--input", "x", "--output_questions", "y", "--output_trajectories", "y"],
            "different files",
            2,
        ),
        (["--input", "no.json", "--output_questions", "y.jsonl"], "no.json: cannot be read", 1),
    ],
)
def test_wrong_options_are_one_line(
    words: list[str], said: str, code: int, refused: Refused
) -> None:
    assert said in refused(["convert", *words], code)


def test_a_trajectory_without_its_question_is_named(tmp_path: Path, refused: Refused) -> None:
    words = ours(tmp_path, SOFT, SOFT.model_copy(update={"question_id": "z"}))
    out = ["--output", str(tmp_path / "x.json"), "--output_format", "visualprm"]
    assert "t.jsonl, row 2, field 'question_id'" in refused(["convert", *words, *out])


def test_help_names_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "--help"]) == 0
    text = capsys.readouterr().out
    for name, one in known.FORMATS.items():
        assert name in text or one.holds == "scores"


def test_an_input_is_never_overwritten(tmp_path: Path, refused: Refused) -> None:
    path = stepwise(tmp_path, row())
    before = path.read_bytes()
    words = ["convert", "--input", str(path), "--output", str(path)]
    assert "is an input" in refused([*words, "--output_format", "trl_stepwise"], 2)
    assert path.read_bytes() == before


def test_nothing_to_write_is_an_error(tmp_path: Path, refused: Refused) -> None:
    write_questions(tmp_path / "q.jsonl", [QUESTION])
    words = ["convert", "--questions", str(tmp_path / "q.jsonl")]
    out = tmp_path / "x.jsonl"
    assert "holds no trajectory" in refused(
        [*words, "--output", str(out), "--output_format", "trl_stepwise"]
    )
    assert not out.exists()
