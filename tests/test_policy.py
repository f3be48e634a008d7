"""The public policy: served or in this process, in and out of an event loop."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from dreamprm import Policy, Question
from dreamprm.errors import DreamPRMError
from dreamprm.policy import Reply, Request
from dreamprm.policy.policy import wait_for
from dreamprm.rollouts.store import Generator, prefix_key, question_key
from tests.fake_endpoint import FakeEndpoint

QUESTION = Question(id="q", domain="d", text="What is 2 + 2?", answer="4")
SERVED = {"base_urls": ["http://nowhere/v1"], "continuation": "prefill"}


def test_a_served_policy_answers_outside_and_inside_a_running_event_loop() -> None:
    async def asked(policy: Policy) -> Reply:
        return await policy.sample(Request(QUESTION), 2, 0)

    with FakeEndpoint() as server, Policy("fake", base_urls=[server.url], prompt="bare") as policy:
        assert not server.seen, "constructing asks nobody"
        outside = wait_for(asked(policy))

        async def notebook() -> Reply:
            return wait_for(asked(policy))

        assert asyncio.run(notebook()) == outside
        assert len(outside.completions) == 2
        [first, *_] = [seen for seen in server.seen if "2 + 2" in str(seen.body)]
        assert first.body["temperature"] == 1.0 and first.body["max_tokens"] == 1024

    async def closed_by_itself() -> Reply:
        async with replace(policy, base_urls=[server.url]) as other:
            return await asked(other)

    with FakeEndpoint() as server:
        assert asyncio.run(closed_by_itself()) == outside


@pytest.mark.parametrize(
    ("model", "options", "key"),
    [
        ("tiny", {"max_new_tokens": 32}, "769936fc805c04c84986b35df5ee43b7"),
        ("m", SERVED, "7c1e55b642ee8b704e901d2a1064cb76"),
    ],
)
def test_a_store_of_an_earlier_version_keeps_its_hits(
    model: str, options: dict[str, Any], key: str
) -> None:
    generator = Generator.of(Policy(model, **options), 3)
    assert prefix_key(question_key(QUESTION), ("a",), generator) == key


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": 0.0}, "temperature is 0.0; it must be above 0"),
        ({"budget_tokens": 5}, "budget_tokens is for served models"),
        ({**SERVED, "answer_tokens": 5}, "answer_tokens is for local models"),
        ({**SERVED, "budget_cost": 1.0}, "budget_cost needs prompt_token_price"),
        ({"judge_model": "judge"}, "judge_model needs judge_urls"),
    ],
)
def test_options_that_no_policy_can_have_are_refused_at_once(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises(DreamPRMError, match=said):
        Policy("m", **options)
