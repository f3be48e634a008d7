"""`dreamprm select` from question to answer: policy, reward model, search."""

from __future__ import annotations

import asyncio
import dataclasses
import warnings
from collections.abc import Callable

import numpy as np

from dreamprm.cli.policies import open_sampler
from dreamprm.cli.policy_options import require_positive
from dreamprm.cli.prm_folder import identity, trained_aggregation
from dreamprm.cli.resume import resumable
from dreamprm.cli.sampling import tell
from dreamprm.cli.select import Config, told_accuracy, write_choices
from dreamprm.cli.select_kept import Kept, keeping
from dreamprm.cli.terminal import progress
from dreamprm.data import check_images, read_questions
from dreamprm.data.jsonl import JsonlAppender
from dreamprm.errors import DataError, DataWarning, DreamPRMError
from dreamprm.records import UNKNOWN_ANSWER, Question
from dreamprm.rollouts.sampler import Sampler
from dreamprm.rollouts.store import RolloutStore
from dreamprm.rollouts.work import Outcome, work_through
from dreamprm.search.aggregation import DEFAULT_AGGREGATION, log_sigmoid
from dreamprm.search.answer import TREES, Found, SearchOptions, answer
from dreamprm.search.ask import Asked, StepJudge
from dreamprm.search.choice import Change, Choice


def select_by_search(config: Config) -> None:
    """Search, writing rows as questions finish."""
    config.check()
    require_positive(config, "width", "expand", "score_batch_size")
    options = SearchOptions(
        method=config.method,
        n=config.n or (64 if config.single_steps else 8),
        width=config.width,
        expand=config.expand,
        early_stop=config.early_stop,
        single_steps=config.single_steps,
    )
    if config.single_steps and config.method not in TREES:
        raise DreamPRMError(f"single_steps is of {', '.join(TREES)}, not of {config.method}")
    if options.needs_judge and config.prm is None:
        raise DreamPRMError(
            f"method {config.method} needs a reward model; give --prm (or --trajectories and "
            "--scores to choose among candidates that are there)"
        )
    questions = read_questions(config.questions, image_root=config.image_root)
    if not questions:
        raise DataError("holds no question", file=config.questions)
    check_images(questions, config.questions)
    settings = config.settings() | dataclasses.asdict(options)
    if not options.single_steps:  # outputs of before there was the choice go on
        del settings["single_steps"]
    if config.result is not None and all(q.answer == UNKNOWN_ANSWER for q in questions):
        raise DataError("--result needs questions with known answers", file=config.questions)
    if config.max_tokens is not None and config.prm is None:
        raise DreamPRMError("max_tokens needs --prm: tokens are counted by its tokenizer")
    if config.scores_output is not None and config.prm is None:
        raise DreamPRMError("scores_output needs --prm, which gives the scores")
    aggregation = config.aggregation or DEFAULT_AGGREGATION
    settings["max_tokens"] = config.max_tokens
    if config.prm is not None:
        aggregation = config.aggregation or trained_aggregation(config.prm)
        settings |= {"prm": identity(config.prm), "aggregation": aggregation}
    with (
        resumable(config.output, "select", settings, Choice) as (out, written),
        RolloutStore(config.store_of(config.output)) as store,
        keeping(
            config.output,
            config.candidates_output,
            config.scores_output,
            settings,
            {row.question_id for row in written},
        ) as kept,
    ):
        done = {row.question_id for row in written}
        left = [q for q in questions if q.id not in done]
        judge, count = _judge(config)
        with progress("questions answered", len(questions)) as advance:
            advance(len(questions) - len(left))
            work = _session(
                config, options, aggregation, left, store, judge, count, out, kept, advance
            )
            outcome, rows = asyncio.run(work) if left else (Outcome(), [])
    everything = [*written, *rows]
    _warn_of_cuts(everything)
    told = told_accuracy(row.outcome for row in everything)
    counted = [row.tokens for row in everything if row.tokens is not None]
    each = f", {sum(counted) / len(counted):.0f} tokens each" if counted else ""
    print(f"{config.output}: {len(everything)} answers by {config.method}{each}{told}")
    if any(row.outcome is not None for row in everything):
        write_choices(config, everything, questions, n=options.n, aggregation=aggregation)
    tell(outcome, "questions")


async def _session(
    config: Config,
    options: SearchOptions,
    aggregation: str,
    questions: list[Question],
    store: RolloutStore,
    judge: StepJudge | None,
    count: Callable[[str], int] | None,
    out: JsonlAppender,
    kept: Kept,
    advance: Callable[[int], None],
) -> tuple[Outcome, list[Choice]]:
    rows: list[Choice] = []
    scoring = asyncio.Lock()

    async def do(question: Question) -> None:
        asked = Asked(
            question=question,
            sampler=sampler,
            judge=judge,
            count_tokens=count,
            aggregation=aggregation,
            max_completions=options.n,
            max_tokens=config.max_tokens,
            one_step=options.stops_at_steps,
            scoring=scoring,
        )
        found = await answer(asked, options)
        kept.append(found)
        rows.append(_row(asked, found))
        out.append(rows[-1])

    sampler: Sampler
    async with open_sampler(config, store) as sampler:
        outcome = await work_through(questions, do, sampler.alive, advance)
    if sampler.unstarted:
        warnings.warn(
            f"behind {sampler.unstarted:,} prefixes the policy stopped before the first word of a "
            "step (a chat template may take the line's end from a prefix); whole continuations "
            "were sampled there",
            DataWarning,
            stacklevel=2,
        )
    if sampler.refusals:
        warnings.warn(
            f"the policy refused to go on from {len(sampler.refusals):,} prefixes, where their "
            f"lines ended; the first: {sampler.refusals[0]}",
            DataWarning,
            stacklevel=2,
        )
    return outcome, rows


def _row(asked: Asked, found: Found) -> Choice:
    t, logits = found.chosen.trajectory, found.chosen.logits
    scores = np.exp(log_sigmoid(np.asarray(logits, dtype=np.float64))).tolist()
    return Choice(
        question_id=t.question_id,
        answer=t.answer,
        sample_index=t.sample_index,
        score=asked.score(found.chosen) if logits else None,
        step_scores=tuple(scores) if logits else None,
        tokens=found.tokens if asked.count_tokens else None,
        completions=asked.sampled,
        outcome=t.outcome,
        steps=t.steps,
        changes=_changes(found) if asked.count_tokens else (),
    )


def _changes(found: Found) -> tuple[Change, ...]:
    return tuple(
        Change(
            tokens=tokens,
            sample_index=index,
            outcome=found.candidates[index].trajectory.outcome,
        )
        for tokens, index in found.trace
    )


def _warn_of_cuts(rows: list[Choice]) -> None:
    cut = sum(r.step_scores is not None and len(r.step_scores) < len(r.steps) for r in rows)
    if cut:
        warnings.warn(
            f"{cut:,} of {len(rows):,} chosen reasonings are longer than the reward model's "
            "context; their last steps were not judged",
            DataWarning,
            stacklevel=2,
        )


def _judge(config: Config) -> tuple[StepJudge | None, Callable[[str], int] | None]:
    """The reward model, and its tokenizer, which counts what the policy wrote."""
    if config.prm is None:
        return None, None
    from dreamprm.cli.models import load_prm
    from dreamprm.prm.scorer import StepScorer

    model = load_prm(config.prm, config.device)
    tokenizer = model.processor.tokenizer
    return StepScorer(model, config.score_batch_size), lambda text: len(
        tokenizer(text, add_special_tokens=False).input_ids
    )
