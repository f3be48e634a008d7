"""The local policy: the embedded checkpoints answer, batched and reproducibly."""

from __future__ import annotations

import pytest

from dreamprm.errors import DreamPRMError
from dreamprm.loading import load_backbone
from dreamprm.policy import Request
from dreamprm.policy.local import LocalPolicy
from dreamprm.rollouts.sample import sample_candidates
from dreamprm.tiny.world import WorldSize, build_world


@pytest.fixture(scope="module")
def policy() -> LocalPolicy:
    return LocalPolicy("tiny/policy", prompt="bare", max_new_tokens=48, batch_size=64)


def test_the_embedded_policy_is_sometimes_right_and_sometimes_wrong(policy: LocalPolicy) -> None:
    world = build_world(5, WorldSize(per_domain=1, meta=20, per_benchmark=1))
    groups = list(sample_candidates(policy, world.meta, 4, seed=0))
    share = sum(bool(t.outcome) for group in groups for t in group) / 80
    assert 0.2 < share < 0.8
    assert all(t.answer is not None for group in groups for t in group)
    assert all(2 <= len(t.steps) <= 7 for group in groups for t in group)


def test_the_same_seed_gives_the_same_texts_and_another_seed_others(policy: LocalPolicy) -> None:
    world = build_world(5, WorldSize(per_domain=1, meta=4, per_benchmark=1))
    requests = [Request(question) for question in world.meta]
    assert policy.sample(requests, 4, seed=1) == policy.sample(requests, 4, seed=1)
    assert policy.sample(requests, 4, seed=1) != policy.sample(requests, 4, seed=2)


def test_a_prefix_is_continued_not_repeated(policy: LocalPolicy) -> None:
    question = build_world(5, WorldSize(per_domain=1, meta=1, per_benchmark=1)).meta[0]
    first = policy.sample([Request(question)], 1, seed=0)[0][0].split("\n")[0]
    texts = policy.sample([Request(question, (first,))], 4, seed=0)[0]
    assert all(text.startswith("Step 2:") for text in texts)


def test_the_stronger_policy_is_stronger() -> None:
    world = build_world(6, WorldSize(per_domain=1, meta=60, per_benchmark=1))
    shares = []
    for name in ("tiny/policy", "tiny/policy-strong"):
        one = LocalPolicy(name, prompt="bare", max_new_tokens=48, batch_size=240)
        groups = sample_candidates(one, world.meta, 4, seed=0)
        shares.append(sum(bool(t.outcome) for group in groups for t in group) / 240)
    assert shares[1] > shares[0] + 0.05


def test_an_unknown_embedded_model_is_answered_with_the_known_ones() -> None:
    with pytest.raises(DreamPRMError, match=r"there are: tiny/backbone, tiny/policy"):
        load_backbone("tiny/polcy")
