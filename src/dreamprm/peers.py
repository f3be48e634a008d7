"""Our reward models and policies in the forms that its_hub and reward_hub take.

its_hub (1.2) runs its best-of-N with `HubORM`, its beam search and particle filters with `HubPRM`,
and samples from a policy in this process with `HubPolicy`; a served policy has its_hub's own class
for OpenAI's API. Its searches over steps hand on the text of a prompt and drop its images, so these
are given here, with one adapter per question. `RewardHubPRM` is what reward_hub (0.1) calls a
process reward model. Nothing of either is imported: their classes ask for methods alone.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dreamprm.policy import Request, Writer
from dreamprm.prm.scorer import StepModel, StepScorer
from dreamprm.records import Question, Trajectory
from dreamprm.rl import StepReward, question_of
from dreamprm.search.aggregation import step_scores
from dreamprm.steps import split_open, split_steps


class HubPRM:
    """its_hub's `AbstractProcessRewardModel`: a score for each begun or finished response.

    Args:
        prm: the reward model, or its folder; `options` are those of `StepReward`.
        images: of the prompt.
    """

    def __init__(
        self, prm: StepModel | str | Path, images: Sequence[str | bytes] = (), **options: Any
    ) -> None:
        self._reward, self._images = StepReward(prm, **options), images

    def score(self, prompt_or_messages: Any, steps: Any) -> Any:
        """The aggregated score of each response, in (0, 1); 0 where it has no step yet.

        Args:
            prompt_or_messages: a text, its_hub's messages, or dictionaries like them.
            steps: a response, or several: what its_hub calls steps are beginnings of responses.
        """
        texts = [steps] if isinstance(steps, str) else list(steps)
        question = hub_question(prompt_or_messages, self._images)
        scores = self._reward.scores(question, [split_steps(text)[0] for text in texts])
        return scores[0] if isinstance(steps, str) else scores

    async def ascore(self, prompt_or_messages: Any, steps: Any, **_: Any) -> Any:
        """`score`, beside the event loop."""
        return await asyncio.to_thread(self.score, prompt_or_messages, steps)


class HubORM:
    """its_hub's `AbstractOutcomeRewardModel`: a score for each conversation's last turn.

    A response that states no answer has the score 0.

    Args:
        prm: the reward model, or its folder; `options` are those of `StepReward`.
        images: of the prompt, where its messages do not hold them.
    """

    def __init__(
        self, prm: StepModel | str | Path, images: Sequence[str | bytes] = (), **options: Any
    ) -> None:
        self._reward, self._images = StepReward(prm, **options), images

    def score(self, messages: Any, **_: Any) -> Any:
        """The aggregated score, in (0, 1), of a conversation, or of each of several."""
        if not isinstance(messages[0], list):
            return self.score([messages])[0]
        questions = [hub_question(turns[:-1], self._images) for turns in messages]
        texts = [as_turn(turns[-1]).get("content") or "" for turns in messages]
        return [reward.value for reward in self._reward(questions, texts)]

    async def ascore(self, messages: Any, **_: Any) -> Any:
        """`score`, beside the event loop."""
        return await asyncio.to_thread(self.score, messages)


class HubPolicy:
    """its_hub's `AbstractLanguageModel` on a policy, which stops where a step ends.

    Temperature and length are the policy's own. A conversation that ends with an assistant's turn
    is continued.

    Args:
        policy: `dreamprm.Policy`, say; stays open.
        images: of the prompt.
        seed: of the first text; every further one has the next.
    """

    def __init__(self, policy: Writer, images: Sequence[str | bytes] = (), seed: int = 0) -> None:
        self._policy, self._images, self._seeds = policy, images, itertools.count(seed)

    async def agenerate(self, messages: Any, stop: str | None = None, **options: Any) -> Any:
        """A reply to a conversation, or to each of several."""
        if messages and isinstance(messages[0], list):
            return await asyncio.gather(*(self.agenerate_single(m, stop) for m in messages))
        return await self.agenerate_single(messages, stop)

    async def agenerate_single(
        self, messages: Any, stop: str | None = None, **_: Any
    ) -> dict[str, str]:
        """A reply to a conversation, up to the text `stop`."""
        turns = [as_turn(message) for message in messages]
        begun = turns.pop()["content"] if turns[-1]["role"] == "assistant" else ""
        steps = tuple(split_open(begun)) if begun else ()
        request = Request(hub_question(turns, self._images), steps, one_step=stop is not None)
        [completion] = (await self._policy.sample(request, 1, next(self._seeds))).completions
        text = completion.text if stop is None else completion.text.partition(stop)[0]
        return {"role": "assistant", "content": text}


class RewardHubPRM:
    """reward_hub's process reward model: conversations in, numbers out.

    Args:
        prm: the reward model.
        batch_size: responses in one forward pass.
    """

    def __init__(self, prm: StepModel, batch_size: int = 16) -> None:
        self._scorer = StepScorer(prm, batch_size)

    def score(
        self,
        messages: Any,
        step_sep: str = "\n\n",
        aggregation_method: Any = "last",
        return_full_prm_result: bool = False,
        **_: Any,
    ) -> list[Any]:
        """Score the last turn of each conversation.

        Args:
            messages: a conversation in OpenAI's form, or several.
            step_sep: what the steps are set apart by.
            aggregation_method: `last`, `min`, `prod`, or `model` (the response as one step), by
                name or as reward_hub's enumeration.
            return_full_prm_result: give reward_hub's `PRMResult`, which holds every step's score.
        """
        how = getattr(aggregation_method, "value", aggregation_method)
        pairs = []
        for i, turns in enumerate(messages if isinstance(messages[0], list) else [messages]):
            said, question = turns[-1]["content"], hub_question(turns[:-1])
            steps = [said] if how == "model" else [s for s in said.split(step_sep) if s.strip()]
            t = Trajectory(question_id=question.id, steps=tuple(steps), sample_index=i)
            pairs.append((question, t))
        found = {s.sample_index: step_scores(s.logits) for s in self._scorer.score(pairs)}
        scores = [found[i] for i in range(len(pairs))]
        if return_full_prm_result:
            from reward_hub.base import PRMResult

            return [PRMResult(scores=one, aggregation_method=how) for one in scores]
        if how == "prod":
            return [math.prod(one) for one in scores]
        return [min(one) if how == "min" else one[-1] for one in scores]


def hub_question(messages: Any, images: Sequence[str | bytes] = ()) -> Question:
    """The question of a prompt in its_hub's forms: a text, messages, or an object that wraps them.

    Args:
        images: in place of those of the messages.
    """
    if hasattr(messages, "to_chat_messages"):
        messages = messages.to_chat_messages()
    prompt = messages if isinstance(messages, str) else [as_turn(m) for m in messages]
    return question_of(prompt, {"images": list(images)})


def as_turn(message: Any) -> Mapping[str, Any]:
    """A message as a dictionary."""
    turn: Mapping[str, Any] = message if isinstance(message, Mapping) else message.to_dict()
    return turn
