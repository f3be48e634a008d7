"""The embedded world: what is planted is planted, what is benchmark is clean, all from a seed."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamprm.data import read_questions
from dreamprm.images import load_image
from dreamprm.records import Question, Trajectory
from dreamprm.tiny.reasoning import (
    FAULTLESS,
    OPERATIONS,
    Slips,
    Task,
    misconceived_answer,
    random_task,
    reason,
    right_answer,
    wrong_rule_answer,
)
from dreamprm.tiny.scene import FAMILIES, SIZE, Scene, random_scene, render
from dreamprm.tiny.world import (
    BENCHMARKS,
    DOMAINS,
    HARD_DOMAINS,
    PLANTED,
    WorldSize,
    all_clean,
    build_world,
    in_other_words,
    write_world,
)

SMALL = WorldSize(per_domain=6, meta=30, per_benchmark=6)
SCENE = Scene("chart", ("red", "orange", "blue", "black"), (3, 5, 9, 2))


@pytest.mark.parametrize(
    ("operation", "colours", "right", "misconceived"),
    [
        ("sum", ("red", "black"), "5", "5"),
        ("sum", ("orange", "black"), "7", "5"),  # orange is taken for red
        ("difference", ("blue", "red"), "6", "4"),  # 9 is read as 7
        ("twice", ("red", "black"), "8", "7"),  # twice 3 as 3 + 2
        ("total", ("red", "orange", "black"), "10", "8"),
        ("larger", ("orange", "red"), "orange", "orange"),
    ],
)
def test_answers_and_misconceptions_are_those_worked_out_by_hand(
    operation: str, colours: tuple[str, ...], right: str, misconceived: str
) -> None:
    task = Task(SCENE, operation, colours)
    assert right_answer(task) == right
    assert misconceived_answer(task) == misconceived


@given(st.integers(0, 10_000))
def test_a_faultless_writer_is_right_at_every_step(seed: int) -> None:
    rng = random.Random(seed)
    task = random_task(rng, random_scene(rng, rng.choice(FAMILIES)), OPERATIONS)
    reasoning = reason(task, rng, FAULTLESS)
    assert all(reasoning.right)
    assert reasoning.answer == right_answer(task)


@given(st.integers(0, 10_000))
def test_a_wrong_answer_has_a_wrong_step(seed: int) -> None:
    rng = random.Random(seed)
    task = random_task(rng, random_scene(rng, rng.choice(FAMILIES)), OPERATIONS)
    reasoning = reason(task, rng, Slips(0.5, 0.3, 0.3))
    if all(reasoning.right):
        assert reasoning.answer == right_answer(task)


def test_a_picture_shows_its_values() -> None:
    pictures = {
        render(Scene(family, SCENE.colours, (value, 1, 1, 1))).tobytes()
        for family in FAMILIES
        for value in range(1, 10)
    }
    assert len(pictures) == 36
    assert render(SCENE).size == (SIZE, SIZE)


def test_the_world_has_the_promised_shape() -> None:
    world = build_world(0, SMALL)
    assert len(DOMAINS) == 15
    assert {d.family for d in DOMAINS} == set(FAMILIES)
    assert {d.quality for d in (*DOMAINS, *HARD_DOMAINS)} == PLANTED.keys()
    assert Counter(q.domain for q in world.train) == {d.name: 6 for d in DOMAINS}
    assert len({q.subject for q in world.meta}) == 30
    assert Counter(q.domain for q in world.test) == {b.name: 6 for b in BENCHMARKS}
    everything = [*world.train, *world.meta, *world.test]
    assert len({q.id for q in everything}) == len(everything)


def test_the_same_seed_gives_the_same_world_and_another_seed_another() -> None:
    assert build_world(3, SMALL) == build_world(3, SMALL)
    assert build_world(3, SMALL).test != build_world(4, SMALL).test


def test_the_standard_world_is_the_one_that_figures_were_made_with() -> None:
    world = build_world(1, WorldSize(per_domain=4, meta=10, per_benchmark=4))
    rows = [(q.id, q.text, q.answer) for q in (*world.train, *world.meta, *world.test)]
    assert hashlib.sha256(repr(rows).encode()).hexdigest().startswith("9a63b2852f59017a")


def hard_world() -> dict[str, list[Question]]:
    by_domain: dict[str, list[Question]] = {}
    for question in build_world(1, WorldSize(10, 1, 1), HARD_DOMAINS).train:
        by_domain.setdefault(question.domain, []).append(question)
    return by_domain


def test_the_hard_variant_has_a_large_domain_and_copies() -> None:
    world = hard_world()
    assert {name: len(qs) for name, qs in world.items() if len(qs) != 10} == {"archives": 200}
    lessons, reprints, revisions = (
        [(q.text, q.answer, q.images) for q in world[name]]
        for name in ("lessons", "reprints", "revisions")
    )
    assert reprints == lessons
    assert [row[:2] for row in revisions] == [row[:2] for row in lessons]
    assert all(a[2] != b[2] for a, b in zip(revisions, lessons, strict=True))


@pytest.mark.parametrize(
    ("operation", "colours", "answer"),
    [
        ("twice", ("red", "black"), "7"),  # twice 3 as 3 + 2
        ("larger", ("orange", "red"), "red"),
        ("difference", ("blue", "red"), "12"),
    ],
)
def test_wrong_rules_give_the_answers_worked_out_by_hand(
    operation: str, colours: tuple[str, ...], answer: str
) -> None:
    assert wrong_rule_answer(Task(SCENE, operation, colours)) == answer


def test_other_words_say_the_same_with_no_number_and_the_result_first() -> None:
    steps = ("Step 1: look at red and blue", "Step 2: red is 3", "Step 3: 3 + 9 = 12")
    reworded = in_other_words(Trajectory(question_id="q", steps=steps, answer="12"))
    assert reworded.steps == ("red and blue", "3 is red", "12 = 3 + 9")


def by_quality(quality: str) -> list[Question]:
    names = {d.name for d in DOMAINS if d.quality == quality}
    world = build_world(1, WorldSize(per_domain=20, meta=1, per_benchmark=1))
    return [q for q in world.train if q.domain in names]


def test_planted_qualities_are_in_the_data() -> None:
    clean = {(q.text, q.images): q.answer for q in by_quality("clean")}
    assert len(clean) > 50
    assert all(not q.images for q in by_quality("off_distribution"))
    assert all(" is " in q.text for q in by_quality("image_not_needed"))
    assert all(q.text.startswith("which is larger") for q in by_quality("trivial"))
    for quality in ("wrong_gold", "misread_gold", "wrong_image"):
        assert by_quality(quality)


def test_the_control_plants_nothing() -> None:
    assert {d.planted for d in all_clean()} == {1.0}
    assert [d.name for d in all_clean()] == [d.name for d in DOMAINS]
    assert build_world(0, SMALL, all_clean()).completions == {}


def test_a_written_world_reads_back_with_its_pictures(tmp_path: Path) -> None:
    world = build_world(0, SMALL)
    write_world(world, tmp_path)
    found = read_questions(tmp_path / "test.jsonl")
    assert [q.id for q in found] == [q.id for q in world.test]
    for before, after in zip(world.test, found, strict=True):
        assert load_image(before.images[0]).tobytes() == load_image(after.images[0]).tobytes()
