"""Text reward models that others trained, in their own conventions.

    math_shepherd   a causal language model; each step ends with the tag `ки`, where the logits of
                    `+` and `-` are compared (arXiv 2312.08935)
    qwen_math_prm   `<extra_0>` behind each step, where a two-class head on the last hidden state
                    judges (Qwen2.5-Math-PRM, arXiv 2501.07301)

A step's logit is in both the logit of "right" minus that of "wrong", so that its sigmoid is the
published step score. A question with images is refused. VisualPRM's convention is our own `turns`
layout with the `token` head, and needs nothing of this file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from dreamprm.errors import DataError, DreamPRMError
from dreamprm.models.loading import load_weights, placed, reading
from dreamprm.models.plain_text import PlainText
from dreamprm.models.templates import write_chats
from dreamprm.prm.scorer import Logits, Plain, Shared, Steps, score_question
from dreamprm.prompts import question_text
from dreamprm.records import Question

SHEPHERD_TAG, GOOD, BAD = "ки", "+", "-"
QWEN_TAG = "<extra_0>"
QWEN_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
_WRONG, _RIGHT = 0, 1  # classes of Qwen2.5-Math-PRM's head


@dataclass(frozen=True)
class TextPRM:
    """A reward model that reads text, with a tag behind each step."""

    model: Any
    tokenizer: Any
    plain: PlainText  # for which the tag is no text either
    write: Callable[[str, Steps], str]  # question and steps to a text with one tag per step
    tag: int  # id of the tag's token
    judge: Callable[[Tensor, Tensor], Tensor]  # ids and mask, (B, tokens), to logits, (B, tokens)

    def score(
        self, question: Question | str, candidates: Sequence[Steps], batch_size: int = 16
    ) -> list[list[float]]:
        """The probability that each step is right so far; see `PRM.score`."""
        return score_question(self, question, candidates, batch_size)

    def passes(self) -> tuple[Plain, Shared | None]:
        """See `scorer.StepModel`."""
        return self._logits, None

    def encode(self, question: Question, steps: Steps) -> list[int]:
        """Token ids of a reasoning.

        Raises:
            DataError: a question with images, a chat template that loses steps, or too long a text.
        """
        self.plain.check(question)
        guard = self.plain.guard
        text = self.write(guard(question_text(question)), [guard(step) for step in steps])
        ids: list[int] = self.plain.reader(text)(text).input_ids
        if ids.count(self.tag) != len(steps):
            raise DataError(
                f"question '{question.id}': {ids.count(self.tag)} step tags for {len(steps)} "
                "steps; the tokenizer does not keep tags whole, or the chat template drops text"
            )
        context = getattr(self.model.config, "max_position_embeddings", None)
        if context is not None and len(ids) > context:
            raise DataError(
                f"question '{question.id}': {len(ids)} tokens, and the model has positions for "
                f"{context}; leave the trajectory out or take another model"
            )
        return ids

    @torch.inference_mode()
    def _logits(self, pairs: Sequence[tuple[Question, Steps]]) -> list[Logits]:
        rows = [self.encode(question, steps) for question, steps in pairs]
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.full((len(rows), max(map(len, rows))), pad)  # (B, tokens)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), 1
        device = self.model.device
        logits = self.judge(ids.to(device), mask.to(device)).float().cpu()
        at_tags = (ids == self.tag) & mask.bool()  # (B, tokens)
        return [tuple(z[tags].tolist()) for z, tags in zip(logits, at_tags, strict=True)]


def math_shepherd(path: str, device: str, **kwargs: Any) -> TextPRM:
    """Load a model of Math-Shepherd's convention, by folder or hub name."""
    tokenizer, model = _load("math_shepherd", AutoModelForCausalLM, path, device, **kwargs)
    good, bad, tag = (_last_token(tokenizer, text) for text in (GOOD, BAD, SHEPHERD_TAG))

    def judge(ids: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = model(input_ids=ids, attention_mask=mask).logits  # (B, tokens, vocabulary)
        return logits[..., good].float() - logits[..., bad].float()

    def write(question: str, steps: Steps) -> str:
        return f"{question} " + "\n".join(f"{s} {SHEPHERD_TAG}" for s in steps)

    return TextPRM(model, tokenizer, PlainText(tokenizer, SHEPHERD_TAG), write, tag, judge)


def qwen_math_prm(path: str, device: str, **kwargs: Any) -> TextPRM:
    """Load a model of Qwen2.5-Math-PRM's convention, by folder or hub name."""
    tokenizer, model = _load("qwen_math_prm", AutoModel, path, device, **kwargs)
    head = placed(_two_class_head(path, model.config.hidden_size), device, path).to(model.dtype)
    tag = _last_token(tokenizer, QWEN_TAG)

    def judge(ids: Tensor, mask: Tensor) -> Tensor:
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state  # (B, tokens, width)
        classes: Tensor = head(hidden).float()  # (B, tokens, 2)
        return classes[..., _RIGHT] - classes[..., _WRONG]

    def write(question: str, steps: Steps) -> str:
        messages = [
            {"role": "system", "content": QWEN_SYSTEM},
            {"role": "user", "content": question},
            {"role": "assistant", "content": QWEN_TAG.join(steps) + QWEN_TAG},
        ]
        [text] = write_chats(tokenizer, [messages])
        return text

    return TextPRM(model, tokenizer, PlainText(tokenizer, QWEN_TAG), write, tag, judge)


TEXT_CONVENTIONS: dict[str, Callable[..., TextPRM]] = {
    "math_shepherd": math_shepherd,
    "qwen_math_prm": qwen_math_prm,
}


def _load(convention: str, kind: Any, path: str, device: str, **kwargs: Any) -> tuple[Any, Any]:
    try:
        with reading("the tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        model, _ = load_weights(kind, path, **kwargs)
    except DreamPRMError as error:
        raise DreamPRMError(f"{path} cannot be loaded as {convention}: {error}") from error
    return tokenizer, placed(model, device, path).eval()


def _two_class_head(path: str, width: int) -> nn.Sequential:
    """The head that lies beside the backbone's weights as `score.0` and `score.2`."""
    head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))
    state: dict[str, Tensor] = {}
    with reading(f"the two-class head of {path}"):
        for file in sorted(_weight_files(path)):
            with safe_open(file, framework="pt") as weights:
                for key in weights.keys():  # noqa: SIM118 (a handle, not a dict)
                    if key.startswith("score."):
                        state[key.removeprefix("score.")] = weights.get_tensor(key)
    if set(state) != set(head.state_dict()):
        raise DreamPRMError(
            f"{path} has no two-class head (score.0, score.2); it is no Qwen2.5-Math-PRM"
        )
    with reading(f"the two-class head of {path}"):
        head.load_state_dict(state)
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
