"""`dreamprm select` from questions to answers: rows as they finish, and what a stop leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamprm.cli import main
from dreamprm.data import read_scores, read_trajectories, write_questions
from dreamprm.evaluation.results import read_result, token_curve
from dreamprm.records import UNKNOWN_ANSWER, Question
from dreamprm.search.choosing import Change, Choice
from tests.cli_samples import read_rows
from tests.conftest import Refused
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


def kept_words(folder: Path) -> list[str]:
    return [
        *("--candidates_output", str(folder / "all.jsonl")),
        *("--scores_output", str(folder / "scores.jsonl"), "--result", str(folder / "r.json")),
    ]


def words(questions: Path, *more: str) -> list[str]:
    found = ["select", "--questions", str(questions), "--output", str(questions.parent / "c.jsonl")]
    return [*found, "--max_new_tokens", "8", "--prompt", "bare", *more]


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("best_of_n", []),
        ("beam_search", []),
        ("diverse_tree_search", ["--single_steps"]),
        ("weighted_vote", []),
    ],
)
def test_questions_are_answered_with_scores_by_the_local_policy(
    questions: Path,
    prm: str,
    method: str,
    more: list[str],
    capsys: pytest.CaptureFixture[str],
    refused: Refused,
) -> None:
    more = [*more, "--prm", prm, "--method", method, "--n", "4"]
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
    assert "was made with prm" in refused(words(questions, *more))
    assert "was made with n 4, now it is 5" in refused(words(questions, *more[:-1], "5"))


@pytest.mark.parametrize("method", ["best_of_n", "diverse_tree_search", "beam_search"])
def test_what_was_not_chosen_can_be_kept_and_evaluated(
    questions: Path, prm: str, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = questions.parent
    more = ("--prm", prm, "--method", method, "--n", "9", *kept_words(folder))
    more += ("--single_steps",) if method == "beam_search" else ()
    assert main(words(questions, *more)) == 0
    choices = {row["question_id"]: row for row in read_rows(folder / "c.jsonl")}
    candidates = read_trajectories(folder / "all.jsonl")
    scores = {(s.question_id, s.sample_index): s for s in read_scores(folder / "scores.jsonl")}
    assert len(scores) == len(candidates) >= COUNT
    for t in candidates:
        assert len(scores[t.question_id, t.sample_index].logits) == len(t.steps)
    for name, row in choices.items():
        chosen = next(
            t for t in candidates if (t.question_id, t.sample_index) == (name, row["sample_index"])
        )
        assert list(chosen.steps) == row["steps"]
        assert row["changes"][-1]["sample_index"] == row["sample_index"]
        assert row["changes"][-1]["tokens"] <= row["tokens"]
    result = read_result(folder / "r.json")
    assert [row.tokens for row in result.questions[method]] == [
        choices[f"q{i}"]["tokens"] for i in range(COUNT)
    ]
    curve = result.details["token_curve"][method]  # type: ignore[index,call-overload]
    assert max(map(int, curve)) == max(row["tokens"] for row in choices.values())
    page = ("report", "--results", str(folder / "r.json"), "--output", str(folder / "r.html"))
    assert main([*page]) == 0
    assert "Accuracy over tokens spent" in (folder / "r.html").read_text()


def test_candidates_of_a_question_that_was_cut_off_are_made_anew(
    questions: Path, prm: str, capsys: pytest.CaptureFixture[str], refused: Refused
) -> None:
    folder = questions.parent
    more = ("--prm", prm, "--n", "3", *kept_words(folder))
    assert main(words(questions, *more)) == 0
    names = ("c.jsonl", "all.jsonl", "scores.jsonl")
    whole = {name: sorted((folder / name).read_bytes().splitlines()) for name in names}
    lines = (folder / "c.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "c.jsonl").write_bytes(b"".join(lines[:-2]))  # two choices are not written yet
    (folder / "all.jsonl").write_bytes((folder / "all.jsonl").read_bytes()[:-20])
    assert main(words(questions, *more)) == 0
    assert {name: sorted((folder / name).read_bytes().splitlines()) for name in names} == whole
    (folder / "all.jsonl").unlink()
    capsys.readouterr()
    assert "all.jsonl: lacks the candidates of 6 questions" in refused(words(questions, *more))


def test_files_of_candidates_are_never_mixed(questions: Path, refused: Refused) -> None:
    folder = questions.parent
    vote = ("--method", "self_consistency", "--n", "2")
    kept = ("--candidates_output", str(folder / "all.jsonl"))
    rows = questions.read_text().splitlines(keepends=True)
    questions.write_text("".join(rows[:3]))
    assert main(words(questions, *vote, *kept)) == 0
    before = (folder / "all.jsonl").read_bytes()
    other = [*words(questions, *vote, *kept), "--output", str(folder / "other.jsonl")]
    assert "was made with choices 'c.jsonl', now it is 'other.jsonl'" in refused(other)
    questions.write_text("".join(rows))
    assert main(words(questions, *vote)) == 0  # goes on without the candidates
    assert "lacks the candidates of 3 questions" in refused(words(questions, *vote, *kept))
    assert (folder / "all.jsonl").read_bytes() == before
    same = ("--candidates_output", str(folder / "c.jsonl"))
    assert "must be different files" in refused(words(questions, *vote, *same), 2)


def test_a_run_that_fails_tells_why_also_where_a_result_is_wanted(
    questions: Path, capsys: pytest.CaptureFixture[str], refused: Refused
) -> None:
    result = ("--result", str(questions.parent / "r.json"))
    refuses = scripted({number: Fault("400", body="too long") for number in range(3, 10_000)})
    with FakeEndpoint(plan=refuses) as server:
        served = ["--model_name_or_path", server.model, "--base_urls", server.url]
        more = ["--method", "self_consistency", "--continuation", "prompt", *served]
        main(words(questions, *more, *result))
    err = capsys.readouterr().err
    assert "too long" in err
    assert "known to be right" not in err
    rows = [Question(id="q", domain="d", text="what is 1 ?", answer=UNKNOWN_ANSWER)]
    write_questions(questions, rows)
    assert "--result needs questions with known answers" in refused(
        words(questions, "--method", "self_consistency", *result)
    )


def test_the_curve_over_tokens_is_what_stopping_there_would_have_given() -> None:
    def choice(name: str, tokens: int, *changes: tuple[int, bool]) -> Choice:
        found = tuple(
            Change(tokens=at, sample_index=i, outcome=right)
            for i, (at, right) in enumerate(changes)
        )
        return Choice(
            **{"question_id": name, "answer": "1", "sample_index": 0, "score": None},
            **{"step_scores": None, "tokens": tokens, "outcome": changes[-1][1]},
            changes=found,
        )

    rows = [
        choice("a", 100, (10, False), (50, True)),
        choice("b", 80, (20, True), (80, False)),
    ]
    curve = token_curve({"d": rows})
    assert (min(curve), max(curve)) == (10, 100)
    for tokens, estimate in curve.items():
        expected = (tokens >= 50) + (20 <= tokens < 80)
        assert estimate.mean == expected / 2
    assert (
        token_curve({"d": [rows[0], choice("c", 9, (9, True)).model_copy(update={"changes": ()})]})
        == {}
    )


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
        (["--prm", "nowhere"], "nowhere holds no prm_config.json"),
        (["--method", "self_consistency", "--early_stop", "2"], "between 0.5 and 1"),
        (["--prm", "p", "--single_steps"], "single_steps is of step_best_of_n"),
        (["--trajectories", "t.jsonl", "--scores_output", "s.jsonl"], "are of a search"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    more: list[str], message: str, questions: Path, refused: Refused
) -> None:
    assert message in refused(words(questions, *more))


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
