"""Reward models that others trained, in their own conventions.

    math_shepherd   a causal language model; each step ends with the tag `ки`, where the logits of
                    `+` and `-` are compared (arXiv 2312.08935)
    qwen_math_prm   `<extra_0>` behind each step, where a two-class head on the last hidden state
                    judges (Qwen2.5-Math-PRM, arXiv 2501.07301)
    visualprm       a conversation with one turn per step, `+` or `-` in reply (arXiv 2503.10291):
                    our own `turns` layout with the `token` head

A step's logit is in all of them the logit of "right" minus that of "wrong", so that its sigmoid is
the published step score. The first two read text only: a question with images is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from dreamprm.errors import DataError, DreamPRMError, offer
from dreamprm.prm.layout import LayoutConfig
from dreamprm.prm.model import PRM, PRMConfig
from dreamprm.prm.scorer import Pair, StepScorer
from dreamprm.prompts import question_text
from dreamprm.records import Question, StepScores

CONVENTIONS = ("math_shepherd", "qwen_math_prm", "visualprm")
SHEPHERD_TAG, GOOD, BAD = "ки", "+", "-"
QWEN_TAG = "<extra_0>"
QWEN_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
_WRONG, _RIGHT = 0, 1  # classes of Qwen2.5-Math-PRM's head


@dataclass(frozen=True)
class TextPRM:
    """A reward model that reads text, with a tag behind each step.

    Attributes:
        tokenizer: of the model.
        write: question and steps -> text with one tag per step.
        tag: id of the tag's token.
        judge: token ids and mask, (B, tokens) -> a logit at every position, (B, tokens).
        device: of the model.
        pad: token that fills up.
        context: tokens that the model has positions for; None: no limit known.
    """

    tokenizer: Any
    write: Callable[[Question, Sequence[str]], str]
    tag: int
    judge: Callable[[Tensor, Tensor], Tensor]
    device: torch.device
    pad: int
    context: int | None

    def encode(self, question: Question, steps: Sequence[str]) -> list[int]:
        """Token ids of a reasoning.

        Raises:
            DataError: a question with images, or a text that holds the tag.
        """
        if question.images:
            raise DataError(
                f"question '{question.id}' has images, which this reward model cannot see; take a "
                "multimodal one"
            )
        text = self.write(question, steps)
        ids: list[int] = self.tokenizer(text, add_special_tokens=True).input_ids
        if ids.count(self.tag) != len(steps):
            raise DataError(
                f"question '{question.id}': {ids.count(self.tag)} step tags for {len(steps)} "
                "steps; its text holds the tag, or the tokenizer does not keep it whole"
            )
        if self.context is not None and len(ids) > self.context:
            raise DataError(
                f"question '{question.id}': {len(ids)} tokens, and the model has positions for "
                f"{self.context}; leave the trajectory out or take another model"
            )
        return ids


class TextStepScorer:
    """`StepScorer` for a `TextPRM`: the same methods, one sequence per trajectory."""

    def __init__(self, prm: TextPRM, batch_size: int = 16) -> None:
        self.prm, self.batch_size = prm, batch_size

    def score(
        self, pairs: Iterable[Pair], progress: Callable[[int], None] = lambda done: None
    ) -> Iterator[StepScores]:
        """See `StepScorer.score`."""
        left = iter(pairs)
        while held := list(islice(left, self.batch_size)):
            found = self._logits([(q, t.steps) for q, t in held])
            for (_, t), logits in zip(held, found, strict=True):
                yield StepScores.of(t, logits)
            progress(len(held))

    def score_steps(
        self, question: Question, candidates: Sequence[Sequence[str]]
    ) -> list[tuple[float, ...]]:
        """See `StepScorer.score_steps`."""
        found: list[tuple[float, ...]] = []
        for start in range(0, len(candidates), self.batch_size):
            part = candidates[start : start + self.batch_size]
            found += self._logits([(question, steps) for steps in part])
        return found

    @torch.inference_mode()
    def _logits(self, batch: Sequence[tuple[Question, Sequence[str]]]) -> list[tuple[float, ...]]:
        rows = [self.prm.encode(question, steps) for question, steps in batch]
        ids = torch.full((len(rows), max(map(len, rows))), self.prm.pad)  # (B, tokens)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), 1
        logits = self.prm.judge(ids.to(self.prm.device), mask.to(self.prm.device)).float().cpu()
        at = (ids == self.prm.tag) & mask.bool()  # (B, tokens)
        return [tuple(z[where].tolist()) for z, where in zip(logits, at, strict=True)]


def load_convention(
    name: str, path: str, device: str = "cpu", batch_size: int = 16, **kwargs: Any
) -> StepScorer | TextStepScorer:
    """A scorer of somebody else's reward model.

    Args:
        name: one of `CONVENTIONS`.
        path: folder or hub name of the model.
        kwargs: of `from_pretrained`, such as `dtype`.

    Raises:
        DreamPRMError: no such convention, or a model that is not of it.
    """
    if name not in CONVENTIONS:
        raise DreamPRMError(f"there is no convention '{name}'; {offer(name, CONVENTIONS)}")
    if name == "visualprm":
        config = PRMConfig(head="token", layout=LayoutConfig(name="turns"))
        return StepScorer(PRM.from_backbone(path, config, **kwargs).to(device), batch_size)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        load = _math_shepherd if name == "math_shepherd" else _qwen_math_prm
        return TextStepScorer(load(path, tokenizer, device, **kwargs), batch_size)
    except (OSError, ValueError) as error:
        cause = " ".join(str(error).split())
        raise DreamPRMError(f"{path} cannot be loaded as {name}: {cause}") from error


def _math_shepherd(path: str, tokenizer: Any, device: str, **kwargs: Any) -> TextPRM:
    model: Any = AutoModelForCausalLM.from_pretrained(path, **kwargs)
    model = model.to(device).eval()
    good, bad, tag = (_last_token(tokenizer, text) for text in (GOOD, BAD, SHEPHERD_TAG))

    def judge(ids: Tensor, mask: Tensor) -> Tensor:
        logits = model(input_ids=ids, attention_mask=mask).logits  # (B, tokens, vocabulary)
        found: Tensor = logits[..., good].float() - logits[..., bad].float()
        return found

    def write(question: Question, steps: Sequence[str]) -> str:
        return f"{question_text(question)} " + "\n".join(f"{s} {SHEPHERD_TAG}" for s in steps)

    return _text_prm(model, tokenizer, write, tag, judge)


def _qwen_math_prm(path: str, tokenizer: Any, device: str, **kwargs: Any) -> TextPRM:
    model: Any = AutoModel.from_pretrained(path, **kwargs)
    model = model.to(device).eval()
    head = _two_class_head(path, model.config.hidden_size).to(device, model.dtype)
    tag = _last_token(tokenizer, QWEN_TAG)

    def judge(ids: Tensor, mask: Tensor) -> Tensor:
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state  # (B, tokens, width)
        classes = head(hidden).float()  # (B, tokens, 2)
        found: Tensor = classes[..., _RIGHT] - classes[..., _WRONG]
        return found

    def write(question: Question, steps: Sequence[str]) -> str:
        messages = [
            {"role": "system", "content": QWEN_SYSTEM},
            {"role": "user", "content": question_text(question)},
            {"role": "assistant", "content": QWEN_TAG.join(steps) + QWEN_TAG},
        ]
        text: str = tokenizer.apply_chat_template(messages, tokenize=False)
        return text

    return _text_prm(model, tokenizer, write, tag, judge)


def _text_prm(
    model: Any,
    tokenizer: Any,
    write: Callable[[Question, Sequence[str]], str],
    tag: int,
    judge: Callable[[Tensor, Tensor], Tensor],
) -> TextPRM:
    context = getattr(model.config, "max_position_embeddings", None)
    pad = tokenizer.pad_token_id or 0
    return TextPRM(tokenizer, write, tag, judge, model.device, pad, context)


def _two_class_head(path: str, width: int) -> nn.Sequential:
    """The head that lies beside the backbone's weights as `score.0` and `score.2`."""
    head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))
    found: dict[str, Tensor] = {}
    for file in sorted(_weight_files(path)):
        with safe_open(file, framework="pt") as weights:
            for key in weights.keys():  # noqa: SIM118 (a handle, not a dict)
                if key.startswith("score."):
                    found[key.removeprefix("score.")] = weights.get_tensor(key)
    if set(found) != set(head.state_dict()):
        raise DreamPRMError(
            f"{path} has no two-class head (score.0, score.2); it is no Qwen2.5-Math-PRM"
        )
    head.load_state_dict(found)
    return head.eval()


def _weight_files(path: str) -> list[Path]:
    if Path(path).is_dir():
        return list(Path(path).glob("*.safetensors"))
    from huggingface_hub import snapshot_download

    return list(Path(snapshot_download(path, allow_patterns=["*.safetensors"])).glob("*"))


def _last_token(tokenizer: Any, text: str) -> int:
    """The token that a tag or sign is; tokenizers may put one for the space before it."""
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    unknown = tokenizer.unk_token_id
    if not ids or (unknown is not None and ids[-1] == unknown) or len(ids) > 2:
        raise DreamPRMError(
            f"{text!r} is no token of this tokenizer; is the model of another convention?"
        )
    return ids[-1]
