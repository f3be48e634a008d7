"""The table of formats: names, detection, and reading through the one door."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dreamprm.data import (
    known,
    read_pair,
    read_questions,
    read_trajectories,
    write_questions,
    write_trajectories,
)
from dreamprm.data.format import Format
from dreamprm.errors import DataError
from dreamprm.records import Label, Question, Trajectory
from tests.format_rows import RIGHT, WRONG, sample_rows, write_rows

QUESTION = Question(id="q", domain="d", text="How many?", answer="8")
TRAJECTORY = Trajectory(question_id="q", steps=("a", "b"), labels=(Label.of(2, 4), None))
every = pytest.mark.parametrize("one", known.FORMATS.values(), ids=lambda one: one.name)


@every
def test_rows_of_a_format_fit_that_format_only(one: Format, tmp_path: Path) -> None:
    rows = sample_rows(one, tmp_path)
    path = write_rows(one, tmp_path, rows)
    assert known.detect(path) is one
    for row in rows:
        fitting = [o.name for o in known.FORMATS.values() if o.fits(row, path.suffix)]
        assert fitting == [one.name]


@pytest.mark.parametrize("form", ["list", "indented list", "lines"])
def test_a_format_is_seen_however_the_json_is_laid_out(form: str, tmp_path: Path) -> None:
    rows = [{"prompt": "?", "completions": ["a"], "labels": [True]}] * 2
    path = tmp_path / "x.json"
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    texts = {"list": json.dumps(rows), "indented list": "\ufeff" + json.dumps(rows, indent=2)}
    path.write_text(texts.get(form, lines))
    assert known.detect(path) is known.find("trl_stepwise")


def test_the_first_row_may_be_the_bad_one(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write_trajectories(path, [TRAJECTORY])
    path.write_text("{cut\n" + path.read_text())
    assert known.detect(path) is known.find("trajectories")


def test_a_large_first_row_is_seen_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    row = {"prompt": "?" * (3 << 20), "completions": ["a"], "labels": [True]}
    path.write_text(json.dumps(row))
    assert known.detect(path) is known.find("trl_stepwise")


def test_parquet_is_told_from_its_columns(tmp_path: Path) -> None:
    write_questions(tmp_path / "q.parquet", [QUESTION])
    write_trajectories(tmp_path / "t.parquet", [TRAJECTORY])
    assert known.detect(tmp_path / "q.parquet") is known.find("questions")
    assert known.detect(tmp_path / "t.parquet") is known.find("trajectories")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 cut")
    assert known.detect(tmp_path / "x.parquet") is None


def test_what_fits_nothing_is_no_format(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n')
    assert known.detect(tmp_path / "x.jsonl") is None
    assert known.detect(tmp_path / "x.csv") is None
    with pytest.raises(DataError, match=r"fit no format; name it, known are .*trl_stepwise"):
        known.choose(tmp_path / "x.jsonl", None)
    (tmp_path / "y.json").write_text('[{"a": 1')
    with pytest.raises(DataError, match="y.json: not JSON"):
        known.choose(tmp_path / "y.json", None)


HALF = Label.of(1, 2)
ANSWERED = {"steps": ("We add.", "Final answer: 8"), "labels": (RIGHT, RIGHT), "outcome": True}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("dreamprm_meta", {}, "has no outcome"),
        ("dreamprm_meta", {"outcome": True, "steps": ("a\n\nb", "c")}, "otherwise.*'Step 1: '"),
        ("dreamprm_meta", {"outcome": True, "text": "A train.\n\nWhen?"}, "empty lines out of the"),
        (
            "dreamprm_meta",
            {"outcome": True, "images": (b"png",)},
            "image bytes.*save them as files",
        ),
        ("dreamprm_train", {}, "has no label at its last step"),
        ("dreamprm_train", {"labels": (HALF, None)}, "has no label at its last step"),
        ("dreamprm_train", {"labels": (HALF, HALF), "steps": ("a\n\nb", "c")}, "with 'Step 1: '"),
        ("dreamprm_train", {"labels": (HALF, HALF), "images": (b"png",)}, "image bytes"),
        ("visualprm", {}, "has no label at step 1"),
        ("visualprm", {"labels": (RIGHT, None)}, "has no label at step 2"),
        ("visualprm", {"labels": (RIGHT, HALF)}, "label of 0.5 at step 2.*set a threshold"),
        ("visualprm", {"labels": (RIGHT, WRONG), "images": (b"png",)}, "image bytes"),
        ("visualprm", ANSWERED, "only states the answer"),
        ("trl_stepwise", {}, "has a step without a label"),
        ("trl_stepwise", {"labels": (RIGHT, None)}, "has a step without a label"),
        ("trl_stepwise", {"labels": (RIGHT, HALF), "images": (b"png",)}, "image bytes"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_and_nothing_is_written(
    tmp_path: Path, name: str, changes: dict[str, Any], message: str
) -> None:
    asked = {field: changes[field] for field in ("text", "images") if field in changes}
    question = QUESTION.model_copy(update=asked)
    said = {"question_id": "q", "steps": ("Step 1: read 3", "Step 2: read 5"), "sample_index": 3}
    given = {field: value for field, value in changes.items() if field not in asked}
    with pytest.raises(DataError, match=f"trajectory 3 of question 'q' .*{message}"):
        known.find(name).write(tmp_path / "x.json", [question], [Trajectory(**(said | given))])
    assert not (tmp_path / "x.json").exists()


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unknown format 'visual_prm'; did you mean visualprm"):
        known.find("visual_prm")
    with pytest.raises(DataError, match="'trl'"):
        read_pair(tmp_path / "x.json", format="trl")


def test_a_named_format_is_read_though_its_file_shows_another(tmp_path: Path) -> None:
    row = {"prompt": "?", "completions": ["a"], "labels": [True], "conversations": []}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match="conversations"):
        read_pair(tmp_path / "x.jsonl")
    _, [trajectory] = read_pair(tmp_path / "x.jsonl", format="trl_stepwise")
    assert trajectory.steps == ("a",)


def test_image_paths_start_where_one_says(tmp_path: Path) -> None:
    row = {"prompt": "?", "completions": ["a"], "labels": [True], "images": ["a.png"]}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    write_questions(
        tmp_path / "q.jsonl",
        [QUESTION.model_copy(update={"images": (str(tmp_path / "a.png"),)})],
    )
    rows = [{"id": "1", "question": "?", "options": [], "answer": "6", "image": "a.png"}]
    (tmp_path / "m.jsonl").write_text(json.dumps(rows[0]))
    for name in ("x.jsonl", "q.jsonl", "m.jsonl"):
        assert read_questions(tmp_path / name)[0].images == (str(tmp_path / "a.png"),)
        [question] = read_questions(tmp_path / name, image_root="elsewhere")
        assert question.images == ("elsewhere/a.png",)


def test_a_bad_line_of_our_records_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write_trajectories(path, [TRAJECTORY, TRAJECTORY])
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{{broken\n" + '{"question_id": "q", "steps": []}\n' + second)
    bad: list[DataError] = []
    records = known.find("trajectories").read(path, bad_row=bad.append)
    assert len(records.trajectories) == 2
    assert [error.row for error in bad] == [2, 3]
    with pytest.raises(DataError, match="row 2"):
        read_trajectories(path)


def test_every_file_of_the_real_data_is_told_by_its_rows(real_data: Path) -> None:
    told = {
        "dreamprm/meta.json": "dreamprm_meta",
        "dreamprm_1_5/meta_MMMU_Pro.json": "visualprm",
        "processbench/gsm8k.json": "processbench",
        "mathvision/testmini.jsonl": "mathvision",
        "mmmu_pro/gpt-4o_standard_10_options_cot.jsonl": "mmmu_pro",
        "prm_formats/math-aps.jsonl": "math_aps",
        "prm_formats/math-aps-tree.jsonl": "math_aps_tree",
        "prm_formats/math-shepherd.jsonl": "math_shepherd",
        "prm_formats/prm800k.jsonl": "prm800k",
    }
    for name, expected in told.items():
        found = known.detect(real_data / name)
        assert found is not None
        assert found.name == expected
    assert known.detect(real_data / "gsm8k" / "test.jsonl") is None
    assert known.detect(real_data / "mathvista" / "testmini.json") is None


def test_mmmu_pro_letters_belong_to_the_rows_own_options(real_data: Path) -> None:
    path = real_data / "mmmu_pro" / "gpt-4o_standard_10_options_cot.jsonl"
    records = known.find("mmmu_pro").read(path)
    assert len(records.trajectories) == 1730
    assert records.questions[81].options == ("A", "B", "Not enough information")
    right = sum(bool(trajectory.outcome) for trajectory in records.trajectories)
    assert right == 952  # of 1730: 55.03%
    by_id = {question.id: question for question in records.questions}
    migration = by_id["test_History_134"]
    assert migration.answer == "J"
    assert migration.options[9] == "A dramatic increase in migration"
