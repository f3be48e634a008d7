"""The paper's train.json and meta.json become records, and what is wrong in them is told."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dreamprm.data import DataWarning, known, read_pair, read_questions, read_trajectories
from dreamprm.errors import DataError
from dreamprm.records import UNKNOWN_ANSWER, Label, Question, Trajectory
from dreamprm.steps import join_steps
from tests.format_rows import reader, save

read_meta = reader("dreamprm_meta")
read_train = reader("dreamprm_train")
write_meta = known.find("dreamprm_meta").write
write_train = known.find("dreamprm_train").write

ONE, TWO, THREE = "Step 1: read 3", "Step 2: read 5", "Step 3: sum is 8"


def train_row(sid: int, add: str, score: int, times: int, **other: Any) -> dict[str, Any]:
    return {
        "id": 7,
        "sid": sid,
        "input": "How many in all?",
        "add": add,
        "ground_truth": "8",
        "image_path": "images/7.png",
        "dataset": "chartqa",
        "score": score,
        "times": times,
        "accuracy": score / times,
    } | other


def meta_row(true_false: Any, response: str, **other: Any) -> dict[str, Any]:
    text = "Question: How many?\nOptions: (A) 7 (B) 8" + (f"\n\n{response}" if response else "")
    return {"id": 7, "true_false": true_false, "input": text, "image_path": "7.png"} | other


def test_prefix_rows_of_one_response_become_one_trajectory_with_counts(tmp_path: Path) -> None:
    rows = [
        train_row(2, f"{ONE}\n\n{TWO}\n\n", 3, 4),
        train_row(1, f"{ONE}\n\n", 7, 11),
        train_row(3, f"{ONE}\n\n{TWO}\n\n{THREE}\n\n", 1, 1),
    ]
    questions, trajectories = read_train(save(tmp_path, rows))
    assert questions == [
        Question(
            id="7",
            domain="chartqa",
            text="How many in all?",
            images=(str(tmp_path / "images/7.png"),),
            answer="8",
        )
    ]
    assert trajectories == [
        Trajectory(
            question_id="7",
            steps=(ONE, TWO, THREE),
            labels=(Label.of(7, 11), Label.of(3, 4), Label.of(1, 1)),
        )
    ]


def test_a_step_without_a_row_stays_unlabelled(tmp_path: Path) -> None:
    rows = [train_row(3, f"{ONE}\n{TWO}\n{THREE}", 1, 2), train_row(1, ONE, 2, 2)]
    _, [trajectory] = read_train(save(tmp_path, rows))
    assert trajectory.labels == (Label.of(2, 2), None, Label.of(1, 2))


def test_responses_that_part_ways_become_two_trajectories_sharing_a_label(tmp_path: Path) -> None:
    other = "Step 2: read 4"
    rows = [
        train_row(1, ONE, 2, 4),
        train_row(2, f"{ONE}\n{TWO}", 3, 4),
        train_row(2, f"{ONE}\n{other}", 0, 4),
    ]
    _, trajectories = read_train(save(tmp_path, rows))
    assert [(t.steps, t.labels, t.sample_index) for t in trajectories] == [
        ((ONE, TWO), (Label.of(2, 4), Label.of(3, 4)), 0),
        ((ONE, other), (Label.of(2, 4), Label.of(0, 4)), 1),
    ]


def test_a_prefix_ends_at_a_step_not_inside_one(tmp_path: Path) -> None:
    rows = [train_row(1, "Step 1: read 3", 1, 4), train_row(1, "Step 1: read 35", 0, 4)]
    _, trajectories = read_train(save(tmp_path, rows))
    assert [t.steps for t in trajectories] == [("Step 1: read 3",), ("Step 1: read 35",)]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"accuracy": 1.5}, "accuracy"),
        ({"accuracy": -0.1}, "accuracy"),
        ({"accuracy": 0.9}, "accuracy"),
        ({"score": 5, "accuracy": None}, "score"),
        ({"times": 0, "accuracy": None}, "score"),
        ({"score": "many"}, "score"),
        ({"dataset": ""}, "dataset"),
        ({"input": None}, "input"),
    ],
)
def test_a_bad_training_row_is_named_with_row_and_field(
    tmp_path: Path, wrong: dict[str, Any], field: str
) -> None:
    rows = [train_row(1, ONE, 1, 4), train_row(2, f"{ONE}\n{TWO}", 1, 4) | wrong]
    with pytest.raises(DataError, match=rf"rows\.json, row 2, field '{field}'"):
        read_train(save(tmp_path, rows))


@pytest.mark.parametrize("accuracy", [1.5, -0.1])
def test_a_label_without_counts_must_lie_between_0_and_1(tmp_path: Path, accuracy: float) -> None:
    row = train_row(1, ONE, 1, 4) | {"score": None, "times": None, "accuracy": accuracy}
    with pytest.raises(DataError, match=rf"row 1, field 'accuracy': label {accuracy} must be"):
        read_train(save(tmp_path, [row]))


def test_one_id_for_two_questions_is_refused(tmp_path: Path) -> None:
    rows = [train_row(1, ONE, 1, 4), train_row(1, ONE, 1, 4, input="How few?")]
    with pytest.raises(DataError, match="row 2, field 'id': id '7' stands for two different"):
        read_train(save(tmp_path, rows))


def test_training_rows_without_a_response_are_refused_or_dropped(tmp_path: Path) -> None:
    path = save(tmp_path, [train_row(1, ONE, 1, 4), train_row(2, " ", 1, 4)])
    with pytest.raises(DataError, match="row 2, field 'add': 1 of 2 rows without a response"):
        read_train(path)
    _, [trajectory] = read_train(path, without_response="drop")
    assert trajectory.steps == (ONE,)


words = st.lists(st.sampled_from(["three", "8 cm", "x", "é"]), min_size=1, max_size=3).map(" ".join)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[list[Question], list[Trajectory]]:
    """One question with a fully labelled, marked trajectory that has an outcome."""
    options = tuple(draw(st.lists(words, min_size=2, max_size=5) | st.just([])))
    question = Question(id="7", domain="meta", text=draw(words), options=options, answer="A")
    steps = tuple(f"Step {i}: {draw(words)}" for i in range(1, draw(st.integers(2, 12))))
    totals = [draw(st.integers(1, 9)) for _ in steps]
    labels = tuple(Label.of(draw(st.integers(0, total)), total) for total in totals)
    answer = "A" if options else "8"
    trajectory = Trajectory(
        question_id="7", steps=steps, answer=answer, outcome=draw(st.booleans()), labels=labels
    )
    return [question], [trajectory]


IN_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@IN_FOLDER
@given(pair=pairs())
def test_train_rows_give_the_same_records_back(
    tmp_path: Path, pair: tuple[list[Question], list[Trajectory]]
) -> None:
    write_train(tmp_path / "train.json", *pair)
    questions, trajectories = read_train(tmp_path / "train.json")
    assert questions == pair[0]
    assert trajectories == [t.model_copy(update={"answer": None, "outcome": None}) for t in pair[1]]


@IN_FOLDER
@given(pair=pairs())
@pytest.mark.filterwarnings("ignore::dreamprm.data.DataWarning")
def test_meta_rows_give_the_same_records_back(
    tmp_path: Path, pair: tuple[list[Question], list[Trajectory]]
) -> None:
    write_meta(tmp_path / "meta.json", *pair)
    questions, trajectories = read_meta(tmp_path / "meta.json")
    gold = pair[1][0].answer if pair[1][0].outcome else UNKNOWN_ANSWER
    assert questions == [q.model_copy(update={"answer": gold}) for q in pair[0]]
    assert trajectories == [t.model_copy(update={"labels": None}) for t in pair[1]]


def test_a_meta_row_becomes_question_steps_answer_and_outcome(tmp_path: Path) -> None:
    right = "Let us see.\n\n" + join_steps([ONE, TWO], "**B**")
    rows = [meta_row(False, join_steps([ONE], "A")), meta_row(True, right)]
    [question], trajectories = read_meta(save(tmp_path, rows))
    assert (question.text, question.options) == ("How many?", ("7", "8"))
    assert question.answer == "B"
    assert [(t.steps, t.answer, t.outcome, t.sample_index) for t in trajectories] == [
        ((ONE,), "A", False, 0),
        ((f"Let us see.\n\n{ONE}", TWO), "B", True, 1),
    ]


def test_a_paragraph_of_the_question_is_no_response(tmp_path: Path) -> None:
    rows = [meta_row(True, "", input="Question: A train leaves.\n\nWhen does it arrive?")]
    with pytest.raises(DataError, match="1 of 1 rows without a response.*all 1 of 1 true"):
        read_meta(save(tmp_path, rows))


@pytest.mark.filterwarnings("ignore:.*contradiction")
def test_meta_rows_without_a_response_are_refused_or_dropped(tmp_path: Path) -> None:
    rows = [meta_row(True, join_steps([ONE], "B")), meta_row(False, ""), meta_row(True, "")]
    path = save(tmp_path, rows)
    with pytest.raises(DataError, match=r"row 2.*: 2 of 3 rows .* 1 of 1 false rows, 1 of 2"):
        read_meta(path)
    with pytest.warns(DataWarning, match="all 1 trajectories have the outcome true"):
        _, trajectories = read_meta(path, without_response="drop")
    assert len(trajectories) == 1


def test_an_outcome_that_is_no_bool_is_named(tmp_path: Path) -> None:
    rows = [meta_row(True, join_steps([ONE], "B")), meta_row("yes", join_steps([ONE], "B"))]
    with pytest.raises(DataError, match="row 2, field 'true_false'"):
        read_meta(save(tmp_path, rows))


def test_the_same_text_with_both_labels_is_a_warning(tmp_path: Path) -> None:
    response = join_steps([ONE], "B")
    path = save(tmp_path, [meta_row(True, response), meta_row(False, response)])
    with pytest.warns(
        DataWarning, match=r"both labels \(and the same image\): row 1 \(id 7\) true"
    ):
        read_meta(path)


def test_the_kind_of_json_is_seen_from_its_fields(tmp_path: Path) -> None:
    train = save(tmp_path, [train_row(1, ONE, 1, 4)], "a.json")
    rows = [meta_row(True, join_steps([ONE], "B")), meta_row(False, join_steps([TWO], "A"))]
    meta = save(tmp_path, rows, "b.json")
    assert read_questions(train)[0].domain == "chartqa"
    assert [t.outcome for t in read_trajectories(meta)] == [True, False]
    with pytest.raises(DataError, match="unknown format"):
        read_pair(save(tmp_path, [{"question": "?"}], "c.json"))
    with pytest.raises(DataError, match="not JSON"):
        (tmp_path / "d.json").write_text('[{"id": 1')
        read_pair(tmp_path / "d.json")


def test_the_released_meta_set_is_refused_for_its_missing_responses(real_data: Path) -> None:
    with warnings.catch_warnings(), pytest.raises(DataError) as caught:
        warnings.simplefilter("ignore")
        read_pair(real_data / "dreamprm" / "meta.json")
    message = str(caught.value)
    assert "371 of 500 rows without a response" in message
    assert "all 251 of 251 false rows" in message
    assert "tell the classes apart by the absence of steps" in message


def test_the_released_meta_set_without_them_is_129_right_responses(real_data: Path) -> None:
    with pytest.warns(DataWarning) as told:
        questions, trajectories = read_pair(
            real_data / "dreamprm" / "meta.json", allow_without_response="drop"
        )
    assert len(trajectories) == 129
    assert all(trajectory.outcome for trajectory in trajectories)
    assert sum(len(trajectory.steps) == 5 for trajectory in trajectories) == 128
    unknown = [question.id for question in questions if question.answer == UNKNOWN_ANSWER]
    assert unknown == ["489"]  # "right" by saying that none of the options can be determined
    messages = " ".join(str(warning.message) for warning in told)
    assert "(id 246) false, row 432 (id 271) true, row 453 (id 324) true" in messages
    assert "cannot be fitted on one class" in messages


@pytest.mark.filterwarnings("ignore::dreamprm.data.DataWarning")
def test_bad_rows_can_be_passed_over(tmp_path: Path) -> None:
    told: list[DataError] = []
    good = meta_row(True, join_steps([ONE], "B"))
    rows = [good, good | {"input": 5}, meta_row(True, ""), good | {"image_path": 3}]
    _, trajectories = read_meta(save(tmp_path, rows), bad_row=told.append)
    assert (len(trajectories), sorted(error.row or 0 for error in told)) == (1, [2, 3, 4])
    told.clear()
    rows = [
        train_row(1, ONE, 1, 4),
        train_row(2, ONE, 1, 4) | {"score": float("inf")},
        train_row(3, "", 1, 4),
    ]
    _, trajectories = read_train(save(tmp_path, rows), bad_row=told.append)
    assert (len(trajectories), [error.row for error in told]) == (1, [2, 3])


def keeping(read: Any, path: Path, **settings: Any) -> Any:
    return read(path, without_response="keep", **settings)
