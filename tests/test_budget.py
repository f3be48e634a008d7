"""Budgets and judges: what sampling may cost, and who else is paid."""

from __future__ import annotations

import pytest

from dreamprm.errors import DreamPRMError
from dreamprm.policy import Request
from dreamprm.rollouts.budget import Budget, BudgetSpent, Metered
from dreamprm.rollouts.judge import Verifier
from dreamprm.rollouts.sampler import Sampler
from dreamprm.rollouts.store import RolloutStore
from tests.scripted_policy import Scripted, questions, right_after_good_steps, sample


@pytest.mark.parametrize("concurrency", [1, 64])
def test_a_token_budget_is_used_up_and_not_overshot(store: RolloutStore, concurrency: int) -> None:
    policy = Scripted(right_after_good_steps, tokens=(10, 90), concurrency=concurrency)
    outcome, found = sample(
        Sampler(policy, store, budget=Budget(max_tokens=1000)), questions(50), 1
    )
    assert isinstance(outcome.stopped, BudgetSpent)
    assert "1,000 of budget_tokens 1,000" in str(outcome.stopped)
    spent = store.usage()["scripted"]
    assert spent.prompt_tokens + spent.completion_tokens == 1000
    assert len(found) == spent.calls == 10, "what was paid for is kept"


def test_a_resumed_job_does_not_spend_its_budget_twice(store: RolloutStore) -> None:
    policy = Scripted(right_after_good_steps, tokens=(10, 90))
    sample(Sampler(policy, store, budget=Budget(max_tokens=1000)), questions(50), 1)
    asked = len(policy.asked)
    sample(Sampler(policy, store, budget=Budget(max_tokens=1000)), questions(50), 1)
    assert len(policy.asked) == asked
    sample(Sampler(policy, store, budget=Budget(max_tokens=100_000)), questions(50), 1)
    assert len({q for q, _, _ in policy.asked}) == 50, "a larger one goes on"


def test_a_money_budget_uses_the_prices(store: RolloutStore) -> None:
    policy = Scripted(right_after_good_steps, tokens=(1_000_000, 500_000))
    budget = Budget(max_cost=10.0, prompt_price=1.0, completion_price=2.0)
    outcome, found = sample(Sampler(policy, store, budget=budget), questions(50), 1)
    assert "10.00 of budget_cost 10.00" in str(outcome.stopped)
    assert len(found) == 5


def test_a_failed_call_gives_its_room_back(store: RolloutStore) -> None:
    def fail(request: Request) -> None:
        if request.question.id == "q3":
            raise DreamPRMError("server is gone")

    policy = Scripted(right_after_good_steps, tokens=(10, 90), fail=fail, concurrency=8)
    sampler = Sampler(policy, store, budget=Budget(max_tokens=100_000))
    outcome, _ = sample(sampler, questions(4), 1)
    assert "server is gone" in str(outcome.stopped)
    assert sampler.budget._in_flight == 0


def open_answers(judge: Scripted, store: RolloutStore, budget: Budget | None = None) -> Sampler:
    budget = budget or Budget()
    policy = Scripted(lambda request, seed, i: "Final answer: a red bus", tokens=(5, 5))
    verifier = Verifier(Metered(judge, budget, store))
    return Sampler(policy, store, verifier=verifier, budget=budget)


GOLD = "the bus that is red"


def test_a_judge_is_asked_once_per_answer_and_its_calls_are_paid_for(store: RolloutStore) -> None:
    judge = Scripted(lambda request, seed, i: "SAME", name="judge", tokens=(20, 1))
    budget = Budget(prompt_price=1.0)
    _, found = sample(open_answers(judge, store, budget), questions(1, GOLD), 4)
    assert [t.outcome for t in found] == [True] * 4
    assert {t.extra["rule"] for t in found} == {"judge"}
    assert len(judge.asked) == 1
    assert store.usage()["judge"].prompt_tokens == 20
    assert budget.tokens == 10 + 21


def test_a_verdict_that_a_judge_failed_to_give_is_not_kept(store: RolloutStore) -> None:
    mumbling = Scripted(lambda request, seed, i: "Well...", name="judge")
    sampler = open_answers(mumbling, store)
    _, found = sample(sampler, questions(2, GOLD), 1)
    assert [(t.outcome, t.extra["rule"]) for t in found] == [(False, "judge_unclear")] * 2
    assert sampler.undecided() == {"judge_unclear": 2}
    clear = Scripted(lambda request, seed, i: "SAME", name="judge")
    _, found = sample(open_answers(clear, store), questions(2, GOLD), 1)
    assert [t.outcome for t in found] == [True, True], "a rerun asks again"


def test_a_judge_that_never_decides_ends_the_run(store: RolloutStore) -> None:
    mumbling = Scripted(lambda request, seed, i: "Well...", name="judge")
    outcome, _ = sample(open_answers(mumbling, store), questions(100, GOLD), 1)
    assert "no usable verdict on its first 20 answers" in str(outcome.stopped)


def test_a_lost_judge_ends_the_run_and_what_is_verified_is_kept(store: RolloutStore) -> None:
    def fail(request: Request) -> None:
        if "t5" in request.question.text:
            raise DreamPRMError("judge is gone")

    judge = Scripted(lambda request, seed, i: "SAME", name="judge", fail=fail)
    outcome, found = sample(open_answers(judge, store), questions(10, GOLD), 1)
    assert "judge is gone" in str(outcome.stopped)
    assert {t.outcome for t in found} == {True}
    assert {"q0", "q1"} <= {t.question_id for t in found}
    assert "q5" not in {t.question_id for t in found}
