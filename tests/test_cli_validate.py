"""`dreamprm validate`: what a file holds, and what is wrong with it; also of published files."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamprm.cli import main
from dreamprm.data import arrow, write_questions, write_scores, write_trajectories
from dreamprm.data.audit import facts, findings, load
from dreamprm.records import Label, Question, StepScores, Trajectory
from tests.conftest import Refused

Found = dict[str, dict[str, Any]]
Validate = Callable[..., tuple[dict[str, Any], Found, int]]
RIGHT, WRONG = Label.of(1, 1), Label.of(0, 1)


@pytest.fixture
def validate(capsys: pytest.CaptureFixture[str]) -> Validate:
    """Run `dreamprm validate --json true`: gives account, findings by name, and exit code."""

    def run(*words: str | Path) -> tuple[dict[str, Any], Found, int]:
        capsys.readouterr()
        code = main(["validate", *map(str, words), "--json", "true"])
        [account] = json.loads(capsys.readouterr().out)["files"]
        return account, {finding["name"]: finding for finding in account["findings"]}, code

    return run


def question(number: int = 0, **other: Any) -> Question:
    facts = {"id": f"q{number}", "domain": "d", "text": f"What is {number} + 4?", "answer": "4"}
    return Question.parse(facts | other)


def trajectory(number: int = 0, index: int = 0, **other: Any) -> Trajectory:
    facts = {"question_id": f"q{number}", "sample_index": index, "outcome": index % 2 == 0}
    return Trajectory.parse(facts | {"steps": (f"read {index}", "add"), **other})


def ours(
    folder: Path, questions: list[Question], trajectories: list[Trajectory]
) -> list[Path | str]:
    write_questions(folder / "q.jsonl", questions)
    write_trajectories(folder / "t.jsonl", trajectories)
    return ["--questions", folder / "q.jsonl", "--trajectories", folder / "t.jsonl"]


def test_good_data_has_an_account_and_no_findings(
    validate: Validate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = [(RIGHT, Label.of(3, 4)), (Label.of(1, 2), Label.of(0, 4))]
    made = [trajectory(0, i, labels=labels[i], policy="p") for i in range(2)]
    words = ours(tmp_path, [question(answer="8", subject="sums")], made)
    account, found, code = validate(*words)
    assert code == 0
    assert found == {}
    assert account["outcomes"] == {"right": 1, "wrong": 1, "unknown": 0}
    assert account["subjects"] == {"sums": 1}
    assert account["steps"] == [2, 2, 2]
    assert account["labels"] == {
        "steps": 4,
        "of_steps": 4,
        "mean": (1 + 0.75 + 0.5 + 0) / 4,
        "zeros": 0.25,
        "ones": 0.25,
        "totals": {"4": 2, "1": 1, "2": 1},
        "with_wrong_step": 1,
    }
    assert main(["validate", *map(str, words)]) == 0
    text = capsys.readouterr().out
    assert "steps          2 to 2, median 2" in text
    assert "nothing wrong was found" in text


def test_pictures_in_the_file_are_not_kept_and_those_of_a_huge_row_group_not_read(
    validate: Validate, tmp_path: Path, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "q.parquet"
    again = png + b" "  # the same picture in other bytes
    asked = [question(i, text="What is it?", images=(p,)) for i, p in enumerate([png, png, again])]
    write_questions(path, [*asked, question(3, images=(b"no picture",))])
    loaded = load(path)
    assert len(loaded.questions[0].images[0]) == 32
    assert {f.name for f in findings(loaded, decode_images=True)} == {"repeated_questions"}
    _, found, _ = validate("--input", path)
    assert {name: f["count"] for name, f in found.items()} == {"repeated_questions": 1}
    _, found, _ = validate("--input", path, "--images")
    assert found["repeated_questions"]["count"] == 2
    assert found["damaged_images"]["where"][0].startswith("question q3: image <10 bytes> cannot be")
    monkeypatch.setattr(arrow, "_LARGE_GROUP", 1)
    account, found, _ = validate("--input", path)
    assert account["images"] == 4
    assert "pictures, and is read as a whole, so they are left out" in found.popitem()[1]["message"]


def test_rows_that_cannot_be_read_are_grouped_by_kind(validate: Validate, tmp_path: Path) -> None:
    good = {"question_id": "q", "steps": ["a"]}
    rows = [good, good | {"steps": []}, good | {"labels": [[5, 4]]}, good | {"labels": [[9, 8]]}]
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{cut\n")
    account, _, code = validate("--input", path)
    assert code == 1
    unread = [f for f in account["findings"] if f["name"] == "unread_rows"]
    assert [(f["count"], f["where"]) for f in unread] == [
        (2, ["row 3", "row 4"]),
        (1, ["row 2"]),
        (1, ["row 5"]),
    ]
    assert account["unread"] == 4
    assert account["rows"] == 5


def test_repeated_and_contradictory_rows_are_told(validate: Validate, tmp_path: Path) -> None:
    asked = [question(0), question(1), question(2, text="What is 0 + 4?")]
    same = {"steps": ("one", "two"), "answer": "4"}
    made = [
        trajectory(0, 0, **same),
        trajectory(0, 1, **same),
        trajectory(1, 0),
        trajectory(1, 0),
        trajectory(7, 0),
    ]
    _, found, code = validate(*ours(tmp_path, asked, made))
    assert code == 1
    assert found["contradiction"]["where"] == [
        "question q0, candidate 0 true; question q0, candidate 1 false"
    ]
    assert found["repeated_trajectories"]["count"] == 2
    assert found["repeated_rows"]["where"] == ["row 4 like row 3"]
    assert found["repeated_sample_index"]["count"] == 1
    assert found["repeated_questions"]["where"] == ["question q2 like q0"]
    assert found["missing_question"]["where"] == ["question q7, candidate 0"]


def test_the_same_text_about_another_image_is_only_a_warning(
    validate: Validate, tmp_path: Path, png: bytes
) -> None:
    asked = [question(0, images=(png,), text="?"), question(1, images=(png + b" ",), text="?")]
    same = {"steps": ("one", "two"), "answer": "4"}
    made = [trajectory(0, 0, **same), trajectory(1, 1, **same)]
    _, found, code = validate(*ours(tmp_path, asked, made))
    assert code == 0
    assert found["contradiction_but_image"]["severity"] == "warning"
    assert "contradiction" not in found


def test_missing_damaged_and_remote_images_are_told(
    validate: Validate, tmp_path: Path, png: bytes
) -> None:
    (tmp_path / "cut.png").write_bytes(png[:40])
    named = ["gone.png", "cut.png", "https://example.org/a.png"]
    asked = [
        question(i, images=(image if "://" in image else str(tmp_path / image),))
        for i, image in enumerate(named)
    ]
    path = tmp_path / "q.jsonl"
    write_questions(path, asked)
    _, found, _ = validate("--input", path)
    assert found["missing_images"]["where"] == [f"question q0: {tmp_path / 'gone.png'}"]
    assert found["remote_images"]["count"] == 1
    assert "damaged_images" not in found
    _, found, code = validate("--input", path, "--images", "true")
    assert found["damaged_images"]["count"] == 1
    assert "question q1: image" in found["damaged_images"]["where"][0]
    assert code == 1


@pytest.mark.parametrize(
    ("label", "outcomes", "severity"),
    [(RIGHT, (True, False), "error"), (Label.of(0, 4), (None, None), "warning")],
)
def test_constant_labels_are_told(
    label: Label,
    outcomes: tuple[bool | None, ...],
    severity: str,
    validate: Validate,
    tmp_path: Path,
) -> None:
    made = [trajectory(0, i, labels=(label, label), outcome=o) for i, o in enumerate(outcomes)]
    _, found, _ = validate(*ours(tmp_path, [question()], made))
    assert found["constant_labels"]["severity"] == severity
    assert ("hard_labels" in found) == (label.total == 1)


def test_labels_that_do_not_differ_with_the_outcome_are_told(
    validate: Validate, tmp_path: Path
) -> None:
    mixed = [(RIGHT, WRONG), (WRONG, WRONG), (RIGHT, RIGHT)]
    made = [trajectory(0, i, labels=mixed[i // 2 % 3]) for i in range(60)]
    _, found, _ = validate(*ours(tmp_path, [question()], made))
    assert "their mean is 0.500 in 30 right trajectories" in found["indifferent_labels"]["message"]
    assert found["right_answer_wrong_step"]["count"] == 20
    assert found["wrong_answer_right_steps"]["count"] == 10
    good = [
        one.model_copy(update={"labels": (RIGHT, RIGHT if one.outcome else WRONG)}) for one in made
    ]
    _, found, _ = validate(*ours(tmp_path, [question()], good))
    assert set(found) == {"hard_labels"}


def test_responses_without_reasoning_are_told(validate: Validate, tmp_path: Path) -> None:
    said = ["B", "**(C)**", "Answer: A", "The final answer is 12.", "12", "It is 12", "A cat"]
    made = [
        trajectory(0, i, steps=(text,), answer="12" if "12" in text else None)
        for i, text in enumerate(said)
    ]
    _, found, code = validate(*ours(tmp_path, [question()], made))
    assert code == 0
    assert found["bare_letter"]["count"] == 3
    assert found["bare_answer"]["count"] == 2


def test_outcomes_of_one_class_are_told_of_the_whole_and_of_a_domain(
    validate: Validate, tmp_path: Path
) -> None:
    asked = [question(0), question(1, domain="e")]
    made = [trajectory(n, 2 * i, outcome=bool(n)) for n in range(2) for i in range(2)]
    _, found, code = validate(*ours(tmp_path, asked, made))
    assert found["one_class_in_domain"]["where"] == [
        "domain d: all 2 wrong",
        "domain e: all 2 right",
    ]
    assert found["one_sided_questions"]["count"] == 2
    assert code == 0
    _, found, code = validate(*ours(tmp_path, asked, made[:2]))
    assert found["one_class"]["severity"] == "error"
    assert code == 1


def test_gold_answers_and_outcomes_are_held_against_our_own_verdict(
    validate: Validate, tmp_path: Path
) -> None:
    asked = [
        question(0, options=("3", "4"), answer="F"),
        question(1, options=("3", "4"), answer="B"),
    ]
    made = [
        trajectory(1, 0, answer="4"),
        trajectory(1, 1, answer="A"),
        trajectory(1, 2, answer="A"),
        trajectory(0, 3, answer="A"),
    ]
    _, found, code = validate(*ours(tmp_path, asked, made))
    assert found["gold_not_an_option"]["where"] == ["question q0: 'F' of 2 options"]
    assert found["outcome_not_ours"]["where"] == [
        "question q1, candidate 2: 'A' called right, gold 'B'"
    ]
    assert code == 1


def test_overlap_with_other_files_is_told(validate: Validate, tmp_path: Path) -> None:
    mine = [question(0, options=("3", "4"), answer="B"), question(1)]
    theirs = [question(8, text="what is **0 + 4**", options=("4", "3"), answer="A")]
    write_questions(tmp_path / "mine.jsonl", mine)
    write_questions(tmp_path / "bench.jsonl", theirs)
    _, found, code = validate(
        *("--input", tmp_path / "mine.jsonl", "--against.bench", tmp_path / "bench.jsonl")
    )
    assert found["overlap"]["where"] == ["question q0 like q8"]
    assert "1 of 2 questions are also in bench" in found["overlap"]["message"]
    assert found["other_letters"]["where"] == ["question q0: B, there A (q8)"]
    assert code == 1
    assert validate("--input", tmp_path / "bench.jsonl")[2] == 0


def test_step_scores_have_an_account(validate: Validate, tmp_path: Path) -> None:
    score = StepScores(question_id="q", sample_index=0, logits=(0.5,))
    write_scores(tmp_path / "s.jsonl", [score, score])
    account, found, code = validate("--input", tmp_path / "s.jsonl")
    assert account["scores"] == 2
    assert found["repeated_scores"]["where"] == ["question q, candidate 0"]
    assert code == 1


def test_errors_come_first_and_several_files_have_an_account_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        write_trajectories(tmp_path / f"{name}.jsonl", [trajectory(0, 2 * i) for i in (0, 1, 1)])
    files = [str(tmp_path / f"{name}.jsonl") for name in ("a", "b")]
    assert main(["validate", "--input", *files]) == 1
    told = capsys.readouterr()
    assert told.err.count("\n") == 1
    assert "the data has 4 kinds of error" in told.err
    assert told.out.index("error:") < told.out.index("warning:") < told.out.index("note:")
    assert all(f"{file}: trajectories" in told.out for file in files)


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        ([], "give --input", 2),
        (["--input", "no.jsonl"], "no.jsonl: cannot be read", 1),
        (["--input", "{f}/t.jsonl", "--input_format", "trajectory"], "did you mean traj", 1),
        (["--input", "{f}/t.jsonl", "--against.x", "{f}/t.jsonl"], "holds no questions", 1),
        (["--input", "{f}/other.jsonl"], "fit no format; name it", 1),
    ],
)
def test_what_cannot_be_validated_is_one_line(
    words: list[str], said: str, code: int, tmp_path: Path, refused: Refused
) -> None:
    write_trajectories(tmp_path / "t.jsonl", [trajectory()])
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n')
    assert said in refused(["validate", *(word.format(f=tmp_path) for word in words)], code)


def test_a_row_of_the_other_file_that_cannot_be_read_may_hide_a_leak(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"id": "1", "domain": "d", "text": "How many?", "answer": "7"},
        {"id": "2", "domain": "d", "text": "How long?", "answer": ""},
    ]
    mine, bench = tmp_path / "mine.jsonl", tmp_path / "bench.jsonl"
    mine.write_text(json.dumps(rows[1] | {"answer": "8"}) + "\n")
    bench.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["validate", "--input", str(mine), "--against.bench", str(bench)]) == 1
    assert "1 rows of bench cannot be read" in capsys.readouterr().out


def test_the_papers_meta_set_has_all_its_defects_reported(
    real_data: Path, validate: Validate
) -> None:
    account, found, code = validate("--input", real_data / "dreamprm" / "meta.json")
    assert code == 1
    assert account["rows"] == 500
    assert account["outcomes_of_rows"] == {"right": 249, "wrong": 251, "unknown": 0}
    assert found["without_response"]["count"] == 371
    assert "all 251 rows whose answer is wrong" in found["without_response"]["message"]
    assert "120 of 249 rows whose answer is right" in found["without_response"]["message"]
    [line] = found["contradiction_but_image"]["where"]
    assert line == "row 415 (id 246) false; row 432 (id 271) true; row 453 (id 324) true"
    assert "contradiction" not in found
    assert found["one_class"]["severity"] == "error"
    assert found["missing_images"]["count"] == 129


def test_dreamprm_1_5_has_all_its_defects_reported(real_data: Path, validate: Validate) -> None:
    path = real_data / "dreamprm_1_5" / "meta_MMMU_Pro.json"
    account, found, code = validate("--input", path)
    assert code == 1
    assert account["outcomes"] == {"right": 834, "wrong": 822, "unknown": 0}
    assert found["constant_labels"]["severity"] == "error"
    assert "in all 822 whose answer is wrong" in found["constant_labels"]["message"]
    assert found["bare_letter"]["count"] == 896


@pytest.mark.parametrize(
    ("name", "rows", "erroneous", "right_but_wrong"),
    [("gsm8k", 400, 207, 7), ("math", 1000, 594, 94)],
)
def test_processbench_has_its_figures(
    name: str, rows: int, erroneous: int, right_but_wrong: int, real_data: Path
) -> None:
    loaded = load(real_data / "processbench" / f"{name}.json")
    labels = facts(loaded).labels
    assert labels is not None
    assert (facts(loaded).rows, labels.with_wrong_step) == (rows, erroneous)
    found = {finding.name: finding for finding in findings(loaded)}
    assert found["right_answer_wrong_step"].count == right_but_wrong


def test_the_real_questions_of_mathvision_are_in_order(real_data: Path, validate: Validate) -> None:
    _, found, code = validate("--input", real_data / "mathvision" / "testmini.jsonl")
    assert (code, found) == (0, {})


def test_readers_warnings_do_not_leak(real_data: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(real_data / "dreamprm" / "meta.json")
