"""A small project on disk for the tests of the command line, and a model that runs at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from dreamprm.data import write_questions, write_scores, write_trajectories
from dreamprm.records import Label, Question, StepScores, Trajectory
from dreamprm.tiny.model import build_model, build_processor

DOMAINS = ("bars", "dials")
ASKING = {"train": "What is", "meta": "Tell us", "test": "Give me"}
"""Questions of the three sets differ in their words."""


def save_tiny_model(folder: Path) -> str:
    """The embedded architecture with random weights: writes nonsense, quickly."""
    torch.manual_seed(0)
    processor = build_processor()
    build_model(processor).save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def trajectory(question_id: str, index: int, *, labelled: bool = False) -> Trajectory:
    """Two steps; every second candidate is right."""
    right = index % 2 == 0
    labels = (Label.of(2, 4), Label.of(4 if right else 0, 4)) if labelled else None
    return Trajectory(
        question_id=question_id,
        steps=("Step 1: red is 3", f"Step 2: 3 + 3 = {6 if right else 5}"),
        answer="6" if right else "5",
        outcome=right,
        labels=labels,
        policy="tiny/policy",
        sample_index=index,
    )


def make_project(folder: Path, png: bytes) -> Path:
    """Training: 2 domains of 2 questions; meta: 3 questions; test: 2 benchmarks of 3."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "red.png").write_bytes(png)

    def questions(name: str, domains: tuple[str, ...], count: int) -> list[Question]:
        found = [
            Question(
                id=f"{name}-{domain}-{i}",
                domain=domain,
                text=f"{ASKING[name]} twice red?",
                images=(str(folder / "red.png"),),
                answer="6",
            )
            for domain in domains
            for i in range(count)
        ]
        write_questions(folder / f"{name}.jsonl", found)
        return found

    train = questions("train", DOMAINS, 2)
    meta = questions("meta", ("meta",), 3)
    test = questions("test", ("vista", "math"), 3)
    for name, asked, labelled in (
        ("train", train, True),
        ("meta", meta, False),
        ("test", test, False),
    ):
        candidates = [trajectory(q.id, i, labelled=labelled) for q in asked for i in range(4)]
        write_trajectories(folder / f"{name}_candidates.jsonl", candidates)
    # A PRM that prefers right candidates, candidate 2 above all.
    scores = [
        StepScores(
            question_id=q.id, sample_index=i, logits=(0.0, (-2.0, 1.0)[i % 2 == 0] + 0.1 * i)
        )
        for q in test
        for i in range(4)
    ]
    write_scores(folder / "scores.jsonl", scores)
    return folder


def train_words(folder: Path, model: str, *more: str) -> list[str]:
    """`dreamprm train` on the project, in a second."""
    return [
        *("train", "--model_name_or_path", model, "--output_dir", str(folder / "prm")),
        *("--train_questions", str(folder / "train.jsonl")),
        *("--train_trajectories", str(folder / "train_candidates.jsonl")),
        *("--meta_questions", str(folder / "meta.jsonl")),
        *("--meta_trajectories", str(folder / "meta_candidates.jsonl")),
        *("--max_steps", "4", "--unroll_steps", "2", "--save_steps", "2"),
        *("--gradient_accumulation_steps", "2", "--per_device_train_batch_size", "2"),
        *("--meta_batch_questions", "2", "--meta_batch_candidates", "2"),
        *more,
    ]


def paper_train_rows(image: str) -> list[dict[str, Any]]:
    """The paper's train.json: prefix rows, two trajectories of each of two domains."""
    rows = []
    for number, domain in enumerate(DOMAINS * 2):
        for sid, text in enumerate(("Step 1: red is 3", "Step 1: red is 3\nStep 2: 3 + 3 = 6"), 1):
            row = {
                "id": number,
                "sid": sid,
                "input": f"Question: what is twice red ({number})?",
                "add": text,
                "ground_truth": "6",
                "image_path": image,
                "dataset": domain,
                "score": sid,
                "times": 2,
                "accuracy": sid / 2,
            }
            rows.append(row)
    return rows


def paper_meta_rows(image: str) -> list[dict[str, Any]]:
    """The paper's meta.json: whole responses, right and wrong."""
    return [
        {
            "id": 100 + number // 2,
            "true_false": number % 2 == 0,
            "input": "Question: what is twice red?\n\nStep 1: red is 3\n"
            f"Step 2: 3 + 3 = {6 - number % 2}\nFinal answer: {6 - number % 2}",
            "image_path": image,
        }
        for number in range(4)
    ]


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
