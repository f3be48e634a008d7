"""Prompts and their images -> one left-padded batch; what is wrong with one stays with that one.

A bad image or a prompt that is too long must cost its own request, not the hundred that happen to
be in the same batch.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from dreamprm.errors import DataError
from dreamprm.images import load_image
from dreamprm.policy import RequestRefused

Pictures = Mapping[int, list[Image.Image]]
"""The images of those prompts that are still good, by the prompt's number."""


@dataclass(frozen=True)
class Prompt:
    """What the model reads.

    Attributes:
        text: in the model's chat template, with what the answer begins with.
        images: as in `Question`.
        room: tokens that must fit behind it; 0 where that is known.
    """

    text: str
    images: tuple[str | bytes, ...] = ()
    room: int = 0


class PromptEncoder:
    """Encodes batches of prompts, all with images or all without.

    Args:
        processor: of the model; its tokenizer must have a padding token.
        longest: tokens that the model can hold, prompt and answer together; None: no limit known.
        root: folder that relative image paths start from.
    """

    def __init__(
        self,
        processor: Any,
        *,
        longest: int | None,
        device: str,
        dtype: torch.dtype,
        root: Path | None,
    ) -> None:
        self.processor, self.longest, self.root = processor, longest, root
        self.device, self.dtype = device, dtype

    def __call__(self, prompts: Sequence[Prompt]) -> tuple[Any, dict[int, Exception]]:
        """Encode what can be encoded.

        Returns:
            The model's inputs for the good prompts, in order (None where there are none), and what
            is wrong with the others, by number.
        """
        refused: dict[int, Exception] = {}
        pictures: dict[int, list[Image.Image]] = {}
        for i, prompt in enumerate(prompts):
            try:
                pictures[i] = [load_image(reference, self.root) for reference in prompt.images]
            except DataError as error:
                refused[i] = RequestRefused(str(error))
        inputs = None
        while pictures:
            try:
                inputs = self._process(prompts, pictures)
            except Exception:
                wrong = self._culprits(prompts, pictures)
                if not wrong:
                    raise
            else:
                wrong = self._too_long(prompts, pictures, inputs)
                if not wrong:
                    return inputs, refused
            refused |= wrong
            pictures = {i: images for i, images in pictures.items() if i not in wrong}
        return None, refused

    def _process(self, prompts: Sequence[Prompt], pictures: Pictures) -> Any:
        texts = [prompts[i].text for i in pictures]
        options: dict[str, Any] = {}
        if any(pictures.values()):
            options["images"] = list(pictures.values())
        bos = self.processor.tokenizer.bos_token
        if bos and texts[0].startswith(bos):  # the chat template has written it; one is enough
            options["add_special_tokens"] = False
        inputs = self.processor(
            text=texts, padding=True, padding_side="left", return_tensors="pt", **options
        )
        return inputs.to(self.device, self.dtype)

    def _culprits(self, prompts: Sequence[Prompt], pictures: Pictures) -> dict[int, Exception]:
        """The processor refuses the batch: which of them does it refuse alone?"""
        refused: dict[int, Exception] = {}
        for i, images in pictures.items():
            try:
                self._process(prompts, {i: images})
            except ValueError as error:
                refused[i] = RequestRefused(f"the model's processor refuses it: {error}")
            except Exception as error:
                refused[i] = error
        return refused

    def _too_long(
        self, prompts: Sequence[Prompt], pictures: Pictures, inputs: Any
    ) -> dict[int, Exception]:
        """Those behind which the longest answer would not fit."""
        refused: dict[int, Exception] = {}
        for i, size in zip(pictures, inputs["attention_mask"].sum(1).tolist(), strict=True):
            room = prompts[i].room
            if self.longest is not None and room and size + room > self.longest:
                refused[i] = RequestRefused(
                    f"a prompt of {size} tokens and an answer of up to {room} pass the "
                    f"{self.longest} that the model can hold; shorten the question, shrink its "
                    "images or lower max_new_tokens"
                )
        return refused


def rough_length(prompt: Prompt, root: Path | None) -> int:
    """About how many tokens a prompt has, without reading more of its images than their headers.

    Only good for putting prompts of similar length together.
    """
    return len(prompt.text) // 4 + sum(
        _area(reference, root) // 28**2 for reference in prompt.images
    )


def _area(reference: str | bytes, root: Path | None) -> int:
    """Pixels of an image; 0 where it cannot be read, which whoever loads it will tell."""
    source = io.BytesIO(reference) if isinstance(reference, bytes) else Path(root or "") / reference
    try:
        with Image.open(source) as image:
            return image.width * image.height
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return 0
