"""Labels that take as many completions as they need: sequential stopping, first-error search."""

from __future__ import annotations

import asyncio
import random

import pytest

from dreamprm.policy import Request, RequestRefused
from dreamprm.records import Label, Question, Trajectory
from dreamprm.rollouts.labels import (
    FirstErrorSearch,
    Plan,
    SequentialStopping,
    label_trajectories,
    posterior_deviation,
)
from dreamprm.rollouts.sampler import Sampler, sample_candidates, stored_candidates
from dreamprm.rollouts.store import RolloutStore
from tests.scripted_policy import Scripted

QUESTION = Question(id="q", domain="d", text="t", answer="7")


def label(sampler: Sampler, plan: Plan, *trajectories: Trajectory) -> list[Trajectory]:
    found = asyncio.run(label_trajectories(sampler, {"q": QUESTION}, trajectories, plan))
    assert found[0].stopped is None
    return found[1]


def chain(*steps: str, sample_index: int = 0) -> Trajectory:
    texts = tuple(f"Step {i}: {text}" for i, text in enumerate(steps, start=1))
    return Trajectory(question_id="q", steps=texts, sample_index=sample_index)


def by_step(request: Request, seed: int, index: int) -> str:
    """Always right after "sure", always wrong after "bad", a fair coin after "coin"."""
    last = request.steps[-1]
    right = "sure" in last or ("coin" in last and random.Random(f"{seed} {index}").random() < 0.5)
    return f"Step 9: {seed} {index}\nFinal answer: {7 if right else 0}"


def test_certain_prefixes_get_few_completions_and_open_ones_many(store: RolloutStore) -> None:
    plan = SequentialStopping(precision=0.13, max_completions=32)
    sampler = Sampler(Scripted(by_step), store)
    [sure] = label(sampler, plan, chain("sure"))
    [coin] = label(sampler, plan, chain("coin"))
    assert sure.labels is not None and coin.labels is not None
    assert sure.labels[0] == Label.of(5, 5)
    assert coin.labels[0] is not None and coin.labels[0].total >= 12
    assert posterior_deviation(coin.labels[0]) <= 0.13


def test_sampling_ends_at_the_largest_number(store: RolloutStore) -> None:
    plan = SequentialStopping(precision=0.01, max_completions=6)
    [found] = label(Sampler(Scripted(by_step), store), plan, chain("sure"))
    assert found.labels == (Label.of(6, 6),)


def test_completions_that_take_the_same_step_count_for_both(store: RolloutStore) -> None:
    def say(request: Request, seed: int, index: int) -> str:
        if len(request.steps) == 1:  # half of them go on with the step that the trajectory has
            return f"Step 2: {'b' if index % 2 else 'c'}\nFinal answer: 7"
        return "Final answer: 7"

    policy = Scripted(say)
    plan = SequentialStopping(precision=0.15, max_completions=4)
    [found] = label(Sampler(policy, store), plan, chain("a", "b"))
    assert [(len(steps), n) for _, steps, n in policy.asked] == [(1, 2), (1, 2), (2, 2)]
    assert found.labels == (Label.of(4, 4), Label.of(2 + 2, 2 + 2)), "two came from step 1"
    alone = Scripted(say, name="alone")
    plan = SequentialStopping(precision=0.15, max_completions=4, reuse=False)
    label(Sampler(alone, store), plan, chain("a", "b"))
    assert [(len(steps), n) for _, steps, n in alone.asked] == [(1, 2), (1, 2), (2, 2), (2, 2)]


def candidates_of(policy: Scripted, store: RolloutStore, n: int) -> list[Trajectory]:
    sampler = Sampler(policy, store)
    asyncio.run(sample_candidates(sampler, [QUESTION], n))
    return list(stored_candidates(sampler, [QUESTION], n))


def always_the_same(request: Request, seed: int, index: int) -> str:
    if request.steps:
        return "Final answer: 7"
    return f"Step 1: a\nFinal answer: {7 if index % 4 else 0}"


def test_all_candidates_of_a_question_count_for_its_prefixes(store: RolloutStore) -> None:
    policy = Scripted(always_the_same)
    found = candidates_of(policy, store, 8)
    plan = SequentialStopping(precision=0.3, max_completions=4)
    labelled = label(Sampler(policy, store), plan, *found)
    assert [t.labels for t in labelled] == [(Label.of(6, 8),)] * 8
    assert len(policy.asked) == 1, "the eight candidates say enough"


def test_candidates_picked_by_somebody_do_not_count(store: RolloutStore) -> None:
    policy = Scripted(always_the_same)
    wrong = [t for t in candidates_of(policy, store, 8) if not t.outcome]
    labelled = label(Sampler(policy, store), SequentialStopping(precision=0.3), *wrong)
    assert labelled[0].labels == (Label.of(2, 2),), "only completions of the prefix itself"


def test_a_refused_prefix_stays_without_label(store: RolloutStore) -> None:
    def fail(request: Request) -> None:
        if len(request.steps) == 2:
            raise RequestRefused("too long")

    sampler = Sampler(Scripted(by_step, fail=fail), store)
    [found] = label(sampler, SequentialStopping(), chain("sure", "sure"))
    assert found.labels is not None
    assert found.labels[0] is not None and found.labels[1] is None
    assert len(sampler.refusals) == 1


@pytest.mark.parametrize("first_error", [*range(7), None])
def test_search_finds_the_first_wrong_step(store: RolloutStore, first_error: int | None) -> None:
    steps = ["sure" if first_error is None or i < first_error else "bad" for i in range(7)]
    policy = Scripted(by_step)
    [found] = label(Sampler(policy, store), FirstErrorSearch(4), chain(*steps))
    assert found.extra["first_error"] == first_error
    assert len(policy.asked) <= 3, "log2 of seven steps"
    assert found.labels is not None
    known = {i: label for i, label in enumerate(found.labels) if label is not None}
    assert len(known) == len(policy.asked)
    for i, counts in known.items():
        wrong = first_error is not None and i >= first_error
        assert counts == Label.of(0 if wrong else 4, 4)


def test_the_posterior_is_narrower_with_more_and_with_surer_completions() -> None:
    assert posterior_deviation(Label.of(8, 8)) < posterior_deviation(Label.of(4, 4))
    assert posterior_deviation(Label.of(8, 8)) < posterior_deviation(Label.of(4, 8))
    assert posterior_deviation(Label.of(0, 8)) == posterior_deviation(Label.of(8, 8))
