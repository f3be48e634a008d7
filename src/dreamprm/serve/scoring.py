"""Requests of many clients, scored in batches as they arrive.

One worker thread owns the reward model. While it scores a batch, requests wait in a queue; then it
takes as many of them as a scorer holds at once. Candidates of equal questions share their prefill,
whoever sent them. A request whose client went away is dropped before it is scored, one that cannot
be scored fails alone, and a full queue is an error at once.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from dreamprm.errors import DataError, DreamPRMError
from dreamprm.policy import RequestRefused
from dreamprm.prm.scorer import Logits, StepModel, Steps, StepScorer
from dreamprm.records import Question
from dreamprm.serve.guard import Refused

_REMEMBERED = 2**28  # bytes of texts and pictures that a scorer may have kept, before it is renewed
_logger = logging.getLogger(__name__)
_ADDRESS = re.compile(r"https?://[^\s:]+(:\d+)?[^\s:]*")  # of a server
_BYTES_PER_CHARACTER = 32  # of a text and its tokens, in Python's lists


class QueueFull(DreamPRMError):
    """More is waiting than may wait; `wait_s` is when to ask again."""

    def __init__(self, wait_s: int) -> None:
        super().__init__("the server has too much to do; try again later")
        self.wait_s = wait_s


def told(error: DreamPRMError, who: str) -> Refused | DreamPRMError:
    """What a client is told of an error of the policy or the reward model, which the log has.

    Messages of either may name servers behind this one.
    """
    if isinstance(error, QueueFull):
        return Refused(429, str(error), retry_after=error.wait_s)
    if isinstance(error, DataError):
        return error
    if type(error) is RequestRefused:
        said = _ADDRESS.sub("its server", str(error))
        return Refused(400, f"the {who} refuses this request: {said}")
    _logger.error("%s: %s", who, error)
    return Refused(502, f"the {who} does not answer; try again later")


@dataclass
class _Job:
    """Candidates of one question, and the logits that are there."""

    question: Question
    candidates: Sequence[Steps]
    future: Future[list[Logits]] = field(default_factory=Future)
    logits: dict[int, Logits] = field(default_factory=dict)


class Scoring:
    """A reward model at work for many clients.

    Questions are the same where their ids are: give each an id made from its contents.

    Args:
        model: used by the worker thread alone.
        batch_size: candidates in one forward pass.
        max_waiting: candidates in the queue at most.
        scored: is told how many candidates a batch held, and how many seconds it took.
    """

    def __init__(
        self,
        model: StepModel,
        batch_size: int = 16,
        max_waiting: int = 4096,
        scored: Callable[[int, float], None] = lambda candidates, seconds: None,
    ) -> None:
        self.waiting = 0  # candidates
        self._model, self._batch_size, self._max_waiting = model, batch_size, max_waiting
        self._scored = scored
        self._scorer = StepScorer(model, batch_size)
        self._remembered = 0
        self._rate = float(batch_size)  # candidates per second
        self._queue: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._worker = threading.Thread(target=self._work, name="dreamprm-serve", daemon=True)
        self._worker.start()

    @property
    def alive(self) -> bool:
        """Is the worker at work?"""
        return self._worker.is_alive()

    at_once = True  # see `search.StepJudge`

    async def score(self, question: Question, candidates: Sequence[Steps]) -> list[Logits]:
        """Step logits of each candidate; fewer than steps where these are beyond the context.

        Cancelled, it gives its place in the queue up.

        Raises:
            QueueFull: too many candidates are waiting.
            DataError: the model cannot read this question.
            DreamPRMError: the model gives no finite logits.
        """
        return await asyncio.wrap_future(self._submit(question, candidates))

    def score_steps(self, question: Question, candidates: Sequence[Steps]) -> list[Logits]:
        """The same, for a thread that may wait: a search's judge."""
        return self._submit(question, candidates).result()

    def close(self) -> None:
        """Score what is waiting, and end the worker."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._worker.join()

    def _submit(self, question: Question, candidates: Sequence[Steps]) -> Future[list[Logits]]:
        job = _Job(question, candidates)
        with self._changed:
            waiting = self.waiting + len(candidates)
            if self._closing or waiting > self._max_waiting:
                raise QueueFull(min(60, math.ceil(waiting / self._rate)))
            self.waiting = waiting
            self._queue.append(job)
            self._changed.notify()
        return job.future

    def _work(self) -> None:
        while jobs := self._next_jobs():
            start, count = time.monotonic(), sum(len(job.candidates) for job in jobs)
            self._score(jobs)
            seconds = max(1e-6, time.monotonic() - start)
            self._rate += 0.1 * (count / seconds - self._rate)
            self._scored(count, seconds)
            self._forget()

    def _next_jobs(self) -> list[_Job]:
        """What is scored next; nothing once it is closing and all is done."""
        jobs: list[_Job] = []
        size = 0
        with self._changed:
            while not jobs:
                self._changed.wait_for(lambda: self._queue or self._closing)
                while self._queue and size < self._scorer.window:
                    job = self._queue.popleft()
                    self.waiting -= len(job.candidates)
                    if job.future.set_running_or_notify_cancel():
                        jobs.append(job)
                        size += len(job.candidates)
                if self._closing and not self._queue:
                    break
        return jobs

    def _score(self, jobs: Sequence[_Job]) -> None:
        places = [(job, i) for job in jobs for i in range(len(job.candidates))]
        try:
            for place, logits in self._scorer.logits(
                [(job.question, job.candidates[i]) for job, i in places]
            ):
                job, i = places[place]
                job.logits[i] = logits
                if len(job.logits) == len(job.candidates):
                    job.future.set_result([job.logits[i] for i in range(len(job.candidates))])
        except Exception as error:
            unfinished = [job for job in jobs if not job.future.done()]
            # Servers that are gone are gone for all; otherwise one of them is the reason, and it is
            # not to be the others' end.
            gone = self._scorer.at_once and not isinstance(error, DataError | RequestRefused)
            for job in unfinished:
                if gone or len(jobs) == 1:
                    job.future.set_exception(error)
                else:
                    job.logits.clear()
                    self._score([job])
        for job in jobs:
            pictures = sum(len(image) for image in job.question.images)
            texts = sum(len(step) for steps in job.candidates for step in steps)
            texts += len(job.question.text)
            self._remembered += pictures + _BYTES_PER_CHARACTER * texts

    def _forget(self) -> None:
        """Drop what the scorer remembers of prompts and steps: its caches count, not weigh."""
        if self._remembered > _REMEMBERED:
            self._scorer = StepScorer(self._model, self._batch_size)
            self._remembered = 0
