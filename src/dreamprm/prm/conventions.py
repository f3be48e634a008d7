"""Text reward models that others trained, in their own conventions.

    math_shepherd   a causal language model; each step ends with the tag `ки`, where the logits of
                    `+` and `-` are compared (arXiv 2312.08935)
    qwen_math_prm   `<extra_0>` behind each step, where a two-class head on the last hidden state
                    judges (Qwen2.5-Math-PRM, arXiv 2501.07301)
    skywork         each line ends with a newline token, where a linear head judges
                    (Skywork-o1-Open-PRM-Qwen-2.5, after SkyworkAI/skywork-o1-prm-inference)
    rlhflow         each step is a user's turn, which the assistant answers by `+` or `-`
                    (Llama3.1-8B-PRM-Mistral-Data and -Deepseek-Data, after
                    RLHFlow/RLHF-Reward-Modeling, math-rm)
    ursa            each step ends with the tag ` и`, where a linear head judges (URSA-RM-8B,
                    arXiv 2501.04686, after URSA-MATH/URSA-MATH): its text part, which is a Qwen2

A step's logit is what its sigmoid makes the published step score: with two classes, the logit of
"right" minus that of "wrong". A question with images is refused. VisualPRM's convention is our own
`turns` layout with the `token` head, and needs nothing of this file.

No published checkpoint could be loaded here. Not known, because no copy of the files says it: which
token Skywork's tokenizer names as `bos_token`, and what stands in the chat templates of RLHFlow's
and URSA's tokenizers. All three are taken from the model's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2Model
from transformers.configuration_utils import PreTrainedConfig

from dreamprm.errors import DataError, DreamPRMError
from dreamprm.models.loading import load_weights, placed, reading
from dreamprm.models.plain_text import WITHOUT_IMAGES, PlainText
from dreamprm.models.templates import write_chats
from dreamprm.prm.scorer import Logits, Plain, Shared, Steps, score_question
from dreamprm.prompts import question_text
from dreamprm.records import Question

SHEPHERD_TAG, GOOD, BAD = "ки", "+", "-"
QWEN_TAG = "<extra_0>"
QWEN_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
_WRONG, _RIGHT = 0, 1  # classes of Qwen2.5-Math-PRM's head
URSA_TAG = " и"
URSA_SYSTEM = "You are a helpful assistant."
URSA_PROMPT = (
    "You are given a problem and a step-by-step solution. "
    "You need to check the correctness of each step.\nQuestion:"
)
_VERDICT = "\ufdd1"  # a noncharacter, in place of RLHFlow's verdicts while a template is written

Read = Callable[[str, Steps], tuple[list[int], list[int]]]
"""Guarded question and steps to token ids and, per step, the place of its logit among them."""


@dataclass(frozen=True)
class TextPRM:
    """A reward model that reads text and judges each step at one token."""

    model: Any
    tokenizer: Any
    plain: PlainText
    read: Read
    judge: Callable[[Tensor, Tensor], Tensor]  # ids and mask, (B, tokens), to logits, (B, tokens)
    instead: str = WITHOUT_IMAGES  # what to do where a question has images

    def score(
        self, question: Question | str, candidates: Sequence[Steps], batch_size: int = 16
    ) -> list[list[float]]:
        """The probability that each step is right so far; see `PRM.score`."""
        return score_question(self, question, candidates, batch_size)

    def passes(self) -> tuple[Plain, Shared | None]:
        """See `scorer.StepModel`."""
        return self._logits, None

    def encode(self, question: Question, steps: Steps) -> tuple[list[int], list[int]]:
        """Token ids of a reasoning, and the place of each step's logit among them.

        Raises:
            DataError: a question with images, a chat template that loses steps, or too long a text.
        """
        self.plain.check(question, self.instead)
        guard = self.plain.guard
        ids, places = self.read(guard(question_text(question)), [guard(step) for step in steps])
        if len(places) != len(steps):
            raise DataError(
                f"question '{question.id}': {len(places)} step tags for {len(steps)} "
                "steps; the tokenizer does not keep tags whole, or the chat template drops text"
            )
        context = getattr(self.model.config, "max_position_embeddings", None)
        if context is not None and len(ids) > context:
            raise DataError(
                f"question '{question.id}': {len(ids)} tokens, and the model has positions for "
                f"{context}; leave the trajectory out or take another model"
            )
        return ids, places

    @torch.inference_mode()
    def _logits(self, pairs: Sequence[tuple[Question, Steps]]) -> list[Logits]:
        encoded = [self.encode(question, steps) for question, steps in pairs]
        rows = [ids for ids, _ in encoded]
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.full((len(rows), max(map(len, rows))), pad)  # (B, tokens)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), 1
        device = self.model.device
        logits = self.judge(ids.to(device), mask.to(device)).float().cpu()
        return [tuple(z[at].tolist()) for z, (_, at) in zip(logits, encoded, strict=True)]


def math_shepherd(path: str, device: str, **kwargs: Any) -> TextPRM:
    """Load a model of Math-Shepherd's convention, by folder or hub name."""
    tokenizer, model = _load("math_shepherd", AutoModelForCausalLM, path, device, **kwargs)
    plain = PlainText(tokenizer, SHEPHERD_TAG)

    def write(question: str, steps: Steps) -> str:
        return f"{question} " + "\n".join(f"{s} {SHEPHERD_TAG}" for s in steps)

    read = at_tags(plain, tokenizer, SHEPHERD_TAG, write)
    return TextPRM(model, tokenizer, plain, read, _good_or_bad(model, tokenizer))


def qwen_math_prm(path: str, device: str, **kwargs: Any) -> TextPRM:
    """Load a model of Qwen2.5-Math-PRM's convention, by folder or hub name."""
    tokenizer, model = _load("qwen_math_prm", AutoModel, path, device, **kwargs)
    plain, width = PlainText(tokenizer, QWEN_TAG), model.config.hidden_size
    two_classes = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))
    head = _head("qwen_math_prm", two_classes, "score.", path, model)

    def judge(ids: Tensor, mask: Tensor) -> Tensor:
        classes: Tensor = head(ids, mask)  # (B, tokens, 2)
        return classes[..., _RIGHT] - classes[..., _WRONG]

    def write(question: str, steps: Steps) -> str:
        messages = [
            {"role": "system", "content": QWEN_SYSTEM},
            {"role": "user", "content": question},
            {"role": "assistant", "content": QWEN_TAG.join(steps) + QWEN_TAG},
        ]
        [text] = write_chats(tokenizer, [messages])
        return text

    return TextPRM(model, tokenizer, plain, at_tags(plain, tokenizer, QWEN_TAG, write), judge)


def skywork(path: str, device: str, **kwargs: Any) -> TextPRM:
    """Load a model of Skywork-o1-Open-PRM's convention, by folder or hub name.

    The published script takes each line of a reasoning for a step. A step of several lines is
    judged at its last one. Lines are encoded one by one, so that newlines merge with nothing.
    """
    tokenizer, model = _load("skywork", AutoModel, path, device, **kwargs)
    plain, newline = PlainText(tokenizer), _last_token(tokenizer, "\n")
    first = tokenizer.bos_token_id
    if first is None:
        raise DreamPRMError(f"the tokenizer of {path} has no bos_token, which skywork begins with")
    line_head = nn.Linear(model.config.hidden_size, 1)
    head = _head("skywork", line_head, "v_head.summary.", path, model)

    def read(question: str, steps: Steps) -> tuple[list[int], list[int]]:
        ids, places = [first, *plain.ids(f"{question}\n")], list[int]()
        for step in steps:
            for line in step.split("\n"):
                ids += [*plain.ids(line), newline]
            places.append(len(ids) - 1)
        return ids, places

    return TextPRM(model, tokenizer, plain, read, lambda ids, mask: head(ids, mask).squeeze(-1))


def rlhflow(path: str, device: str, **kwargs: Any) -> TextPRM:
    """Load a model of the convention of RLHFlow's process reward models, by folder or hub name.

    Each verdict is read where the model would write it. All are `+` in what it reads, as published.
    """
    tokenizer, model = _load("rlhflow", AutoModelForCausalLM, path, device, **kwargs)
    plain, good = PlainText(tokenizer), _last_token(tokenizer, GOOD)

    def read(question: str, steps: Steps) -> tuple[list[int], list[int]]:
        asked = [step.strip() for step in steps]
        asked[0] = f"{question} {asked[0]}"
        turns = [
            {"role": role, "content": content}
            for step in asked
            for role, content in (("user", step), ("assistant", _VERDICT))
        ]
        [text] = write_chats(tokenizer, [turns])
        ids: list[int] = []
        places: list[int] = []
        for turn in text.split(_VERDICT)[:-1]:
            ids += plain.ids(turn)
            places.append(len(ids) - 1)
            ids.append(good)
        return ids, places

    return TextPRM(model, tokenizer, plain, read, _good_or_bad(model, tokenizer))


def ursa(path: str, device: str, **kwargs: Any) -> TextPRM:
    """Load the text part of a model of URSA-RM's convention, by folder or hub name.

    transformers has no class for URSA, and its own code is not run here. The vision tower is left
    out, so that only questions without images can be judged; the text part is a stock Qwen2.
    The tag of a step stands before `†Answer:`, which is not judged.
    """
    with reading(f"the config of {path}"):
        facts, _ = PreTrainedConfig.get_config_dict(path)
    if facts.get("model_type") != "ursa":
        raise DreamPRMError(f"{path} is no URSA-RM: its type is '{facts.get('model_type')}'")
    kwargs |= {
        "config": Qwen2Config.from_dict(facts["text_config"]),
        "key_mapping": {r"^language_model\.model\.": ""},
    }
    tokenizer, model = _load("ursa", Qwen2Model, path, device, **kwargs)
    plain = PlainText(tokenizer, URSA_TAG)
    head = _head("ursa", nn.Linear(model.config.hidden_size, 1), "score.", path, model)

    def write(question: str, steps: Steps) -> str:
        judged = [step.partition("†Answer:")[0].rstrip() or step for step in steps]
        lines = [f"{URSA_PROMPT}{question}", *(step + URSA_TAG for step in judged)]
        messages = [
            {"role": "system", "content": URSA_SYSTEM},
            {"role": "user", "content": "\n".join(lines)},
        ]
        [text] = write_chats(tokenizer, [messages], True)
        return text

    return TextPRM(
        model,
        tokenizer,
        plain,
        at_tags(plain, tokenizer, URSA_TAG, write),
        lambda ids, mask: head(ids, mask).squeeze(-1),
        instead="transformers has no class for URSA's vision tower: score such questions with the "
        "code of URSA-MATH/URSA-MATH and give its step scores to `dreamprm evaluate --scores.ursa`",
    )


TEXT_CONVENTIONS: dict[str, Callable[..., TextPRM]] = {
    f.__name__: f for f in (math_shepherd, qwen_math_prm, skywork, rlhflow, ursa)
}


def _load(convention: str, kind: Any, path: str, device: str, **kwargs: Any) -> tuple[Any, Any]:
    try:
        with reading("the tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        model, _ = load_weights(kind, path, **kwargs)
    except DreamPRMError as error:
        raise DreamPRMError(f"{path} cannot be loaded as {convention}: {error}") from error
    return tokenizer, placed(model, device, path).eval()


def at_tags(plain: PlainText, tokenizer: Any, tag: str, write: Callable[[str, Steps], str]) -> Read:
    """Judges at the token `tag`, of which `write` puts one behind each step."""
    token = _last_token(tokenizer, tag)

    def read(question: str, steps: Steps) -> tuple[list[int], list[int]]:
        text = write(question, steps)
        ids: list[int] = plain.reader(text)(text).input_ids
        return ids, [place for place, i in enumerate(ids) if i == token]

    return read


def _good_or_bad(model: Any, tokenizer: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """Compares the logits of `+` and `-`."""
    good, bad = _last_token(tokenizer, GOOD), _last_token(tokenizer, BAD)

    def judge(ids: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = model(input_ids=ids, attention_mask=mask).logits  # (B, tokens, vocabulary)
        return logits[..., good].float() - logits[..., bad].float()

    return judge


def _head(
    convention: str, head: nn.Module, prefix: str, path: str, model: Any
) -> Callable[[Tensor, Tensor], Tensor]:
    """Reads the head that lies beside the backbone's weights, under names that begin with `prefix`.

    Returns:
        From ids and mask, (B, tokens), to what the head makes of the last hidden states.
    """
    state: dict[str, Tensor] = {}
    with reading(f"the head of {path}"):
        for file in sorted(_weight_files(path)):
            with safe_open(file, framework="pt") as weights:
                for key in weights.keys():  # noqa: SIM118 (a handle, not a dict)
                    if key.startswith(prefix):
                        state[key.removeprefix(prefix)] = weights.get_tensor(key)
    if set(state) != set(head.state_dict()):
        names = ", ".join(prefix + name for name in head.state_dict())
        raise DreamPRMError(f"{path} is no model of {convention}: it should have a head of {names}")
    with reading(f"the head of {path}"):
        head.load_state_dict(state)
    head = placed(head.eval(), model.device, path).to(model.dtype)

    def judge(ids: Tensor, mask: Tensor) -> Tensor:
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state  # (B, tokens, width)
        judged: Tensor = head(hidden).float()
        return judged

    return judge


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
