"""From trajectories to token batches, with the position at which each step is judged.

`trajectory` layout: prompt, step 1, tag, step 2, tag, ... in one sequence. Attention is causal, so
the hidden state at the tag of step i has seen the prompt and the first i steps and nothing else:
one forward pass judges every prefix.

`prefix` layout (the paper's): one sequence per prefix, judged at its end. Kept for parity and as
the baseline of `benchmarks/`; it computes the same positions at about (steps + 1) / 2 times the
tokens of the reasoning and `steps` times those of the prompt and image.

Step tokens are appended to the prompt's tokens by id, never found again in a string, so a step's
end cannot be missed when a tokenizer merges characters across it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dreamprm.errors import DreamPRMError
from dreamprm.images import load_image
from dreamprm.prompts import question_text
from dreamprm.records import Question

LayoutName = Literal["trajectory", "prefix"]
# Inputs that processors return per token; all others are visual tensors, which are left alone.
TOKEN_KEYS = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")


@dataclass(frozen=True)
class LayoutConfig:
    """How a trajectory is laid out for the backbone.

    Attributes:
        name: `trajectory` (one pass for all steps) or `prefix` (the paper's).
        step_tag: text that ends each step; must be a single token of the backbone's tokenizer.
        instruction: what the prompt asks for, after the question.
        padding_side: `right` or `left`; scores do not depend on it.
    """

    name: LayoutName = "trajectory"
    step_tag: str = "\n"
    instruction: str = "Judge each step."
    padding_side: Literal["right", "left"] = "right"


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


class Encoder:
    """Turns (question, steps) pairs into a `Batch`.

    Args:
        processor: the backbone's processor (image processor, tokenizer and chat template).
        config: the layout.
        root: folder that relative image paths start from.
    """

    def __init__(
        self, processor: Any, config: LayoutConfig | None = None, root: Path | None = None
    ) -> None:
        self.processor = processor
        self.config = config or LayoutConfig()
        self.root = root
        self.tokenizer = processor.tokenizer
        tag = self.tokenizer(self.config.step_tag, add_special_tokens=False).input_ids
        if len(tag) != 1:
            raise DreamPRMError(
                f"step_tag {self.config.step_tag!r} is {len(tag)} tokens of this backbone's "
                "tokenizer, and must be one; choose a tag that the tokenizer knows as a whole"
            )
        self.tag_id: int = tag[0]
        self._step_ids = lru_cache(maxsize=65536)(self._tokenize)

    def __call__(self, pairs: Sequence[tuple[Question, Sequence[str]]]) -> Batch:
        """Encode trajectories.

        Args:
            pairs: question and steps of each trajectory; at least one step each.

        Returns:
            A batch of len(pairs) sequences (`trajectory`), or of one sequence per step (`prefix`).
        """
        if self.config.name == "prefix":
            sequences = [
                (i, n) for i, (_, steps) in enumerate(pairs) for n in range(1, len(steps) + 1)
            ]
        else:
            sequences = [(i, len(steps)) for i, (_, steps) in enumerate(pairs)]
        prompts = self._prompts([pairs[i][0] for i, _ in sequences])
        tails, ends = [], []
        for i, n in sequences:
            tail: list[int] = []
            end = []
            for step in pairs[i][1][:n]:
                tail += [*self._step_ids(step), self.tag_id]
                end.append(len(tail) - 1)
            tails.append(tail)
            ends.append(end)
        inputs, starts = self._append(prompts, tails)

        count = max(len(steps) for _, steps in pairs)
        positions = torch.zeros(len(pairs), count, dtype=torch.long)
        rows = torch.zeros(len(pairs), count, dtype=torch.long)
        mask = torch.zeros(len(pairs), count, dtype=torch.bool)
        for row, (i, n) in enumerate(sequences):
            steps = range(n) if self.config.name == "trajectory" else range(n - 1, n)
            for s in steps:
                positions[i, s] = starts[row] + ends[row][s]
                rows[i, s] = row
                mask[i, s] = True
        return Batch(inputs, positions, rows, mask)

    def prompt_text(self, question: Question) -> str:
        """The prompt as the backbone's chat template writes it."""
        content: list[dict[str, str]] = [{"type": "image"} for _ in question.images]
        text = "\n".join(
            part for part in (question_text(question), self.config.instruction) if part
        )
        content.append({"type": "text", "text": text})
        message = [{"role": "user", "content": content}]
        prompt: str = self.processor.apply_chat_template(
            message, tokenize=False, add_generation_prompt=True
        )
        return prompt

    def _tokenize(self, step: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(step, add_special_tokens=False).input_ids)

    def _prompts(self, questions: Sequence[Question]) -> dict[str, Tensor]:
        texts = [self.prompt_text(q) for q in questions]
        images = [[load_image(ref, self.root) for ref in q.images] for q in questions]
        with_images = [group for group in images if group]
        kwargs: dict[str, Any] = {"images": with_images} if with_images else {}
        encoded = self.processor(
            text=texts, padding=True, padding_side="right", return_tensors="pt", **kwargs
        )
        return dict(encoded)

    def _append(
        self, prompts: dict[str, Tensor], tails: list[list[int]]
    ) -> tuple[dict[str, Tensor], list[int]]:
        """Append step tokens to right-padded prompts; returns the inputs and where steps start."""
        lengths: list[int] = prompts["attention_mask"].sum(dim=1).tolist()
        total = max(n + len(tail) for n, tail in zip(lengths, tails, strict=True))
        size = (len(tails), total)
        inputs = {k: v for k, v in prompts.items() if k not in TOKEN_KEYS}
        for key in TOKEN_KEYS:
            if key in prompts:
                fill = self.tokenizer.pad_token_id if key == "input_ids" else 0
                inputs[key] = torch.full(size, fill, dtype=torch.long)
        starts = []
        for row, (n, tail) in enumerate(zip(lengths, tails, strict=True)):
            end = n + len(tail)
            shift = total - end if self.config.padding_side == "left" else 0
            for key in TOKEN_KEYS:
                if key in prompts:
                    inputs[key][row, shift : shift + n] = prompts[key][row, :n]
            inputs["input_ids"][row, shift + n : shift + end] = torch.tensor(tail)
            inputs["attention_mask"][row, shift + n : shift + end] = 1
            starts.append(shift + n)
        return inputs, starts
