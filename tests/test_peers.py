"""Our models in the forms of its_hub and reward_hub; its_hub itself where it is installed."""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace

import pytest

from dreamprm.images import data_url
from dreamprm.peers import HubORM, HubPolicy, HubPRM, RewardHubPRM
from dreamprm.policy.policy import Policy
from dreamprm.prm.model import PRM
from dreamprm.records import Question
from tests.tiny_models import picture_question, random_prm

STEPS = ["Step 1: red is 3", "Step 2: blue is 5", "Step 3: 3 + 5 = 8"]
BEGUN = "\n".join(STEPS[:2])
WHOLE = "\n".join([*STEPS, "Final answer: 8"])


@pytest.fixture(scope="module")
def prm() -> PRM:
    return random_prm()


@pytest.fixture(scope="module")
def question() -> Question:
    return picture_question()


@pytest.fixture(scope="module")
def scores(prm: PRM, question: Question) -> list[float]:
    """Of STEPS."""
    return prm.score(question, [STEPS])[0]


def test_begun_responses_are_scored_for_its_hub(
    prm: PRM, question: Question, scores: list[float]
) -> None:
    judge = HubPRM(prm, question.images, aggregation="last")
    found = asyncio.run(judge.ascore(question.text, [BEGUN, WHOLE, "Final answer: 8"]))
    assert found == pytest.approx([scores[1], scores[2], 0.0], abs=1e-6)
    assert judge.score(question.text, WHOLE) == pytest.approx(scores[2], abs=1e-6)


def test_whole_conversations_are_scored_for_its_hub(
    prm: PRM, question: Question, scores: list[float]
) -> None:
    picture = {"type": "image_url", "image_url": {"url": data_url(question.images[0])}}
    asked = {"role": "user", "content": [picture, {"type": "text", "text": question.text}]}
    conversations = [[asked, message("assistant", text)] for text in (WHOLE, BEGUN)]
    found = asyncio.run(HubORM(prm, aggregation="last").ascore(conversations, orchestrator=None))
    assert found == pytest.approx([scores[2], 0.0], abs=1e-6)  # the second states no answer


def message(role: str, content: str) -> SimpleNamespace:
    """As its_hub's `ChatMessage`."""
    return SimpleNamespace(to_dict=lambda: {"role": role, "content": content})


def test_a_policy_goes_on_behind_the_assistant_s_turn_to_the_end_of_a_step() -> None:
    question = picture_question()
    with Policy("tiny", max_new_tokens=48) as policy:
        model = HubPolicy(policy, question.images)
        asked = [message("user", question.text)]
        whole = asyncio.run(model.agenerate([asked] * 2))
        [first, *_] = whole[0]["content"].split("\n")
        begun = [*asked, message("assistant", f"{first}\n")]
        step = asyncio.run(model.agenerate(begun, stop="\n", temperature=0.8))
    assert "Final answer:" in whole[0]["content"]
    assert step["content"].startswith("Step 2:") and "\n" not in step["content"]


def test_reward_hub_s_form_splits_where_it_says_and_aggregates_as_it_asks(prm: PRM) -> None:
    steps = ["red is 3", "so 8"]
    turns = [{"role": "user", "content": "what ?"}]
    turns.append({"role": "assistant", "content": "\n\n".join(steps)})
    [scores] = prm.score("what ?", [steps])
    judge = RewardHubPRM(prm)
    assert judge.score(turns) == pytest.approx([scores[-1]], abs=1e-6)
    assert judge.score([turns] * 2, aggregation_method="min") == pytest.approx(
        [min(scores)] * 2, abs=1e-6
    )
    product = SimpleNamespace(value="prod")  # as a member of reward_hub's enumeration
    assert judge.score(turns, aggregation_method=product) == pytest.approx(
        [scores[0] * scores[1]], abs=1e-6
    )


def test_reward_hub_s_results_hold_every_step(prm: PRM) -> None:
    base = pytest.importorskip("reward_hub.base", reason="reward_hub is not installed")
    turns = [{"role": "user", "content": "what ?"}, {"role": "assistant", "content": "3\n\nso 8"}]
    how = base.AggregationMethod.MIN
    [result] = RewardHubPRM(prm).score(turns, aggregation_method=how, return_full_prm_result=True)
    assert result.step_scores == pytest.approx(prm.score("what ?", [["3", "so 8"]])[0], abs=1e-6)
    assert result.score == min(result.step_scores)


def test_its_hub_s_algorithms_run_on_our_models(
    prm: PRM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    pytest.importorskip("its_hub", reason="its_hub is not installed")
    from examples.its_hub_search import main

    prm.save_pretrained(str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["its_hub_search.py", "--prm", str(tmp_path)])
    main()
    _, *answers = capsys.readouterr().out.split("\n\n")
    names = [answer.partition(":\n")[0] for answer in answers]
    assert names == ["best-of-8", "beam search", "particle filter"]
    assert all("Step 1:" in answer and "Final answer:" in answer for answer in answers)
