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

import asyncio
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dreamprm.cli.inputs import RewardModel
from dreamprm.cli.pictures import UsedImages
from dreamprm.errors import DataError, DataWarning, DreamPRMError, require_positive
from dreamprm.policy.options import PolicyOptions
from dreamprm.policy.policy import Policy

if TYPE_CHECKING:  # these load slowly
    from dreamprm.records import Question
    from dreamprm.rollouts.sampler import Outcome, Sampler
    from dreamprm.search.choosing import Choice
    from dreamprm.search.search import SearchOptions, StepJudge


@dataclass(frozen=True, kw_only=True)
class Config(PolicyOptions, RewardModel, UsedImages):
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
        _choose_stored(config, config.trajectories)
    else:
        _search(config)


def _choose_stored(config: Config, trajectories: Path) -> None:
    from dreamprm.cli.inputs import read_candidates
    from dreamprm.cli.resume import recorded_aggregation
    from dreamprm.data import read_scores, write_records
    from dreamprm.search.choosing import PARALLEL, TREES, VOTES, Choice, choose_stored

    if config.prm is not None or config.prm_urls:
        raise DreamPRMError(
            "--prm scores what the policy writes; score the file first: "
            "`dreamprm score`, then give --scores"
        )
    if config.candidates_output or config.scores_output:
        raise DreamPRMError(
            "--candidates_output and --scores_output are of a search; the candidates are in "
            "--trajectories"
        )
    if config.method in TREES:
        raise DreamPRMError(
            f"method {config.method} asks the policy for more; leave --trajectories out, or choose "
            f"among {', '.join(PARALLEL)}"
        )
    if config.method not in VOTES and config.scores is None:
        raise DataError(f"method {config.method} needs scores; give --scores of `dreamprm score`")
    aggregation = config.aggregation
    if aggregation is None:
        aggregation = recorded_aggregation(config.scores) if config.scores else "mean_logit"
    questions, candidates = read_candidates([config.questions], [trajectories])
    scores = read_scores(config.scores) if config.scores else None
    choices = choose_stored(
        questions, candidates, scores, method=config.method, aggregation=aggregation, n=config.n
    )
    write_records(config.output, choices, Choice)
    settings = {"n": config.n, "aggregation": aggregation, "trajectories": str(trajectories)}
    _report(config, choices, questions, f"{len(choices)} choices by {config.method}", settings)


def _search(config: Config) -> None:
    """Search, writing rows as questions finish."""
    from dreamprm.cli.resume import appending, companion
    from dreamprm.cli.sampling import tell, warn_unanswered
    from dreamprm.cli.terminal import progress
    from dreamprm.data import read_records
    from dreamprm.records import StepScores, Trajectory
    from dreamprm.rollouts.sampler import Outcome, open_sampler, work_through
    from dreamprm.rollouts.store import RolloutStore
    from dreamprm.search.choosing import Choice
    from dreamprm.search.search import Search

    options = _options(config)
    questions = _questions(config)
    run = ("select", _settings(config, options))
    with ExitStack() as stack:
        out = stack.enter_context(appending(config.output, *run))
        choices = read_records(config.output, Choice)
        done = {choice.question_id for choice in choices}
        store = stack.enter_context(RolloutStore(config.store_of(config.output)))
        candidates, scores = (
            stack.enter_context(companion(path, kind, config.output, done, *run)) if path else None
            for path, kind in (
                (config.candidates_output, Trajectory),
                (config.scores_output, StepScores),
            )
        )
        advance = stack.enter_context(progress("questions answered", len(questions)))
        advance(len(done))
        left = [q for q in questions if q.id not in done]

        async def search_all() -> Outcome:
            judge, count_tokens = _judge(config)
            async with Policy.of(config) as policy, open_sampler(policy, store) as sampler:

                async def answer(question: Question) -> None:
                    result = await Search(question, sampler, options, judge, count_tokens).run()
                    for c in result.candidates:
                        if candidates is not None:
                            candidates.append(c.trajectory)
                        if scores is not None:
                            scores.append(StepScores.of(c.trajectory, c.logits))
                    choices.append(result.choice())
                    out.append(choices[-1])

                outcome = await work_through(left, answer, sampler.alive, advance)
            warn_unanswered(sampler)
            _warn_of_refusals(sampler)
            return outcome

        outcome = asyncio.run(search_all()) if left else Outcome()
    cut = sum(c.step_scores is not None and len(c.step_scores) < len(c.steps) for c in choices)
    if cut:
        _warn(
            f"{cut:,} of {len(choices):,} chosen reasonings are longer than the reward model's "
            "context; their last steps were not judged"
        )
    tokens = [c.tokens for c in choices if c.tokens is not None]
    each = f", {sum(tokens) / len(tokens):.0f} tokens each" if tokens else ""
    names = ("width", "expand", "single_steps", "early_stop", "max_tokens", "prompt")
    settings = {
        **{"n": options.n, "aggregation": options.aggregation},
        **{name: getattr(config, name) for name in (*names, "temperature", "seed")},
        **{"prm": config.prm and str(config.prm), "policy": config.model_name_or_path},
    }
    what = f"{len(choices)} answers by {config.method}{each}"
    _report(config, choices, questions, what, settings)
    tell(outcome, "questions")


def _questions(config: Config) -> list[Question]:
    from dreamprm.data import read_questions
    from dreamprm.records import UNKNOWN_ANSWER

    questions = read_questions(config.questions, image_root=config.image_root)
    if not questions:
        raise DataError("holds no question", file=config.questions)
    if config.result is not None and all(q.answer == UNKNOWN_ANSWER for q in questions):
        raise DataError("--result needs questions with known answers", file=config.questions)
    judge = [str(config.prm)] if config.prm else []
    return config.usable(questions, config.questions, *config.loaded, *judge)


def _options(config: Config) -> SearchOptions:
    """What the search does; refuses options that do not go together."""
    from dreamprm.prm.folder import trained_aggregation
    from dreamprm.search.choosing import TREES
    from dreamprm.search.search import SearchOptions

    if config.scores is not None:
        raise DreamPRMError("--scores belong to --trajectories; give these too")
    config.check()
    require_positive(config, "width", "expand", "score_batch_size")
    options = SearchOptions(
        method=config.method,
        n=config.n or (64 if config.single_steps else 8),
        width=config.width,
        expand=config.expand,
        early_stop=config.early_stop,
        single_steps=config.single_steps,
        max_tokens=config.max_tokens,
    )
    if config.single_steps and config.method not in TREES:
        raise DreamPRMError(f"single_steps is of {', '.join(TREES)}, not of {config.method}")
    if config.prm is None:
        if options.needs_judge:
            raise DreamPRMError(
                f"method {config.method} needs a reward model; give --prm (or --trajectories and "
                "--scores to choose among candidates that are there)"
            )
        if config.max_tokens is not None:
            raise DreamPRMError("max_tokens needs --prm: tokens are counted by its tokenizer")
        if config.scores_output is not None:
            raise DreamPRMError("scores_output needs --prm, which gives the scores")
        if config.prm_urls:
            raise DreamPRMError("prm_urls need --prm, the folder of the model that is served")
    aggregation = config.aggregation
    if aggregation is None and config.prm is not None:
        aggregation = trained_aggregation(config.prm)
    return options if aggregation is None else replace(options, aggregation=aggregation)


def _settings(config: Config, options: SearchOptions) -> dict[str, Any]:
    """What all rows of an output must have in common."""
    from dreamprm.prm.folder import identity

    settings = config.facts() | asdict(options)
    if not options.single_steps:  # so that outputs of older versions can be resumed
        del settings["single_steps"]
    if config.prm is None:
        del settings["aggregation"]
        return settings
    return settings | {"prm": identity(config.prm, served=bool(config.prm_urls))}


def _judge(config: Config) -> tuple[StepJudge | None, Callable[[str], int] | None]:
    """The reward model, and its tokenizer, which counts what the policy wrote."""
    if config.prm is None and config.base_urls:
        return None, None
    from dreamprm.cli.terminal import quiet_transformers

    quiet_transformers()
    if config.prm is None:
        return None, None
    from dreamprm.search.api import as_judge

    model = config.reward_model(config.prm, config.device)
    judge, count_tokens, _ = as_judge(model, config.score_batch_size)
    return judge, count_tokens


def _warn_of_refusals(sampler: Sampler) -> None:
    if sampler.unstarted:
        _warn(
            f"behind {sampler.unstarted:,} prefixes the policy stopped before the first word of a "
            "step (a chat template may take the line's end from a prefix); whole continuations "
            "were sampled there"
        )
    if sampler.refusals:
        _warn(
            f"the policy refused to go on from {len(sampler.refusals):,} prefixes, where their "
            f"lines ended; the first: {sampler.refusals[0]}"
        )


def _report(
    config: Config,
    choices: Sequence[Choice],
    questions: Sequence[Question],
    what: str,
    settings: dict[str, Any],
) -> None:
    """Print what was done, with the accuracy where outcomes are known; write the result file."""
    from dreamprm.cli.terminal import tell_unread
    from dreamprm.evaluation.results import choices_result, write_result
    from dreamprm.evaluation.statistics import estimate
    from dreamprm.unread import Unread

    outcomes = [float(c.outcome) for c in choices if c.outcome is not None]
    if outcomes:
        e = estimate(outcomes)
        what += (
            f"; accuracy {e.mean:.1%} (95% interval {e.lo:.1%} to {e.hi:.1%}) of the {e.n} with "
            "known outcomes"
        )
    print(f"{config.output}: {what}")
    if ties := sum(c.tied > 1 for c in choices):
        print(f"{ties:,} questions have several best candidates or answers; the first is chosen")
    unread = Unread()
    for choice in choices:
        unread.add(choice.question_id, "\n".join(choice.steps), choice.unread)
    tell_unread(unread, "answers")
    # A search that answered nothing has something else to tell.
    if config.result is not None and (outcomes or config.trajectories is not None):
        result = choices_result(
            choices,
            questions,
            name=config.name or config.result.stem,
            method=config.method,
            settings={"method": config.method, "questions": str(config.questions)} | settings,
        )
        write_result(config.result, result)


def _warn(text: str) -> None:
    warnings.warn(text, DataWarning, stacklevel=3)
