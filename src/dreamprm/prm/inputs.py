"""Prompts with any number of images -> the tensors of one batch, for every architecture.

Processors disagree on what a batch is: some refuse questions with and without images together, some
count images per question and others per batch, some pad tiles to the largest image at hand. Each
prompt is therefore processed by itself, and merging is ours: token tensors are padded, visual ones
joined along their first axis (images, tiles or patches, always in the order of the prompts).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from dreamprm.errors import DataError, DreamPRMError
from dreamprm.models.loading import PROCESSOR_ERRORS
from dreamprm.models.plain_text import PlainText

# Inputs with one value per token. Of the type ids (Qwen-VL's positions, Gemma's attention within an
# image), 0 is text: what steps are made of, so that they attend causally.
TOKEN_KEYS = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")


@dataclass(frozen=True)
class Prompt:
    """One prompt as its processor returns it."""

    tokens: dict[str, Tensor]  # each (tokens,)
    visual: dict[str, Tensor]  # the rest; the first axis runs over images, tiles or patches

    def __len__(self) -> int:
        return len(self.tokens["input_ids"])


class PromptCache:
    """The latest prompts that were processed, up to `limit` bytes of tensors.

    Training comes back to a question in every epoch and for each of its trajectories, and reading
    and cutting up its images costs more than the forward pass of a small model.
    """

    def __init__(self, limit: int = 2**28) -> None:
        self.limit, self._size = limit, 0
        self._known: OrderedDict[Hashable, Prompt] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Prompt]) -> Prompt:
        """The prompt of that key; made where it is not known."""
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        prompt = self._known[key] = make()
        self._size += _bytes(prompt)
        while self._size > self.limit and len(self._known) > 1:
            self._size -= _bytes(self._known.popitem(last=False)[1])
        return prompt


def _bytes(prompt: Prompt) -> int:
    return sum(t.nbytes for t in (*prompt.tokens.values(), *prompt.visual.values()))


def encode_prompt(plain: PlainText, text: str, images: Sequence[Image.Image], name: str) -> Prompt:
    """Process one prompt, as the chat template wrote it; `name` is the question's, for errors.

    Raises:
        DataError: the processor refuses this prompt.
        DreamPRMError: the architecture has inputs per token that we cannot continue.
    """
    try:
        encoded = plain.inputs([text], [images])
    except PROCESSOR_ERRORS as error:
        raise DataError(
            f"question '{name}': the model's processor refuses it: {' '.join(str(error).split())}; "
            "correct its text or its images, or the model's processor_config.json"
        ) from error
    shape = encoded["input_ids"].shape  # (1, tokens)
    encoded.setdefault("attention_mask", torch.ones_like(encoded["input_ids"]))
    tokens = {key: encoded.pop(key)[0] for key in TOKEN_KEYS if key in encoded}
    for key, value in encoded.items():
        if not isinstance(value, Tensor) or value.shape[:2] == shape:
            raise DreamPRMError(
                f"this backbone needs '{key}', which dreamprm cannot extend to the steps of a "
                "trajectory; choose another backbone"
            )
    return Prompt(tokens, encoded)


def join(
    prompts: Sequence[Prompt],
    tails: Sequence[Sequence[int]],
    pad_id: int,
    side: Literal["right", "left"],
) -> tuple[dict[str, Tensor], list[int]]:
    """Append tokens to each prompt and make one batch of all.

    Returns:
        The backbone's inputs, and the position at which each tail starts.
    """
    total = max(len(p) + len(tail) for p, tail in zip(prompts, tails, strict=True))
    keys = [key for key in TOKEN_KEYS if any(key in p.tokens for p in prompts)]
    inputs = {
        key: torch.full((len(prompts), total), pad_id if key == "input_ids" else 0) for key in keys
    }  # (sequences, tokens)
    starts = []
    for row, (prompt, tail) in enumerate(zip(prompts, tails, strict=True)):
        length = len(prompt)
        end = length + len(tail)
        shift = total - end if side == "left" else 0
        for key, values in prompt.tokens.items():
            inputs[key][row, shift : shift + length] = values
        inputs["input_ids"][row, shift + length : shift + end] = torch.tensor(
            tail, dtype=torch.long
        )
        inputs["attention_mask"][row, shift + length : shift + end] = 1
        starts.append(shift + length)
    for key in dict.fromkeys(key for p in prompts for key in p.visual):
        inputs[key] = _concatenate([p.visual[key] for p in prompts if key in p.visual])
    return inputs, starts


def _concatenate(parts: list[Tensor]) -> Tensor:
    """Join along the first axis; zeros fill the others up, as processors do for missing tiles."""
    size = [max(lengths) for lengths in zip(*(p.shape[1:] for p in parts), strict=True)]
    whole = parts[0].new_zeros(sum(len(p) for p in parts), *size)
    row = 0
    for part in parts:
        whole[(slice(row, row + len(part)), *(slice(n) for n in part.shape[1:]))] = part
        row += len(part)
    return whole
