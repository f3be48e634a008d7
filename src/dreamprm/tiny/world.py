"""The embedded world: fifteen training domains of planted quality, a meta set, five benchmarks.

What is planted is the data, never the labels: a domain with wrong gold answers gets its Monte Carlo
labels from the same rollouts and the same verification as every other domain, and they come out
misleading because its gold answers are.

There are two variants of the training domains; meta set and benchmarks are the same. In the
standard one (`DOMAINS`) what is harmful is also hard to fit, so that a loss tells much. In the hard
one (`HARD_DOMAINS`) it is the other way round: the most useful domains ask what leads astray and
have noisy labels, and the harmful ones follow one wrong rule throughout, on kinds of questions that
few other domains ask.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dreamprm.data import write_questions
from dreamprm.records import Question, Trajectory
from dreamprm.tiny.reasoning import (
    ARITHMETIC,
    LOOKS_LIKE,
    OPERATIONS,
    Task,
    misconceived_answer,
    random_task,
    right_answer,
    wrong_rule_answer,
)
from dreamprm.tiny.scene import COLOURS, FAMILIES, Scene, random_scene, render, to_png

Quality = Literal[
    "clean",
    "few_rollouts",
    "image_not_needed",
    "trivial",
    "off_distribution",
    "wrong_image",
    "wrong_gold",
    "misread_gold",
    "demanding",
    "copied",
    "rearranged",
    "other_words",
    "wrong_doubling",
    "wrong_comparison",
    "wrong_distance",
]
_WRONG_RULES = ("wrong_doubling", "wrong_comparison", "wrong_distance")
_STATED = ("image_not_needed", "copied", "rearranged")
PLANTED: dict[Quality, float] = {
    "clean": 1.0,  # demanding questions, right answers
    "few_rollouts": 0.8,  # clean, but labels from one completion per prefix
    "image_not_needed": 0.5,  # the text states the values
    "off_distribution": 0.4,  # plain arithmetic without a picture
    "trivial": 0.4,  # the policy is nearly always right
    "wrong_image": 0.1,  # pictures and questions were mixed up
    "wrong_gold": 0.1,  # gold answers are wrong at random
    "misread_gold": 0.0,  # the annotators shared the policy's misconceptions
    # Of the hard variant.
    "demanding": 1.0,  # only questions that lead the policy astray; one completion per prefix
    "copied": 1 / 6,  # the text states the values; one of three domains with the same questions
    "rearranged": 1 / 6,  # the same with the pictures' parts in another order
    "other_words": 0.5,  # clean, but the steps are worded unlike those of the benchmarks
    "wrong_doubling": 0.0,  # gold answers take "twice x" for x + 2
    "wrong_comparison": 0.0,  # gold answers name the smaller one
    "wrong_distance": 0.0,  # gold answers add instead of subtracting
}
"""Planted quality, from 1 (clean and demanding) to 0 (harmful); fixed before any training."""


@dataclass(frozen=True)
class Domain:
    """A training domain and what is planted in it.

    Attributes:
        times: how many times as many questions as other domains it has.
        questions_of: the domain whose questions it takes; its own where empty.
    """

    name: str
    family: str
    quality: Quality
    operations: tuple[str, ...] = OPERATIONS
    times: int = 1
    questions_of: str = ""

    @property
    def planted(self) -> float:
        return PLANTED[self.quality]


DOMAINS = (
    Domain("specimens", "science", "clean"),
    Domain("minerals", "science", "few_rollouts"),
    Domain("organisms", "science", "misread_gold"),
    Domain("reactions", "science", "wrong_gold"),
    Domain("columns", "chart", "clean"),
    Domain("surveys", "chart", "misread_gold"),
    Domain("ledgers", "chart", "image_not_needed"),
    Domain("trends", "chart", "wrong_image"),
    Domain("triangles", "geometry", "clean"),
    Domain("solids", "geometry", "clean"),
    Domain("areas", "geometry", "few_rollouts"),
    Domain("proofs", "geometry", "off_distribution", (ARITHMETIC,)),
    Domain("dials", "commonsense", "clean"),
    Domain("gauges", "commonsense", "misread_gold"),
    Domain("signs", "commonsense", "trivial"),
)
_SUMS = ("sum", "total")
HARD_DOMAINS = (
    Domain("archives", "chart", "demanding", times=20),
    Domain("tissues", "science", "demanding"),
    Domain("polygons", "geometry", "demanding"),
    Domain("meters", "commonsense", "demanding"),
    Domain("lessons", "geometry", "copied", _SUMS),
    Domain("reprints", "geometry", "copied", _SUMS, questions_of="lessons"),
    Domain("revisions", "geometry", "rearranged", _SUMS, questions_of="lessons"),
    Domain("forums", "commonsense", "other_words", _SUMS),
    Domain("captions", "chart", "image_not_needed", _SUMS),
    Domain("sheets", "geometry", "off_distribution", (ARITHMETIC,)),
    Domain("manuals", "science", "wrong_doubling", ("twice",)),
    Domain("workbooks", "geometry", "wrong_doubling", ("twice",)),
    Domain("rankings", "chart", "wrong_comparison", ("larger",)),
    Domain("podiums", "commonsense", "wrong_comparison", ("larger",)),
    Domain("distances", "science", "wrong_distance", ("difference",)),
)


@dataclass(frozen=True)
class Benchmark:
    """A test set: which pictures and which questions, always with right answers."""

    name: str
    families: tuple[str, ...]
    operations: tuple[str, ...]
    look_alikes: bool = False


BENCHMARKS = (
    Benchmark("wealgebra", ("geometry", "chart"), ("twice", "total")),
    Benchmark("allvista", FAMILIES, OPERATIONS),
    Benchmark("deepvision", ("science", "commonsense"), ("total", "difference")),
    Benchmark("vetting", FAMILIES, ("difference", "larger", "sum")),
    Benchmark("starcolour", FAMILIES, OPERATIONS, look_alikes=True),
)
META_DOMAIN = "meta"


@dataclass(frozen=True)
class WorldSize:
    """How many questions: per training domain, in the meta set, per benchmark."""

    per_domain: int = 40
    meta: int = 240
    per_benchmark: int = 100


@dataclass(frozen=True)
class World:
    """Questions of one seed.

    Attributes:
        test: of all benchmarks; the name of a question's benchmark is its domain.
        completions: rollouts per prefix of the domains that have fewer or more than the rest.
    """

    train: list[Question]
    meta: list[Question]
    test: list[Question]
    completions: dict[str, int]


def build_world(
    seed: int, size: WorldSize | None = None, domains: Sequence[Domain] = DOMAINS
) -> World:
    """Make all questions of a seed; images are PNG bytes within the records."""
    size = size or WorldSize()
    train = [
        _training_question(
            domain, i, random.Random(f"{seed}/{domain.questions_of or domain.name}/{i}")
        )
        for domain in domains
        for i in range(domain.times * size.per_domain)
    ]
    meta = [_meta_question(i, random.Random(f"{seed}/meta/{i}")) for i in range(size.meta)]
    test = [
        _benchmark_question(b, i, random.Random(f"{seed}/{b.name}/{i}"))
        for b in BENCHMARKS
        for i in range(size.per_benchmark)
    ]
    completions = {d.name: 1 for d in domains if d.quality in ("few_rollouts", "demanding")}
    completions |= {d.name: 8 for d in domains if d.quality in _WRONG_RULES}
    return World(train, meta, test, completions)


def all_clean(domains: Sequence[Domain] = DOMAINS) -> tuple[Domain, ...]:
    """The control: the same domains with nothing planted in them."""
    return tuple(Domain(d.name, d.family, "clean") for d in domains)


VARIANTS = {"standard": DOMAINS, "hard": HARD_DOMAINS, "control": all_clean()}


def write_world(world: World, folder: Path) -> None:
    """Write `train.jsonl`, `meta.jsonl` and `test.jsonl` (the benchmarks), images as PNG files."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    sets = {"train": world.train, "meta": world.meta, "test": world.test}
    for name, questions in sets.items():
        on_disk = []
        for question in questions:
            paths = []
            for i, image in enumerate(question.images):
                path = images / f"{question.id}-{i}.png"
                if isinstance(image, bytes):
                    path.write_bytes(image)
                paths.append(str(path))
            on_disk.append(question.model_copy(update={"images": tuple(paths)}))
        write_questions(folder / f"{name}.jsonl", on_disk)


def in_other_words(trajectory: Trajectory) -> Trajectory:
    """The same reasoning in the wording of the domains of quality `other_words`.

    No step is numbered, and what is found stands before what it is found from: "7 = 3 + 4".
    """
    return trajectory.model_copy(update={"steps": tuple(map(_other_words, trajectory.steps))})


def _other_words(step: str) -> str:
    text = re.sub(r"^Step \d+: ", "", step)
    if text.startswith("look at "):
        return text.removeprefix("look at ")
    for verb in (" = ", " is "):
        if verb in text:
            left, right = text.split(verb, 1)
            return f"{right}{verb}{left}"
    return text


def _training_question(domain: Domain, index: int, rng: random.Random) -> Question:
    task = _task(domain, rng)
    if domain.quality == "rearranged":
        scene = task.scene
        task = replace(task, scene=Scene(scene.family, scene.colours[::-1], scene.values[::-1]))
    shown = task.scene
    answer = right_answer(task)
    if domain.quality in _WRONG_RULES:
        answer = wrong_rule_answer(task)
    elif domain.quality == "misread_gold":
        answer = misconceived_answer(task)
    elif domain.quality == "wrong_gold":
        answer = _another_answer(task, rng)
    elif domain.quality == "wrong_image":
        while right_answer(replace(task, scene=shown)) == answer:
            shown = _same_colours(task.scene, rng)
    return _question(f"{domain.name}-{index}", domain.name, task, shown, answer)


def _task(domain: Domain, rng: random.Random) -> Task:
    operation = rng.choice(domain.operations) if domain.quality == "demanding" else None
    while True:
        scene = random_scene(rng, domain.family)
        if domain.quality == "trivial":
            scene = Scene(scene.family, ("red", "green", "blue", "black"), (1, 6, 2, 5))
            task = Task(
                scene, "larger", (rng.choice(("red", "blue")), rng.choice(("green", "black")))
            )
        else:
            task = random_task(rng, scene, (operation,) if operation else domain.operations)
        if domain.quality in _STATED:
            task = replace(task, stated=True)
        right, astray = right_answer(task), misconceived_answer(task)
        if astray == right and domain.quality in ("misread_gold", "demanding", "wrong_doubling"):
            continue
        if domain.quality == "wrong_doubling" and astray != wrong_rule_answer(task):
            continue  # values are misread besides
        return task


def _same_colours(scene: Scene, rng: random.Random) -> Scene:
    other = random_scene(rng, scene.family)
    return Scene(scene.family, tuple(rng.sample(scene.colours, 4)), other.values)


def _another_answer(task: Task, rng: random.Random) -> str:
    right = right_answer(task)
    if right in COLOURS:
        return task.colours[0] if right != task.colours[0] else task.colours[1]
    return rng.choice([str(n) for n in range(1, 19) if str(n) != right])


def _meta_question(index: int, rng: random.Random) -> Question:
    """Thirty subjects, as MMMU has: what is asked, and of which colour first."""
    colours = sorted(COLOURS)
    operation, first = OPERATIONS[index % 5], colours[index // 5 % 6]
    while True:
        task = random_task(rng, random_scene(rng, rng.choice(FAMILIES)), (operation,))
        if task.colours[0] == first:
            break
    question = _question(f"meta-{index}", META_DOMAIN, task, task.scene, right_answer(task))
    return question.model_copy(update={"subject": f"{operation} {first}"})


def _benchmark_question(benchmark: Benchmark, index: int, rng: random.Random) -> Question:
    while True:
        scene = random_scene(rng, rng.choice(benchmark.families))
        task = random_task(rng, scene, benchmark.operations)
        if not benchmark.look_alikes or any(
            LOOKS_LIKE.get(colour) in scene.colours for colour in task.colours
        ):
            break
    return _question(f"{benchmark.name}-{index}", benchmark.name, task, scene, right_answer(task))


def _question(name: str, domain: str, task: Task, shown: Scene, answer: str) -> Question:
    images = () if task.operation == ARITHMETIC else (to_png(render(shown)),)
    return Question(id=name, domain=domain, text=task.text, images=images, answer=answer)
