"""A PRM and its data for the bi-level loop: batches, losses, and which row is whose."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dreamprm.bilevel.parallel import SINGLE, Parallel
from dreamprm.errors import DataError, DreamPRMError
from dreamprm.prm.layout import Batch
from dreamprm.prm.model import PRM
from dreamprm.records import Question
from dreamprm.training.batches import (
    LowerBatch,
    MetaBatch,
    blocks_of,
    contrasting,
    domains_at,
    items_of_part,
    part_at,
)
from dreamprm.training.config import TrainConfig
from dreamprm.training.data import Pair, TrainData
from dreamprm.training.losses import META_LOSSES, MetaLoss, aggregate, trajectory_losses

LEAST_PARTS = 8  # of the meta set, where it has enough questions: they say how sure weights are
FEATURES = 4  # what an instance net sees of a trajectory, see `PRMProblem.lower_losses`


class PRMProblem:
    """Makes batches of both levels and computes their losses.

    Args:
        parallel: the processes that share the work; each makes its own share of every batch.
    """

    def __init__(
        self,
        model: PRM,
        data: TrainData,
        config: TrainConfig,
        parallel: Parallel = SINGLE,
    ) -> None:
        self.model, self.data, self.config, self.parallel = model, data, config, parallel
        self.encode = model.encoder()
        self.of_candidates: MetaLoss = META_LOSSES[config.meta_loss](config.meta_aggregation)
        self._labels, self._labelled = data.label_table()
        self._contrast = [group for group in data.meta if len({t.outcome for _, t in group}) == 2]
        self._blocks = {
            name: blocks_of(
                [q.id for q, _ in pairs],
                [rough_length(pair) for pair in pairs],
                config.per_device_train_batch_size * parallel.world,
                f"{config.seed}/{name}",
                config.group_by_length,
            )
            for name, pairs in data.lower.items()
        }
        if config.learn_weights:
            self._check_upper_level()
        questions = [q for q, _ in data.items] + [group[0][0] for group in data.meta]
        for question in questions:
            model.plain.check(question)
        without = [q.id for q in questions if not q.images]
        if parallel.sharded and without and len(without) < len(questions):
            raise DataError(
                f"question '{without[0]}' has no image and others have: with sharded parameters "
                "(FSDP2) one process would wait for the others' vision tower for ever; use DDP, or "
                "train on one kind"
            )

    def _check_upper_level(self) -> None:
        config, model, estimator = self.config, self.model, self.config.estimator_name
        if not self.data.meta:
            raise DataError(
                "learning weights needs a meta set; give one or set learn_weights false"
            )
        if self.of_candidates.compares_candidates and not self._contrast:
            raise DataError(
                f"meta_loss '{config.meta_loss}' compares right and wrong candidates of one, "
                "and the meta set has no question with both; use meta_loss affine_bce or mse"
            )
        questions = len(self._meta_groups()) // self.meta_parts
        if questions < self.parallel.world:
            raise DataError(
                f"a meta batch has {questions} questions for {self.parallel.world} processes; "
                "give a larger meta set, or use fewer processes"
            )
        token = estimator == "ghost" and model.config.head == "token"
        if token and model.backbone.get_output_embeddings().weight.requires_grad:
            raise DreamPRMError(
                "ghost: the token head reads rows of the output layer, which is trained, past the "
                "layer itself; use estimator jvp, or LoRA"
            )
        # Two passes over a batch must drop the same, or their difference is noise.
        drops = any(isinstance(m, nn.Dropout) and m.p > 0 for m in model.modules())
        if drops and estimator != "inner_product":
            raise DreamPRMError(
                f"estimator {estimator} passes over a batch again, and dropout would drop other "
                "things then; set lora_dropout 0 (or the backbone's own), or use inner_product"
            )

    def lower_batches(self, step: int) -> list[LowerBatch]:
        """The micro-batches of a lower step; a function of seed and step."""
        count = len(self.data.domains)
        per_step = self.config.gradient_accumulation_steps
        return [
            self.lower_batch(domain, visit)
            for domain, visit in domains_at(step, count, per_step, self.config.seed)
        ]

    def lower_batch(self, domain: int, visit: int) -> LowerBatch:
        """This process's share of one domain's micro-batch, on the CPU."""
        name = self.data.domains[domain]
        blocks = self._blocks[name]
        block = part_at(visit, len(blocks), f"{self.config.seed}/{name}")
        mine = [blocks[block][i] for i in self.parallel.mine(len(blocks[block]))]
        return self.batch_of(domain, mine, block)

    def batch_of(self, domain: int, mine: list[int], block: int = -1) -> LowerBatch:
        """A micro-batch of some of a domain's trajectories, on the CPU."""
        pairs = self.data.lower[self.data.domains[domain]]
        tokens = self.encode([(pairs[i][0], pairs[i][1].steps) for i in mine])
        items = torch.tensor(mine) + self.data.first_item(domain)
        steps = tokens.mask.shape[1]
        return LowerBatch(
            domain=domain,
            items=items,
            tokens=tokens,
            labels=self._labels[items, :steps],
            labelled=self._labelled[items, :steps] & tokens.mask,
            images=tuple(len(pairs[i][0].images) for i in mine),
            block=block,
        )

    def _meta_groups(self) -> list[list[Pair]]:
        """Questions with both outcomes say most about ranking (the paper picks them first).

        Where there are enough of them to fill a batch, the others are left aside.
        """
        config = self.config
        contrast = len(self._contrast) >= config.meta_batch_questions
        enough = config.meta_batch_candidates > 1 and contrast
        only_contrast = self.of_candidates.compares_candidates or enough
        return self._contrast if only_contrast else self.data.meta

    @property
    def meta_parts(self) -> int:
        """Parts of the meta set, of about `meta_batch_questions`, or of fewer for `LEAST_PARTS`."""
        count = len(self._meta_groups())
        wanted = max(LEAST_PARTS, round(count / self.config.meta_batch_questions))
        alone = self.of_candidates.separable or self.of_candidates.compares_candidates
        smallest = 1 if alone else 2  # a scale cannot be fitted to the candidates of one question
        return max(1, min(wanted, count // max(smallest, self.parallel.world)))

    def meta_batch(self, upper_step: int) -> MetaBatch:
        """This process's share of a meta batch, on the CPU; a function of seed and step."""
        config, groups = self.config, self._meta_groups()
        key = f"{config.seed}/meta"
        part = part_at(upper_step, self.meta_parts, key)
        questions = items_of_part(part, self.meta_parts, len(groups), key)
        count = len(questions)
        picked: list[tuple[int, Pair]] = []
        for number in self.parallel.mine(count):
            group = groups[questions[number]]
            outcomes = [bool(t.outcome) for _, t in group]
            lottery = f"{key}/{upper_step}/{number}/{questions[number]}"
            chosen = contrasting(outcomes, config.meta_batch_candidates, lottery)
            picked += [(number, group[c]) for c in chosen]
        # As many chunks in every process: with shards they compute side by side.
        sizes = [len(groups[q]) for q in questions]
        most = max(
            sum(min(sizes[number], config.meta_batch_candidates) for number in range(r, count, w))
            for w in [self.parallel.world]
            for r in range(w)
        )
        chunk_count = -(-most // (config.per_device_meta_batch_size or most))
        if chunk_count > len(picked):
            raise DataError(
                f"a process has {len(picked)} meta candidates, another {most}; raise "
                "per_device_meta_batch_size or meta_batch_questions"
            )
        if chunk_count > 1:  # chunks of similar length need little padding
            picked.sort(key=lambda entry: rough_length(entry[1]))
        bounds = [len(picked) * i // chunk_count for i in range(chunk_count + 1)]
        chunks = [picked[a:b] for a, b in itertools.pairwise(bounds)]
        return MetaBatch(
            tuple(self.encode([(q, t.steps) for _, (q, t) in chunk]) for chunk in chunks),
            torch.tensor([float(bool(t.outcome)) for _, (_, t) in picked]),
            torch.tensor([number for number, _ in picked]),
            part,
        )

    def lower_losses(
        self, batch: LowerBatch, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """L_i, (B,), and what an instance net reads: loss, mean and last logit, mean label."""
        logits = self._logits(batch.tokens)  # (B, steps)
        p = (batch.labels if labels is None else labels).to(logits.dtype)
        losses = trajectory_losses(
            logits, p, batch.labelled, self.config.lower_loss, self.config.hard_threshold
        )
        with torch.no_grad():
            mask = batch.tokens.mask
            last = logits.gather(1, (mask.sum(dim=1, keepdim=True) - 1).clamp(min=0))[:, 0]
            mean_label = aggregate(p, batch.labelled, "mean")
            parts = [losses, aggregate(logits, mask, "mean"), last, mean_label]
            features = torch.stack([part.detach() for part in parts], dim=1)  # (B, FEATURES)
        return losses, features

    def meta_loss(self, batch: MetaBatch) -> Tensor:
        """Of all processes' candidates, with the gradient of one's own."""
        with without_dropout(self.model):
            parts = [
                self._scores(chunk, outcomes)
                for chunk, outcomes in zip(batch.chunks, batch.outcomes_of_chunks(), strict=True)
            ]
        return self._of_all(torch.cat(parts), batch)

    def meta_backward(self, batch: MetaBatch, scale: float) -> float:
        """Add the gradient of scale * meta loss to `.grad` with one chunk in memory at a time.

        A loss that compares candidates needs the scores of all before it can be differentiated by
        any: all chunks but the last are scored without graph first, and again for their backward
        pass (the idea of gradient caching, arXiv 2101.06983). A separable one goes through once.

        Returns:
            The meta loss.
        """
        with without_dropout(self.model):
            chunks, targets = batch.chunks, batch.outcomes_of_chunks()
            if self.of_candidates.separable:
                count = self.parallel.total(batch.outcomes.new_tensor(len(batch.outcomes)))
                total = torch.zeros((), device=batch.outcomes.device)
                for chunk, outcomes in zip(chunks, targets, strict=True):
                    losses = self.of_candidates.of_each(self._scores(chunk, outcomes), outcomes)
                    (scale * losses.sum() / count).backward()
                    total = total + losses.detach().sum()
                return float(self.parallel.total(total) / count)
            with torch.no_grad():
                before = zip(chunks[:-1], targets[:-1], strict=True)
                known = [self._scores(chunk, outcomes) for chunk, outcomes in before]
            last = self._scores(chunks[-1], targets[-1])
            scores = torch.cat([*known, last.detach()]).requires_grad_()
            loss = self._of_all(scores, batch)
            (slopes,) = torch.autograd.grad(scale * loss, scores)
            *parts, of_last = slopes.split([len(chunk.mask) for chunk in chunks])
            last.backward(of_last)
            for chunk, outcomes, slope in zip(chunks[:-1], targets[:-1], parts, strict=True):
                self._scores(chunk, outcomes).backward(slope)
            return float(loss.detach())

    def _of_all(self, own: Tensor, batch: MetaBatch) -> Tensor:
        """The meta loss from the scores of this process's candidates and of the others'."""
        scores = self.parallel.gather(own)
        outcomes = self.parallel.gather(batch.outcomes).to(scores.dtype)
        return self.of_candidates(scores, outcomes, self.parallel.gather(batch.question))

    def _scores(self, tokens: Batch, outcomes: Tensor) -> Tensor:
        """What the meta loss looks at of each candidate, (candidates,)."""
        return self.of_candidates.score(self._logits(tokens), tokens.mask, outcomes)

    def logits_of(self, part: Sequence[tuple[Question, Sequence[str]]]) -> tuple[Tensor, Tensor]:
        """Step logits and mask of trajectories, (trajectories, steps) each."""
        tokens = self.encode(part).to(self.model.device)
        return self._logits(tokens), tokens.mask

    def _logits(self, tokens: Batch) -> Tensor:
        with torch.autocast(self.model.device.type, dtype=torch.bfloat16, enabled=self.config.bf16):
            logits: Tensor = self.model(tokens)
        return logits.float() if logits.dtype.itemsize < 4 else logits

    def owners(self, batch: LowerBatch, output: Tensor) -> Tensor | None:
        """Trajectory of each row (first dimension) of what a module returns, for ghost products.

        Rows are sequences (three dimensions, as many tokens as the batch), judged steps (what the
        heads return), or image patches of processors that say how many each image has.

        Returns:
            (rows,); None where it cannot be told.
        """
        tokens, device = batch.tokens, output.device
        mask = tokens.mask.cpu()
        sequence_owner = torch.zeros(len(tokens.inputs["input_ids"]), dtype=torch.long)
        rows = torch.arange(len(mask)).view(-1, 1).expand_as(mask)
        sequence_owner[tokens.rows.cpu()[mask]] = rows[mask]
        if output.dim() == 3 and output.shape[:2] == tokens.inputs["input_ids"].shape:
            return sequence_owner.to(device)
        vocabulary = self.model.backbone.config.get_text_config().vocab_size
        if output.dim() == 2 and output.shape[1] in (1, vocabulary):
            return rows[mask].to(device)
        grid = tokens.inputs.get("image_grid_thw")
        if grid is not None:
            patches = grid.prod(dim=1).cpu()  # (images,)
            images = torch.tensor(batch.images)[sequence_owner]
            merged, rest = divmod(int(patches.sum()), max(1, len(output)))
            if merged and not rest and not (patches % merged).any():
                of_image = sequence_owner.repeat_interleave(images)
                return of_image.repeat_interleave(patches // merged).to(device)
        return None


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Solutions are scored as at inference, while layers still compute as in training."""
    layers = [m for m in model.modules() if isinstance(m, nn.Dropout) and m.training]
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()


def rough_length(pair: Pair) -> int:
    """Something that grows with the number of tokens."""
    question, t = pair
    return len(question.text) + sum(map(len, t.steps)) + 500 * len(question.images)
