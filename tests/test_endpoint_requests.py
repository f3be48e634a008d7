"""What the endpoint policy asks of servers that take it in different ways: n, limits, prefixes."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import pytest
from PIL import Image

from dreamprm.policy import Reply, Request
from dreamprm.policy.chat import part_seed
from dreamprm.policy.served import EndpointPolicy
from dreamprm.records import Question
from tests.fake_endpoint import FakeEndpoint
from tests.faults import Fault, always, scripted
from tests.test_endpoint import policy_of, question, run

STEPS = ("Step 1: red is 3", "Step 2: blue is 5")


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "png")
    return buffer.getvalue()


PNG = _png()


def sample(
    server: FakeEndpoint, request: Request, n: int = 1, seed: int = 7, **options: Any
) -> Reply:
    async def story() -> Reply:
        policy = policy_of(server, **options)
        try:
            return await policy.sample(request, n, seed)
        finally:
            await policy.close()

    return asyncio.run(story())


async def twice(policy: EndpointPolicy, request: Request, n: int) -> list[Reply]:
    try:
        return [await policy.sample(request, n, seed) for seed in (0, 100)]
    finally:
        await policy.close()


def resolved(server: FakeEndpoint, **options: Any) -> dict[str, Any]:
    policy = policy_of(server, **options)
    with pytest.raises(RuntimeError, match="connect"):
        assert policy.settings
    asyncio.run(policy.connect())
    settings = dict(policy.settings)
    assert json.loads(json.dumps(settings)) == settings
    return settings


def test_a_request_says_all_that_was_set() -> None:
    with FakeEndpoint() as server:
        reply = sample(
            server,
            Request(question(1)),
            3,
            temperature=0.7,
            extra_body={"top_p": 0.9},
            prompt="bare",
        )
        assert server.seen[-1].body == {
            "model": "fake",
            "messages": [{"role": "user", "content": "What is 1?"}],
            "temperature": 0.7,
            "max_tokens": 1024,
            "n": 3,
            "seed": 7,
            "top_p": 0.9,
        }
        assert (len(reply.completions), reply.prompt_tokens) == (3, 10)
        assert reply.completion_tokens > 0


def test_a_server_that_gives_more_than_n_is_cut_and_one_that_gives_fewer_is_not_lost() -> None:
    with FakeEndpoint(plan=scripted({1: Fault("more"), 2: Fault("fewer")})) as server:
        policy = policy_of(server, continuation="prompt", concurrency=1)
        assert [len(texts) for texts in run(policy, 3, n=6)] == [6, 3, 6]


def test_a_server_that_ignores_n_gives_one() -> None:
    with FakeEndpoint(ignores_n=True) as server:
        assert [len(texts) for texts in run(policy_of(server), 3, n=6)] == [1, 1, 1]


@pytest.mark.parametrize("largest", [1, 2, 3])
def test_a_server_that_refuses_n_is_asked_for_less_and_that_is_remembered(largest: int) -> None:
    with FakeEndpoint(largest_n=largest) as server:
        policy = policy_of(server)
        first = run(policy, 4, n=8)
        assert all(len(set(texts)) == 8 for texts in first)
        server.forget()
        assert run(policy, 4, n=8) == first
        assert {seen.body["n"] for seen in server.seen} == {min(largest, 2)}
        assert len(server.seen) == 4 * 8 // min(largest, 2)


def test_no_more_than_max_n_is_asked_for_at_once() -> None:
    with FakeEndpoint() as server:
        [texts] = run(policy_of(server, max_n=3, continuation="prompt"), 1, n=8)
        assert len(set(texts)) == 8
        assert [seen.body["n"] for seen in server.seen[1:]] == [3, 3, 2]


@pytest.mark.parametrize("status", ["400", "401"])
def test_a_part_that_fails_does_not_take_the_finished_ones_before_it_along(status: str) -> None:
    with FakeEndpoint() as server:
        policy = policy_of(server, max_n=1, continuation="prompt")
        [whole] = run(policy, 1, n=8)
        unlucky = part_seed(0, 5)  # parts need not arrive in their order
        server.forget()
        wrong = Fault(status, body='{"error": {"message": "no"}}')
        server.plan = lambda _, body: wrong if body["seed"] == unlucky else None
        reply = sample(server, Request(question(0)), 8, max_n=1, continuation="prompt", seed=0)
        assert [done.text for done in reply.completions] == whole[:5]


def test_parts_behind_the_one_that_fails_are_counted() -> None:
    # By a part's seed: on a busy machine parts do not arrive in their order.
    late = {part_seed(7, 2): Fault("400"), part_seed(7, 0): Fault("slow")}
    late[part_seed(7, 1)] = Fault("slow")
    with FakeEndpoint(plan=lambda _, body: late.get(body["seed"])) as server:
        reply = sample(server, Request(question(0)), 8, max_n=1, continuation="prompt")
        assert len(reply.completions) == 2
        assert len(server.answered) == 1 + 7
        assert (reply.prompt_tokens, reply.completion_tokens) == (
            10 * 7,
            sum(len(text.split()) for seen in server.seen[1:] for text in seen.texts),
        )


def test_tokens_that_a_server_does_not_count_are_estimated(caplog: Any) -> None:
    """Else a budget would never stop."""
    with FakeEndpoint(plan=always(Fault("uncounted")), writer=lambda *_: "x" * 41) as server:
        shown = Question(id="1", domain="d", text="y" * 78, images=(PNG, PNG), answer="1")
        policy = policy_of(server, prompt="bare", continuation="prompt")
        replies = asyncio.run(twice(policy, Request(shown), 3))
        for reply in replies:
            assert reply.completion_tokens == 31  # 123 characters
            assert reply.prompt_tokens == 2020  # 2 images and 78 characters
        assert caplog.text.count(f"{server.url} does not count tokens") == 1


def test_no_seed_is_sent_where_none_is_set() -> None:
    with FakeEndpoint() as server:
        assert len(run(policy_of(server, seed=None), 3)) == 3
        assert not any("seed" in seen.body for seen in server.seen)


@pytest.mark.parametrize("broken", ["422", "500", "reset"])
def test_a_server_that_breaks_at_a_seed_gets_none_and_others_do(
    broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    fault = Fault(broken, body='{"error": {"message": "no seed"}}')
    breaks = lambda _, body: fault if "seed" in body else None  # noqa: E731
    with FakeEndpoint(plan=breaks, latency_s=0.01) as one, FakeEndpoint(latency_s=0.01) as other:
        policy = policy_of(one, other, concurrency=2)
        asyncio.run(policy.connect())
        one.forget()
        assert len(run(policy, 20)) == 20
        assert not any("seed" in seen.body for seen in one.seen) and one.seen
        assert all("seed" in seen.body for seen in other.seen)
        assert caplog.text.count("it answers without a seed, so none is sent to it") == 1
        assert policy.settings == policy_of(one, continuation="prompt").settings


def test_a_server_that_works_with_a_seed_is_not_asked_without() -> None:
    with FakeEndpoint(plan=scripted({1: Fault("400"), 2: Fault("400")})) as server:
        run(policy_of(server), 1)
        assert all("seed" in seen.body for seen in server.seen)


def test_a_server_that_wants_max_completion_tokens_gets_it() -> None:
    refusal = Fault("400", body='{"error": {"message": "use max_completion_tokens instead"}}')
    with FakeEndpoint(plan=lambda _, body: refusal if "max_tokens" in body else None) as server:
        assert len(run(policy_of(server, max_new_tokens=9))) == 20
        assert server.seen[-1].body["max_completion_tokens"] == 9
        assert sum(seen.status == 400 for seen in server.seen) == 1


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_known_servers_are_prefilled(kind: Any) -> None:
    with FakeEndpoint(owned_by=kind, continues="prefill", writer=lambda *_: "no copy") as server:
        assert resolved(server)["continuation"] == "prefill"


@pytest.mark.parametrize(
    ("continues", "counted", "writes", "way"),
    [
        ("never", True, "Sure! alpha bravo charlie delta echo foxtrot", "prompt"),
        ("never", True, "<think>Copy", "prompt"),
        ("never", False, "<think>So: alpha bravo charlie delta", "prompt"),
        ("never", False, "<think>Copy", "prefill"),  # nothing tells, and its documents say so
        ("prefill", True, "alpha bravo charlie delta", "prefill"),  # a weak model
    ],
)
def test_a_known_server_whose_fields_are_dropped_on_the_way_is_found_out(
    continues: Any, counted: bool, writes: str, way: str, caplog: Any
) -> None:
    plan = None if counted else always(Fault("uncounted"))
    with FakeEndpoint(
        owned_by="vllm", continues=continues, plan=plan, writer=lambda *_: writes
    ) as server:
        assert resolved(server)["continuation"] == way
        told = f"{server.url} does not go on in an answer that is begun"
        assert (told in caplog.text) == (way == "prompt")


def test_continuations_that_start_over_are_not_kept_and_asked_for_by_prompt(caplog: Any) -> None:
    def writes(prompt: str, begun: str, seed: int) -> str:
        if "Go on exactly" in prompt:
            return f"Step 3: {seed}"
        return "Step 1: red is 4\nStep 2: 9" if not begun or seed == 101 else f"Step 3: {seed}"

    for continues, texts, prefilled in (
        ("never", ["Step 3: 0", "Step 3: 1", "Step 3: 2", "Step 3: 100", "Step 3: 101"], 2),
        ("prefill", ["Step 3: 0", "Step 3: 1", "Step 3: 2", "Step 3: 100"], 3),  # once by chance
    ):
        caplog.clear()
        with FakeEndpoint(continues=continues, writer=writes) as server:  # type: ignore[arg-type]
            policy = policy_of(server, continuation="prefill")

            async def story(policy: EndpointPolicy) -> list[Reply]:
                asked = Request(question(1), STEPS)
                replies = [await policy.sample(asked, n, s) for n, s in ((1, 0), (2, 1), (2, 100))]
                await policy.close()
                return replies

            replies = asyncio.run(story(policy))
            assert [done.text for reply in replies for done in reply.completions] == texts
            roles = [seen.body["messages"][-1]["role"] for seen in server.seen]
            assert roles.count("assistant") == prefilled
            assert caplog.text.count("a completion starts over at the first step") == 1
            assert policy.settings["continuation"] == "prefill"  # a rerun finds what is stored


def test_other_servers_are_tried() -> None:
    for continues, way in (("prefill", "prefill"), ("never", "prompt")):
        with FakeEndpoint(continues=continues) as server:  # type: ignore[arg-type]
            assert resolved(server)["continuation"] == way
    refuse = Fault("422")  # as `transformers serve` does with fields that it does not know
    with FakeEndpoint(
        continues="assistant", plan=lambda _, body: refuse if len(body) > 6 else None
    ) as server:
        assert resolved(server)["continuation"] == "assistant"


def test_servers_that_differ_are_all_prompted() -> None:
    with FakeEndpoint(continues="prefill") as one, FakeEndpoint() as other:
        policy = policy_of(one, other)
        asyncio.run(policy.connect())
        assert policy.settings["continuation"] == "prompt"


def test_a_prefix_is_put_into_the_models_mouth_exactly_as_it_was_written() -> None:
    with FakeEndpoint(continues="assistant") as server:
        for way, fields in (
            ("prefill", {"continue_final_message": True, "add_generation_prompt": False}),
            ("assistant", {}),
        ):
            sample(server, Request(question(1), STEPS), continuation=way)
            body = server.seen[-1].body
            said = {"role": "assistant", "content": "Step 1: red is 3\nStep 2: blue is 5\n"}
            assert body["messages"][1:] == [said]
            marks = ("continue_final_message", "add_generation_prompt")
            assert {name: body[name] for name in marks if name in body} == fields
        sample(server, Request(question(1)), continuation="prefill")  # nothing to continue
        assert len(server.seen[-1].body["messages"]) == 1
        assert "continue_final_message" not in server.seen[-1].body


def test_a_prefix_in_the_prompt_is_cut_off_where_the_model_repeats_it() -> None:
    with FakeEndpoint(
        writer=lambda *_: "Step 1: red is 3\n\nStep 2:  blue is 5\nStep 3: 8"
    ) as server:
        reply = sample(server, Request(question(1), STEPS), continuation="prompt")
        assert reply.completions[0].text == "Step 3: 8"
        [message] = server.seen[-1].body["messages"]
        assert message["content"].endswith("Step 1: red is 3\nStep 2: blue is 5")


@pytest.mark.parametrize("told", ["stop_reason", "matched_stop", None])
def test_a_single_step_ends_before_the_next_one(told: Any) -> None:
    with FakeEndpoint(continues="prefill", stops=told) as server:
        whole = sample(server, Request(question(1), STEPS[:1]), 3, continuation="prefill")
        one = sample(server, Request(question(1), STEPS[:1], True), 3, continuation="prefill")
        assert server.seen[-1].body["stop"] == ["\nStep 3"]
        for long, short in zip(whole.completions, one.completions, strict=True):
            assert short.text == long.text.split("\nStep 3")[0]
            assert (long.finish_reason, short.finish_reason) == ("stop", "step")
        last = sample(server, Request(question(1), STEPS, True), continuation="prefill")
        assert last.completions[0].finish_reason == "stop"  # it states the answer
        assert "Final answer" in last.completions[0].text


def test_the_first_step_is_looked_for_in_the_ways_that_models_mark_it() -> None:
    with FakeEndpoint(writer=lambda *_: "**Step 1:** red\n\n**Step 2:** blue") as server:
        reply = sample(server, Request(question(1), (), True), prompt="five_steps")
        assert reply.completions[0].text == "**Step 1:** red\n"
        assert len(server.seen[-1].body["stop"]) == 4  # more are refused by OpenAI
        reply = sample(server, Request(question(1), ("**Step 1:** red",), True))
        assert server.seen[-1].body["stop"] == ["\n**Step 3"]
        sample(server, Request(question(1), (), True), prompt="plain")
        assert server.seen[-1].body["stop"] == ["\n\n"]


def test_a_server_that_hands_the_stop_out_is_understood() -> None:
    with FakeEndpoint(stops="never", writer=lambda *_: "red is 3\n\n") as server:
        reply = sample(server, Request(question(1), (), True), prompt="plain")
        assert reply.completions[0].text == "red is 3"
        assert reply.completions[0].finish_reason == "step"


def test_a_model_that_ended_by_itself_is_not_asked_to_go_on() -> None:
    for told in ("stop_reason", "matched_stop"):
        with FakeEndpoint(stops=told, writer=lambda *_: "It is 8.") as server:  # type: ignore[arg-type]
            reply = sample(server, Request(question(1), (), True), prompt="plain")
            assert reply.completions[0].finish_reason == "stop"
    with FakeEndpoint(stops=None, writer=lambda *_: "") as server:
        reply = sample(server, Request(question(1), ("It is 8.",), True), prompt="plain")
        assert reply.completions[0].finish_reason == "stop"
