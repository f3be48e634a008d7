"""`dreamprm select` from questions to answers: rows as they finish, and what a stop leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamprm.cli import main
from dreamprm.formats import write_questions
from dreamprm.records import Question
from tests.cli_samples import read_rows
from tests.fake_endpoint import FakeEndpoint
from tests.faults import Fault, scripted
from tests.tiny_models import random_prm

COUNT = 6


@pytest.fixture(scope="module")
def prm(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("prm")
    random_prm().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    rows = [
        Question(id=f"q{i}", domain="d", text=f"what is {i} ?", answer="1") for i in range(COUNT)
    ]
    write_questions(tmp_path / "q.jsonl", rows)
    return tmp_path / "q.jsonl"


def words(questions: Path, *more: str) -> list[str]:
    found = ["select", "--questions", str(questions), "--output", str(questions.parent / "c.jsonl")]
    return [*found, "--max_new_tokens", "8", "--prompt", "bare", *more]


@pytest.mark.parametrize("method", ["best_of_n", "beam_search", "weighted_vote"])
def test_questions_are_answered_with_scores_by_the_local_policy(
    questions: Path, prm: str, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--prm", prm, "--method", method, "--n", "4")
    assert main(words(questions, *more)) == 0
    rows = read_rows(questions.parent / "c.jsonl")
    assert {row["question_id"] for row in rows} == {f"q{i}" for i in range(COUNT)}
    for row in rows:
        assert len(row["step_scores"]) == len(row["steps"])
        assert all(0 < s < 1 for s in row["step_scores"])
        assert row["completions"] <= 4
        assert row["tokens"] > 0
    assert f"{COUNT} answers by {method}" in capsys.readouterr().out
    before = (questions.parent / "c.jsonl").read_bytes()
    assert main(words(questions, *more)) == 0
    assert (questions.parent / "c.jsonl").read_bytes() == before, "nothing is asked twice"
    random_prm(seed=len(method)).save_pretrained(prm)  # another training, in the same folder
    assert main(words(questions, *more)) == 1
    assert "was made with prm" in capsys.readouterr().err
    assert main(words(questions, *more[:-1], "5")) == 1
    assert "was made with n 4, now it is 5" in capsys.readouterr().err


def test_nobody_counts_tokens_where_there_is_no_reward_model(questions: Path) -> None:
    assert main(words(questions, "--method", "self_consistency", "--n", "2")) == 0
    rows = read_rows(questions.parent / "c.jsonl")
    assert {row["tokens"] for row in rows} == {None}
    assert {row["completions"] for row in rows} == {2}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "best_of_n needs a reward model; give --prm"),
        (["--scores", "s.jsonl"], "--scores belong to --trajectories"),
        (["--method", "beam_search", "--trajectories", "t.jsonl"], "asks the policy for more"),
        (["--method", "self_consistency", "--max_tokens", "9"], "max_tokens needs --prm"),
        (["--output", "c.parquet"], "choices are written as .jsonl"),
        (["--prm", "nowhere"], "prm_config.json: cannot be read"),
        (["--method", "self_consistency", "--early_stop", "2"], "between 0.5 and 1"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    more: list[str], message: str, questions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(questions, *more)) == 1
    assert message in capsys.readouterr().err


def test_an_endpoint_lost_in_the_middle_keeps_what_is_answered_and_a_rerun_goes_on(
    questions: Path, prm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def through(server: FakeEndpoint) -> list[str]:
        served = ["--prm", prm, "--model_name_or_path", server.model, "--base_urls", server.url]
        served += ["--method", "beam_search", "--n", "6", "--concurrency", "1"]
        return words(questions, *served, "--max_attempts", "1", "--continuation", "prompt")

    out = questions.parent / "c.jsonl"
    dies = scripted({number: Fault("500") for number in range(9, 10_000)})
    with FakeEndpoint(plan=dies) as server:
        assert main(through(server)) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("dreamprm: error: ")
    kept = read_rows(out)
    assert 0 < len(kept) < COUNT
    with FakeEndpoint() as server:
        assert main(through(server)) == 0
        seen = len(server.seen)
        assert main(through(server)) == 0
        assert len(server.seen) == seen, "done is done"
    rows = read_rows(out)
    assert rows[: len(kept)] == kept
    assert sorted(row["question_id"] for row in rows) == [f"q{i}" for i in range(COUNT)]
