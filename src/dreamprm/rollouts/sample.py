"""Candidates: N full reasonings per question, verified against the gold answer."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterator, Sequence

from dreamprm.answers import extract_answer, verify_answer
from dreamprm.policy import Policy, Request
from dreamprm.prompts import split_steps
from dreamprm.records import Question, Trajectory

Progress = Callable[[int], None]
"""Called with the number of questions (or prefixes) done since the last call."""


def sample_candidates(
    policy: Policy,
    questions: Sequence[Question],
    n: int,
    seed: int,
    done: Collection[str] = (),
    progress: Progress = lambda done: None,
) -> Iterator[list[Trajectory]]:
    """Sample n candidates per question.

    Args:
        done: ids of questions that an earlier, killed run has finished; they are not yielded.

    Yields:
        For each question its candidates, outcomes verified. A response without any step (a bare
        answer) has its whole text as its only step, so that it can still be scored.
    """
    for chunk in chunks(questions, max(1, policy.batch_size // n)):
        if all(question.id in done for question in chunk):
            progress(len(chunk))
            continue
        requests = [Request(question) for question in chunk]
        texts = policy.sample(requests, n, derive_seed(seed, "sample", chunk[0].id))
        for question, responses in zip(chunk, texts, strict=True):
            if question.id in done:
                continue
            yield [
                to_trajectory(question, text, policy.name, index)
                for index, text in enumerate(responses)
            ]
        progress(len(chunk))


def to_trajectory(question: Question, text: str, policy: str, sample_index: int) -> Trajectory:
    """A response as a trajectory, its final answer extracted and verified."""
    steps, _ = split_steps(text)
    answer = extract_answer(text, question.options)
    return Trajectory(
        question_id=question.id,
        steps=tuple(steps) or (text.strip() or "(no response)",),
        answer=answer,
        outcome=verify_answer(answer, question.answer, question.options),
        policy=policy,
        sample_index=sample_index,
    )


def derive_seed(seed: int, *parts: str) -> int:
    """A seed that depends on what is sampled, not on when, so that resuming changes nothing."""
    return zlib.crc32("/".join((str(seed), *parts)).encode())


def chunks(questions: Sequence[Question], size: int) -> Iterator[Sequence[Question]]:
    """Questions with and without images apart: not every processor takes a mixed batch."""
    for with_images in (True, False):
        same = [q for q in questions if bool(q.images) == with_images]
        yield from (same[i : i + size] for i in range(0, len(same), size))
