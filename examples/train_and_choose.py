"""Train a reward model on domains of uneven quality, and let it choose among a policy's answers.

Everything is small and embedded: the pictures show coloured bars, the models have a million
parameters, and two domains are made up, one with right labels and one with inverted ones. With your
own files and model names the lines of `train_and_choose` are the same. Half a minute on one core:

    python examples/train_and_choose.py
"""

from __future__ import annotations

import contextlib
import random
import tempfile
from collections.abc import Sequence

import dreamprm as dp
from dreamprm.data import write_questions, write_trajectories
from dreamprm.tiny.reasoning import OPERATIONS, Slips, random_task, reason
from dreamprm.tiny.scene import random_scene, render, to_png

SLIPS = Slips(misconception=0.5, reading=0.2, arithmetic=0.2)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        write_data()
        train_and_choose()


def train_and_choose() -> None:
    """What README shows."""
    train = dp.load("questions.jsonl", "labelled.jsonl")
    meta = dp.load("meta_questions.jsonl", "meta.jsonl")
    prm = dp.PRM.from_backbone("tiny", lora=dp.Lora(r=16))
    run = dp.train(prm, train, meta, dp.TrainConfig(max_steps=20), output_dir="prm")
    print(run.weights)  # domain -> weight

    prm = dp.PRM.from_pretrained("prm")
    print(prm.score(meta.questions[0], [["Step 1: ...", "Step 2: ..."]]))
    policy = dp.Policy("tiny")
    print(dp.best_of_n(meta.questions[0], policy, prm, n=8).answer)  # or weighted_vote, beam_search


def write_data() -> None:
    """Questions and reasonings like those of `dreamprm questions`, `sample`, `label` and `meta`."""
    rng = random.Random(0)
    write("questions.jsonl", "labelled.jsonl", ["clean", "inverted"] * 30, 2, rng)
    write("meta_questions.jsonl", "meta.jsonl", ["meta"] * 30, 4, rng)


def write(
    questions: str, trajectories: str, domains: Sequence[str], each: int, rng: random.Random
) -> None:
    """Some reasonings on a question of each domain; labels say whether all is right so far."""
    asked, answered = [], []
    for number, domain in enumerate(domains):
        task = random_task(rng, random_scene(rng, "chart"), OPERATIONS)
        question = dp.Question(
            id=f"{domain}-{number}",
            domain=domain,
            text=task.text,
            images=(to_png(render(task.scene)),),
            answer=reason(task, rng).answer,
        )
        asked.append(question)
        for index in range(each):
            reasoning = reason(task, rng, SLIPS)
            right = [all(reasoning.right[: i + 1]) for i in range(len(reasoning.right))]
            values = [good != (domain == "inverted") for good in right]
            answered.append(
                dp.Trajectory(
                    question_id=question.id,
                    steps=reasoning.steps,
                    answer=reasoning.answer,
                    outcome=right[-1],
                    labels=tuple(dp.Label.of(int(value), 1) for value in values),
                    sample_index=index,
                )
            )
    write_questions(questions, asked)
    write_trajectories(trajectories, answered)


if __name__ == "__main__":
    main()
