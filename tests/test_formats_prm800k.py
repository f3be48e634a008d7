"""PRM800K: the chosen path and what branches off it, ratings, what survives, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dreamprm.answers import verify_answer
from dreamprm.records import UNKNOWN_ANSWER, Trajectory
from tests.format_rows import RIGHT, WRONG, check_refused, load, reader, save

read_prm800k = reader("prm800k")


def said(text: str, rating: int | None, **more: Any) -> dict[str, Any]:
    return {"text": text, "rating": rating, "flagged": False, **more}


def step(*completions: Any, human: Any = None, chosen: int | None = None) -> dict[str, Any]:
    return {
        "completions": list(completions),
        "human_completion": human,
        "chosen_completion": chosen,
    }


def row(*steps: Any, reason: str | None = "solution", gold: str | None = "14") -> dict[str, Any]:
    return {
        "labeler": "someone",
        "timestamp": "2022-07-30T23:23:32.118856",
        "generation": None,
        "question": {"problem": "2 + 3 * 4? ", "ground_truth_answer": gold, "level": 1},
        "label": {"steps": list(steps), "total_time": 9, "finish_reason": reason},
    }


OWN = {**said("3 * 4 = 12.", None), "source": "human"}
ROW = row(
    step(said("Think. ", 0), said("Add.", -1), chosen=0),
    step(said("3 * 4 = 7.", -1), said("3 * 4 = 11.", -1), human=OWN),
    step(said("So 15.", -1), said("So 14.\n\n# Answer\n\n14", 1), chosen=1),
)
ERROR = row(
    step(said("Multiply.", 1, flagged=None), chosen=0),
    step(said("So 20.", -1), said("So 12.", 1), said("So 2.", None)),
    reason="found_error",
)


def read_rows(folder: Path, *rows: Any) -> list[Trajectory]:
    return read_prm800k(save(folder, list(rows)))[1]


def test_the_main_trajectory_follows_the_chosen_completions(tmp_path: Path) -> None:
    (question,), (main, *_) = read_prm800k(save(tmp_path, [ROW]))
    assert main.steps == ("Think. ", "3 * 4 = 12.", "So 14.\n\n# Answer\n\n14")
    assert main.labels == (None, None, RIGHT)
    assert (main.answer, main.outcome) == ("14", True)
    assert (question.text, question.answer) == ("2 + 3 * 4? ", "14")


def test_every_other_completion_is_a_trajectory_that_leaves_the_main_one(tmp_path: Path) -> None:
    _, *others = read_rows(tmp_path, ROW)
    assert [(one.steps, one.labels) for one in others] == [
        (("Add.",), (WRONG,)),
        (("Think. ", "3 * 4 = 7."), (None, WRONG)),
        (("Think. ", "3 * 4 = 11."), (None, WRONG)),
        (("Think. ", "3 * 4 = 12.", "So 15."), (None, None, WRONG)),
    ]
    assert [one.sample_index for one in others] == [1, 2, 3, 4]
    assert {one.outcome for one in others} == {None}


def test_where_an_error_ends_the_row_all_last_completions_branch_off(tmp_path: Path) -> None:
    trajectories = read_rows(tmp_path, ERROR)
    assert [one.steps for one in trajectories] == [
        ("Multiply.",),
        ("Multiply.", "So 20."),
        ("Multiply.", "So 12."),
        ("Multiply.", "So 2."),
    ]
    assert [one.labels for one in trajectories] == [
        (RIGHT,), (RIGHT, WRONG), (RIGHT, RIGHT), (RIGHT, None),
    ]  # fmt: skip
    assert trajectories[0].outcome is None


def test_a_single_completion_is_followed_though_nobody_chose_it(tmp_path: Path) -> None:
    found = row(step(said("a", 1), chosen=0), step(said("b", -1)), reason="found_error")
    (only,) = read_rows(tmp_path, found)
    assert (only.steps, only.labels) == (("a", "b"), (RIGHT, WRONG))


def test_a_first_step_that_nobody_chose_gives_trajectories_of_one_step(tmp_path: Path) -> None:
    found = read_rows(tmp_path, row(step(said("a", -1), said("b", None))))
    assert [(one.steps, one.labels) for one in found] == [(("a",), (WRONG,)), (("b",), None)]


MANY = [
    ROW,
    ERROR,
    row(step(said("a", 1), said("b", 1, corrected=0), human=OWN, chosen=1), gold=None),
    row(step(said("a", -1), said("b", None)), gold="", reason="bad_problem"),
    row(step(said("a", 1), chosen=0), {**step(), "completions": None}, reason="give_up"),
    row(step(said("a", 1), chosen=0), step(), reason=None),
    row({**step(human=OWN), "completions": None, "note": "x"}, step(said("z", 1))),
]


def test_an_unknown_gold_answer_is_said_to_be_unknown(tmp_path: Path) -> None:
    questions, _ = read_prm800k(save(tmp_path, MANY))
    assert [question.answer for question in questions] == ["14", UNKNOWN_ANSWER]


def test_published_rows_hold_as_many_trajectories_as_ways(real_data: Path) -> None:
    source = real_data / "prm_formats" / "prm800k.jsonl"
    questions, trajectories = read_prm800k(source)
    ratings = [
        completion["rating"]
        for found in load(source)
        for one in found["label"]["steps"]
        for completion in one["completions"] or []
    ]
    asked = [found["question"]["problem"] for found in load(source)]
    by_id = {question.id: question.text for question in questions}
    mains = [
        next(one for one in trajectories if by_id[one.question_id] == problem) for problem in asked
    ]
    # Every rating labels the last step of a branch or a step of the main trajectory.
    told = [label for one in mains for label in one.labels or ()]
    told += [one.labels[-1] for one in trajectories if one not in mains and one.labels]
    assert (len(mains), len(trajectories)) == (6, 37)
    assert (told.count(RIGHT), told.count(WRONG)) == (ratings.count(1), ratings.count(-1))


def test_a_published_solution_does_state_the_gold_answer(real_data: Path) -> None:
    questions, trajectories = read_prm800k(real_data / "prm_formats" / "prm800k.jsonl")
    gold = {question.id: question.answer for question in questions}
    solved = [one for one in trajectories if one.outcome]
    known = [one for one in solved if gold[one.question_id] != UNKNOWN_ANSWER]
    assert (len(solved), len(known)) == (4, 3)
    assert all(verify_answer(one.answer, gold[one.question_id]) for one in known)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (row(), "field 'label.steps': holds no completion"),
        (row(step()), "field 'label.steps': holds no completion"),
        (row(step(said("a", 2), chosen=0)), "step 1, completion 0: rating must be -1, 0, 1 or"),
        (row(step(said("a", 1), chosen=1)), "step 1 chooses completion 1, which it does not have"),
        (row(step(said("a", 1), chosen=-1)), "step 1 chooses completion -1"),
        (row(step({"text": "a"}, chosen=0)), "rating must be .*, not 'missing'"),
        (row(step("a", chosen=0)), "step 1, completion 0 must be an object with a text"),
        (row(step(human="a")), "step 1, completion human must be an object with a text"),
        (row({"completions": []}), "step 1 must be an object with completions, human_"),
        (row({**step(), "completions": 1}), "step 1: completions must be a list"),
        (row(step(said("a", 1), said("b", 1)), step()), "step 1 chooses none .* yet step 2 goes"),
        ({**ROW, "question": None}, "field 'question': is missing or no object"),
        ({**ROW, "question": {"problem": "a"}}, "field 'question': has no ground_truth_answer"),
        ({**ROW, "label": {}}, "field 'label.steps': must be a list"),
        ({key: ROW[key] for key in ("question", "labeler")}, "field 'label': is missing"),
    ],
)
def test_a_broken_row_is_refused_and_can_be_passed_over(
    tmp_path: Path, broken: Any, message: str
) -> None:
    check_refused("prm800k", tmp_path, ERROR, broken, message)
