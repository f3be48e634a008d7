"""The local policy: the embedded checkpoints answer, batched and reproducibly."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare  # type: ignore[import-untyped]

from dreamprm.answers import extract_answer, verify_answer
from dreamprm.errors import DreamPRMError
from dreamprm.images import load_image
from dreamprm.models.loading import load_backbone
from dreamprm.policy import Reply, Request, RequestRefused
from dreamprm.policy.local import LocalPolicy, PromptEncoder
from dreamprm.policy.options import PolicyOptions
from dreamprm.records import Question
from dreamprm.steps import opening, split_steps, step_end
from dreamprm.tiny.world import WorldSize, build_world
from tests.tiny_models import picture_question


def local(**options: Any) -> LocalPolicy:
    return LocalPolicy(PolicyOptions("tiny/policy", **options))


@pytest.fixture(scope="module")
def policy() -> LocalPolicy:
    return local(max_new_tokens=48, per_device_batch_size=64)


def questions(count: int, seed: int = 5) -> Sequence[Question]:
    return build_world(seed, WorldSize(per_domain=1, meta=count, per_benchmark=1)).meta


def ask(policy: LocalPolicy, requests: Sequence[Request], n: int, seed: int) -> list[Reply]:
    async def all_at_once() -> list[Reply]:
        return await asyncio.gather(*(policy.sample(request, n, seed) for request in requests))

    return asyncio.run(all_at_once())


def texts(reply: Reply) -> list[str]:
    return [completion.text for completion in reply.completions]


def share_right(policy: LocalPolicy, asked: Sequence[Question], n: int) -> float:
    replies = ask(policy, [Request(question) for question in asked], n, seed=0)
    right = [
        verify_answer(extract_answer(text, question.options), question.answer, question.options)
        for question, reply in zip(asked, replies, strict=True)
        for text in texts(reply)
    ]
    return sum(right) / len(right)


def processed(policy: LocalPolicy, request: Request) -> Any:
    """One prompt as the processor alone gives it."""
    question = request.question
    content = [{"type": "image"}] * len(question.images)
    content.append({"type": "text", "text": policy.prompt(question)})
    text = policy.processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    pictures = [load_image(reference) for reference in question.images]
    return policy.processor(
        text=[text + opening(request.steps)],
        images=[pictures] if pictures else None,
        return_tensors="pt",
    )


def many_kinds() -> list[Request]:
    """With no, one and three images, short and long, begun and not."""
    steps = ("Step 1: look at red and blue", "Step 2: red is 3", "Step 3: blue is 5")
    plain = picture_question("plain", images=0)
    return [
        *(Request(question) for question in questions(6)),
        Request(questions(1)[0], steps[:1]),
        Request(picture_question("three", images=3), steps),
        Request(plain),
        Request(plain.model_copy(update={"text": "what is 3 + 5 ? " * 5}), steps[:2]),
    ]


def test_the_embedded_policy_is_sometimes_right_and_sometimes_wrong(policy: LocalPolicy) -> None:
    assert 0.2 < share_right(policy, questions(20), 4) < 0.8
    replies = ask(policy, [Request(question) for question in questions(20)], 4, seed=0)
    assert all(2 <= len(split_steps(text)[0]) <= 7 for reply in replies for text in texts(reply))
    assert all(done.finish_reason == "stop" for reply in replies for done in reply.completions)


def test_a_single_step_is_the_beginning_of_the_whole_text(policy: LocalPolicy) -> None:
    """Same request, seed and number: the same tokens, up to where the next step is seen."""
    asked = [Request(q, steps) for q in questions(6) for steps in ((), ("Step 1: look at",))]
    whole = ask(policy, asked, 4, seed=0)
    single = ask(policy, [replace(request, one_step=True) for request in asked], 4, seed=0)
    open_ones = 0
    for request, long, short in zip(asked, whole, single, strict=True):
        assert short.completion_tokens < long.completion_tokens
        for a, b in zip(long.completions, short.completions, strict=True):
            assert a.text.startswith(b.text)
            end = step_end(opening(request.steps), b.text)
            assert (end is not None) == (b.finish_reason == "step")
            steps, _ = split_steps(opening(request.steps) + b.text[:end])
            assert len(steps) == len(request.steps) + 1
            open_ones += end is not None
    assert open_ones > 40


def test_the_last_step_is_ended_by_the_model_and_has_the_answer(policy: LocalPolicy) -> None:
    for question in questions(4):
        [reply] = ask(policy, [Request(question)], 1, seed=0)
        steps, answer = split_steps(texts(reply)[0])
        [last] = ask(policy, [Request(question, tuple(steps[:-1]), True)], 8, seed=0)
        assert answer is not None
        ended = [c for c in last.completions if c.finish_reason == "stop"]
        assert ended and all(split_steps(c.text)[1] is not None for c in ended)


def test_the_likeliest_texts_are_those_of_generate() -> None:
    """Which reads every prompt alone and unpadded; ours are in one batch, of many lengths."""
    policy = local(max_new_tokens=48, per_device_batch_size=64, temperature=0)
    replies = ask(policy, many_kinds(), 2, seed=0)
    for request, reply in zip(many_kinds(), replies, strict=True):
        inputs = processed(policy, request)
        size = inputs["input_ids"].shape[1]
        with torch.inference_mode():
            [tokens] = policy.model.generate(**inputs, do_sample=False, max_new_tokens=48)
        expected = policy.processor.tokenizer.decode(tokens[size:], skip_special_tokens=True)
        assert texts(reply) == [expected, expected]
        assert reply.prompt_tokens == size
        assert reply.completion_tokens == 2 * (len(tokens) - size)


def test_a_text_that_is_cut_says_so(policy: LocalPolicy) -> None:
    cut = local(max_new_tokens=5, per_device_batch_size=4)
    [reply] = ask(cut, [Request(questions(1)[0])], 2, seed=0)
    assert [done.finish_reason for done in reply.completions] == ["length", "length"]
    assert reply.completion_tokens == 10
    [longer] = ask(policy, [Request(questions(1)[0])], 2, seed=0)
    assert [a.startswith(b) for a, b in zip(texts(longer), texts(reply), strict=True)] == [True] * 2


def test_a_text_depends_on_request_seed_and_number_alone(policy: LocalPolicy) -> None:
    requests = many_kinds()
    amid = ask(policy, requests * 2, 4, seed=1)
    alone = [reply for request in requests for reply in ask(policy, [request], 4, seed=1)]
    assert amid == alone * 2
    others = ask(policy, requests, 4, seed=2)
    assert [texts(reply) for reply in others] != [texts(reply) for reply in alone]


def test_more_samples_begin_with_the_same_and_a_split_changes_nothing(policy: LocalPolicy) -> None:
    request = Request(questions(1)[0])
    small = local(max_new_tokens=48, per_device_batch_size=3)
    eight = ask(policy, [request], 8, seed=1)[0]
    assert len(set(texts(eight))) > 1
    assert texts(ask(policy, [request], 4, seed=1)[0]) == texts(eight)[:4]
    assert ask(small, [request], 8, seed=1)[0] == eight  # its counts of tokens too


def test_the_samples_of_one_seed_are_not_the_same_throws_for_every_prompt() -> None:
    """Else the Monte Carlo labels of all prefixes would err in the same direction."""
    policy = local(max_new_tokens=1, temperature=1e6)
    replies = ask(policy, [Request(question) for question in questions(8)], 1, seed=0)
    assert len({text for reply in replies for text in texts(reply)}) > 4


def test_the_first_token_is_drawn_from_the_softmax() -> None:
    policy = local(max_new_tokens=1, per_device_batch_size=1000, temperature=3.0)
    request = Request(questions(1)[0], ("Step 1: look at",))
    [reply] = ask(policy, [request], 4000, seed=0)
    inputs = processed(policy, request)
    with torch.inference_mode():
        logits = policy.model(**inputs).logits[0, -1]
    expected = (logits / 3.0).softmax(-1).double().numpy() * 4000
    tokenizer = policy.processor.tokenizer
    names = [tokenizer.decode([i], skip_special_tokens=True) for i in range(len(expected))]
    common = [i for i in range(len(expected)) if expected[i] > 20 and names.count(names[i]) == 1]
    assert len(common) > 20
    counts = np.array([texts(reply).count(names[i]) for i in common])
    rest = 4000 - counts.sum(), 4000 - expected[common].sum()
    assert chisquare([*counts, rest[0]], [*expected[common], rest[1]]).pvalue > 0.01


def ask_each(policy: LocalPolicy, asked: Sequence[Question]) -> list[Reply | BaseException]:
    """Replies or refusals, all asked at once."""

    async def all_at_once() -> list[Reply | BaseException]:
        replies = (policy.sample(Request(question), 2, 0) for question in asked)
        return await asyncio.gather(*replies, return_exceptions=True)

    return asyncio.run(all_at_once())


def test_a_bad_image_costs_its_own_request_alone(policy: LocalPolicy, tmp_path: Path) -> None:
    good = questions(2)
    (tmp_path / "torn.png").write_bytes(b"no image")
    bad = [
        good[0].model_copy(update={"images": (str(tmp_path / name),)})
        for name in ("missing.png", "torn.png")
    ]

    first, missing, torn, last = ask_each(policy, [good[0], *bad, good[1]])
    assert isinstance(missing, RequestRefused) and "missing.png does not exist" in str(missing)
    assert isinstance(torn, RequestRefused) and "torn.png cannot be read" in str(torn)
    assert [first, last] == ask(policy, [Request(question) for question in good], 2, seed=0)


def test_a_prompt_that_the_processor_refuses_costs_itself_alone(
    policy: LocalPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = questions(1)[0]
    bad = good.model_copy(update={"text": "what is bad ?"})
    process = PromptEncoder._process

    def picky(self: PromptEncoder, prompts: Any, pictures: Any) -> Any:
        if any("bad" in prompts[i].text for i in pictures):
            raise ValueError("a bad word")
        return process(self, prompts, pictures)

    monkeypatch.setattr(PromptEncoder, "_process", picky)
    refused, reply = ask_each(policy, [bad, good])
    assert isinstance(refused, RequestRefused) and "processor refuses" in str(refused)
    assert [reply] == ask(policy, [Request(good)], 2, seed=0)


@pytest.mark.parametrize("answer_tokens", [0, 8])
def test_a_prompt_beyond_the_context_is_refused_with_the_counts(answer_tokens: int) -> None:
    policy = local(max_new_tokens=40, answer_tokens=answer_tokens)
    question = picture_question("long", images=0)
    size = processed(policy, Request(question))["input_ids"].shape[1]
    answer = 40 + (answer_tokens + 2 if answer_tokens else 0)  # newline and "Final answer:"
    longest = question.model_copy(update={"text": question.text + "+" * (4096 - size - answer)})
    [reply] = ask(policy, [Request(longest)], 1, seed=0)
    assert reply.prompt_tokens + answer == 4096
    too_long = longest.model_copy(update={"text": longest.text + "+"})
    counts = rf"prompt of {4097 - answer} tokens .* up to {answer} pass the 4096"
    with pytest.raises(RequestRefused, match=counts):
        ask(policy, [Request(too_long)], 1, seed=0)


def test_an_unknown_embedded_model_is_answered_with_the_known_ones() -> None:
    with pytest.raises(DreamPRMError, match=r"there are: tiny/backbone, tiny/policy"):
        load_backbone("tiny/polcy")


def test_settings_say_what_decides_the_texts() -> None:
    policy = local(per_device_batch_size=7, dtype="bfloat16")
    assert policy.settings == {
        "model": "tiny/policy",
        "prompt": "bare",
        "temperature": 1.0,
        "max_new_tokens": 1024,
        "answer_tokens": 0,
        "dtype": "bfloat16",
        "continuation": "prefill",
    }
    assert (policy.name, policy.slots) == ("tiny/policy", 7)
    assert policy.model.dtype == torch.bfloat16
