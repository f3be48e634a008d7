"""Real questions and images of every kind pass through all verbs; experiments/real_input.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from dreamprm.data import read_questions
from dreamprm.errors import DataError
from dreamprm.records import Question, Trajectory
from experiments.real_input import run, split

torch.set_num_threads(1)

SMALL: dict[str, Any] = {"meta_subjects": 1, "max_steps": 3}
ODD = [
    *(("1", (1, 1), "png"), ("L", (1, 300), "png"), ("LA", (3, 3), "png")),
    *(("P", (40, 30), "png"), ("RGBA", (2000, 4), "png"), ("I;16", (30, 31), "png")),
    *(("CMYK", (50, 60), "jpg"), ("RGB", (3, 900), "jpg"), ("L", (1200, 1100), "jpg")),
    *(("P", (17, 5), "gif"), ("RGB", (4001, 1), "webp"), ("RGBA", (1, 201), "webp")),
    *(("CMYK", (9, 8), "tiff"), ("I", (28, 28), "tiff"), ("F", (28, 27), "tiff")),
    ("LAB", (5, 6), "tiff"),
]
"""Mode, (width, height) and file type."""


def check_whole(out: Path, found: dict[str, Any], count: int, candidates: int) -> None:
    """Everything went through, and the page says what it is worth."""
    assert found["questions"] == found["images"] == found["chosen"] == count
    assert found["candidates"] == found["scored"] == count * candidates
    assert found["labels"] == found["steps"] >= found["candidates"]
    assert found["train_questions"] + found["meta_questions"] == count
    assert found["weights_learned"]
    assert set(found["accuracy"]["mathvision"]) >= {"first_sample", "self_consistency", "dreamprm"}
    page = (out / "report.html").read_text()
    assert "The policy is the toy model that comes with dreamprm." in page
    assert "real input passes through every verb" in page


def row(number: int, image: str, answer: str, subjects: int, more: str = "") -> dict[str, Any]:
    """A question in MATH-Vision's layout."""
    asked = {"id": str(number), "question": f"How many do you see?\n<image1>{more}", "options": []}
    return asked | {"answer": answer, "subject": f"subject {number % subjects}", "image": image}


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "q.jsonl"


def test_a_dozen_real_questions_pass_through_every_verb(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "mathvision" / "testmini.jsonl"
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    rows = [row | {"image": str(source.parent / row["image"])} for row in rows]
    # Nine with answers that the toy often gives, so that some come out right, and three choices.
    picked = [row for row in rows if row["answer"] in ("1", "4", "5")][:9]
    picked += [row for row in rows if row["options"]][:3]
    file = write(tmp_path, picked)

    found = run(file, tmp_path / "out", candidates=6, max_new_tokens=24, **SMALL)
    check_whole(tmp_path / "out", found, count=12, candidates=6)
    trained = {row["subject"] for row in picked} - set(found["meta_subjects"])
    assert set(found["weights"]) == trained


def test_images_of_every_mode_and_shape_pass_through_every_verb(tmp_path: Path) -> None:
    rows = []
    for number, (mode, size, kind) in enumerate(ODD):
        Image.new(mode, size).save(tmp_path / f"{number}.{kind}")
        answer = "15"[number // 4 % 2]  # what the toy likes to say
        rows.append(row(number, f"{number}.{kind}", answer, 4, "\nLook well." * 3 * number))
    file = write(tmp_path, rows)
    found = run(file, tmp_path / "out", candidates=3, max_new_tokens=16, **SMALL)
    check_whole(tmp_path / "out", found, count=len(ODD), candidates=3)


def question(name: str, subject: str) -> Question:
    return Question(id=name, domain="d", text="?", answer="1", subject=subject)


def candidates(name: str, *outcomes: bool) -> list[Trajectory]:
    return [
        Trajectory(question_id=name, steps=("so",), outcome=outcome, sample_index=i)
        for i, outcome in enumerate(outcomes)
    ]


def test_the_meta_set_is_chosen_where_both_outcomes_occur() -> None:
    questions = [question("a", "never"), question("b", "always"), question("c", "sometimes")]
    found = candidates("a", False, False) + candidates("b", True, True)
    found += candidates("c", True, False)
    train, meta = split(questions, found, 1)
    assert [q.id for q in meta] == ["c"]
    assert [(q.id, q.domain) for q in train] == [("a", "never"), ("b", "always")]
    _, meta = split(questions, found, 2)
    assert [q.id for q in meta] == ["c", "b"]
    _, meta = split(questions, found, ["never"])
    assert [q.id for q in meta] == ["a"]
    with pytest.raises(DataError, match="no subject 'alwyas'; there are: never"):
        split(questions, found, ["alwyas"])


def test_without_any_right_candidate_training_is_plain(tmp_path: Path) -> None:
    Image.new("RGB", (30, 30)).save(tmp_path / "0.png")
    file = write(tmp_path, [row(i, "0.png", "-1000", 2) for i in range(4)])
    assert len(read_questions(file)) == 4
    found = run(file, tmp_path / "out", meta_subjects=1, max_steps=2)
    assert not found["weights_learned"]
    assert set(found["weights"].values()) == {1.0}
