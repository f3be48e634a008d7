"""TRL's stepwise supervision becomes records and comes out again as it was."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from dreamprm.errors import DataError
from dreamprm.records import Label, Question, Trajectory
from tests.format_reading import reader, writer

read_trl_stepwise = reader("trl_stepwise")
write_trl_stepwise = writer("trl_stepwise")

Row = dict[str, Any]
Pair = tuple[list[Question], list[Trajectory]]
Write = Callable[[Path, list[Question], list[Trajectory]], None]

MANY = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
JUNK = st.sampled_from(
    [None, True, 0, 1, -1, 7, 2**70, 0.5, 1.5, float("nan"), float("inf"), "", " ", "x", "\0", "+"]
    + [[], [1], [None], [""], {}, {"from": "human", "value": ""}, {"path": "a.png"}, [[]]]
).map(copy.deepcopy)


@st.composite
def mutated(draw: st.DrawFn, rows: list[Row]) -> list[Row]:
    """Rows in which one to three places are replaced, removed or doubled."""
    rows = copy.deepcopy(rows)
    for _ in range(draw(st.integers(1, 3))):
        place: Any = rows[draw(st.integers(0, len(rows) - 1))]
        while place:
            keys = sorted(place) if isinstance(place, dict) else range(len(place))
            key = draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and place[key] and draw(st.booleans()):
                place = place[key]
                continue
            how = draw(st.sampled_from(["replace", "remove", "double", "add"]))
            if how == "remove":
                del place[key]
            elif how == "double" and isinstance(place, list):
                place.insert(key, place[key])
            elif how == "add" and isinstance(place, dict):
                place["new"] = draw(JUNK)
            else:
                place[key] = draw(JUNK)
            break
    return rows


def check_broken(path: Path, rows: list[Row], read: Callable[..., Pair], write: Write) -> None:
    """Rows give records or a DataError that names file and row; good rows come out as they were."""
    path.write_text(json.dumps(rows))
    errors: list[DataError] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pair = read(path, bad_row=errors.append)
        for error in errors:
            assert error.file == path
            assert error.row is not None and 1 <= error.row <= len(rows)
            assert "\n" not in str(error)
        if errors:
            with pytest.raises(DataError):
                read(path)
            return
        write(path.with_name("back.json"), *pair)
        found = json.loads(path.with_name("back.json").read_text())
    assert sorted(map(same, found)) == sorted(map(same, rows))


def same(row: Any) -> str:
    return json.dumps(row, sort_keys=True)


PROMPT = "How many?  \nOptions: (A) 7  (B) 8\n"
PLAIN: Row = {
    "prompt": "Which is larger?",
    "completions": ["so", " thus\n"],
    "labels": [True, False],
}
SOFT: Row = {
    "prompt": PROMPT,
    "completions": ["read 3", "read 5"],
    "labels": [0.375, 1.0],
    "images": ["images/a.png"],
    "source": {"set": "x"},
}
ROWS: list[Row] = [
    PLAIN,
    PLAIN | {"completions": ["so"], "labels": [1]},
    SOFT,
    SOFT | {"labels": [0.0, 1.0], "images": [{"bytes": None, "path": "images/a.png"}]},
    SOFT | {"labels": [True, 0.1], "images": "images/a.png"},
    PLAIN | {"images": []},
]


def saved(tmp_path: Path, rows: list[Row], name: str = "rows.json") -> Path:
    (tmp_path / name).write_text(json.dumps(rows))
    return tmp_path / name


def test_prompt_completions_and_labels_become_records(tmp_path: Path) -> None:
    questions, trajectories = read_trl_stepwise(saved(tmp_path, [PLAIN, SOFT]), domain="maths")
    assert [(q.text, q.options, q.domain) for q in questions] == [
        ("Which is larger?", (), "maths"),
        ("How many?", ("7", "8"), "maths"),
    ]
    assert questions[1].images == (str(tmp_path / "images/a.png"),)
    assert trajectories[0].steps == ("so", " thus\n")
    assert trajectories[0].labels == (Label(1.0), Label(0.0))
    assert trajectories[1].labels == (Label(0.375), Label(1.0))


def test_rows_of_one_prompt_are_candidates_of_one_question(tmp_path: Path) -> None:
    other = PLAIN | {"completions": ["hm"], "labels": [False]}
    [question], trajectories = read_trl_stepwise(saved(tmp_path, [PLAIN, other]))
    assert [(t.question_id, t.sample_index) for t in trajectories] == [
        (question.id, 0),
        (question.id, 1),
    ]


def test_soft_labels_are_never_cut_to_whole_numbers(tmp_path: Path) -> None:
    labels = (Label.of(7, 8), Label(1.0), Label.of(0, 16))
    question = Question(id="q", domain="d", text="?", answer="8")
    trajectory = Trajectory(question_id="q", steps=("a", "b", "c"), labels=labels)
    write_trl_stepwise(tmp_path / "soft.json", [question], [trajectory])
    [row] = json.loads((tmp_path / "soft.json").read_text())
    assert same(row["labels"]) == "[0.875, 1.0, 0.0]"
    _, [back] = read_trl_stepwise(tmp_path / "soft.json")
    assert back.labels == (Label(0.875), Label(1.0), Label(0.0))


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"prompt": [{"role": "user", "content": "?"}]}, "prompt"),
        ({"prompt": " "}, "prompt"),
        ({"completions": []}, "completions"),
        ({"completions": "so"}, "completions"),
        ({"labels": [True]}, "labels"),
        ({"labels": [True, 1.5]}, "labels"),
        ({"labels": [True, None]}, "labels"),
        ({"images": 5}, "images"),
        ({"images": [{"bytes": "x", "path": "a.png"}]}, "images"),
    ],
)
def test_a_broken_row_is_named_and_can_be_passed_over(
    tmp_path: Path, wrong: Row, field: str | None
) -> None:
    path = saved(tmp_path, [PLAIN, PLAIN | wrong, SOFT])
    where = rf"rows\.json, row 2, field '{field}'" if field else r"rows\.json, row 2"
    with pytest.raises(DataError, match=where):
        read_trl_stepwise(path)
    told: list[DataError] = []
    _, trajectories = read_trl_stepwise(path, bad_row=told.append)
    assert (len(trajectories), [error.row for error in told]) == (2, [2])


@pytest.mark.parametrize("labels", [None, (Label(1.0), None)])
def test_a_step_without_a_label_cannot_be_written(tmp_path: Path, labels: Any) -> None:
    question = Question(id="q", domain="d", text="?", answer="8")
    trajectory = Trajectory(question_id="q", steps=("a", "b"), labels=labels, sample_index=3)
    with pytest.raises(DataError, match="trajectory 3 of question 'q' has a step without a label"):
        write_trl_stepwise(tmp_path / "x.json", [question], [trajectory])
    assert not (tmp_path / "x.json").exists()
