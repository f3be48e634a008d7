r"""Answer questions: sample or search, score every step, choose.

With --trajectories it chooses among candidates that are there, by --scores of `dreamprm score`.
Without, it asks the policy itself and scores with the reward model of --prm; rows are written as
questions finish, and the same command goes on where a stopped run ended:

  dreamprm select --questions questions.jsonl --output chosen.jsonl --prm prm --n 8 \
    --model_name_or_path Qwen/Qwen2.5-VL-7B-Instruct --base_urls http://localhost:8000/v1
  dreamprm select --questions questions.jsonl --trajectories candidates.jsonl \
    --scores scores.jsonl --output chosen.jsonl --n 8

One row per question: question_id, answer, sample_index, score, step_scores and, where it searched,
tokens and completions spent. Where outcomes are known, the accuracy is printed, and --result has it
with the curve over tokens, for `dreamprm report --results` and `dreamprm compare`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dreamprm.cli.policy_options import PolicyOptions
from dreamprm.errors import DataError, DreamPRMError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dreamprm.records import Question
    from dreamprm.search.choice import Choice


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
            otherwise completions that the policy is asked for at most, by default 8, or 64 with
            single_steps, where a step counts as one.
        width: lines that beam and tree search keep.
        expand: continuations that they sample of each prefix.
        single_steps: methods over steps sample a step at a time instead of each continuation to
            its end: cheaper, but only what was gone on with becomes a candidate. A server has to
            stop where it is told to.
        early_stop: stop sampling a question once its leading answer is the policy's most frequent
            one with this probability, say 0.95; parallel methods only.
        max_tokens: sampled per question at most, by the reward model's tokenizer. Four completions
            come first, then as many as fit at the mean length so far, so it is passed by four at
            most, and by about one later on; with single_steps one more may follow, where no
            reasoning has ended.
        score_batch_size: trajectories in one forward pass of the reward model.
        candidates_output: .jsonl file of all candidates that were finished, as `dreamprm sample`
            writes them.
        scores_output: .jsonl file of their step scores, as `dreamprm score` writes them.
        result: result file (JSON); needs questions with known answers.
        name: of the run in it; by default that of the result file.
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
    single_steps: bool = False
    early_stop: float | None = None
    max_tokens: int | None = None
    score_batch_size: int = 16
    candidates_output: Path | None = None
    scores_output: Path | None = None
    result: Path | None = None
    name: str | None = None
    image_root: Path | None = None


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
        if config.candidates_output or config.scores_output:
            raise DreamPRMError(
                "--candidates_output and --scores_output are of a search; the candidates are in "
                "--trajectories"
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


def write_choices(
    config: Config,
    choices: Sequence[Choice],
    questions: Sequence[Question],
    *,
    n: int | None,
    aggregation: str,
) -> None:
    """The result file, where one is wanted.

    Args:
        n, aggregation: that were used.
    """
    if config.result is None:
        return
    from dreamprm.evaluation.choices_result import choices_result
    from dreamprm.evaluation.results import write_result

    found: dict[str, Any] = {"method": config.method, "n": n, "aggregation": aggregation}
    found |= {"questions": str(config.questions)}
    if config.trajectories is not None:
        found["trajectories"] = str(config.trajectories)
    else:
        names = ("width", "expand", "single_steps", "early_stop", "max_tokens", "prompt")
        found |= {name: getattr(config, name) for name in (*names, "temperature", "seed")}
        found |= {"prm": config.prm and str(config.prm), "policy": config.model_name_or_path}
    result = choices_result(
        choices,
        questions,
        name=config.name or config.result.stem,
        method=config.method,
        settings=found,
    )
    write_result(config.result, result)
