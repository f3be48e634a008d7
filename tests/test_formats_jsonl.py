"""JSONL and Parquet: what is written comes back, and a bad file says what is wrong with it."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dreamprm.data import (
    DataWarning,
    JsonlAppender,
    arrow,
    check_images,
    check_references,
    read_questions,
    read_records,
    read_trajectories,
    write_questions,
    write_records,
)
from dreamprm.data.own import read, to_line
from dreamprm.errors import DataError, DreamPRMError
from dreamprm.records import Question, Record, StepScores, Trajectory
from tests.record_strategies import LISTS

SUFFIXES = pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)


def question(question_id: str = "q1", *images: str | bytes) -> Question:
    return Question(id=question_id, domain="charts", text="How many?", images=images, answer="3")


@SUFFIXES
@pytest.mark.parametrize("kind", LISTS)
@SAME_FOLDER
@given(data=st.data())
def test_records_come_back_as_they_were_written(
    suffix: str,
    kind: type[Record],
    data: st.DataObject,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(f"records{suffix}")
    records = data.draw(LISTS[kind])
    write_records(path, records, kind)
    assert read_records(path, kind) == records


def test_image_bytes_are_stored_as_a_data_url(tmp_path: Path, png: bytes) -> None:
    path = tmp_path / "questions.jsonl"
    write_questions(path, [question("q1", png)])
    assert json.loads(path.read_text())["images"][0].startswith("data:image/png;base64,")
    assert read_questions(path)[0].images == (png,)


@SUFFIXES
def test_a_folder_of_data_can_be_moved_as_a_whole(suffix: str, tmp_path: Path, png: bytes) -> None:
    (tmp_path / "set" / "images").mkdir(parents=True)
    (tmp_path / "set" / "data").mkdir()
    (tmp_path / "set" / "images" / "a.png").write_bytes(png)
    path = tmp_path / "set" / "data" / f"questions{suffix}"
    write_questions(path, [question("q1", str(tmp_path / "set" / "images" / "a.png"))])
    (tmp_path / "set").rename(tmp_path / "moved")

    moved = tmp_path / "moved" / "data" / f"questions{suffix}"
    check_images(read_questions(moved), moved)


def test_an_image_far_away_is_named_by_its_absolute_path(tmp_path: Path) -> None:
    far = str(tmp_path / "far" / "a.png")
    line = to_line(question("q1", far), tmp_path / "project" / "data")
    assert json.loads(line)["images"] == [far]


FIRST = to_line(question("q1"), Path())


@pytest.mark.parametrize(
    ("second", "told"),
    [
        (b"{oops}\n", "not JSON .* remove the line"),
        (FIRST.replace(b'"How many?"', b"5"), "field 'text'"),
        (FIRST, "field 'id'"),
        *[(FIRST[:kept], "the last line is cut off") for kept in (1, 10, 30)],
    ],
    ids=["no JSON", "wrong type", "same id", "cut at 1", "cut at 10", "cut at 30"],
)
def test_a_bad_line_is_named_with_file_row_and_field(
    second: bytes, told: str, tmp_path: Path
) -> None:
    (tmp_path / "questions.jsonl").write_bytes(FIRST + second)
    with pytest.raises(DataError, match=rf"questions\.jsonl, row 2.*{told}"):
        read_questions(tmp_path / "questions.jsonl")


@SUFFIXES
def test_a_question_id_may_come_only_once(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"questions{suffix}"
    with pytest.raises(DataError, match="row 3, field 'id': question id 'q1' is already .* row 1"):
        write_questions(path, [question("q1"), question("q2"), question("q1")])
    assert not path.exists()


@SUFFIXES
def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"questions{suffix}"
    write_questions(path, [question("old")])

    def records() -> Iterator[Question]:
        yield question("new")
        raise RuntimeError("the generator broke")

    with pytest.raises(RuntimeError):
        write_questions(path, records())
    assert [record.id for record in read_questions(path)] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


@SUFFIXES
def test_a_full_disk_is_told_in_one_line_and_leaves_the_old_file(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"questions{suffix}"
    write_questions(path, [question("old")])

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DreamPRMError, match=r"questions\..*: cannot write: No space left"):
        write_questions(path, [question("new")])
    assert [record.id for record in read_questions(path)] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kept", [0, 1, 20, -1])
def test_an_interrupted_append_goes_on_behind_the_last_whole_record(
    tmp_path: Path, kept: int
) -> None:
    path = tmp_path / "out" / "scores.jsonl"
    records = [StepScores(question_id=f"q{i}", sample_index=0, logits=(0.5,)) for i in range(3)]
    with JsonlAppender(path) as out:
        out.append(records[0])
    with path.open("ab") as file:  # as a kill leaves it: -1 lacks the newline only
        file.write(to_line(records[1], tmp_path)[:kept])

    with JsonlAppender(path) as out:
        out.append(records[2])
    whole = records if kept == -1 else [records[0], records[2]]
    assert read(path, StepScores) == whole


def test_every_appended_record_is_on_disk_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    with JsonlAppender(path) as out:
        for count in (1, 2, 3):
            out.append(StepScores(question_id="q", sample_index=count, logits=()))
            assert len(read(path, StepScores)) == count


def test_a_trajectory_of_an_unknown_question_is_named(tmp_path: Path) -> None:
    known = Trajectory(question_id="q1", steps=("a",))
    stray = Trajectory(question_id="q7", steps=("a",))
    check_references([question("q1")], [known], "t.jsonl")
    with pytest.raises(DataError, match=r"t\.jsonl, row 2, field 'question_id': question 'q7'"):
        check_references([question("q1")], [known, stray], "t.jsonl")


def test_a_missing_image_is_named(tmp_path: Path, png: bytes) -> None:
    records = [question("q1", png), question("q2", str(tmp_path / "no.png"))]
    with pytest.raises(DataError, match=r"q\.jsonl, row 2, .* 'q2': image .*no\.png does not"):
        check_images(records, "q.jsonl")


def test_an_unknown_suffix_is_answered_with_the_known_formats(tmp_path: Path) -> None:
    for read_kind in (read_questions, read_trajectories):
        with pytest.raises(DataError, match=r"unknown format; known are \.jsonl"):
            read_kind(tmp_path / "questions.csv")


def test_a_missing_file_and_a_file_that_is_no_parquet_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_questions(tmp_path / "questions.jsonl")
    (tmp_path / "questions.parquet").write_bytes(b"PAR1 this is cut")
    with pytest.raises(DataError, match="not Parquet, or cut off"):
        read_questions(tmp_path / "questions.parquet")


def test_a_value_that_python_cannot_hold_costs_its_row_alone(tmp_path: Path) -> None:
    names = ("id", "domain", "text", "answer")
    questions = pa.table({name: [f"{name}{i}" for i in range(3)] for name in names})
    text = pa.array([b"What?", b"\xff", b"Why?"], pa.binary()).view(pa.string())
    column = questions.column_names.index("text")
    pq.write_table(questions.set_column(column, "text", text), tmp_path / "q.parquet")
    bad: list[DataError] = []
    whole = read(tmp_path / "q.parquet", Question, bad_row=bad.append)
    assert [one.id for one in whole] == ["id0", "id2"]
    assert "q.parquet, row 2, field 'text': holds a string that cannot be read" in str(bad[0])


def test_a_changed_byte_of_our_parquet_is_noticed(tmp_path: Path, png: bytes) -> None:
    path = tmp_path / "q.parquet"
    write_questions(path, [question("q", png)])
    whole = path.read_bytes()
    path.write_bytes(whole.replace(png[-20:], png[-20:-1] + b"?"))
    with pytest.raises(DataError, match="CRC checksum verification failed"):
        read_questions(path)


def test_row_groups_are_small_so_that_pictures_are_not_held_together(
    tmp_path: Path, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrow, "_BYTES_AT_ONCE", 3 * len(png))
    write_questions(tmp_path / "q.parquet", [question(f"q{i}", png) for i in range(9)])
    assert pq.read_metadata(tmp_path / "q.parquet").num_row_groups == 3
    assert len(read_questions(tmp_path / "q.parquet")) == 9


def test_json_that_is_deep_or_long_or_no_utf8_is_refused_by_its_row(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    good = b'{"question_id": "q", "steps": ["s"]}\n'
    deep = b'{"extra": ' + b"[" * 300 + b"]" * 300 + b"}\n"
    long = b'{"extra": 1' + b"0" * 5000 + b"}\n"
    path.write_bytes(good + deep + long + b'"\xed\xa0\x80"\n' + good)
    bad: list[DataError] = []
    assert len(read(path, Trajectory, bad_row=bad.append)) == 2
    assert [error.row for error in bad] == [2, 3, 4]
    assert "more than 200 deep" in str(bad[0])
    path.write_bytes(good.decode().encode("utf-16"))
    with pytest.raises(DataError, match=r"t\.jsonl: is UTF-16 or no text"):
        read(path, Trajectory)


def test_a_name_that_comes_twice_in_an_object_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    twice = '{"question_id": "q", "steps": ["x"], "steps": ["\\"a\\": b"]}\n'
    path.write_text('{"question_id": "q", "steps": ["\\"a\\": b"]}\n' + 2 * twice)
    with pytest.warns(DataWarning, match=r"row 2: 'steps' comes twice") as told:
        read(path, Trajectory)
    assert len(told) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
def test_a_pipe_is_refused_before_it_is_waited_for(tmp_path: Path) -> None:
    for name in ("q.jsonl", "q.parquet"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DataError, match=f"{name}: is a pipe or a device"):
            read_questions(tmp_path / name)
        with pytest.raises(DreamPRMError, match="is no file"):
            write_questions(tmp_path / name, [])


def test_a_bad_row_of_parquet_is_told_and_the_next_ones_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table = pa.table(
        {
            "question_id": ["a", "b", "c"],
            "steps": [["s"], ["s"], ["s"]],
            "extra": [None, "{oops", '{"k": 1}'],
        }
    )
    pq.write_table(table, path)
    bad: list[DataError] = []
    read_ones = read(path, Trajectory, bad_row=bad.append)
    assert [one.question_id for one in read_ones] == ["a", "c"]
    assert "t.parquet, row 2, field 'extra'" in str(bad[0])
