"""The endpoint policy against a server that we did not write: `transformers serve`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from dreamprm.answers import extract_answer, verify_answer
from dreamprm.errors import DreamPRMError
from dreamprm.policy import Reply, Request
from dreamprm.policy.endpoint import EndpointPolicy
from dreamprm.prompts import split_steps
from dreamprm.records import Question
from dreamprm.tiny.world import WorldSize, build_world
from tests.serve_fixture import Served, served  # noqa: F401


@pytest.fixture(scope="module")
def questions() -> Sequence[Question]:
    return build_world(5, WorldSize(per_domain=1, meta=20, per_benchmark=1)).meta


def sample(
    server: Served, requests: Sequence[Request], seed: int = 0, **options: Any
) -> list[Reply]:
    async def story() -> list[Reply]:
        policy = EndpointPolicy(
            model=server.model,
            base_urls=[server.url],
            **{"prompt": "bare", "max_new_tokens": 48, "continuation": "assistant"} | options,
        )
        calls = (policy.sample(request, 1, seed + i) for i, request in enumerate(requests))
        try:
            return list(await asyncio.gather(*calls))
        finally:
            await policy.close()

    return asyncio.run(story())


def test_it_answers_questions_about_pictures(served: Served, questions: Sequence[Question]) -> None:
    replies = sample(served, [Request(question) for question in questions])
    texts = [reply.completions[0].text for reply in replies]
    print(texts)
    print([(q.answer, q.options) for q in questions])
