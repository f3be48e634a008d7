r"""Answer questions: sample or search, score every step, choose.

With --trajectories it chooses among candidates that are there, by --scores of `dreamprm score`.
Without, it asks the policy itself and scores with the reward model of --prm; rows are written as
questions finish, and the same command goes on where a stopped run ended:

  dreamprm select --questions questions.jsonl --output chosen.jsonl --prm prm --n 8 \
    --model_name_or_path Qwen/Qwen2.5-VL-7B-Instruct --base_urls http://localhost:8000/v1
  dreamprm select --questions questions.jsonl --trajectories candidates.jsonl \
    --scores scores.jsonl --output chosen.jsonl --n 8

One row per question: question_id, answer, sample_index, score, step_scores and, where it searched,
tokens and completions spent. Where outcomes are known, the accuracy is printed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dreamprm.cli.policy_options import PolicyOptions
from dreamprm.errors import DataError, DreamPRMError
from dreamprm.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, kw_only=True)
class Config(PolicyOptions):
    """Options of select.

    Attributes:
        questions: file of questions.
        output: .jsonl file of what is chosen.
        trajectories: file of candidates to choose among; without it the policy is asked.
        scores: file of their step scores, of `dreamprm score`.
        prm: folder of the reward model that scores what the policy writes.
        method: `best_of_n` (highest score), `weighted_vote` (answer with the most score),
            `self_consistency` (majority vote), `first_sample`; over steps, and so without
            --trajectories: `step_best_of_n`, `beam_search`, `diverse_tree_search`.
        aggregation: of step logits to one score: mean_logit, sum_logit, min, product, last,
            geometric_mean or mean; by default what the model that scored was trained for.
        n: candidates per question: with --trajectories the first by sample_index, by default all;
            otherwise completions that the policy is asked for at most, by default 8.
        width: lines that beam and tree search keep.
        expand: continuations that they sample of each prefix.
        early_stop: stop sampling a question once its leading answer is the policy's most frequent
            one with this probability, say 0.95; parallel methods only.
        max_tokens: sampled per question at most, by the reward model's tokenizer; looked at before
            each wave of completions.
        score_batch_size: trajectories in one forward pass of the reward model.
        image_root: folder that relative image paths start from; by default the questions' own.
    """

    questions: Path
    output: Path
    trajectories: Path | None = None
    scores: Path | None = None
    prm: Path | None = None
    method: Literal[
        "best_of_n",
        "weighted_vote",
        "self_consistency",
        "first_sample",
        "step_best_of_n",
        "beam_search",
        "diverse_tree_search",
    ] = "best_of_n"
    aggregation: str | None = None
    n: int | None = None
    width: int = 2
    expand: int = 2
    early_stop: float | None = None
    max_tokens: int | None = None
    score_batch_size: int = 16
    image_root: Path | None = None


class Choice(Record):
    """What was chosen for a question.

    Attributes:
        score: aggregated score of the candidate, a logit; None without scores.
        step_scores: of its steps, each in 0-1; None without scores.
        tokens: sampled for this question, by the reward model's tokenizer; None without one, or
            where candidates were given.
        completions: sampled for it.
        outcome: is the answer right; None where that is not known.
    """

    question_id: str
    answer: str | None
    sample_index: int
    score: float | None
    step_scores: tuple[float, ...] | None
    tokens: int | None = None
    completions: int | None = None
    outcome: bool | None = None
    steps: tuple[str, ...] = ()


def run(config: Config) -> None:
    """Choose among what is there, or search."""
    from dreamprm.search.aggregation import get_aggregation

    if config.aggregation is not None:
        get_aggregation(config.aggregation)
    if config.output.suffix.lower() not in (".jsonl", ".ndjson"):
        raise DataError("choices are written as .jsonl; rename the output", file=config.output)
    if config.n is not None and config.n < 1:
        raise DataError(f"n is {config.n}; it must be above 0")
    if config.trajectories is not None:
        from dreamprm.cli.select_stored import select_stored

        if config.prm is not None:
            raise DreamPRMError(
                "--prm scores what the policy writes; score the file first: "
                "`dreamprm score`, then give --scores"
            )
        select_stored(config)
    else:
        from dreamprm.cli.select_search import select_by_search

        if config.scores is not None:
            raise DreamPRMError("--scores belong to --trajectories; give these too")
        select_by_search(config)


def told_accuracy(outcomes: Iterable[bool | None]) -> str:
    """The end of the last line: accuracy with its interval, where outcomes are known."""
    from dreamprm.evaluation.statistics import estimate

    known = [float(o) for o in outcomes if o is not None]
    if not known:
        return ""
    found = estimate(known)
    return (
        f"; accuracy {found.mean:.1%} (95% interval {found.lo:.1%} to {found.hi:.1%}) of the "
        f"{found.n} with known outcomes"
    )
