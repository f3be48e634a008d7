"""The reward function that verl loads by the path of this file, or as pkg://dreamprm.rl.verl_reward.

    reward.custom_reward_function.path=pkg://dreamprm.rl.verl_reward
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.prm=FOLDER
    +reward.custom_reward_function.reward_kwargs.gate=True

verl takes a row's images away before rewards are computed, so they, the question and its options
have to lie in the row's `extra_info` too. It asks for one completion at a time, from many threads;
the thread that finds the model free judges all that wait.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import cache
from queue import SimpleQueue
from threading import Lock
from typing import Any

from dreamprm.errors import DataError
from dreamprm.records import Question
from dreamprm.rl import Reward, StepReward, question_of

_LOADING = Lock()


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str | None,
    extra_info: Mapping[str, Any] | None = None,
    *,
    prm: str,
    urls: Sequence[str] = (),
    aggregation: str | None = None,
    gate: bool = False,
    lowest: float = 0.0,
    device: str | None = None,
    **_: Any,
) -> dict[str, float]:
    """Reward of one completion.

    Args:
        data_source: not used.
        solution_str: what the policy wrote.
        ground_truth: the gold answer, for the gate and for `acc`.
        extra_info: `question`, and where there are any `images` (paths, encoded bytes or structs of
            both) and `options`.
        prm: folder of the reward model; this and the following are `reward_kwargs` of verl's
            config, see `StepReward`.

    Returns:
        `score`, which verl maximises; `prm`, the judge's score (0 where it was not asked); `acc`, 1
        where the answer is right; `unread`, 1 where the judge could not be asked.

    Raises:
        DataError: extra_info does not hold the question.
    """
    facts = dict(extra_info or {})
    if not facts.get("question"):
        raise DataError(
            "extra_info has no 'question', which is what the reward model judges by; add it, and "
            "'images', where the data set is prepared"
        )
    if not isinstance(ground_truth, str | int | float):
        raise DataError(f"ground_truth is a {type(ground_truth).__name__}; give the answer's text")
    row: dict[str, Any] = {"question": facts["question"], "answer": ground_truth}
    # Parquet fills columns that a row lacks with None.
    given = {name: facts.get(name) for name in ("images", "options")}
    row |= {name: list(values) for name, values in given.items() if values is not None}
    with _LOADING:
        judge = _judge(prm, tuple(urls or ()), aggregation, gate, lowest, device)
    reward = judge(question_of("", row), solution_str)
    return {
        "score": reward.value,
        "prm": reward.score or 0.0,
        "acc": float(bool(reward.correct)),
        "unread": float(reward.score is None),
    }


class _Judge:
    """Judges completions that many threads bring one by one, all at once that wait."""

    def __init__(self, reward: StepReward) -> None:
        self._reward, self._free = reward, Lock()
        self._waiting: SimpleQueue[tuple[Question, str, Future[Reward]]] = SimpleQueue()

    def __call__(self, question: Question, text: str) -> Reward:
        mine: Future[Reward] = Future()
        self._waiting.put((question, text, mine))
        with self._free:
            if not mine.done():
                batch = [self._waiting.get() for _ in range(self._waiting.qsize())]
                questions, texts, futures = zip(*batch, strict=True)
                try:
                    for future, reward in zip(futures, self._reward(questions, texts), strict=True):
                        future.set_result(reward)
                except Exception as error:
                    for future in futures:
                        future.set_exception(error)
        return mine.result()


@cache
def _judge(prm: str, urls: tuple[str, ...], *settings: Any) -> _Judge:
    """One per process and setting."""
    aggregation, gate, lowest, device = settings
    reward = StepReward(
        prm, urls=urls, aggregation=aggregation, gate=gate, lowest=lowest, device=device
    )
    return _Judge(reward)
