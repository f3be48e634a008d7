"""Candidates of one question share image and prompt: read these once, then judge all their steps.

A best-of-N choice scores N trajectories that begin alike, and the beginning is the long part: an
image is hundreds or thousands of tokens, a reasoning one or two hundred. One pass per trajectory
computes N (P + L) tokens for a prompt of P and reasonings of L, one pass per prefix (the paper's)
about N S (P + L / 2). Here it is P + N L: the prompt is prefilled once, its keys and values are
expanded to N rows, and the N reasonings follow as one batch.

What is shared is the longest common beginning *in tokens*, so that it works for every layout: in
`turns` the opening ends with the first step, in which candidates differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dreamprm.models.generation import prefill
from dreamprm.prm.inputs import Prompt, join
from dreamprm.prm.layout import Encoder, Laid
from dreamprm.records import Question

Group = tuple[Question, Sequence[Sequence[str]]]
"""A question and the steps of each of its candidates."""


@dataclass(frozen=True)
class SharedBatch:
    """Beginnings, and what follows each of them.

    Attributes:
        inputs: left-padded beginnings for the backbone; token tensors are (questions, width).
        begins: the beginning of each row, (rows,).
        tails: tokens of the rest, right-padded, (rows, length).
        tail_mask: 1 where `tails` holds a token, (rows, length).
        ends: index in its tail at which each step is judged, (rows, steps); 0 where padded.
        mask: True where there is a step, (rows, steps).
    """

    inputs: dict[str, Tensor]
    begins: Tensor
    tails: Tensor
    tail_mask: Tensor
    ends: Tensor
    mask: Tensor

    @property
    def tokens(self) -> int:
        """Tokens that a pass over it computes, padding left out."""
        return int(self.inputs["attention_mask"].sum() + self.tail_mask.sum())

    def to(self, device: torch.device | str) -> SharedBatch:
        inputs = {k: v.to(device) for k, v in self.inputs.items()}
        others = (self.begins, self.tails, self.tail_mask, self.ends, self.mask)
        return SharedBatch(inputs, *(t.to(device) for t in others))


def share(encoder: Encoder, groups: Sequence[Group]) -> SharedBatch:
    """Encode groups of at least one candidate each, all with images or all without.

    Steps beyond the context are left out, with a warning.
    """
    begins, rows, tails, ends = [], [], [], []
    for number, (question, candidates) in enumerate(groups):
        laid = [encoder.lay_out(question, steps) for steps in candidates]
        sequences = [[*one.prompt.tokens["input_ids"].tolist(), *one.tail] for one in laid]
        # The first step must be judged behind what is shared.
        limit = min(len(one.prompt) + one.ends[0] for one in laid)
        width = _common(sequences, limit)
        begins.append(_cut(laid[0], sequences[0], width))
        for one, sequence in zip(laid, sequences, strict=True):
            rows.append(number)
            tails.append(sequence[width:])
            ends.append([len(one.prompt) + end - width for end in one.ends])
    inputs, _ = join(begins, [()] * len(begins), encoder.pad_id, "left")
    length, steps = max(map(len, tails)), max(map(len, ends))
    padded = torch.full((len(rows), length), encoder.pad_id)
    tail_mask = torch.zeros(len(rows), length, dtype=torch.long)
    at = torch.zeros(len(rows), steps, dtype=torch.long)
    mask = torch.zeros(len(rows), steps, dtype=torch.bool)
    for row, (tail, end) in enumerate(zip(tails, ends, strict=True)):
        padded[row, : len(tail)] = torch.tensor(tail)
        tail_mask[row, : len(tail)] = 1
        at[row, : len(end)] = torch.tensor(end)
        mask[row, : len(end)] = True
    return SharedBatch(inputs, torch.tensor(rows), padded, tail_mask, at, mask)


def states_at_steps(backbone: Any, batch: SharedBatch) -> Tensor:
    """Last hidden states where `batch.mask` is True, (found, width).

    The backbone comes without peft's wrapper, in eval mode and under `torch.inference_mode`.
    """
    start = prefill(backbone, batch.inputs)
    start.cache.reorder_cache(batch.begins)
    mask = torch.cat([start.mask[batch.begins], batch.tail_mask], dim=1)  # (rows, width + length)
    length = batch.tails.shape[1]
    positions = start.position[batch.begins] + torch.arange(length, device=mask.device)
    hidden: Tensor = backbone.base_model(
        input_ids=batch.tails,
        attention_mask=mask,
        position_ids=positions,  # (rows, length)
        past_key_values=start.cache,
        use_cache=True,
    ).last_hidden_state  # (rows, length, width)
    rows, steps = batch.mask.nonzero(as_tuple=True)
    return hidden[rows, batch.ends[rows, steps]]


def _common(sequences: Sequence[Sequence[int]], limit: int) -> int:
    """Length of the longest common beginning, at most `limit`."""
    first, *others = sequences
    for other in others:
        limit = next(
            (i for i, (a, b) in enumerate(zip(first[:limit], other, strict=False)) if a != b),
            min(limit, len(other)),
        )
    return limit


def _cut(laid: Laid, sequence: Sequence[int], width: int) -> Prompt:
    """The first so many tokens, with all images: these come before the steps in every layout."""
    tokens = {}
    for key, values in laid.prompt.tokens.items():
        more = max(0, width - len(laid.prompt))  # tokens of steps that all candidates begin with
        behind = values.new_full((more,), 1 if key == "attention_mask" else 0)  # type ids: text
        tokens[key] = torch.cat([values[:width], behind])
    tokens["input_ids"] = torch.tensor(sequence[:width])
    return Prompt(tokens, laid.prompt.visual)
