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

from dreamprm.policy.decoding import prefill
from dreamprm.prm.inputs import Prompt, join
from dreamprm.prm.layout import Encoder, Laid
from dreamprm.prm.lora import unwrapped
from dreamprm.prm.model import PRM
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
        return SharedBatch(
            {k: v.to(device) for k, v in self.inputs.items()},
            self.begins.to(device),
            self.tails.to(device),
            self.tail_mask.to(device),
            self.ends.to(device),
            self.mask.to(device),
        )


def can_share(model: PRM) -> bool:
    """Can the backbone go on from an expanded cache?

    Recurrent and hybrid ones keep a state in place of keys and values, which transformers marks as
    stateful: those are scored one trajectory per sequence.
    """
    return not getattr(unwrapped(model.backbone), "_is_stateful", False)


def share(encoder: Encoder, groups: Sequence[Group]) -> SharedBatch:
    """Encode groups of candidates.

    Args:
        encoder: of the reward model.
        groups: at least one candidate each, all with images or all without; steps beyond the
            context are left out, with a warning.
    """
    pad = encoder.tokenizer.pad_token_id or 0
    begins, rows, tails, ends = [], [], [], []
    for number, (question, candidates) in enumerate(groups):
        laid = [encoder.lay_out(question, steps) for steps in candidates]
        sequences = [_tokens(one) for one in laid]
        width = _common(sequences, limit=min(_first_end(one) for one in laid))
        begins.append(_cut(laid[0], sequences[0], width))
        for one, sequence in zip(laid, sequences, strict=True):
            rows.append(number)
            tails.append(sequence[width:])
            ends.append([len(one.prompt) + end - width for end in one.ends])
    inputs, _ = join(begins, [()] * len(begins), pad, "left")
    length, steps = max(map(len, tails)), max(map(len, ends))
    padded = torch.full((len(rows), length), pad)
    tail_mask = torch.zeros(len(rows), length, dtype=torch.long)
    at = torch.zeros(len(rows), steps, dtype=torch.long)
    mask = torch.zeros(len(rows), steps, dtype=torch.bool)
    for row, (tail, end) in enumerate(zip(tails, ends, strict=True)):
        padded[row, : len(tail)] = torch.tensor(tail)
        tail_mask[row, : len(tail)] = 1
        at[row, : len(end)] = torch.tensor(end)
        mask[row, : len(end)] = True
    return SharedBatch(inputs, torch.tensor(rows), padded, tail_mask, at, mask)


def shared_logits(model: PRM, batch: SharedBatch) -> Tensor:
    """Step logits, (rows, steps); 0 where `batch.mask` is False. Equal to the model's own.

    Args:
        model: in eval mode, under `torch.inference_mode`.
        batch: on the model's device.
    """
    backbone: Any = unwrapped(model.backbone)
    inputs = {
        k: v.to(backbone.dtype) if v.is_floating_point() else v for k, v in batch.inputs.items()
    }
    start = prefill(backbone, inputs)
    start.cache.reorder_cache(batch.begins)
    mask = torch.cat([start.mask[batch.begins], batch.tail_mask], dim=1)  # (rows, width + length)
    length = batch.tails.shape[1]
    positions = start.position[batch.begins] + torch.arange(length, device=mask.device)
    hidden = backbone.base_model(
        input_ids=batch.tails,
        attention_mask=mask,
        position_ids=positions,  # (rows, length)
        past_key_values=start.cache,
        use_cache=True,
    ).last_hidden_state  # (rows, length, hidden)
    rows, steps = batch.mask.nonzero(as_tuple=True)
    found = model.judge(hidden[rows, batch.ends[rows, steps]])  # (found,)
    logits: Tensor = found.new_zeros(batch.mask.shape)
    logits[rows, steps] = found
    return logits


def _tokens(laid: Laid) -> list[int]:
    return [*laid.prompt.tokens["input_ids"].tolist(), *laid.tail]


def _first_end(laid: Laid) -> int:
    """Where the first step is judged: it must lie behind what is shared."""
    return len(laid.prompt) + laid.ends[0]


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
