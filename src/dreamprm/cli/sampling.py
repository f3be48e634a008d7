"""What the verbs that sample share: store, policy, budget, progress, and the account at the end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dreamprm.cli.policy_options import PolicyOptions
from dreamprm.cli.terminal import progress
from dreamprm.errors import DreamPRMError

if TYPE_CHECKING:  # the store and what is around it load slowly
    from dreamprm.rollouts.sampler import Sampler
    from dreamprm.rollouts.work import Outcome

T = TypeVar("T")
Advance = Callable[[int], None]


def run_sampling(
    options: PolicyOptions,
    verb: str,
    output: Path,
    unit: str,
    total: int,
    work: Callable[[Sampler, Advance], Awaitable[tuple[Outcome, T]]],
) -> tuple[Outcome, T]:
    """Open the store and the policy, do the work, and leave a record of it for `status`.

    Args:
        options: policy, store, budget.
        verb, output, unit, total: what `status` shows.
        work: does it all; is given the sampler and a function to call with the units done.
    """
    from dreamprm.rollouts.jobs import JobWriter
    from dreamprm.rollouts.store import RolloutStore

    async def session(store: RolloutStore, advance: Advance) -> tuple[Outcome, T]:
        from dreamprm.cli.policies import open_sampler

        async with open_sampler(options, store) as sampler:
            job = JobWriter(
                store,
                output=str(output),
                verb=verb,
                policy=sampler.policy.name,
                unit=unit,
                total=total,
                calls=lambda: sampler.budget.calls,
            )

            def advance_both(done: int) -> None:
                job.advance(done)
                advance(done)

            try:
                outcome, result = await work(sampler, advance_both)
            except BaseException as error:
                with suppress(
                    DreamPRMError
                ):  # a full disk, say; the first error is the one to tell
                    job.finish(str(error) or "interrupted")
                raise
            for refusal in sampler.refusals:
                outcome.refused.append((None, refusal))
            if outcome.stopped:
                with suppress(DreamPRMError):
                    job.finish(str(outcome.stopped))
            else:
                job.finish()
            return outcome, result

    with (
        RolloutStore(options.store_of(output)) as store,
        progress(f"{unit} done", total) as advance,
    ):
        return asyncio.run(session(store, advance))


def tell(outcome: Outcome, unit: str) -> None:
    """Say what was left out; the run ends as failed when something was.

    Raises:
        DreamPRMError: why the work stopped, or how many units the policy refused.
    """
    if outcome.stopped is not None:
        raise outcome.stopped
    if outcome.refused:
        for _, reason in outcome.refused[:5]:
            print(f"dreamprm: refused: {' '.join(reason.split())}", file=sys.stderr)
        raise DreamPRMError(
            f"{len(outcome.refused)} {unit} were left out because the policy refused them (the "
            "first are named above); all others are done"
        )
