"""A process reward model as the reward of reinforcement learning.

`StepReward` judges the completions of any trainer; `trl_reward` has the form that TRL takes,
`verl_reward.compute_score` the one that verl takes. docs/RL.md shows a run with each.

A policy learns to please its judge, also where the judge errs. Therefore the judge alone does not
decide: a completion without steps, without an answer, or with steps that the judge cannot read
earns the lowest reward, and with `gate` so does one whose answer is wrong.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dreamprm.answers import read_answer, verdict_on
from dreamprm.data.sources.columns import pictures
from dreamprm.errors import DataError
from dreamprm.images import load_image
from dreamprm.prm.model import PRM
from dreamprm.prm.scorer import Logits, Pair, StepModel, StepScorer
from dreamprm.prm.served import ServedPRM
from dreamprm.prompts import PROMPTS
from dreamprm.records import LONGEST_STEP, UNKNOWN_ANSWER, Question, Trajectory
from dreamprm.search.aggregation import (
    DEFAULT_AGGREGATION,
    aggregate,
    get_aggregation,
    step_scores,
)
from dreamprm.steps import split_steps

_LOG = logging.getLogger(__name__)
_MARK = re.compile(r"<image>\s*")  # where datasets of verl and others say that an image stands

COLUMNS = ("question", "options", "answer", "images", "image")
"""What a row of a data set tells of its question; all but these are ignored."""


@dataclass(frozen=True)
class Reward:
    """What a completion earns, and why.

    Attributes:
        value: what the trainer is to maximise.
        score: the judge's, in (0, 1): its step logits, aggregated; None where it was not asked.
        step_scores: its probability that each step is right so far; see `min_form`.
        ends: where each step ends in the completion, in characters.
        answer: the final answer that the completion states.
        correct: is the answer right; None where the gold answer is not known.
        why: the reason for the lowest reward, where something else than the judge decided: `empty`,
            `refused`, `cut` or `unstated` (it states no answer), `no steps`, `too long`, `refused
            by the judge`, or `wrong` (of the gate).
    """

    value: float
    score: float | None = None
    step_scores: tuple[float, ...] = ()
    ends: tuple[int, ...] = ()
    answer: str | None = None
    correct: bool | None = None
    why: str = ""


class StepReward:
    """Turns questions and completions into rewards.

    Args:
        prm: the reward model, or the folder of one that `train` wrote.
        urls: servers of the folder's model, which then is not loaded: see `ServedPRM`.
        aggregation: of step logits to one score, see `search.aggregation`: `last` rewards by the
            last step, `min` by the weakest. None: what the model was trained for.
        gate: a completion whose answer is wrong earns the lowest reward.
        lowest: what completions earn that are wrong or cannot be judged.
        batch_size: completions in one forward pass.
        device: of a model that is loaded from a folder; None: a GPU where there is one, each
            process of a launch its own.

    >>> reward = StepReward(PRM.from_backbone("tiny"), gate=True)  # not trained: scores are 0.5
    >>> sum_of = Question(id="q", domain="d", text="What is 2 + 3?", answer="5")
    >>> written = ["Step 1: 2 + 3 = 5\\nFinal answer: 5", "Step 1: 2 + 3 = 6\\nFinal answer: 6"]
    >>> [(r.value, r.why) for r in reward([sum_of] * 3, [*written, "Step 1: 2 + 3"])]
    [(0.5, ''), (0.0, 'wrong'), (0.0, 'cut')]
    """

    def __init__(
        self,
        prm: StepModel | str | Path,
        *,
        urls: Sequence[str] = (),
        aggregation: str | None = None,
        gate: bool = False,
        lowest: float = 0.0,
        batch_size: int = 16,
        device: str | None = None,
    ) -> None:
        if isinstance(prm, str | Path):
            prm = ServedPRM(prm, urls) if urls else PRM.from_pretrained(prm, device=device)
        self.prm = prm  # a served one may be closed
        self.aggregation = aggregation or DEFAULT_AGGREGATION
        if aggregation is None and isinstance(prm, PRM | ServedPRM):
            self.aggregation = prm.config.aggregation
        get_aggregation(self.aggregation)  # an unknown one is told of before training begins
        self.gate, self.lowest = gate, lowest
        batch_size = prm.batch_size if isinstance(prm, ServedPRM) else batch_size
        self._scorer = StepScorer(prm, batch_size)

    def __call__(self, questions: Sequence[Question], completions: Sequence[str]) -> list[Reward]:
        """Judge completions; those of one question share its prompt.

        Args:
            questions: of each completion; those with one `id` are the same question.
            completions: texts that the policy wrote.

        Raises:
            DataError: a question cannot be judged, whatever is written about it; the gate is asked
                for and a gold answer is not known.
        """
        rewards, pairs = [], list[Pair]()
        for i, (question, text) in enumerate(zip(questions, completions, strict=True)):
            steps, reward = self._read(question, text)
            rewards.append(reward)
            if not reward.why:
                t = Trajectory(question_id=question.id, steps=steps, sample_index=i)
                pairs.append((question, t))
        logits = self._judge(pairs)
        for _, t in pairs:
            i = t.sample_index
            rewards[i] = self._judged(rewards[i], logits.get(i))
        if reasons := Counter(r.why for r in rewards if r.why):
            counts = ", ".join(f"{count} {why}" for why, count in reasons.most_common())
            _LOG.info("lowest reward for %s, of %d completions", counts, len(rewards))
        return rewards

    def scores(self, question: Question, candidates: Sequence[Sequence[str]]) -> list[float]:
        """The judge's scores of reasonings, whole or not; `lowest` where there is no step."""
        judged = iter(self._scorer.score_steps(question, [steps for steps in candidates if steps]))
        logits = [next(judged) if steps else () for steps in candidates]
        return [self._score(z) if z else self.lowest for z in logits]

    def _score(self, logits: Logits) -> float:
        return step_scores([aggregate(logits, self.aggregation)])[0]

    def _read(self, question: Question, text: str) -> tuple[tuple[str, ...], Reward]:
        """The steps of a completion, and what it earns where no judge is needed to tell."""
        reading = read_answer(text, question.options)
        steps, _ = split_steps(text)
        correct = None
        if question.answer != UNKNOWN_ANSWER:
            correct = verdict_on(question, reading.answer).correct
        elif self.gate:
            raise DataError(
                f"question '{question.id}' has no gold answer, which the gate needs; give the data "
                "set a column 'answer'"
            )
        ends, place = [], 0
        for step in steps:
            place = text.index(step, place) + len(step)
            ends.append(place)
        why = ""
        if reading.answer is None:
            why = reading.rule
        elif not steps:
            why = "no steps"
        elif max(map(len, steps)) > LONGEST_STEP:
            why = "too long"
        reward = Reward(self.lowest, ends=tuple(ends), answer=reading.answer, correct=correct)
        return tuple(steps), replace(reward, why=why)

    def _judge(self, pairs: Sequence[Pair]) -> dict[int, Logits]:
        """Step logits by sample_index; none of a completion that the judge refuses."""
        try:
            return {s.sample_index: s.logits for s in self._scorer.score(pairs)}
        except DataError as error:
            if len(pairs) > 1:
                return {i: z for pair in pairs for i, z in self._judge([pair]).items()}
            [(question, _)] = pairs
            self._scorer.score_steps(question, [("1",)])  # raises where the question is at fault
            _LOG.info("%s", error)
            return {}

    def _judged(self, reward: Reward, logits: Logits | None) -> Reward:
        """The reward of a completion that was given to the judge."""
        if logits is None:
            return replace(reward, why="refused by the judge")
        if len(logits) < len(reward.ends):  # what is wrong may stand beyond the judge's context
            return replace(reward, why="too long")
        score, scores = self._score(logits), tuple(step_scores(logits))
        if self.gate and not reward.correct:
            return replace(reward, score=score, step_scores=scores, why="wrong")
        return replace(reward, value=score, score=score, step_scores=scores)


def min_form(scores: Sequence[float], temperature: float = 0.1) -> list[float]:
    """Step rewards whose sum is about that of the weakest step: PURE, arXiv 2504.15275.

    With the step rewards r = 2 p - 1, each is r softmax(-r / temperature). A trainer that sums
    step rewards then credits a reasoning by its weakest step: more good steps earn nothing.

    Args:
        scores: (steps,) step scores p.

    Returns:
        (steps,) rewards between -1 and 1.

    >>> [round(r, 3) for r in min_form([0.9, 0.1, 0.9])]
    [0.0, -0.8, 0.0]
    """
    r = 2 * np.asarray(scores) - 1
    weight = np.exp(-(r - r.min()) / temperature) if len(r) else r
    credit: list[float] = (r * weight / weight.sum()).tolist()
    return credit


def trl_reward(prm: StepModel | str | Path, **options: Any) -> Callable[..., list[float]]:
    """A function for `reward_funcs` of TRL's trainers (GRPO, RLOO).

    A question is what the columns of `COLUMNS` say: `question` (its text), `options` (their texts),
    `answer` (the gold answer, for the gate) and `images`. Without the column `question` it is the
    text of the prompt's last user turn, which then should hold no instructions that the reward
    model was not trained with; without `images`, the pictures of that turn.

    Args:
        prm: see `StepReward`.
        options: those of `StepReward`.
    """
    reward = StepReward(prm, **options)

    def prm_reward(
        prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float]:
        known: dict[bytes, tuple[str | bytes, ...]] = {}
        rows = [
            {name: columns[name][i] for name in COLUMNS if name in columns}
            for i in range(len(prompts))
        ]
        questions = [question_of(p, row, known) for p, row in zip(prompts, rows, strict=True)]
        rewards = reward(questions, [_text(completion) for completion in completions])
        if log := columns.get("log_metric"):
            for name, values in summary(rewards).items():
                log(f"prm/{name}", values)
        return [r.value for r in rewards]

    return prm_reward


def training_rows(
    questions: Iterable[Question], prompt: str = "five_steps"
) -> list[dict[str, Any]]:
    """Rows of a data set for TRL, with the columns that `trl_reward` reads.

    Args:
        questions: their images are decoded here.
        prompt: what the policy is asked, a name of `prompts.PROMPTS`.
    """
    rows = [
        {
            "prompt": [{"role": "user", "content": PROMPTS[prompt](question)}],
            "images": [load_image(image) for image in question.images],
            "question": question.text,
            "options": list(question.options),
            "answer": question.answer,
        }
        for question in questions
    ]
    if not any(row["images"] for row in rows):  # a text model's trainer refuses the column
        rows = [{name: v for name, v in row.items() if name != "images"} for row in rows]
    return rows


def summary(rewards: Sequence[Reward]) -> dict[str, float]:
    """What to plot beside the reward: where `score` rises and `correct` does not, it is hacked.

    Returns:
        Means of the judge's `score` and of `correct`, over those that have one, and of the number
        of `steps`; and `unread`, the share that was not judged.
    """
    scores = [r.score for r in rewards if r.score is not None]
    right = [r.correct for r in rewards if r.correct is not None]
    steps = [len(r.ends) for r in rewards]
    values: dict[str, Sequence[float]] = {"score": scores, "correct": right, "steps": steps}
    means = {name: float(np.mean(v)) for name, v in values.items() if v}
    return means | {"unread": 1 - len(scores) / len(rewards)}


def question_of(
    prompt: str | Sequence[Mapping[str, Any]],
    row: Mapping[str, Any],
    known: dict[bytes, tuple[str | bytes, ...]] | None = None,
) -> Question:
    """The question that a prompt and the columns of its row ask.

    Args:
        prompt: a text, or the turns of a conversation.
        row: columns, of which those of `COLUMNS` count.
        known: pictures that were encoded before, by their pixels: a trainer gives the same question
            once for each of its completions.

    Raises:
        DataError: there is no text, or something that is no image.
    """
    content: Any = prompt
    if not isinstance(prompt, str):
        content = next((t["content"] for t in reversed(prompt) if t["role"] == "user"), "")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    text = row.get("question") or "\n".join(p["text"] for p in parts if p["type"] == "text")
    shown = row.get("images") or row.get("image") or [_shown(p) for p in parts]
    shown = shown if isinstance(shown, list | tuple) else [shown]
    images = [image for one in shown for image in _encoded(one, {} if known is None else known)]
    fields: dict[str, Any] = {
        "text": _MARK.sub("", text).strip(),
        "images": images,
        "options": [str(option) for option in row.get("options") or ()],
        "answer": str(row.get("answer") if row.get("answer") is not None else UNKNOWN_ANSWER),
    }
    digest = hashlib.sha256(repr(fields).encode()).hexdigest()[:16]
    return Question.parse(fields | {"id": digest, "domain": "rl"})


def _shown(part: Mapping[str, Any]) -> Any:
    """The picture of a part of a turn; None where it shows none."""
    if part["type"] == "image_url":
        return part["image_url"]["url"]
    return next((part[k] for k in ("image", "url", "path", "base64") if part.get(k)), None)


def _encoded(image: Any, known: dict[bytes, tuple[str | bytes, ...]]) -> tuple[str | bytes, ...]:
    """An image as records hold it."""
    if not isinstance(image, Image.Image):
        return pictures(image, Path(), "images")
    key = hashlib.sha256(image.tobytes() + repr((image.mode, image.size)).encode()).digest()
    if key not in known:
        known[key] = pictures(image, None, "images")
    return known[key]


def _text(completion: str | Sequence[Mapping[str, Any]]) -> str:
    """What the policy wrote: a text, or the turns of a conversation."""
    if isinstance(completion, str):
        return completion
    contents = [turn.get("content") or "" for turn in completion if turn["role"] == "assistant"]
    return "\n".join(
        c if isinstance(c, str) else "".join(p.get("text", "") for p in c) for c in contents
    )
