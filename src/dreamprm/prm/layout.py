"""From trajectories to token batches, with the position at which each step is judged.

`trajectory` layout: prompt, step 1, tag, step 2, tag, ... in one sequence. Attention is causal, so
the hidden state at the tag of step i has seen the prompt and the first i steps and nothing else:
one forward pass judges every prefix.

`prefix` layout (the paper's): one sequence per prefix, judged at its end. Kept for parity and as
the baseline of `benchmarks/`; it computes the same positions at about (steps + 1) / 2 times the
tokens of the reasoning and `steps` times those of the prompt and image.

`turns` layout (VisualPRM, arXiv 2503.10291; DreamPRM-1.5, arXiv 2509.05542): a conversation in one
pass. The first user turn holds question and step 1, each later one the next step, and the
assistant's reply is `+` or `-`. A step is judged at the position that predicts its reply. Replies
to earlier steps are always `+`, as in the published inference code (`LayoutConfig.reply`), so that
the score of a step depends on question and steps alone, not on other scores or on labels.

Step tokens are appended to the prompt's tokens by id, never found again in a string, so a step's
end cannot be missed when a tokenizer merges characters across it. Control tokens that a question or
a step spells are plain text (`models.plain_text`).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from pydantic import ConfigDict
from torch import Tensor

from dreamprm.errors import DataError, DataWarning, DreamPRMError
from dreamprm.images import load_image
from dreamprm.models.plain_text import PlainText, unused_token
from dreamprm.models.templates import tokenizer_of, write_chats
from dreamprm.prm.folder import LayoutConfig
from dreamprm.prm.inputs import Prompt, PromptCache, encode_prompt, join
from dreamprm.prompts import question_text
from dreamprm.records import Question

# Format facts of VisualPRM-8B's and VisualPRM400K's conversations (OpenGVLab, MIT licence).
QUESTION_MARK, SOLUTION_MARK = "### Question:\n", "\n\n### Solution Process:\n"


@dataclass(frozen=True)
class Batch:
    """Sequences ready for a backbone.

    Attributes:
        inputs: keyword arguments of the backbone's forward; token tensors are (sequences, tokens).
        positions: index of each step's tag in its sequence, (trajectories, steps); 0 where padded.
        rows: sequence that holds the step, (trajectories, steps).
        mask: True where there is a step, (trajectories, steps).
    """

    inputs: dict[str, Tensor]
    positions: Tensor
    rows: Tensor
    mask: Tensor

    def to(self, device: torch.device | str) -> Batch:
        return Batch(
            {k: v.to(device) for k, v in self.inputs.items()},
            self.positions.to(device),
            self.rows.to(device),
            self.mask.to(device),
        )


def with_tag(config: LayoutConfig, processor: Any, vocabulary: int | None = None) -> LayoutConfig:
    """The layout with the step tag that stands for None; see `LayoutConfig`."""
    if config.step_tag is not None or config.name == "turns":
        return config
    return replace(config, step_tag=unused_token(processor, vocabulary) or "\n")


class Laid(NamedTuple):
    """One trajectory as tokens, up to the last step that fits."""

    prompt: Prompt
    tail: list[int]  # the tokens behind the prompt
    ends: list[int]  # where in `tail` each step is judged; -1 is the prompt's last token


class Tokenized(Question):
    """A question that is tokens already; its steps are tokens too, each ended by its tag."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    prompt: Prompt


class Encoder:
    """Turns (question, steps) pairs into a `Batch`.

    Args:
        root: folder that relative image paths start from.
        context: tokens that the backbone has positions for; None: no limit known.
        plain: of this processor and the layout's step tag, where it is known already.
    """

    def __init__(
        self,
        processor: Any,
        config: LayoutConfig | None = None,
        root: Path | None = None,
        context: int | None = None,
        plain: PlainText | None = None,
    ) -> None:
        self.processor = processor
        self.config = with_tag(config or LayoutConfig(), processor)
        self.plain = plain or PlainText(processor, self.config.step_tag)
        self.root = root
        limit = self.config.max_length
        self.limit = context if limit is None else limit
        self.tokenizer = self.plain.tokenizer
        self.pad_id: int = self.tokenizer.pad_token_id or 0
        self.warn_cut = True  # once per trajectory with steps beyond the limit
        self._told: set[int] = set()  # trajectories whose cut has been warned about
        tag = self._tag_ids()
        if len(tag) != 1 and self.config.name != "turns":
            raise DreamPRMError(
                f"step_tag {self.config.step_tag!r} is {len(tag)} tokens of this backbone's "
                "tokenizer, and must be one; choose a tag that the tokenizer knows as a whole"
            )
        self.tag_id: int = tag[0] if tag else -1  # `turns` has none
        self.step_ids = lru_cache(maxsize=65536)(self._tokenize_step)
        self._template = lru_cache(maxsize=65536)(self._write_template)
        self._prompts = PromptCache()

    def __call__(self, pairs: Sequence[tuple[Question, Sequence[str]]]) -> Batch:
        """Encode trajectories of at least one step each: one sequence per trajectory.

        In layout `prefix`, one sequence per step.
        """
        one_per_step = self.config.name == "prefix"
        laid = [self.lay_out(question, steps) for question, steps in pairs]
        sequences: list[tuple[int, int]] = []  # (trajectory, how many of its steps)
        for i, one in enumerate(laid):
            fit = len(one.ends)
            sequences += [(i, n) for n in range(1 if one_per_step else fit, fit + 1)]
        inputs, starts = join(
            [laid[i].prompt for i, _ in sequences],
            [laid[i].tail[: laid[i].ends[n - 1] + 1] for i, n in sequences],
            self.pad_id,
            self.config.padding_side,
        )

        count = max(len(steps) for _, steps in pairs)
        positions = torch.zeros(len(pairs), count, dtype=torch.long)
        rows = torch.zeros(len(pairs), count, dtype=torch.long)
        mask = torch.zeros(len(pairs), count, dtype=torch.bool)
        for row, (i, n) in enumerate(sequences):
            for s in range(n - 1 if one_per_step else 0, n):
                positions[i, s] = starts[row] + laid[i].ends[s]
                rows[i, s] = row
                mask[i, s] = True
        return Batch(inputs, positions, rows, mask)

    def lay_out(self, question: Question, steps: Sequence[str]) -> Laid:
        """One trajectory as tokens; steps beyond the context are left out, with a warning.

        Raises:
            DataError: a text model is given images; the prompt leaves no room for a step.
        """
        if isinstance(question, Tokenized):
            prompt = question.prompt
            tail = [token for step in cast(Sequence[Sequence[int]], steps) for token in step]
            ends = [end - 1 for end in accumulate(map(len, steps))]
        else:
            self.plain.check(question)
            text, tail, ends = self._write(question, steps)

            def encode() -> Prompt:
                pictures = [load_image(ref, self.root) for ref in question.images]
                return encode_prompt(self.plain, text, pictures, question.id)

            prompt = self._prompts.get((text, question.images), encode)
        fit = self._fitting(question, steps, len(prompt), ends)
        return Laid(prompt, tail[: ends[fit - 1] + 1], ends[:fit])

    def _tag_ids(self) -> list[int]:
        """The tag's tokens, without the one that some tokenizers put for a space before a text."""
        tag = self.config.step_tag or ""
        alone, letter, behind = (self.plain.ids(text) for text in (tag, "a", f"a{tag}"))
        one = len(behind) == len(letter) + 1 and behind[:-1] == letter
        return behind[-1:] if len(alone) > 1 and one else alone

    def _tokenize_step(self, step: str) -> list[int]:
        return self.plain.ids(self.plain.guard(step))

    def asked(self, question: Question) -> str:
        """What the user's turn says of a question besides its images; not in layout `turns`."""
        parts = (question_text(question), self.config.instruction)
        return "\n".join(part for part in parts if part)

    def _write_template(self, text: str, images: int) -> str:
        content = [*[{"type": "image"}] * images, _text(self.plain.guard(text))]
        [text] = write_chats(self.processor, [[{"role": "user", "content": content}]], True)
        return text

    def _write(self, question: Question, steps: Sequence[str]) -> tuple[str, list[int], list[int]]:
        """The prompt's text, and `tail` and `ends` of `Laid` for all steps."""
        if self.config.name == "turns":
            config = self.config
            return dialogue(self.plain, config.instruction, config.reply, question, steps)
        tail: list[int] = []
        ends = []
        for step in steps:
            tail += [*self.step_ids(step), self.tag_id]
            ends.append(len(tail) - 1)
        return self._template(self.asked(question), len(question.images)), tail, ends

    def _fitting(
        self, question: Question, steps: Sequence[str], prompt: int, ends: list[int]
    ) -> int:
        """How many steps fit behind a prompt of so many tokens; tells if that is not all."""
        if self.limit is None:
            return len(steps)
        fit = sum(prompt + end < self.limit for end in ends)
        if fit == 0:
            raise DataError(
                f"question '{question.id}': its prompt and first step are {prompt + ends[0] + 1} "
                f"tokens, and the limit is {self.limit}; shorten it, shrink its images, or choose "
                "a backbone with a longer context (layout.max_length, if that was set)"
            )
        trajectory = hash((question.id, tuple(steps)))
        if self.warn_cut and fit < len(steps) and trajectory not in self._told:
            self._told.add(trajectory)
            warnings.warn(
                f"question '{question.id}': {len(steps) - fit} of {len(steps)} steps of a "
                f"trajectory are beyond the limit of {self.limit} tokens and have no score",
                DataWarning,
                stacklevel=2,
            )
        return fit


def dialogue(
    plain: PlainText, instruction: str, reply: str, question: Question, steps: Sequence[str]
) -> tuple[str, list[int], list[int]]:
    """Write a trajectory as turns, with the processor's own chat template.

    Positions come from token ids: the conversation up to a reply must be, token by token, the
    beginning of the whole conversation.

    Args:
        instruction: the system turn; none if empty.
        reply: what the assistant said to every earlier step.

    Returns:
        The guarded text up to the first reply, and `tail` and `ends` of `Laid`.

    Raises:
        DreamPRMError: the chat template does not continue its own prefixes, or refuses a role.
    """
    processor = plain.processor
    instruction = plain.guard(instruction)
    text = plain.guard(f"{question_text(question)}{SOLUTION_MARK}{steps[0]}")
    images = [{"type": "image"} for _ in question.images]
    opening = [_text(QUESTION_MARK), *images, _text(text)]
    if not images:  # templates may put something between two texts
        opening = [_text(QUESTION_MARK + text)]
    messages = [{"role": "system", "content": [_text(instruction)]}] if instruction else []
    messages.append({"role": "user", "content": opening})
    chats = [messages]
    for step in steps[1:]:
        turns = [_reply(reply), {"role": "user", "content": [_text(plain.guard(step))]}]
        chats.append(chats[-1] + turns)
    prefixes = _write(processor, chats, reply_next=True)
    tokens = [plain.ids(text) for text in prefixes]
    whole, start = tokens[-1], len(tokens[0])
    for i, ids in enumerate(tokens[:-1], start=1):
        if whole[: len(ids)] != ids:
            raise DreamPRMError(
                f"layout 'turns': this chat template writes the conversation up to step {i} "
                "otherwise once more turns follow, so one pass cannot judge all steps; use layout "
                "'trajectory'"
            )
    return prefixes[0], whole[start:], [len(ids) - start - 1 for ids in tokens]


def reply_ids(processor: Any, good: str, bad: str) -> tuple[int, int]:
    """The tokens that the chat template makes of the two replies.

    They can differ from the tokens of the texts alone, where a template or tokenizer puts a space
    before a reply.

    Raises:
        DreamPRMError: the conversations that end with the one and the other do not differ in one
            token, at the position that predicts the reply.
    """
    user = {"role": "user", "content": [_text("?")]}
    [asked] = _write(processor, [[user]], reply_next=True)
    answered = _write(processor, [[user, _reply(good)], [user, _reply(bad)]])
    before, one, other = (_tokens(processor, text) for text in (asked, *answered))
    differ = [i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b]
    if len(one) != len(other) or differ != [len(before)] or one[: len(before)] != before:
        raise DreamPRMError(
            f"good_token {good!r} and bad_token {bad!r} must each be one token where this chat "
            "template writes replies, and are not; choose texts that the tokenizer knows as a whole"
        )
    return one[len(before)], other[len(before)]


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _reply(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [_text(text)]}


def _write(
    processor: Any, chats: list[list[dict[str, Any]]], reply_next: bool = False
) -> list[str]:
    try:
        return write_chats(processor, chats, reply_next)
    except DreamPRMError as error:
        raise DreamPRMError(
            f"layout 'turns': {error}; an empty instruction leaves the system turn out"
        ) from error


def _tokens(processor: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer_of(processor)(text, add_special_tokens=False).input_ids
    return ids
