"""Decoding loop of a model in this process: one prefill per prompt, many continuations of it.

`generate(num_return_sequences=n)` reads a prompt n times, and its samples come from one stream of
random numbers, so that each depends on all else in the batch. Here a prompt and its image are read
once and their key-value cache is expanded to n rows; and every row has random numbers of its own,
so that a text stays what it is whatever it is batched with (up to rounding: another batch size may
add up in another order, and a row whose random number falls within that rounding of a boundary
takes the other token; rare in float32, less so in 16 bits).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Pick = Callable[[Tensor, Tensor, int], Tensor]
"""(logits (rows, vocabulary), numbers of these rows among all, index of the new token) -> tokens
(rows,)."""

Ends = Callable[[int, list[int]], bool]
"""(number of the row among all, its tokens so far) -> is this as far as it was to go?"""

_FULL = 0.8  # below this share of rows that still write, the others are dropped from the cache


@dataclass(frozen=True)
class Continuation:
    """The tokens that follow a prompt.

    Attributes:
        tokens: without the token that ended it.
        ended: did the model end it? Otherwise it was stopped, or cut at the limit.
        stopped: by `ends`.
    """

    tokens: list[int]
    ended: bool
    stopped: bool = False

    @property
    def sampled(self) -> int:
        """Tokens drawn, the ending one included."""
        return len(self.tokens) + self.ended

    @property
    def reason(self) -> str:
        """See `Completion.finish_reason`."""
        return "step" if self.stopped else "stop" if self.ended else "length"


@dataclass(frozen=True)
class Prefilled:
    """Prompts that were read once.

    Attributes:
        cache: keys and values of the prompts.
        mask: 1 where a column holds a token of the prompt, 0 for padding at the left.
        position: of the first new token.
        logits: of the first new token.
    """

    cache: Any
    mask: Tensor  # (prompts, width)
    position: Tensor  # (prompts, 1)
    logits: Tensor  # (prompts, vocabulary)


def prefill(model: Any, inputs: dict[str, Tensor]) -> Prefilled:
    """Read left-padded prompts with their images.

    Positions are counted per row from its first token, as `generate` does. Models with rotary
    positions in three dimensions (Qwen-VL) place an image's tokens themselves and tell in
    `rope_deltas` how far text positions are then off the count of tokens.
    """
    mask = inputs["attention_mask"]  # (prompts, width)
    positions = positions_in(mask)
    places_images = hasattr(model.base_model, "rope_deltas")
    if places_images:
        model.base_model.rope_deltas = None  # of the batch before
    extra: dict[str, Any] = {}
    if not (places_images and "image_grid_thw" in inputs):
        extra["position_ids"] = positions
    output = model(**inputs, **extra, **_last_only(model), use_cache=True)
    position = positions[:, -1:] + 1
    if places_images and model.base_model.rope_deltas is not None:
        position = position + model.base_model.rope_deltas.to(position.device)
    return Prefilled(output.past_key_values, mask, position, output.logits[:, -1])


def positions_in(mask: Tensor) -> Tensor:
    """Positions counted per row from its first token; mask and positions are (rows, width)."""
    return (mask.long().cumsum(dim=-1) - 1).clamp(min=0)


def has_cache(model: Any) -> bool:
    """Whether a model keeps keys and values of what it has read, to go on from."""
    return "past_key_values" in inspect.signature(model.forward).parameters


def decode(
    model: Any,
    start: Prefilled,
    copies: Sequence[int],
    pick: Pick,
    max_new_tokens: int,
    eos: Collection[int],
    wanted: Callable[[], bool] = lambda: True,
    ends: Ends | None = None,
) -> list[Continuation]:
    """Continue each prompt so many times.

    Args:
        start: used up: its cache is expanded in place.
        copies: per prompt, how many continuations.
        pick: chooses the next token of each row: `greedy`, or what `sampler` makes.
        eos: tokens that end a text.
        wanted: asked before each token; once False, what there is is returned.
        ends: asked of each row after each token.

    Returns:
        The continuations of the first prompt, of the second, and so on.
    """
    device = start.mask.device
    prompt_of = torch.repeat_interleave(torch.tensor(copies, device=device))  # (rows,)
    total, width = len(prompt_of), start.mask.shape[1]
    rows = torch.arange(total, device=device)  # those in the cache, as numbers of all rows
    cache, logits = start.cache, start.logits[prompt_of]
    cache.reorder_cache(prompt_of)
    mask = torch.ones(total, width + max_new_tokens, dtype=start.mask.dtype, device=device)
    mask[:, :width] = start.mask[prompt_of]
    position = start.position[prompt_of]  # (rows, 1)
    written = torch.zeros(total, max_new_tokens, dtype=torch.long, device=device)
    length = torch.zeros(total, dtype=torch.long, device=device)
    ended = torch.zeros(total, dtype=torch.bool, device=device)
    halted: set[int] = set()
    stops = torch.tensor(sorted(eos), dtype=torch.long, device=device)
    for i in range(max_new_tokens):
        tokens = pick(logits, rows, i)  # (rows,)
        stopped = torch.isin(tokens, stops)
        writes = ~ended[rows]  # rows that had ended still run, until they are dropped
        written[rows, i] = tokens
        length[rows] += (writes & ~stopped).long()
        ended[rows] |= stopped
        if ends is not None:
            for row in rows[~ended[rows]].tolist():
                if ends(row, written[row, : i + 1].tolist()):
                    halted.add(row)
                    ended[row] = True
        alive = ~ended[rows]
        left = int(alive.sum())
        if left == 0 or i + 1 == max_new_tokens or not wanted():
            break
        if left < _FULL * len(rows):
            keep = alive.nonzero().squeeze(1)
            cache.reorder_cache(keep)
            rows, tokens, position, mask = rows[keep], tokens[keep], position[keep], mask[keep]
        output = model(
            input_ids=tokens[:, None],
            attention_mask=mask[:, : width + i + 1],
            position_ids=position + i,
            past_key_values=cache,
            use_cache=True,
        )
        logits = output.logits[:, -1]
    return [
        Continuation(tokens[:count], stopped and row not in halted, row in halted)
        for row, (tokens, count, stopped) in enumerate(
            zip(written.tolist(), length.tolist(), ended.tolist(), strict=True)
        )
    ]


def greedy(logits: Tensor, rows: Tensor, index: int) -> Tensor:
    """The likeliest token of each row."""
    return logits.argmax(dim=-1)


def sampler(
    uniforms: np.ndarray[Any, np.dtype[np.float64]], temperature: float, device: torch.device | str
) -> Pick:
    """Plain categorical sampling at a temperature, one uniform number per token.

    Args:
        uniforms: (rows, max_new_tokens), in [0, 1): each row's own random numbers.
    """
    numbers = torch.from_numpy(uniforms).to(device, _widest(torch.device(device)))

    def pick(logits: Tensor, rows: Tensor, index: int) -> Tensor:
        return inverse_cdf(logits.float() / temperature, numbers[rows, index])

    return pick


def inverse_cdf(logits: Tensor, uniform: Tensor) -> Tensor:
    """The first token up to which the softmax adds up to more than the uniform number.

    A token of probability 0 is never taken: where it stands the sum does not grow.

    Args:
        logits: (rows, vocabulary).
        uniform: (rows,), in [0, 1).
    """
    wide = _widest(logits.device)
    sums = logits.float().softmax(dim=-1).cumsum(dim=-1, dtype=wide)  # (rows, vocabulary)
    total = sums[:, -1:]
    goal = uniform.to(wide)[:, None] * total  # (rows, 1)
    goal = goal.minimum(total.nextafter(torch.zeros_like(total)))  # the product may be rounded up
    return torch.searchsorted(sums, goal, right=True).squeeze(1)


def _widest(device: torch.device) -> torch.dtype:
    """Sums over a large vocabulary want float64, which Apple's GPUs have not."""
    return torch.float32 if device.type == "mps" else torch.float64


def _last_only(model: Any) -> dict[str, Any]:
    """Logits of the prompt's last token alone, where the model can: a vocabulary is large."""
    takes = "logits_to_keep" in inspect.signature(model.forward).parameters
    return {"logits_to_keep": 1} if takes else {}
