"""Many coroutines ask for one thing each; one worker thread does them in batches.

A model in this process is fast when it works on many sequences at once, and those who sample ask
one request at a time. The batcher stands between them: whatever waits when the model becomes free
goes together, up to the capacity. It never waits for more to come. The work runs in a single
thread of its own, so that the event loop meanwhile verifies answers and writes them down, and so
that no two batches ever run at once.

Nothing here knows of models: a job is anything that has a size, a kind and a length.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

Wanted = Callable[[], bool]
"""Does anybody still wait for this batch? A long run asks now and then and stops where not."""

# Turns that the event loop gets before a batch is put together: those who were answered by the
# last batch need a few (task wakes, semaphore passes on, next task starts) until they ask again.
_TURNS = 5


@dataclass(frozen=True, eq=False)
class _Ticket(Generic[Job, Result]):
    """A job that waits, and where its result goes."""

    job: Job
    size: int
    kind: Hashable
    length: int
    future: asyncio.Future[Result]


class Batcher(Generic[Job, Result]):
    """Runs jobs in batches, in one worker thread.

    It may be used in several event loops, one after the other.

    Args:
        run: does a batch: gives for each job, in order, its result or the exception that its caller
            is to see. An exception that it raises reaches every caller of the batch.
        capacity: largest sum of sizes in a batch; a larger single job goes alone.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Job], Wanted], Sequence[Result | Exception]],
        *,
        capacity: int,
    ) -> None:
        self._run, self._capacity = run, capacity
        self._worker: ThreadPoolExecutor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: list[_Ticket[Job, Result]] = []
        self._running: list[_Ticket[Job, Result]] = []
        self._pump: asyncio.Task[None] | None = None

    def submit(
        self, job: Job, *, size: int = 1, kind: Hashable = None, length: int = 0
    ) -> asyncio.Future[Result]:
        """Put a job in line; call it inside a running event loop.

        Args:
            size: what it takes of the capacity.
            kind: only jobs of one kind go together.
            length: where not all fit, those of similar length go together.

        Returns:
            The result to be awaited. Cancelling it takes the job out of the line.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # whoever waited in an earlier loop is gone with it
            self._loop, self._waiting, self._pump = loop, [], None
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append(_Ticket(job, size, kind, length, future))
        if self._pump is None or self._pump.done():
            self._pump = loop.create_task(self._work(loop))
        return future

    async def close(self) -> None:
        """Cancel whatever waits and end the worker thread; a later job would start another."""
        if self._loop is asyncio.get_running_loop():
            for ticket in [*self._waiting, *self._running]:
                ticket.future.cancel()
        if self._worker is not None:
            await asyncio.to_thread(self._worker.shutdown)
            self._worker = None

    async def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Batch after batch until nobody waits."""
        while True:
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            batch = self._running = self._take()
            if not batch:
                return
            if self._worker is None:
                self._worker = ThreadPoolExecutor(1, thread_name_prefix="batcher")
            results: Sequence[Result | Exception]
            try:
                results = await loop.run_in_executor(self._worker, self._run_checked, batch)
            except Exception as error:
                results = [error] * len(batch)
            # All in one turn of the loop: those who ask again do so together.
            for ticket, result in zip(batch, results, strict=True):
                if ticket.future.done():  # its caller was cancelled
                    continue
                if isinstance(result, Exception):
                    ticket.future.set_exception(result)
                else:
                    ticket.future.set_result(result)

    def _run_checked(self, batch: list[_Ticket[Job, Result]]) -> Sequence[Result | Exception]:
        """In the worker thread: the batch, and one result for each of it."""

        def wanted() -> bool:
            return not all(ticket.future.done() for ticket in batch)

        results = self._run([ticket.job for ticket in batch], wanted)
        if len(results) != len(batch):
            raise RuntimeError(f"{len(results)} results for {len(batch)} jobs")
        return results

    def _take(self) -> list[_Ticket[Job, Result]]:
        """The oldest job and what goes best with it, so that nobody is passed over for ever."""
        self._waiting = [ticket for ticket in self._waiting if not ticket.future.done()]
        if not self._waiting:
            return []
        oldest = self._waiting[0]
        mates = [ticket for ticket in self._waiting[1:] if ticket.kind == oldest.kind]
        mates.sort(key=lambda ticket: abs(ticket.length - oldest.length))
        batch, room = [oldest], self._capacity - oldest.size
        for ticket in mates:
            if ticket.size <= room:
                batch.append(ticket)
                room -= ticket.size
        taken = set(map(id, batch))
        self._waiting = [ticket for ticket in self._waiting if id(ticket) not in taken]
        return batch
