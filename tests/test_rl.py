"""A reward model as the reward of reinforcement learning."""

from __future__ import annotations

import importlib.util
import io
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import dreamprm.rl.verl_reward as verl_file
from dreamprm.errors import DataError
from dreamprm.prm.folder import LayoutConfig, PRMConfig
from dreamprm.prm.model import PRM
from dreamprm.prm.served import ServedPRM
from dreamprm.records import UNKNOWN_ANSWER, Question
from dreamprm.rl import StepReward, min_form, question_of, trl_reward
from dreamprm.search.aggregation import aggregate, step_scores
from tests.fake_pooling import FakePooling
from tests.tiny_models import picture_question, random_prm

RIGHT = "Step 1: red is 3\nStep 2: blue is 5\nStep 3: 3 + 5 = 8\nFinal answer: 8"
WRONG = "Step 1: red is 3\nStep 2: blue is 6\nFinal answer: 9"
STEPS = ["Step 1: red is 3", "Step 2: blue is 5", "Step 3: 3 + 5 = 8"]


@pytest.fixture(scope="module")
def prm() -> PRM:
    return random_prm()


@pytest.fixture(scope="module")
def question() -> Question:
    return picture_question().model_copy(update={"answer": "8"})


@pytest.fixture(scope="module")
def step_scores_of(prm: PRM, question: Question) -> list[float]:
    """Of the steps of RIGHT."""
    return prm.score(question, [STEPS])[0]


@pytest.mark.parametrize("aggregation", ["mean_logit", "last", "min", "product"])
def test_the_reward_is_the_aggregated_score_as_a_probability(
    prm: PRM, question: Question, aggregation: str
) -> None:
    [reward] = StepReward(prm, aggregation=aggregation)([question], [RIGHT])
    logits = prm.passes()[0]([(question, STEPS)])[0]
    assert reward.value == reward.score
    assert reward.value == pytest.approx(step_scores([aggregate(logits, aggregation)])[0], abs=1e-6)


def test_each_step_has_a_score_and_a_place_in_the_completion(
    prm: PRM, question: Question, step_scores_of: list[float]
) -> None:
    [reward] = StepReward(prm)([question], [RIGHT])
    assert reward.step_scores == pytest.approx(step_scores_of, abs=1e-6)
    starts = (0, *reward.ends[:-1])
    assert [RIGHT[a:b].strip() for a, b in zip(starts, reward.ends, strict=True)] == STEPS


def test_completions_of_several_questions_keep_their_places(prm: PRM) -> None:
    questions = [picture_question("a", 1), picture_question("b", 2), picture_question("a", 1)]
    texts = [RIGHT, RIGHT, WRONG]
    together = StepReward(prm)(questions, texts)
    alone = [StepReward(prm)([q], [c])[0] for q, c in zip(questions, texts, strict=True)]
    assert [r.value for r in together] == pytest.approx([r.value for r in alone], abs=1e-6)
    assert len({round(r.value, 6) for r in together}) == 3


def test_with_the_gate_a_wrong_answer_earns_the_lowest_however_good_its_steps(
    prm: PRM, question: Question
) -> None:
    right, wrong = StepReward(prm, gate=True, lowest=-1.0)([question] * 2, [RIGHT, WRONG])
    assert (right.value, right.correct, right.why) == (right.score, True, "")
    assert (wrong.value, wrong.correct, wrong.why) == (-1.0, False, "wrong")
    assert wrong.score is not None and len(wrong.step_scores) == 2
    ungated = StepReward(prm)([question], [WRONG])[0]
    assert (ungated.value, ungated.correct) == (ungated.score, False)


def test_a_gate_needs_gold_answers(prm: PRM, question: Question) -> None:
    unknown = question.model_copy(update={"answer": UNKNOWN_ANSWER})
    with pytest.raises(DataError, match=r"no gold answer, .* a column 'answer'"):
        StepReward(prm, gate=True)([unknown], [RIGHT])
    assert StepReward(prm)([unknown], [RIGHT])[0].correct is None


@pytest.mark.parametrize(
    ("completion", "why"),
    [
        ("", "empty"),
        ("Final answer: 8", "no steps"),
        ("Step 1: red is 3\nStep 2: blue", "cut"),
        ("Step 1: red is 3. I cannot tell.", "refused"),
    ],
)
def test_what_cannot_be_judged_earns_the_lowest_and_is_logged(
    prm: PRM, question: Question, completion: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "dreamprm.rl"):
        odd, fine = StepReward(prm, lowest=-0.5)([question] * 2, [completion, RIGHT])
    assert (odd.value, odd.score, odd.why) == (-0.5, None, why)
    assert fine.score is not None
    assert caplog.messages == [f"lowest reward for 1 {why}, of 2 completions"]


def test_steps_beyond_the_judge_s_context_earn_the_lowest(question: Question) -> None:
    judge = random_prm(PRMConfig(layout=LayoutConfig(max_length=60)))
    long = RIGHT.replace("Final", "Step 4: so it is 8\n" * 20 + "Final")
    odd, fine = StepReward(judge)([question] * 2, [long, "Step 1: so 8\nFinal answer: 8"])
    assert (odd.value, odd.why, fine.why) == (0.0, "too long", "")


def test_a_completion_that_the_judge_refuses_spoils_no_other(prm: PRM, question: Question) -> None:
    judge = Picky(prm, lambda steps: "blue is 6" in " ".join(steps))
    fine, odd = StepReward(judge)([question] * 2, [RIGHT, WRONG])
    assert (odd.value, odd.why, fine.why) == (0.0, "refused by the judge", "")
    with pytest.raises(DataError, match="refused"):  # the question's fault, not the completion's
        StepReward(Picky(prm, lambda steps: True))([question], [RIGHT])


class Picky:
    """A reward model that refuses some reasonings."""

    def __init__(self, prm: PRM, refuses: Callable[[Any], bool]) -> None:
        self.prm, self.refuses = prm, refuses

    def passes(self) -> Any:
        plain, _ = self.prm.passes()

        def picky(pairs: Any) -> Any:
            if any(self.refuses(steps) for _, steps in pairs):
                raise DataError("refused")
            return plain(pairs)

        return picky, None


def test_a_served_model_gives_the_same_rewards(
    prm: PRM, question: Question, tmp_path: Path
) -> None:
    prm.save_pretrained(tmp_path)
    with FakePooling(prm) as server:
        reward = StepReward(tmp_path, urls=[server.url])
        served = reward([question] * 2, [RIGHT, WRONG])
        assert isinstance(reward.prm, ServedPRM)
        reward.prm.close()
    local = StepReward(prm)([question] * 2, [RIGHT, WRONG])
    assert [r.value for r in served] == pytest.approx([r.value for r in local], abs=1e-4)


def test_min_form_credits_a_reasoning_by_its_weakest_step() -> None:
    assert sum(min_form([0.9, 0.2, 0.9])) == pytest.approx(2 * 0.2 - 1, abs=0.01)
    more = min_form([0.9, 0.2, *[0.9] * 50])
    assert sum(more) == pytest.approx(2 * 0.2 - 1, abs=0.02)  # more good steps earn nothing
    assert min_form([]) == []


# --- TRL


def test_trl_gives_conversations_pictures_and_columns(
    prm: PRM, question: Question, step_scores_of: list[float]
) -> None:
    picture = Image.open(io.BytesIO(bytes(question.images[0])))  # type: ignore[arg-type]
    turns = [
        {"role": "system", "content": "Think."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question.text}]},
    ]
    shown = {"type": "image", "image": picture}
    inside = [{"role": "user", "content": [shown, {"type": "text", "text": question.text}]}]
    said = [{"role": "assistant", "content": RIGHT}]
    logged: dict[str, float] = {}
    values = trl_reward(prm, gate=True, aggregation="last")(
        prompts=[turns, inside],
        completions=[said, [{"role": "assistant", "content": WRONG}]],
        completion_ids=[[1], [2]],
        images=[[picture], []],
        answer=["8", "8"],
        trainer_state=None,
        log_metric=logged.__setitem__,
    )
    assert values == [pytest.approx(step_scores_of[-1], abs=1e-6), 0.0]
    assert 0 < logged.pop("prm/score") < 1
    assert logged == {"prm/correct": 0.5, "prm/steps": 2.5, "prm/unread": 0}


def test_the_column_question_stands_for_the_prompt_and_its_instructions() -> None:
    row = {"question": "<image>\nWhat is it?", "options": ["a cat", "a dog"], "answer": "B"}
    question = question_of("What is it? Think step by step.", row)
    assert (question.text, question.options, question.answer) == (
        "What is it?",
        ("a cat", "a dog"),
        "B",
    )
    assert question.id == question_of("other words", row).id
    assert question.id != question_of("", row | {"options": ["a dog", "a cat"]}).id


def test_a_data_url_of_a_chat_is_a_picture_too(question: Question) -> None:
    from dreamprm.images import data_url

    url = {"type": "image_url", "image_url": {"url": data_url(question.images[0])}}
    turn = {"role": "user", "content": [url, {"type": "text", "text": question.text}]}
    assert question_of([turn], {}).images == question.images


# --- verl


def load_as_verl_does() -> Callable[..., dict[str, float]]:
    """From the file's path, under a name that is no package's."""
    spec = importlib.util.spec_from_file_location("custom_module_1", verl_file.__file__)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    compute_score: Callable[..., dict[str, float]] = module.compute_score
    return compute_score


def test_verl_loads_the_file_and_asks_from_many_threads(
    prm: PRM, question: Question, step_scores_of: list[float], tmp_path: Path
) -> None:
    prm.save_pretrained(tmp_path)
    compute_score = load_as_verl_does()
    info: dict[str, Any] = {
        "question": f"<image>{question.text}",
        "images": [{"bytes": question.images[0]}],
    }
    info |= {"options": None}  # as Parquet fills a column that a row lacks

    def ask(text: str) -> dict[str, float]:
        kwargs = {"prm": str(tmp_path), "aggregation": "last", "gate": True, "device": "cpu"}
        return compute_score(
            data_source="world", solution_str=text, ground_truth="8", extra_info=info, **kwargs
        )

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, [RIGHT, WRONG, "Step 1: so", RIGHT]))
    score = pytest.approx(step_scores_of[-1], abs=1e-5)
    right = {"score": score, "prm": score, "acc": 1.0, "unread": 0.0}
    assert [found[0], found[3]] == [right, right]
    assert (found[1]["score"], found[1]["acc"], found[1]["unread"]) == (0.0, 0.0, 0.0)
    assert found[2] == {"score": 0.0, "prm": 0.0, "acc": 0.0, "unread": 1.0}
    with pytest.raises(DataError, match="extra_info has no 'question'"):
        compute_score("world", RIGHT, "8", {}, prm=str(tmp_path))
    with pytest.raises(DataError, match="ground_truth is a list"):
        compute_score("world", RIGHT, ["8"], info, prm=str(tmp_path))  # type: ignore[arg-type]
