"""A small labelled training set and meta set on pictures, without any policy."""

from __future__ import annotations

import random
from typing import Any

from dreamprm.data import Records
from dreamprm.records import Label, Question, Trajectory
from dreamprm.tiny.reasoning import OPERATIONS, Slips, random_task, reason
from dreamprm.tiny.scene import random_scene, render, to_png
from dreamprm.training.data import TrainData, prepare_data

SLIPS = Slips(misconception=0.5, reading=0.2, arithmetic=0.2)


def small_data(
    domains: tuple[str, ...] = ("clean", "inverted", "noise"), per_domain: int = 8, seed: int = 0
) -> TrainData:
    """Labels: whether all steps so far are right (`clean`), its contrary, or a coin."""
    rng = random.Random(seed)
    questions, trajectories = [], []
    for domain in domains:
        for i in range(per_domain):
            question, t = _one(f"{domain}-{i}", domain, rng)
            questions.append(question)
            labels = []
            for label in t.labels or ():
                right = label.correct if label else 0
                value = {"inverted": 1 - right, "noise": rng.randint(0, 1)}.get(domain, right)
                labels.append(Label.of(value, 1))
            trajectories.append(t.model_copy(update={"labels": tuple(labels)}))
    meta_questions, meta = [], []
    for i in range(32):
        question, first = _one(f"meta-{i}", "meta", rng)
        meta_questions.append(question)
        for index in range(3):
            changes: dict[str, Any] = {"outcome": index == 0, "sample_index": index}
            changes |= {"labels": None, "answer": str(index)}  # else they contradict each other
            if index:  # what is wrong reads otherwise, or no score could tell
                changes["steps"] = (*first.steps, f"that is {index}")
            meta.append(first.model_copy(update=changes))
    return prepare_data(Records(questions, trajectories), Records(meta_questions, meta))


def _one(name: str, domain: str, rng: random.Random) -> tuple[Question, Trajectory]:
    task = random_task(rng, random_scene(rng, "chart"), OPERATIONS)
    reasoning = reason(task, rng, SLIPS)
    question = Question(
        id=name,
        domain=domain,
        text=task.text,
        images=(to_png(render(task.scene)),),
        answer=reasoning.answer,
    )
    so_far = [all(reasoning.right[: i + 1]) for i in range(len(reasoning.right))]
    return question, Trajectory(
        question_id=name,
        steps=reasoning.steps,
        labels=tuple(Label.of(int(right), 1) for right in so_far),
        outcome=so_far[-1],
    )
