"""How much of a domain's hypergradient is signal? One run, and what its windows say of each domain.

    python -m experiments.testbed data --seeds 1
    python -m experiments.hypergradients build/testbed/seed-1 --seed 1 --output products.pt

The run is DreamPRM's default. Kept are the products of every window's meta direction u with every
window's gradients (s, t, k), and those of each meta question with its own window's (t, k, q). Said
are, by domain: the learned weight; the weights that the upper optimiser gives when it replays the
recorded hypergradients (as they came; and windows drawn anew with replacement: a 95% interval); and
the mean hypergradient in standard errors. At the end: how much of the variance is the meta batch's,
the training batches', and of both together. It takes about ten minutes on one thread, and 8 GiB.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dreamprm.bilevel import MicroBatch
from dreamprm.bilevel.hypergradient import InnerProduct
from dreamprm.bilevel.jacobian import step_jacobian
from dreamprm.data import Records, read_questions, read_trajectories
from dreamprm.prm.model import PRM
from dreamprm.tiny.world import DOMAINS
from dreamprm.training.config import TrainConfig
from dreamprm.training.data import prepare_data
from dreamprm.training.learned import domain_weights, make_weights
from dreamprm.training.problem import PRMProblem, without_dropout
from dreamprm.training.run import make_loop, windows

REPLAYS = 1000


def record(folder: Path, seed: int) -> dict[str, Any]:
    """A run, with its products."""
    torch.manual_seed(seed)
    data = prepare_data(
        Records(
            read_questions(folder / "train.jsonl"),
            read_trajectories(folder / "train.labelled.jsonl"),
        ),
        Records(
            read_questions(folder / "meta.jsonl"),
            read_trajectories(folder / "meta.candidates.jsonl"),
        ),
    )
    config = TrainConfig(max_steps=300, seed=seed)
    model = PRM.from_backbone("tiny").train()
    problem = PRMProblem(model, data, config)
    of_questions: list[Tensor] = []  # (domains, questions) of each window
    directions: list[Tensor] = []  # u, (parameters,)
    gradients: list[Tensor] = []  # (domains, parameters)

    class Recording(InnerProduct):
        def start(self, meta_batch: Any) -> None:
            super().start(meta_batch)
            self.questions: Tensor | None = None
            if self._u is None:
                return
            with without_dropout(model):
                chunks = zip(meta_batch.chunks, meta_batch.outcomes_of_chunks(), strict=True)
                scores = torch.cat([problem._scores(*chunk) for chunk in chunks])
            leaf = scores.detach().requires_grad_()
            (slopes,) = torch.autograd.grad(problem._of_all(leaf, meta_batch), leaf)
            jacobian = list(
                step_jacobian(
                    self.optimizer, self.parameters, self.settings.preconditioning, "whole"
                )
            )
            rows = []
            for question in meta_batch.question.unique():
                mine = meta_batch.question == question
                parts = torch.autograd.grad(
                    (scores[mine] * slopes[mine]).sum(),
                    self.parameters,
                    retain_graph=True,
                    allow_unused=True,
                )
                rows.append(self.flat(parts, jacobian))
            self.questions = torch.stack(rows)
            self.sums: dict[int, Tensor] = {}

        def flat(self, parts: Any, factors: Any = None) -> Tensor:
            factors = factors or [1.0] * len(self.parameters)
            triples = zip(self.parameters, parts, factors, strict=True)
            return torch.cat(
                [((torch.zeros_like(p) if g is None else g) * f).flatten() for p, g, f in triples]
            )

        def observe(self, micro: MicroBatch, gradient: list[Tensor | None]) -> None:
            if self.questions is not None:
                k = micro.batch.domain
                self.sums[k] = self.sums.get(k, torch.zeros(())) + self.flat(gradient)
            super().observe(micro, gradient)

        def finish(self, meta_batch: Any) -> Any:
            if self.questions is not None:
                g = torch.stack([self.sums[k] for k in range(len(data.domains))])
                of_questions.append(g @ self.questions.T)
                directions.append(self.questions.sum(dim=0))
                gradients.append(g.bfloat16())
            return super().finish(meta_batch)

    weighting, correction = make_weights(config, data)
    loop = make_loop(problem, weighting, correction, estimator=Recording)
    weights = []
    for _ in windows(loop, problem):
        weights.append([domain_weights(weighting, data)[name] for name in data.domains])
        print(f"step {loop.steps} of {config.max_steps}", end="\r", flush=True)
    u = torch.stack(directions)
    return {
        "domains": list(data.domains),
        "weights": torch.tensor(weights),
        "of_questions": torch.stack(of_questions),
        "cross": torch.stack([u @ g.float().T for g in gradients], dim=1),  # (s, t, k)
    }


def replay(h: Tensor, config: TrainConfig) -> Tensor:
    """Weights that AdamW makes of hypergradients (windows, replays, domains): (replays, domains).

    They are taken as given: that other weights would have led to other gradients is left out.
    """
    rate, decay, count = config.meta_learning_rate, config.meta_weight_decay, h.shape[2]
    alpha, first, second = (torch.zeros(h.shape[1:]) for _ in range(3))
    for step, now in enumerate(h, start=1):
        positive = F.softplus(alpha)
        total = positive.sum(dim=1, keepdim=True)
        w = count * positive / total
        centred = now - (now * w).mean(dim=1, keepdim=True)
        slope = count * alpha.sigmoid() / total * centred
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope**2
        scale = (second / (1 - 0.999**step)).sqrt() + 1e-8
        alpha = alpha * (1 - rate * decay) - rate * first / (1 - 0.9**step) / scale
    positive = F.softplus(alpha)
    return count * positive / positive.sum(dim=1, keepdim=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="data of a seed, by experiments.testbed")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    if not args.output.exists():
        torch.save(record(args.folder, args.seed), args.output)
    kept = torch.load(args.output)
    h = -kept["of_questions"].sum(dim=2)  # (t, k)
    config = TrainConfig()
    again = replay(h[:, None], config)[0]
    drawn = torch.randint(len(h), (len(h), REPLAYS), generator=torch.Generator().manual_seed(0))
    many = replay(h[drawn], config)
    low, high = many.quantile(0.025, dim=0), many.quantile(0.975, dim=0)
    centred = h - h.mean(dim=1, keepdim=True)
    z = centred.mean(dim=0) / (centred.std(dim=0) / len(h) ** 0.5)
    planted = {domain.name: domain for domain in DOMAINS}
    print(f"{'domain':12}{'planted':18}{'learned':>8}{'replayed':>9}  95% of replays     mean/se")
    for k in sorted(range(len(low)), key=lambda k: -planted[kept["domains"][k]].planted):
        name = kept["domains"][k]
        print(
            f"{name:12}{planted[name].quality:18}{kept['weights'][-1, k]:8.2f}{again[k]:9.2f}"
            f"  [{low[k]:.2f}, {high[k]:.2f}]{z[k]:15.1f}"
        )
    cross = kept["cross"] - kept["cross"].mean(dim=2, keepdim=True)
    whole = cross.var(dim=(0, 1))
    meta, train = cross.mean(dim=1).var(dim=0) / whole, cross.mean(dim=0).var(dim=0) / whole
    print(
        f"variance of a window's product: {meta.mean():.0%} the meta batch, {train.mean():.0%} the "
        f"training batches, {(1 - meta - train).mean():.0%} both together"
    )


if __name__ == "__main__":
    main()
