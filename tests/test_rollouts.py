"""Candidates and Monte Carlo labels, from a policy that says what the test tells it to."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from dreamprm.errors import DreamPRMError
from dreamprm.policy import Request, RequestRefused
from dreamprm.records import LONGEST_STEP, UNKNOWN_ANSWER, Label, Question, Trajectory
from dreamprm.rollouts.labels import FixedCompletions, Plan, label_trajectories
from dreamprm.rollouts.sampler import Outcome, Rollout, Sampler, to_trajectory
from dreamprm.rollouts.store import RolloutStore
from tests.scripted_policy import Scripted, questions, right_after_good_steps, sample


def label(
    sampler: Sampler, trajectories: Sequence[Trajectory], plan: Plan
) -> tuple[Outcome, list[Trajectory]]:
    by_id = {q.id: q for q in questions(10)}
    return asyncio.run(label_trajectories(sampler, by_id, trajectories, plan))


def test_candidates_are_split_verified_and_numbered(store: RolloutStore) -> None:
    _, found = sample(Sampler(Scripted(right_after_good_steps), store), questions(1), 4)
    assert [t.sample_index for t in found] == [0, 1, 2, 3]
    assert found[0].steps[0] == "Step 1: good" and len(found[0].steps) == 2
    assert [t.outcome for t in found] == [False, True, False, True]
    assert found[1].extra["rule"] == "same_text", "the verdict says which rule gave it"


def test_candidates_without_a_gold_answer_have_no_outcome(store: RolloutStore) -> None:
    sampler = Sampler(Scripted(right_after_good_steps), store)
    _, found = sample(sampler, questions(1, UNKNOWN_ANSWER), 2)
    assert [t.outcome for t in found] == [None, None]


def test_labels_count_completions_that_reach_the_right_answer(store: RolloutStore) -> None:
    def say(request: Request, seed: int, index: int) -> str:
        if any("bad" in step for step in request.steps):
            return "Final answer: 99"
        return f"Step 9: on\nFinal answer: {index % 2 + 7}"

    trajectory = Trajectory(question_id="q0", steps=("Step 1: good", "Step 2: bad", "Step 3: good"))
    sampler = Sampler(Scripted(say, continuation="prompt"), store)
    _, [labelled] = label(sampler, [trajectory], FixedCompletions(4))
    assert labelled.labels == (Label.of(2, 4), Label.of(0, 4), Label.of(0, 4))
    assert labelled.extra["labelled_by"] == {"policy": "scripted", "continuation": "prompt"}


def test_a_shared_prefix_is_completed_once(store: RolloutStore) -> None:
    policy = Scripted(right_after_good_steps)
    shared = [
        Trajectory(question_id="q0", steps=("Step 1: good", f"Step 2: {i}"), sample_index=i)
        for i in range(3)
    ]
    _, found = label(Sampler(policy, store), shared, FixedCompletions(2))
    assert [t.sample_index for t in found] == [0, 1, 2]
    expected = {("q0", t.steps[:i], 2) for t in shared for i in (1, 2)}
    assert Counter(policy.asked) == Counter(expected), "each distinct prefix exactly once"


def test_a_domain_can_have_its_own_number_of_completions(store: RolloutStore) -> None:
    trajectory = Trajectory(question_id="q0", steps=("Step 1: good",))
    sampler = Sampler(Scripted(right_after_good_steps), store)
    _, [found] = label(sampler, [trajectory], FixedCompletions(4, {"d": 1}))
    assert found.labels == (Label.of(1, 1),)


def test_what_the_store_has_is_not_asked_for_again(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.db"
    with RolloutStore(path) as store:
        _, first = sample(Sampler(Scripted(right_after_good_steps), store), questions(3), 2)
    again = Scripted(right_after_good_steps)
    with RolloutStore(path) as store:
        assert sample(Sampler(again, store), questions(3), 2)[1] == first
        assert not again.asked
        _, more = sample(Sampler(again, store), questions(3), 5)
    assert again.asked == [(f"q{i}", (), 3) for i in range(3)], "only what is missing"
    assert [t for t in more if t.sample_index < 2] == first


@pytest.mark.parametrize("changed", ["seed", "settings", "policy", "question"])
def test_another_seed_setting_policy_or_question_is_sampled_anew(
    store: RolloutStore, changed: str
) -> None:
    sample(Sampler(Scripted(right_after_good_steps, temperature=1.0), store), questions(1), 2)
    policy = Scripted(
        right_after_good_steps,
        name="other" if changed == "policy" else "scripted",
        temperature=0.5 if changed == "settings" else 1.0,
    )
    asked = questions(1)
    if changed == "question":
        asked = [asked[0].model_copy(update={"text": "another"})]
    sample(Sampler(policy, store, seed=int(changed == "seed")), asked, 2)
    assert policy.asked


def test_a_corrected_gold_answer_costs_no_new_completions(store: RolloutStore) -> None:
    policy = Scripted(right_after_good_steps)
    sample(Sampler(policy, store), questions(1, "7"), 2)
    _, found = sample(Sampler(policy, store), questions(1, "8"), 2)
    assert len(policy.asked) == 1
    assert [t.outcome for t in found] == [True, False]


def test_a_server_that_gives_fewer_than_asked_is_asked_again(store: RolloutStore) -> None:
    policy = Scripted(lambda request, seed, i: f"Final answer: {seed}-{i}", most=3)
    _, found = sample(Sampler(policy, store), questions(1), 8)
    assert [n for _, _, n in policy.asked] == [8, 5, 2]
    assert len({t.answer for t in found}) == 8, "each call has its own seed"


def test_a_refused_question_is_left_out_and_told(store: RolloutStore) -> None:
    def fail(request: Request) -> None:
        if request.question.id == "q1":
            raise RequestRefused("too long")

    policy = Scripted(right_after_good_steps, fail=fail)
    outcome, found = sample(Sampler(policy, store), questions(3), 2)
    assert {t.question_id for t in found} == {"q0", "q2"}
    assert [(q.id, why) for q, why in outcome.refused] == [("q1", "too long")]


def test_a_refused_prefix_has_no_label_and_the_others_have(store: RolloutStore) -> None:
    def fail(request: Request) -> None:
        if len(request.steps) == 2:
            raise RequestRefused("too long")

    sampler = Sampler(Scripted(right_after_good_steps, fail=fail), store)
    trajectory = Trajectory(question_id="q0", steps=("Step 1: good", "Step 2: good"))
    _, [found] = label(sampler, [trajectory], FixedCompletions(2))
    assert found.labels == (Label.of(2, 2), None)
    assert "too long" in sampler.refusals[0]


def test_when_the_policy_is_lost_what_is_done_is_kept(store: RolloutStore) -> None:
    def fail(request: Request) -> None:
        if request.question.id == "q5":
            raise DreamPRMError("server is gone")

    policy = Scripted(right_after_good_steps, fail=fail, concurrency=1)
    outcome, found = sample(Sampler(policy, store), questions(200), 2)
    assert "server is gone" in str(outcome.stopped)
    assert {"q0", "q1", "q2", "q3", "q4"} <= {t.question_id for t in found}
    assert len(policy.asked) < 20, "no further unit is begun"


def test_an_answer_that_the_steps_state_already_counts(store: RolloutStore) -> None:
    """The model ends at once behind a last step that says it all."""
    trajectory = Trajectory(
        question_id="q0", steps=("Step 1: 3 + 4", "Step 2: so the answer is \\boxed{7}.")
    )

    def say(request: Request, seed: int, index: int) -> str:
        return "" if len(request.steps) == 2 else "Step 2: hm\nFinal answer: 8"

    _, [found] = label(Sampler(Scripted(say), store), [trajectory], FixedCompletions(4))
    assert found.labels == (Label.of(0, 4), Label.of(4, 4))


def test_a_reasoning_that_was_cut_has_no_answer_from_its_steps(store: RolloutStore) -> None:
    trajectory = Trajectory(question_id="q0", steps=("Step 1: the answer is 7, I guess",))
    policy = Scripted(lambda request, seed, i: "Step 2: but wai", finish_reason="length")
    _, [found] = label(Sampler(policy, store), [trajectory], FixedCompletions(2))
    assert found.labels == (Label.of(0, 2),)


def test_a_bug_is_told_as_itself(store: RolloutStore) -> None:
    def fail(request: Request) -> None:
        raise ZeroDivisionError("ours")

    with pytest.raises(ZeroDivisionError, match="ours"):
        sample(Sampler(Scripted(right_after_good_steps, fail=fail), store), questions(3), 1)


def test_a_step_beyond_the_limit_of_a_trajectory_is_cut() -> None:
    question = Question(id="q", domain="d", text="t", answer="1")
    rollout = Rollout("x" * (LONGEST_STEP + 9), None, None, "length")
    assert to_trajectory(question, rollout, "model", 0).steps == ("x" * LONGEST_STEP,)
