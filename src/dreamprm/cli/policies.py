"""The policy that a verb samples from, served or in this process, with its judge and its budget.

torch is loaded only for a model in this process: a client of a served one starts at once.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from dreamprm.cli.policy_options import PolicyOptions
from dreamprm.policy import Policy
from dreamprm.policy.messages import Continuation
from dreamprm.rollouts.budget import Budget, Metered
from dreamprm.rollouts.judge import Verifier
from dreamprm.rollouts.sampler import Sampler
from dreamprm.rollouts.store import RolloutStore


@asynccontextmanager
async def open_sampler(options: PolicyOptions, store: RolloutStore) -> AsyncIterator[Sampler]:
    """The policy that the options describe, with its store, budget and verifier."""
    policy = await _served(options, store) if options.base_urls else _local(options)
    budget = Budget(
        max_tokens=options.budget_tokens,
        max_cost=options.budget_cost,
        prompt_price=options.prompt_token_price,
        completion_price=options.completion_token_price,
    )
    judge = Metered(await _judge(options), budget, store) if options.judge_model else None
    try:
        yield Sampler(policy, store, options.seed, verifier=Verifier(judge), budget=budget)
    finally:
        await policy.close()
        if judge is not None:
            await judge.close()


def _local(options: PolicyOptions) -> Policy:
    from dreamprm.cli.models import load_policy

    return load_policy(options)


async def _served(options: PolicyOptions, store: RolloutStore) -> Policy:
    continuation = options.continuation
    if continuation == "auto":
        continuation = _continuation_before(options, store) or "auto"
    return await _connected(
        options,
        model=options.model_name_or_path,
        base_urls=options.base_urls,
        prompt=options.prompt_name(),
        temperature=options.temperature,
        max_new_tokens=options.max_new_tokens,
        continuation=continuation,
        extra_body=options.extra_body,
        max_n=options.max_n,
    )


def _continuation_before(options: PolicyOptions, store: RolloutStore) -> Continuation | None:
    """What `auto` was found to be in an earlier run; found anew, it might come out otherwise."""
    now = {
        "model": options.model_name_or_path,
        "prompt": options.prompt_name(),
        "temperature": options.temperature,
        "max_new_tokens": options.max_new_tokens,
        "extra_body": dict(options.extra_body or {}),
    }
    for generator in store.generators():
        before = json.loads(generator.settings)
        if all(before.get(name) == value for name, value in now.items()):
            found: Continuation = before["continuation"]
            return found
    return None


async def _judge(options: PolicyOptions) -> Policy:
    return await _connected(
        options,
        model=options.judge_model,
        base_urls=options.judge_urls or options.base_urls,
        prompt="bare",
        temperature=0.0,
        max_new_tokens=2048,  # for judges that think first; the verdict is one word
        continuation="prompt",
    )


async def _connected(options: PolicyOptions, **how: Any) -> Policy:
    from dreamprm.policy.endpoint import EndpointPolicy

    policy = EndpointPolicy(
        api_key_env=options.api_key_env,
        concurrency=options.concurrency,
        timeout_s=options.timeout_s,
        max_attempts=options.max_attempts,
        **how,
    )
    if how["continuation"] == "auto":  # else it connects when first asked, or never
        await policy.connect()
    return policy
