"""What a model says about trajectories: embeddings, likelihoods, losses.

Selectors that look past the labels (`car`, `loss`) are given these figures in a `Pool`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dreamprm.baselines.pool import Floats
from dreamprm.bilevel.losses import trajectory_losses
from dreamprm.prm.layout import Batch, Encoder
from dreamprm.prm.lora import unwrapped
from dreamprm.prm.model import PRM
from dreamprm.training.config import LowerLoss
from dreamprm.training.data import Pair

Progress = Callable[[int], None]


def silent(done: int) -> None:
    """Tell nobody."""


@torch.inference_mode()
def embed(
    model: PRM, pairs: Sequence[Pair], batch_size: int, progress: Progress = silent
) -> Floats:
    """Mean of the backbone's last hidden states over the tokens of the reasoning.

    Args:
        model: put into eval mode; its device is used, its head is not.
        pairs: question and trajectory.
        batch_size: trajectories in one forward pass.
        progress: told the number of trajectories done since the last call.

    Returns:
        (trajectories, width), in the order of `pairs`.
    """
    rows: list[Floats] = [np.empty(0)] * len(pairs)
    for indices, batch, mask in _encoded(model, pairs, batch_size):
        hidden = _hidden_states(model, batch)
        weight = mask[..., None].to(hidden.device, torch.float32)
        mean = (hidden.float() * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)
        for i, row in zip(indices, mean.double().cpu().numpy(), strict=True):
            rows[i] = row
        progress(len(indices))
    return np.stack(rows)


@torch.inference_mode()
def quality(
    model: PRM, pairs: Sequence[Pair], batch_size: int, progress: Progress = silent
) -> Floats:
    """Mean log-probability of the reasoning's tokens under the backbone's language head.

    It stands in for CaR's quality score, which is a model trained on experts' preferences between
    instruction pairs; there is none for reasoning about images. What a language model finds likely
    is fluent and of a kind it knows, not necessarily right. A backbone that no PRM training has
    touched is the better judge. The few architectures that squeeze or rescale their logits
    afterwards are read before that, which is enough to rank by.

    Args:
        model: put into eval mode; its device is used, its own head is not.
        pairs: question and trajectory.
        batch_size: trajectories in one forward pass.
        progress: told the number of trajectories done since the last call.

    Returns:
        (trajectories,), in the order of `pairs`; at most 0.
    """
    found = np.zeros(len(pairs))
    for indices, batch, mask in _encoded(model, pairs, batch_size):
        hidden = _hidden_states(model, batch)
        head = unwrapped(model.backbone).get_output_embeddings()
        tokens = batch.inputs["input_ids"]
        for i, states, ids, mine in zip(indices, hidden, tokens, mask, strict=True):
            places = mine.nonzero()[:, 0].to(hidden.device)  # (reasoning tokens,)
            # One trajectory at a time: logits are as wide as the vocabulary.
            logits = head(states[places - 1])  # (reasoning tokens, vocabulary)
            if len(places):
                found[i] = -float(F.cross_entropy(logits.float(), ids[places]))
        progress(len(indices))
    return found


@torch.inference_mode()
def reference_losses(
    model: PRM,
    pairs: Sequence[Pair],
    batch_size: int,
    kind: LowerLoss = "mse",
    progress: Progress = silent,
) -> Floats:
    """Mean loss of a trained PRM's step scores against the Monte Carlo labels.

    Args:
        model: the reference, put into eval mode; a fresh head scores every step 0.5 and tells
            nothing but how far the labels are from that.
        pairs: question and labelled trajectory.
        batch_size: trajectories in one forward pass.
        kind: of loss, see `bilevel.losses.trajectory_losses`.
        progress: told the number of trajectories done since the last call.

    Returns:
        (trajectories,), in the order of `pairs`.
    """
    encode = model.eval().encoder()
    found = np.zeros(len(pairs))
    for indices in batches(pairs, batch_size):
        part = [pairs[i] for i in indices]
        logits = model(encode([(q, t.steps) for q, t in part]).to(model.device)).float()
        labels = torch.zeros_like(logits)  # (trajectories, steps)
        labelled = torch.zeros_like(logits, dtype=torch.bool)
        for row, (_, t) in enumerate(part):
            for column, label in enumerate(t.labels or ()):
                if label is not None:
                    labels[row, column], labelled[row, column] = label.value, True
        found[indices] = trajectory_losses(logits, labels, labelled, kind).double().cpu().numpy()
        progress(len(indices))
    return found


def batches(pairs: Sequence[Pair], batch_size: int) -> Iterator[list[int]]:
    """Indices of trajectories of similar length, with and without images apart."""
    for with_images in (True, False):
        mine = [i for i, (q, _) in enumerate(pairs) if bool(q.images) == with_images]
        mine.sort(key=lambda i: len(pairs[i][0].text) + sum(map(len, pairs[i][1].steps)))
        for start in range(0, len(mine), batch_size):
            yield mine[start : start + batch_size]


def _encoded(
    model: PRM, pairs: Sequence[Pair], batch_size: int
) -> Iterator[tuple[list[int], Batch, Tensor]]:
    """Indices, tokens on the model's device, and where the reasoning is, (trajectories, tokens).

    One sequence per trajectory, whatever the PRM's own layout is.
    """
    encode = Encoder(model.eval().processor, replace(model.config.layout, name="trajectory"))
    for indices in batches(pairs, batch_size):
        part = [pairs[i] for i in indices]
        batch = encode([(q, t.steps) for q, t in part])
        yield indices, batch.to(model.device), _reasoning(encode, batch, part)


def _reasoning(encode: Encoder, batch: Batch, part: Sequence[Pair]) -> Tensor:
    """True at the tokens of the steps; not at the tags between them, which nobody wrote."""
    mask = torch.zeros_like(batch.inputs["input_ids"], dtype=torch.bool)
    for row, (_, t) in enumerate(part):
        ends = batch.positions[row][batch.mask[row]].tolist()  # of the tags
        first = encode.tokenizer(t.steps[0], add_special_tokens=False).input_ids
        mask[row, ends[0] - len(first) : ends[-1]] = True
        mask[row, ends] = False
    return mask


def _hidden_states(model: PRM, batch: Batch) -> Tensor:
    backbone = unwrapped(model.backbone)
    inputs = {
        k: v.to(backbone.dtype) if v.is_floating_point() else v for k, v in batch.inputs.items()
    }
    hidden: Tensor = backbone.base_model(**inputs, use_cache=False).last_hidden_state
    return hidden  # (trajectories, tokens, width)
