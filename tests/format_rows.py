"""Sample rows of every format, and ways to damage them."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from dreamprm.data.format import Format
from dreamprm.records import Label, Question, Trajectory

RIGHT, WRONG = Label(1.0), Label(0.0)
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
}


def sample_records(name: str) -> tuple[list[Question], list[Trajectory]]:
    """Records that the format of this name can hold."""
    text_only = name in {"math_shepherd", "prm800k", "processbench", "prmbench"}
    text_only = text_only or name.startswith("math_aps")
    extra: dict[str, JsonValue]
    extra = {"math_aps": {"mc_value": 0.5}} if name.startswith("math_aps") else {}
    questions = [
        Question(
            id=str(number),
            domain="d",
            text=f"What is {number} + 4?",
            images=() if text_only else ("images/a.png",),
            options=("7", "8") if number else (),
            answer="B" if number else "4",
            extra=extra,
        )
        for number in range(2)
    ]
    trajectories = []
    for number in range(6):
        hard = name not in {"dreamprm_train", "visualprm_raw", "trl_stepwise"}
        last = WRONG if number % 3 == 0 else RIGHT if hard else Label.of(3, 8)
        pair: JsonValue
        pair = {"row": number // 2, "process": ("modified", "original")[number % 2]}
        is_original = name == "prmbench" and number % 2 == 1
        trajectories.append(
            Trajectory(
                question_id=str(number // 2 % 2) if name == "prmbench" else str(number % 2),
                steps=(f"Step 1: {number} is read", "Step 2: they are added"),
                answer="B" if number % 2 else "4",
                outcome=number % 3 == 0,
                labels=(RIGHT, RIGHT if is_original else last),
                sample_index=number,
                extra={"prmbench": pair} if name == "prmbench" else {},
            )
        )
    return questions, trajectories


def sample_rows(known: Format, folder: Path) -> list[dict[str, Any]]:
    """Good rows of a format."""
    if known.name in _GIVEN:
        return [dict(row) for row in _GIVEN[known.name]]
    assert known.write is not None
    path = folder / ("sample.json" if known.name in LISTS else "sample.jsonl")
    known.write(path, *sample_records(known.name))
    text = path.read_text()
    return json.loads(text) if known.name in LISTS else [*map(json.loads, text.splitlines())]


def write_rows(known: Format, folder: Path, rows: list[Any], name: str = "rows") -> Path:
    """A file of these rows. NaN and half characters are written, as careless programs do."""
    path = folder / f"{name}{'.json' if known.name in LISTS else '.jsonl'}"
    if known.name in LISTS:
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


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
