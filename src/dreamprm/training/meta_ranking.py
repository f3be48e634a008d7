"""How well a PRM ranks the meta set's candidates, before training and after it.

A meta loss that falls may have learned the base rate. Ranking is what best-of-N needs, and it has a
value that chance would have, 0.5, so that "the meta set has nothing to say" can be said. The
model's parameters never see the meta set; the weights were learned from it, so a ranking after
training is a little better than that of other questions.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from pydantic import FiniteFloat, NonNegativeInt
from torch import Tensor

from dreamprm.data.files import atomic_write, in_row, load_json_object
from dreamprm.errors import DataWarning, DreamPRMError
from dreamprm.evaluation.statistics import Estimate, estimate, wilson
from dreamprm.records import Record
from dreamprm.training.batches import contrasting, items_of_part
from dreamprm.training.config import TrainConfig
from dreamprm.training.data import Pair
from dreamprm.training.losses import META_LOSSES, aggregate
from dreamprm.training.problem import PRMProblem, rough_length, without_dropout

FILE = "meta_ranking.json"
QUESTIONS, CANDIDATES = 300, 4  # the most that a sample has, and those of one of its questions
SHARE = 0.04  # candidates of a sample, of the trajectories of a run: twice that, forward only,
# is 0.04 * 2 / 3 = 2.7% of the work of training
SMALL = 64  # candidates that the shortest run scores too


class Share(Record):
    """A mean over questions with its 95% interval, as `Estimate.as_json` writes it."""

    n: NonNegativeInt
    mean: FiniteFloat
    ci95: tuple[FiniteFloat, FiniteFloat]

    @classmethod
    def of(cls, estimate: Estimate) -> Self:
        return cls.parse(estimate.as_json())

    @property
    def is_chance(self) -> bool:
        """The interval holds 0.5, which ranking at random would give."""
        return self.ci95[0] <= 0.5 <= self.ci95[1]

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.ci95[0]:.2f}, {self.ci95[1]:.2f}]"


class MetaRanking(Record):
    """Ranking of candidates by their aggregated score.

    Attributes:
        candidates, questions: that were scored.
        loss: meta loss of all of them.
        pairs: right-wrong pairs of one question that are ranked right, a tie counts half; mean over
            the questions with both outcomes. None where there is none.
        auc: the same over pairs of all questions.
        best: of each question's highest score, is it right?
        random: the same of a candidate taken at random.
    """

    candidates: NonNegativeInt
    questions: NonNegativeInt
    loss: FiniteFloat
    pairs: Share | None
    auc: Share
    best: Share
    random: FiniteFloat

    @property
    def verdict(self) -> Share:
        """The measure that tells ranking from chance."""
        return self.pairs or self.auc


class BeforeAfter(Record):
    """Of one run; `before` is None where it was resumed and the measure is lost."""

    before: MetaRanking | None
    after: MetaRanking | None = None

    def rows(self) -> list[tuple[str, str, str]]:
        """Name, before, after of each measure."""

        def texts(ranking: MetaRanking | None) -> list[str]:
            if ranking is None:
                return ["not known"] * 4
            best = f"{ranking.best} (at random {ranking.random:.3f})"
            return [str(ranking.pairs or "-"), str(ranking.auc), best, f"{ranking.loss:.3f}"]

        names = (
            "right-wrong pairs of a question ranked right",
            "AUC over all candidates",
            "highest score of a question is right",
            "meta loss",
        )
        return list(zip(names, texts(self.before), texts(self.after), strict=True))

    def sizes(self) -> str:
        """What was scored."""
        ranking = self.after or self.before
        if ranking is None:
            return "nothing"
        both = ranking.pairs.n if ranking.pairs else 0
        return (
            f"{ranking.candidates:,} candidates of {ranking.questions:,} meta questions, "
            f"{both:,} with both outcomes"
        )


def ranking_of(
    scores: ArrayLike, outcomes: ArrayLike, questions: ArrayLike, loss: float = 0.0
) -> MetaRanking:
    """Measures of scored candidates.

    Args:
        scores: (candidates,), higher is better.
        outcomes: (candidates,), both kinds among them.
        questions: (candidates,), an index.
    """
    s, right = np.asarray(scores, dtype=np.float64), np.asarray(outcomes, dtype=bool)
    numbers, question = np.unique(np.asarray(questions), return_inverse=True)
    pairs, best, random = [], [], []
    for q in range(len(numbers)):
        mine, outcome = s[question == q], right[question == q]
        best.append(float(outcome[mine == mine.max()].mean()))
        random.append(float(outcome.mean()))
        if outcome.any() and not outcome.all():
            pairs.append(float(_placements(mine[outcome], mine[~outcome]).mean()))
    # AUC: each candidate's place among those of the other kind, and the variance by question
    # (Obuchowski, 1997, Biometrics 53, for clustered data).
    of_right, of_wrong = _placements(s[right], s[~right]), 1 - _placements(s[~right], s[right])
    auc = float(of_right.mean())
    share = np.empty(len(s))
    share[right] = (of_right - auc) / len(of_right)
    share[~right] = (of_wrong - auc) / len(of_wrong)
    by_question = np.bincount(question, weights=share)  # (questions,)
    n = len(numbers)
    variance = float((by_question**2).sum()) * n / max(1, n - 1)
    return MetaRanking(
        candidates=len(s),
        questions=n,
        loss=loss,
        pairs=Share.of(estimate(pairs)) if pairs else None,
        auc=Share.of(Estimate(n, auc, *wilson(auc, n, [(variance, max(1, n - 1))]))),
        best=Share.of(estimate(best)),
        random=float(np.mean(random)),
    )


def _placements(ours: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Share of the others that lie below each of ours, ties half, (ours,)."""
    ordered = np.sort(others)
    sides = [np.searchsorted(ordered, ours, side) for side in ("left", "right")]
    return (sides[0] + sides[1]) / (2 * len(others))


def sample_of(meta: Sequence[Sequence[Pair]], config: TrainConfig) -> list[tuple[int, Pair]]:
    """Candidates to score, each with its question's index: all, or a sample a run can afford.

    The sample is the same in every run: `CANDIDATES` of a question, with both outcomes among them
    where there are both; questions with both come first.
    """
    per_step = config.gradient_accumulation_steps * config.per_device_train_batch_size
    most = max(int(SHARE * config.max_steps * per_step), SMALL)
    if sum(map(len, meta)) <= most and len(meta) <= QUESTIONS:
        return [(q, pair) for q, group in enumerate(meta) for pair in group]
    order = items_of_part(0, 1, len(meta), "meta ranking")
    order.sort(key=lambda q: len({t.outcome for _, t in meta[q]}), reverse=True)
    sample: list[tuple[int, Pair]] = []
    for q in order[:QUESTIONS]:
        chosen = contrasting([bool(t.outcome) for _, t in meta[q]], CANDIDATES, f"ranking/{q}")
        sample += [(q, meta[q][c]) for c in chosen]
        if len(sample) >= most:
            break
    return sample


@torch.no_grad()
def measured(problem: PRMProblem) -> MetaRanking | None:
    """The ranking as the model is now; None where scores are not finite, and training will say so.

    Every process scores the whole sample.
    """
    config, device = problem.config, problem.model.device
    sample = sample_of(problem.data.meta, config)
    sample.sort(key=lambda entry: rough_length(entry[1]))
    size = config.per_device_meta_batch_size or config.per_device_train_batch_size
    meta_loss = META_LOSSES[config.meta_loss](config.meta_aggregation)
    scores: list[Tensor] = []
    judged: list[Tensor] = []
    outcomes = torch.tensor([float(bool(t.outcome)) for _, (_, t) in sample])
    with without_dropout(problem.model):
        for start in range(0, len(sample), size):
            part = [(q, t.steps) for _, (q, t) in sample[start : start + size]]
            logits, mask = problem.logits_of(part)
            target = outcomes[start : start + size].to(device)
            scores.append(aggregate(logits, mask, config.meta_aggregation).cpu())
            judged.append(meta_loss.score(logits, mask, target).cpu())
    if not torch.cat(judged).isfinite().all():
        return None
    question = torch.tensor([q for q, _ in sample])
    loss = float(meta_loss(torch.cat(judged).float(), outcomes, question))
    return ranking_of(torch.cat(scores).numpy(), outcomes.numpy(), question.numpy(), loss)


def ranking_before(problem: PRMProblem, step: int, folder: Path | None) -> MetaRanking | None:
    """The ranking before the first step; of a resumed run, what it had noted."""
    if not problem.config.learn_weights:
        return None
    if step:
        path = folder / FILE if folder else None
        return read_ranking(path).before if path and path.exists() else None
    ranking = measured(problem)
    if ranking is not None:
        _write(problem, BeforeAfter(before=ranking), folder)
    return ranking


def ranking_after(
    problem: PRMProblem, before: MetaRanking | None, folder: Path | None
) -> BeforeAfter | None:
    """The ranking at the end beside that before; warns where it may be chance."""
    if not problem.config.learn_weights:
        return None
    after = measured(problem)
    if after is None:
        raise DreamPRMError(
            "after training, scores of the meta set are not finite: start anew (in another "
            "output_dir) with a lower learning rate"
        )
    result = BeforeAfter(before=before, after=after)
    _write(problem, result, folder)
    if after.verdict.ci95[0] <= 0.5:
        state = "not told apart from chance (0.5)" if after.verdict.is_chance else "upside down"
        warnings.warn(
            f"after training, right and wrong answers of the meta set are ranked {state}: "
            f"{after.verdict} of the pairs of {after.verdict.n} questions are in order; so the "
            "learned weights have nothing to go by. A larger meta set, more steps or a stronger "
            "backbone may help",
            DataWarning,
            stacklevel=3,
        )
    return result


def _write(problem: PRMProblem, result: BeforeAfter, folder: Path | None) -> None:
    if folder is not None and problem.parallel.rank == 0:
        with atomic_write(folder / FILE) as file:
            file.write((json.dumps(result.model_dump(mode="json"), indent=2) + "\n").encode())


def read_ranking(path: Path) -> BeforeAfter:
    """What a run noted; a `DataError` where the file is damaged."""
    with in_row(path, None):
        return BeforeAfter.parse(load_json_object(path))
