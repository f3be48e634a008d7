"""`/v1/chat/completions` of `dreamprm serve`, asked by the openai package."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import openai
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from dreamprm.images import decode_image, encode_image
from dreamprm.policy import Request
from dreamprm.policy.options import PolicyOptions
from dreamprm.policy.policy import Policy, wait_for
from dreamprm.prm.scorer import Logits, Steps
from dreamprm.records import Question
from dreamprm.serve.app import Served, make_app
from dreamprm.serve.wire import Limits
from tests.fake_endpoint import FakeEndpoint
from tests.faults import Fault, always
from tests.running_app import running
from tests.tiny_models import picture_question, random_prm

ASK = [{"role": "user", "content": "What is 2?"}]


class Longest:
    """A reward model that likes long steps."""

    def passes(self) -> Any:
        def plain(pairs: Sequence[tuple[Question, Steps]]) -> list[Logits]:
            return [tuple(float(len(step)) for step in steps) for _, steps in pairs]

        return plain, None


def write(prompt: str, begun: str, seed: int) -> str:
    """Reasonings of different lengths."""
    return f"Step 1: {'x' * (seed % 97)}\nFinal answer: {seed % 3}"


@contextmanager
def gateway(
    endpoint: FakeEndpoint, model: Any = None, limits: Limits | None = None, **options: Any
) -> Iterator[openai.OpenAI]:
    policy = PolicyOptions(endpoint.model, base_urls=[endpoint.url], prompt="bare", **options)
    served = Served(model or Longest(), "prm", "mean_logit")
    app = make_app(served, limits=limits, policy=policy)
    with (
        running(app) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeEndpoint]:
    with FakeEndpoint(writer=write) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def client(fake: FakeEndpoint) -> Iterator[openai.OpenAI]:
    with gateway(fake, limits=Limits(max_candidates=16, max_tokens=200)) as client:
        yield client


def last_bodies(fake: FakeEndpoint) -> list[dict[str, Any]]:
    """Of the latest request of a client; the greeting asks something else."""
    return [seen.body for seen in fake.seen if seen.body["n"] > 1]


def test_the_best_of_n_is_the_answer_and_all_that_was_spent_is_counted(
    client: openai.OpenAI, fake: FakeEndpoint
) -> None:
    reply = client.chat.completions.create(model="fake", messages=ASK, seed=1)
    texts = fake.answered[-1].texts
    assert len(texts) == 8
    [choice] = reply.choices
    assert choice.message.content == max(texts, key=len), "word for word"
    assert choice.finish_reason == "stop"
    told = choice.model_extra["dreamprm"]
    assert told["steps"] == [choice.message.content.partition("\n")[0]]
    assert len(told["step_scores"]) == 1 and told["answer"] in ("0", "1", "2")
    assert reply.usage is not None
    assert reply.usage.completion_tokens == sum(len(text.split()) for text in texts)
    assert reply.model_extra["dreamprm"]["method"] == "best_of_n"


def test_n_choices_are_the_best_ones_in_order(client: openai.OpenAI, fake: FakeEndpoint) -> None:
    reply = client.chat.completions.create(
        model="fake@best_of_n:6",
        messages=ASK,
        n=3,
        seed=2,
    )
    texts = sorted(fake.answered[-1].texts, key=len, reverse=True)
    assert len(texts) == 6
    assert [len(c.message.content or "") for c in reply.choices] == [len(t) for t in texts[:3]]


@pytest.mark.parametrize("method", ["weighted_vote", "self_consistency", "beam_search"])
def test_method_and_n_may_stand_in_the_body(client: openai.OpenAI, method: str) -> None:
    extra = {"method": method, "n_candidates": 5, "aggregation": "min"}
    reply = client.chat.completions.create(model="fake", messages=ASK, extra_body=extra)
    told = reply.model_extra["dreamprm"]
    assert extra.items() <= told.items() and told["completions"] <= 5


def test_the_same_seed_gives_the_same_answer_and_none_another(client: openai.OpenAI) -> None:
    def ask(**options: Any) -> str | None:
        reply = client.chat.completions.create(model="fake", messages=ASK, **options)
        return str(reply.choices[0].model_dump()["message"]["content"])

    assert ask(seed=5) == ask(seed=5)
    assert len({ask() for _ in range(4)}) > 1


def test_a_stream_is_the_chosen_answer(client: openai.OpenAI, fake: FakeEndpoint) -> None:
    stream = client.chat.completions.create(
        model="fake",
        messages=ASK,
        stream=True,
        seed=3,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    texts = [c.choices[0].delta.content for c in chunks if c.choices]
    assert "".join(text or "" for text in texts) == max(fake.answered[-1].texts, key=len)
    assert len(texts) > 3, "in pieces"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-2].choices[0].model_extra["dreamprm"]["step_scores"]
    assert chunks[-1].usage is not None and chunks[-1].usage.total_tokens > 0


def test_what_is_said_of_sampling_and_earlier_turns_go_on_to_the_policy(
    client: openai.OpenAI, fake: FakeEndpoint
) -> None:
    before = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello!"},
    ]
    client.chat.completions.create(
        model="fake",
        messages=[*before, *ASK],
        temperature=0.3,
        top_p=0.9,
        max_tokens=77,
        stop=["END"],
        response_format={"type": "json_object"},
        logprobs=False,
        extra_body={"top_k": 5},
    )
    body = last_bodies(fake)[-1]
    assert body["messages"] == [*before, *ASK]
    assert (body["temperature"], body["top_p"], body["top_k"], body["max_tokens"]) == (
        0.3,
        0.9,
        5,
        77,
    )
    assert body["stop"] == ["END"] and body["response_format"] == {"type": "json_object"}
    assert "method" not in body and "logprobs" not in body


def test_a_stop_ends_the_answer_and_no_step(client: openai.OpenAI, fake: FakeEndpoint) -> None:
    reply = client.chat.completions.create(model="fake", messages=ASK, stop=["answer"], seed=1)
    texts = [text.partition("answer")[0] for text in fake.answered[-1].texts]
    assert reply.choices[0].message.content in texts and "\nFinal" in texts[0]
    assert reply.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("change", "error", "param"),
    [
        ({"model": "gpt-4"}, openai.NotFoundError, "model"),
        ({"model": "fake@best_of_n:x"}, openai.NotFoundError, "model"),
        ({"model": "fake@best"}, openai.BadRequestError, "method"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"messages": [*ASK, {"role": "assistant", "content": "2"}]}, openai.BadRequestError, ...),
        ({"messages": [{"role": "tool", "content": "2"}]}, openai.BadRequestError, ...),
        ({"n": 17}, openai.BadRequestError, ...),
        ({"n": 9, "extra_body": {"n_candidates": 8}}, openai.BadRequestError, "n"),
        ({"extra_body": {"n_candidates": 17}}, openai.BadRequestError, "n_candidates"),
        ({"extra_body": {"aggregation": "x"}}, openai.BadRequestError, None),
        ({"max_tokens": 201}, openai.BadRequestError, "max_tokens"),
        ({"logprobs": True}, openai.BadRequestError, "logprobs"),
        ({"tools": [{"type": "function"}]}, openai.BadRequestError, "tools"),
        ({"temperature": -1}, openai.BadRequestError, "temperature"),
        ({"stop": "END", "model": "fake@beam_search"}, openai.BadRequestError, "stop"),
        (
            {"response_format": {"type": "json_object"}, "model": "fake@beam_search"},
            openai.BadRequestError,
            "response_format",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_in_openais_form(
    client: openai.OpenAI, change: dict[str, Any], error: type[openai.APIStatusError], param: Any
) -> None:
    with pytest.raises(error) as raised:
        client.chat.completions.create(**({"model": "fake", "messages": ASK} | change))
    assert raised.value.type == "invalid_request_error" and raised.value.body
    assert param is ... or raised.value.param == param


def test_the_reward_model_sees_the_last_turn_alone(client: openai.OpenAI, png: bytes) -> None:
    picture = {"type": "image_url", "image_url": {"url": encode_image(png)}}
    first = {"role": "user", "content": [picture]}
    with pytest.raises(openai.BadRequestError, match="last turn"):
        client.chat.completions.create(model="fake", messages=[first, *ASK])


def test_a_policy_that_refuses_or_is_gone_is_told_apart() -> None:
    refusal = Fault("400", body='{"error": {"message": "context is 10 tokens"}}')
    with FakeEndpoint(writer=write) as fake, gateway(fake, give_up_after_s=0.2) as client:
        client.chat.completions.create(model="fake", messages=ASK)
        fake.plan = always(refusal)
        with pytest.raises(openai.BadRequestError, match="context is 10 tokens") as raised:
            client.chat.completions.create(model="fake", messages=ASK)
        assert "127.0.0.1" not in str(raised.value)
        fake.plan = always(Fault("reset"))
        with pytest.raises(openai.InternalServerError) as gone:
            client.chat.completions.create(model="fake", messages=ASK)
        assert gone.value.status_code == 502 and "127.0.0.1" not in str(gone.value)


def test_the_embedded_policy_answers_through_it_with_a_picture() -> None:
    policy = Policy("tiny", max_new_tokens=48)
    asked = picture_question("q", 3)
    shown = encode_image(asked.images[0])

    def written(prompt: str, begun: str, seed: int) -> str:
        image, _, text = prompt.partition("\n")
        if not text:  # the greeting
            return "yes"
        question = asked.model_copy(update={"text": text, "images": (decode_image(image),)})
        return wait_for(policy.sample(Request(question), 1, seed)).completions[0].text

    content = [
        {"type": "image_url", "image_url": {"url": shown}},
        {"type": "text", "text": asked.text},
    ]
    with policy, FakeEndpoint(writer=written) as fake, gateway(fake, random_prm()) as client:
        reply = client.chat.completions.create(
            model="fake@best_of_n:4",
            messages=[{"role": "user", "content": content}],
        )
        told = reply.choices[0].model_dump()["dreamprm"]
        assert len(told["step_scores"]) == len(told["steps"]) > 1
        assert set(fake.answered[-1].texts) >= {reply.choices[0].message.content}
        listed = [model.id for model in client.models.list()]
    assert listed[:3] == ["prm", "fake", "fake@first_sample"]
