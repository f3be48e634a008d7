"""`dreamprm select` from question to answer: policy, reward model, search."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dreamprm.cli.policies import open_sampler
from dreamprm.cli.policy_options import require_positive
from dreamprm.cli.resume import resumable
from dreamprm.cli.sampling import tell
from dreamprm.cli.select import Choice, Config, told_accuracy
from dreamprm.cli.terminal import progress
from dreamprm.errors import DataError, DreamPRMError
from dreamprm.formats import check_images, read_questions
from dreamprm.formats.files import open_for_reading
from dreamprm.formats.jsonl import JsonlAppender
from dreamprm.records import Question
from dreamprm.rollouts.sampler import Sampler
from dreamprm.rollouts.store import RolloutStore
from dreamprm.rollouts.work import Outcome, work_through
from dreamprm.search.aggregation import DEFAULT_AGGREGATION, log_sigmoid
from dreamprm.search.answer import Found, SearchOptions, answer
from dreamprm.search.ask import Asked, StepJudge


def select_by_search(config: Config) -> None:
    """Search, writing rows as questions finish."""
    config.check()
    require_positive(config, "width", "expand", "score_batch_size")
    options = SearchOptions(
        config.method, config.n or 8, config.width, config.expand, config.early_stop
    )
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
    settings |= {"prm": str(config.prm), "max_tokens": config.max_tokens}
    aggregation = config.aggregation or _trained_for(config.prm)
    settings["aggregation"] = aggregation
    with (
        resumable(config.output, "select", settings, Choice) as (out, written),
        RolloutStore(config.store_of(config.output)) as store,
    ):
        done = {row.question_id for row in written}
        left = [q for q in questions if q.id not in done]
        judge, count = _judge(config)
        with progress("questions answered", len(questions)) as advance:
            advance(len(questions) - len(left))
            work = _session(config, options, aggregation, left, store, judge, count, out, advance)
            outcome, rows = asyncio.run(work) if left else (Outcome(), [])
    everything = [*written, *rows]
    tokens = sum(row.tokens or 0 for row in everything)
    told = told_accuracy(row.outcome for row in everything)
    print(
        f"{config.output}: {len(everything)} answers by {config.method}, "
        f"{tokens / max(1, len(everything)):.0f} tokens each{told}"
    )
    tell(outcome, "questions")


async def _session(
    config: Config,
    options: SearchOptions,
    aggregation: str,
    questions: list[Question],
    store: RolloutStore,
    judge: StepJudge | None,
    count: Callable[[str], int],
    out: JsonlAppender,
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
            scoring=scoring,
        )
        found = await answer(asked, options)
        rows.append(_row(asked, found))
        out.append(rows[-1])

    sampler: Sampler
    async with open_sampler(config, store) as sampler:
        outcome = await work_through(questions, do, sampler.alive, advance)
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
        tokens=found.tokens,
        completions=len(found.candidates),
        outcome=t.outcome,
        steps=t.steps,
    )


def _judge(config: Config) -> tuple[StepJudge | None, Callable[[str], int]]:
    """The reward model, and what counts tokens: its tokenizer, or words where there is none."""
    if config.prm is None:
        return None, lambda text: len(text.split())
    from dreamprm.cli.models import load_prm
    from dreamprm.prm.scorer import StepScorer

    model = load_prm(config.prm, config.device)
    tokenizer = model.processor.tokenizer
    return StepScorer(model, config.score_batch_size), lambda text: len(
        tokenizer(text, add_special_tokens=False).input_ids
    )


def _trained_for(prm: Path | None) -> str:
    if prm is None:
        return DEFAULT_AGGREGATION
    with open_for_reading(prm / "prm_config.json") as file:
        return str(json.loads(file.read())["aggregation"])
