"""Sample rows of every format, ways to damage them, and what the formats' tests share."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dreamprm.data import known
from dreamprm.data.format import Format
from dreamprm.errors import DataError
from dreamprm.records import Label, Question, Trajectory

Row = dict[str, Any]
Pair = tuple[list[Question], list[Trajectory]]
RIGHT, WRONG = Label(1.0), Label(0.0)


def reader(name: str) -> Callable[..., Pair]:
    """Path and options of `Format.read` -> questions and trajectories."""

    def read(path: str | Path, **options: Any) -> Pair:
        records = known.find(name).read(path, **options)
        return records.questions, records.trajectories

    return read


def save(folder: Path, rows: Sequence[Any], name: str = "rows.json") -> Path:
    """A file of these rows: a JSON list, or JSON lines where the name ends so."""
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / name).write_text(lines if name.endswith(".jsonl") else json.dumps(rows))
    return folder / name


def load(path: Path) -> list[Any]:
    """The rows of a file."""
    text = path.read_text()
    return json.loads(text) if path.suffix == ".json" else [*map(json.loads, text.splitlines())]


def check_refused(name: str, folder: Path, good: Row, broken: Row, message: str) -> None:
    """A broken row between good ones is told with file, row and message, and can be passed over."""
    read = reader(name)
    path = save(folder, [good, broken, good])
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert (caught.value.file, caught.value.row) == (path, 2)
    told: list[DataError] = []
    _, trajectories = read(path, bad_row=told.append)
    assert [error.row for error in told] == [2]
    assert len(trajectories) == 2 * len(read(save(folder, [good]))[1])


LISTS = {"dreamprm_train", "dreamprm_meta", "processbench"}  # written as a JSON list
_GIVEN: dict[str, list[dict[str, Any]]] = {
    "questions": [
        {"id": "q", "domain": "d", "text": "How many?", "options": ["7", "8"], "answer": "B"},
        {"id": "r", "domain": "d", "text": "Why?", "images": ["a.png"], "answer": "8", "extra": {}},
    ],
    "trajectories": [
        {"question_id": "q", "steps": ["a", "b"], "answer": "8", "labels": [[1, 2], None]},
        {"question_id": "q", "steps": ["a"], "outcome": True, "policy": "p", "sample_index": 1},
    ],
    "scores": [{"question_id": "q", "sample_index": 0, "logits": [0.5, -1.0]}],
    "mathvision": [
        {"id": "1", "question": "How many?\n<image1>", "options": [], "answer": "6", "image": "a"},
        {"id": "2", "question": "Which?", "options": ["x", "y"], "answer": "A", "image": "b.jpg"},
    ],
    "mmmu_pro": [
        {
            "id": "test_Art_1",
            "question": "Which <image 1>?",
            "options": "['red', 'blue']",
            "answer": "B",
            "subject": "Art",
            "response": "It is blue.\n\nAnswer: B",
            "if_right": True,
        }
    ],
    "big_bench_mistake": [
        {
            "input": "Who?\nOptions:\n(A) Ann.\n(B) Bo.",
            "steps": ["Ann.", "So the answer is (A)"],
            "target": "(B)",
            "answer": "(A)",
            "mistake_index": 0,
        },
        {"input": "1 + 1 =", "steps": ["2"], "target": "2", "answer": "2", "mistake_index": None},
    ],
    "mr_gsm8k": [
        {
            "uuid": "a-1",
            "question": "1 + 1?",
            "ground_truth_answer": 2,
            "model_output_steps": ["Step 1: 1 + 1 = 3", "Step 2: #### 3"],
            "model_output_answer_correctness": "wrong",
            "model_output_solution_correctness": "wrong",
            "model_output_solution_first_error_step": 1,
            "question_type": "original",
        }
    ],
    "mr_math": [
        {
            "id": 0,
            "question": "1 + 1?",
            "ground_truth_answer": "2",
            "generator": "m",
            "model_output_step_format": [["1. Add.", "1 + 1"], ["2. So 2."]],
            "model_output_answer_correctness": "correct",
            "model_output_solution_correctness": "correct",
            "model_output_solution_first_error_step": "N/A",
        }
    ],
    "mr_ben": [
        {
            "u-1": [
                {
                    "Question_UUID": "u-1",
                    "Subject": "college_math",
                    "Question": "1 + 1?",
                    "Options": "A: 2 \nB: 3 ",
                    "Ground_Truth_Answer": "A",
                    "Ground_Truth_Answer_Modified": "A",
                    "Sampled_Model": "m",
                    "Model_Solution_Steps": ["Step 1: Add:", "1 + 1 = 3", "", "Solution: Choice_B"],
                    "Model_Solution_Correctness": "incorrect",
                    "Model_Solution_First_Error_Step": "1",
                }
            ]
        }
    ],
    "mathcheck": [
        {"task_type": "solving", "question_type": "seed_question", "question": "?", "answer": 1.0},
        {
            "task_type": "process_judging",
            "question_type": "seed_question",
            "id": "3",
            "question": "How large is it?",
            "image": "a.jpg",
            "solution": "Step 1: Look.\nStep 2: It is 7.\n\nThe answer is 7.",
            "answer": "Step 2",
        },
    ],
    "visualprm_raw": [
        {
            "id": 7,
            "image": "a.png",
            "question": "How many?\nOptions: (A) 7 (B) 8",
            "answer": "B",
            "response": "I see 3.\n\nFinal answer: B",
            "steps_with_score": [
                {"step": "I see 3.", "score": 0.4375, "num_mc_correct": 7, "num_mc_total": 16},
                {"step": "Final answer: B", "score": 0.0, "num_mc_correct": 0, "num_mc_total": 0},
            ],
        },
        {"id": -1, "question": "Why?", "steps_with_score": [{"step": "so", "score": 0.3333}]},
    ],
    "visualprocessbench": [
        {
            "image": ["a.png"],
            "question": "How many?",
            "answer": "8",
            "response": {"steps": ["a", "b", "so 8"], "process_correctness": [1, 0, -1]},
            "policy_model": "p",
            "data_source": "MathVision",
        }
    ],
    "math_shepherd": [
        {
            "input": "How many? Step 1: a ки\nStep 2: b ки",
            "label": "How many? Step 1: a +\nStep 2: b -",
            "task": "GSM8K",
        }
    ],
    "prm800k": [
        {
            "question": {"problem": "3 * 4 + 2?", "ground_truth_answer": "14"},
            "label": {
                "steps": [
                    {
                        "completions": [{"text": "12", "rating": 1}, {"text": "7", "rating": -1}],
                        "human_completion": None,
                        "chosen_completion": 0,
                    },
                    {
                        "completions": [{"text": "14\n\n# Answer\n\n14", "rating": 0}],
                        "human_completion": {"text": "so 14", "rating": None},
                        "chosen_completion": None,
                    },
                ],
                "finish_reason": "solution",
            },
        }
    ],
    "math_aps": [
        {
            "question": "Q?",
            "final_answer": "14",
            "reasoning_steps": [
                {"solution_prefix": "Q?", "mc_value": 0.75},
                {"solution_prefix": "Q?\n\na", "mc_value": 0.9375},
                {"solution_prefix": "Q?\n\na\n\nb", "mc_value": 1.0},
                {"solution_prefix": "Q?\n\nc", "mc_value": 0.0},
            ],
        }
    ],
    "math_aps_tree": [
        {
            "question": "Q?",
            "final_answer": None,
            "reasoning_steps": {
                "text": "Q?",
                "mc_value": 0.75,
                "children": [
                    {"text": "a", "mc_value": 1.0, "children": []},
                    {"text": "b", "mc_value": 0.0, "children": []},
                ],
            },
        }
    ],
    "processbench": [
        {
            "id": "gsm8k-1",
            "generator": "p",
            "problem": "How many?",
            "steps": ["a", "b", "c"],
            "final_answer_correct": False,
            "label": 1,
        }
    ],
    "prmbench": [
        {
            "original_question": "How many?",
            "modified_question": "How many?",
            "original_process": ["a", "b"],
            "modified_process": ["a", "c", "d"],
            "error_steps": [2, 3],
            "classification": "circular",
            "idx": "circular_1",
        }
    ],
}


def sample_records(name: str) -> tuple[list[Question], list[Trajectory]]:
    """Records that the written format of this name can hold."""
    questions = [
        Question(
            id=str(number),
            domain="d",
            text=f"What is {number} + 4?",
            images=("images/a.png",),
            options=("7", "8") if number else (),
            answer="B" if number else "4",
        )
        for number in range(2)
    ]
    soft = name in {"dreamprm_train", "trl_stepwise"}
    trajectories = [
        Trajectory(
            question_id=str(number % 2),
            steps=(f"Step 1: {number} is read", "Step 2: they are added"),
            answer="B" if number % 2 else "4",
            outcome=number % 3 == 0,
            labels=(
                Label(1.0),
                Label.of(3, 8) if soft and number % 3 else Label(float(number % 3 > 0)),
            ),
            sample_index=number,
        )
        for number in range(6)
    ]
    return questions, trajectories


def sample_rows(one: Format, folder: Path) -> list[Row]:
    """Good rows of a format."""
    if one.name in _GIVEN:
        return [dict(row) for row in _GIVEN[one.name]]
    path = folder / ("sample.json" if one.name in LISTS else "sample.jsonl")
    one.write(path, *sample_records(one.name))
    return load(path)


def write_rows(one: Format, folder: Path, rows: list[Any], name: str = "rows") -> Path:
    """A file of these rows. NaN and half characters are written, as careless programs do."""
    return save(folder, rows, f"{name}{'.json' if one.name in LISTS else '.jsonl'}")


JUNK: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 10**30, 1e308, -0.5, 0.3, float("nan"), float("inf")),
    *("", " ", "\x00", "\ud800", "\udfff half", "a\u2028b", "\U0001f600", "ки", "(A)", "x" * 3000),
    *("Step 1:", "### Solution Process:", "data:image/png;base64,@@", "http://[", "../" * 60),
    *([], {}, [[]], [None], [{}], {"a": {"b": [1, {"c": None}]}}, [["x", [1, 2]], 3], ["", "a"]),
    *({"path": 3}, {"bytes": "x", "path": "p"}, [True, "x"], "[1, 'x'", "['a', 'b'"),
)


def mutated(row: dict[str, Any], rng: random.Random) -> Any:
    """The row with one to three things wrong in it, at any depth."""
    row = json.loads(json.dumps(row))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        row = _mutate(row, rng)
    return row


def _mutate(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict) and value:
        key = rng.choice(list(value))
        how = rng.random()
        if how < 0.12:
            del value[key]
        elif how < 0.2:
            value[rng.choice(("x", key + " ", key.upper(), "", "\ud834"))] = value.pop(key)
        elif how < 0.25:
            value[rng.choice(list(value))] = copy.deepcopy(value[key])
        elif how < 0.3:
            value[rng.choice(("id", "image", "options", "extra", "label"))] = _junk(rng)
        else:
            value[key] = _mutate(value[key], rng)
        return value
    if isinstance(value, list) and value and rng.random() < 0.8:
        i = rng.randrange(len(value))
        how = rng.random()
        if how < 0.15:
            del value[i]
        elif how < 0.3:
            value.insert(i, copy.deepcopy(value[i]))
        elif how < 0.4:
            rng.shuffle(value)
        else:
            value[i] = _mutate(value[i], rng)
        return value
    if isinstance(value, str) and value and rng.random() < 0.6:
        at = rng.randrange(len(value) + 1)
        piece = rng.choice(
            ("", "", "\n\n", "\ud800", "\x00", "Options: (A) ", "\n", "\u00a0", "ки")
        )
        return value[:at] + piece + (value[at:] if rng.random() < 0.5 else "")
    return _junk(rng)


def _junk(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(JUNK))
