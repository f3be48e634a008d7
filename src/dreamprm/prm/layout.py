"""From trajectories to token batches, with the position at which each step is judged.

`trajectory` layout: prompt, step 1, tag, step 2, tag, ... in one sequence. Attention is causal, so
the hidden state at the tag of step i has seen the prompt and the first i steps and nothing else:
one forward pass judges every prefix.

`prefix` layout (the paper's): one sequence per prefix, judged at its end. Kept for parity and as
the baseline of `benchmarks/`; it computes the same positions at about (steps + 1) / 2 times the
tokens of the reasoning and `steps` times those of the prompt and image.

`turns` layout (VisualPRM's): a conversation, see `prm.turns`; one pass for all steps.

Step tokens are appended to the prompt's tokens by id, never found again in a string, so a step's
end cannot be missed when a tokenizer merges characters across it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dreamprm.errors import DataError, DataWarning, DreamPRMError
from dreamprm.images import load_image
from dreamprm.prm.inputs import Prompt, PromptCache, encode_prompt, join
from dreamprm.prm.turns import dialogue
from dreamprm.prompts import question_text
from dreamprm.records import Question

LayoutName = Literal["trajectory", "prefix", "turns"]


@dataclass(frozen=True)
class LayoutConfig:
    """How a trajectory is laid out for the backbone.

    Attributes:
        name: `trajectory` (one pass for all steps), `prefix` (the paper's) or `turns` (a
            conversation, one turn per step: VisualPRM's).
        step_tag: text that ends each step; must be a single token of the backbone's tokenizer.
            `turns` has none.
        instruction: what the prompt asks for, after the question; in `turns`, the system turn.
        reply: `turns`: what the assistant said to every earlier step, whatever it deserved.
        padding_side: `right` or `left`; scores do not depend on it.
        max_length: tokens of a sequence, images included; steps that would pass it are not scored,
            with a warning. None: as many as the backbone has positions for.
    """

    name: LayoutName = "trajectory"
    step_tag: str = "\n"
    instruction: str = "Judge each step."
    reply: str = "+"
    padding_side: Literal["right", "left"] = "right"
    max_length: int | None = None


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


@dataclass(frozen=True)
class Laid:
    """One trajectory as tokens: a prompt, what follows it, and where its steps are judged.

    Attributes:
        prompt: with its images.
        tail: tokens behind the prompt, up to the last step that fits.
        ends: index in `tail` of the position that judges each step; -1 is the prompt's last token.
    """

    prompt: Prompt
    tail: list[int]
    ends: list[int]


class Encoder:
    """Turns (question, steps) pairs into a `Batch`.

    Args:
        processor: the backbone's processor (image processor, tokenizer and chat template).
        config: the layout.
        root: folder that relative image paths start from.
        context: tokens that the backbone has positions for; None: no limit known.

    Attributes:
        warn_cut: warn once of each trajectory with steps beyond the limit; who counts them himself
            switches it off.
    """

    def __init__(
        self,
        processor: Any,
        config: LayoutConfig | None = None,
        root: Path | None = None,
        context: int | None = None,
    ) -> None:
        self.processor = processor
        self.config = config or LayoutConfig()
        self.root = root
        limit = self.config.max_length
        self.limit = context if limit is None else limit
        self.tokenizer = processor.tokenizer
        self._placeholders = {
            token
            for holder in (processor, self.tokenizer)
            if isinstance(token := getattr(holder, "image_token", None), str)
        }
        self.warn_cut = True
        self._told: set[int] = set()  # trajectories whose cut has been warned about
        tag = self.tokenizer(self.config.step_tag, add_special_tokens=False).input_ids
        if len(tag) != 1 and self.config.name != "turns":
            raise DreamPRMError(
                f"step_tag {self.config.step_tag!r} is {len(tag)} tokens of this backbone's "
                "tokenizer, and must be one; choose a tag that the tokenizer knows as a whole"
            )
        self.tag_id: int = tag[0] if tag else -1  # `turns` has none
        self._step_ids = lru_cache(maxsize=65536)(self._tokenize)
        self._template = lru_cache(maxsize=65536)(self._write_template)
        self._prompts = PromptCache()

    def __call__(self, pairs: Sequence[tuple[Question, Sequence[str]]]) -> Batch:
        """Encode trajectories.

        Args:
            pairs: question and steps of each trajectory; at least one step each.

        Returns:
            A batch of len(pairs) sequences (`trajectory`, `turns`), or of one sequence per step
            (`prefix`).
        """
        laid = [self.lay_out(question, steps) for question, steps in pairs]
        sequences = []  # (trajectory, its steps)
        for i, one in enumerate(laid):
            fit = len(one.ends)
            sequences += (
                [(i, n) for n in range(1, fit + 1)] if self.config.name == "prefix" else [(i, fit)]
            )
        inputs, starts = join(
            [laid[i].prompt for i, _ in sequences],
            [laid[i].tail[: laid[i].ends[n - 1] + 1] for i, n in sequences],
            self.tokenizer.pad_token_id or 0,
            self.config.padding_side,
        )

        count = max(len(steps) for _, steps in pairs)
        positions = torch.zeros(len(pairs), count, dtype=torch.long)
        rows = torch.zeros(len(pairs), count, dtype=torch.long)
        mask = torch.zeros(len(pairs), count, dtype=torch.bool)
        for row, (i, n) in enumerate(sequences):
            steps = range(n - 1, n) if self.config.name == "prefix" else range(n)
            for s in steps:
                positions[i, s] = starts[row] + laid[i].ends[s]
                rows[i, s] = row
                mask[i, s] = True
        return Batch(inputs, positions, rows, mask)

    def lay_out(self, question: Question, steps: Sequence[str]) -> Laid:
        """One trajectory as tokens; steps beyond the context are left out, with a warning."""
        text, tail, ends = self._lay_out(question, steps)
        prompt = self._prompts.get((text, question.images), partial(self._encode, question, text))
        fit = self._fitting(question, steps, len(prompt), ends)
        return Laid(prompt, tail[: ends[fit - 1] + 1], ends[:fit])

    def prompt_text(self, question: Question) -> str:
        """The prompt as the backbone's chat template writes it."""
        return self._template(question_text(question), len(question.images))

    def _write_template(self, text: str, images: int) -> str:
        content: list[dict[str, str]] = [{"type": "image"} for _ in range(images)]
        text = "\n".join(part for part in (text, self.config.instruction) if part)
        content.append({"type": "text", "text": text})
        message = [{"role": "user", "content": content}]
        prompt: str = self.processor.apply_chat_template(
            message, tokenize=False, add_generation_prompt=True
        )
        return prompt

    def _lay_out(
        self, question: Question, steps: Sequence[str]
    ) -> tuple[str, list[int], list[int]]:
        """Prompt text, the tokens after it, and where in these each step is judged."""
        for what, text in (("text", question_text(question)), *(("step", s) for s in steps)):
            if found := next((p for p in self._placeholders if p in text), None):
                raise DataError(
                    f"question '{question.id}': a {what} holds {found}, which stands for an image "
                    "of this backbone; remove it, images have a field of their own"
                )
        if self.config.name == "turns":
            turns = dialogue(
                self.processor, self.config.instruction, self.config.reply, question, steps
            )
            return turns.opening, list(turns.tail), list(turns.ends)
        tail: list[int] = []
        ends = []
        for step in steps:
            tail += [*self._step_ids(step), self.tag_id]
            ends.append(len(tail) - 1)
        return self.prompt_text(question), tail, ends

    def _encode(self, question: Question, text: str) -> Prompt:
        pictures = [load_image(ref, self.root) for ref in question.images]
        return encode_prompt(self.processor, text, pictures, question.id)

    def _tokenize(self, step: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(step, add_special_tokens=False).input_ids)

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
