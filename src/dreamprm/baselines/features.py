"""What a model says about trajectories, for selectors that look past the labels (`car`, `loss`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dreamprm.baselines.selection import Floats, Pool
from dreamprm.prm.folder import LayoutConfig, PRMConfig, is_prm
from dreamprm.prm.layout import Batch, Encoder
from dreamprm.prm.lora import unwrapped
from dreamprm.prm.model import PRM
from dreamprm.records import Question, Trajectory
from dreamprm.training.config import LowerLoss
from dreamprm.training.losses import trajectory_losses

Pairs = Sequence[tuple[Question, Trajectory]]
Progress = Callable[[int], None]


def measured_pool(
    selector: str,
    pairs: Pairs,
    model: str,
    *,
    batch_size: int = 16,
    step_tag: str = "\n",
    lower_loss: LowerLoss = "mse",
    device: str | None = None,
    progress: Progress = lambda done: None,
) -> Pool:
    """A pool with the figures that the selector `car` or `loss` needs.

    Args:
        model: `loss`: folder of a trained PRM; `car`: that, or any model.
        step_tag: text that ends a step, for a model that is no PRM.
        progress: told the number of trajectories done since the last call.
    """
    if selector == "loss":
        prm = PRM.from_pretrained(model, device=device)
        losses = reference_losses(prm, pairs, batch_size, lower_loss, progress)
        return Pool(tuple(pairs), losses=losses)
    if is_prm(model):
        prm = PRM.from_pretrained(model, device=device)
    else:
        config = PRMConfig(layout=LayoutConfig(step_tag=step_tag))
        prm = PRM.from_backbone(model, config, device=device)
    features, quality = embeddings_and_quality(prm, pairs, batch_size, progress)
    return Pool(tuple(pairs), features=features, quality=quality)


@torch.inference_mode()
def embeddings_and_quality(
    model: PRM, pairs: Pairs, batch_size: int, progress: Progress = lambda done: None
) -> tuple[Floats, Floats]:
    """What CaR clusters and ranks by, from the backbone alone, in the order of `pairs`.

    Embeddings are the mean of the last hidden states over the tokens of the reasoning. Quality is
    the mean log-probability of these tokens under the backbone's language head. It stands in for
    CaR's quality score, a model trained on experts' preferences between instruction pairs; there is
    none for reasoning about images. What a language model finds likely is fluent and of a kind it
    knows, not necessarily right, and a backbone that no PRM training has touched is the better
    judge. The few architectures that squeeze or rescale their logits afterwards are read before
    that, which is enough to rank by. The model is put into eval mode; its own layout and head are
    not used.

    Returns:
        Embeddings, (trajectories, width), and quality, (trajectories,), at most 0.
    """
    encode = Encoder(model.eval().processor, replace(model.config.layout, name="trajectory"))
    backbone = unwrapped(model.backbone)
    head = backbone.get_output_embeddings()
    features: list[Floats] = [np.empty(0)] * len(pairs)
    quality = np.zeros(len(pairs))
    for indices in _batches(pairs, batch_size):
        part = [pairs[i] for i in indices]
        batch = encode([(q, t.steps) for q, t in part])
        mask = _reasoning(encode, batch, part).to(model.device)  # (trajectories, tokens)
        batch = batch.to(model.device)
        inputs = {
            k: v.to(backbone.dtype) if v.is_floating_point() else v for k, v in batch.inputs.items()
        }
        hidden = backbone.base_model(**inputs, use_cache=False).last_hidden_state
        weight = mask[..., None].float()
        mean = (hidden.float() * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)
        for i, row in zip(indices, mean.double().cpu().numpy(), strict=True):
            features[i] = row
        for i, states, ids, mine in zip(indices, hidden, inputs["input_ids"], mask, strict=True):
            places = mine.nonzero()[:, 0]  # (reasoning tokens,)
            # One trajectory at a time: logits are as wide as the vocabulary.
            logits = head(states[places - 1])  # (reasoning tokens, vocabulary)
            if len(places):
                quality[i] = -float(F.cross_entropy(logits.float(), ids[places]))
        progress(len(indices))
    return np.stack(features), quality


@torch.inference_mode()
def reference_losses(
    model: PRM,
    pairs: Pairs,
    batch_size: int,
    kind: LowerLoss = "mse",
    progress: Progress = lambda done: None,
) -> Floats:
    """Mean loss of a trained PRM's step scores against the labels, in the order of `pairs`.

    The model is put into eval mode. With a fresh head, which scores every step 0.5, the loss tells
    only how far the labels are from that.
    """
    encode = model.eval().encoder()
    losses = np.zeros(len(pairs))
    for indices in _batches(pairs, batch_size):
        part = [pairs[i] for i in indices]
        logits = model(encode([(q, t.steps) for q, t in part]).to(model.device)).float()
        labels = torch.zeros_like(logits)  # (trajectories, steps)
        labelled = torch.zeros_like(logits, dtype=torch.bool)
        for row, (_, t) in enumerate(part):
            for column, label in enumerate(t.labels or ()):
                if label is not None:
                    labels[row, column], labelled[row, column] = label.value, True
        losses[indices] = trajectory_losses(logits, labels, labelled, kind).double().cpu().numpy()
        progress(len(indices))
    return losses


def _batches(pairs: Pairs, batch_size: int) -> Iterator[list[int]]:
    """Indices of trajectories of similar length, with and without images apart."""
    for with_images in (True, False):
        mine = [i for i, (q, _) in enumerate(pairs) if bool(q.images) == with_images]
        mine.sort(key=lambda i: len(pairs[i][0].text) + sum(map(len, pairs[i][1].steps)))
        for start in range(0, len(mine), batch_size):
            yield mine[start : start + batch_size]


def _reasoning(encode: Encoder, batch: Batch, part: Pairs) -> Tensor:
    """True at the tokens of the steps; not at the tags between them, which nobody wrote."""
    mask = torch.zeros_like(batch.inputs["input_ids"], dtype=torch.bool)
    for row, (_, t) in enumerate(part):
        ends = batch.positions[row][batch.mask[row]].tolist()  # of the tags
        first = len(encode.step_ids(t.steps[0]))
        mask[row, ends[0] - first : ends[-1]] = True
        mask[row, ends] = False
    return mask
