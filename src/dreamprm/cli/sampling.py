"""What the verbs that sample share: store, policy, budget, progress, and the account at the end."""

from __future__ import annotations

import asyncio
import sys
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dreamprm.cli.terminal import progress
from dreamprm.data import DataWarning, write_trajectories
from dreamprm.data.own import LINES
from dreamprm.errors import DataError, DreamPRMError
from dreamprm.policy.options import PolicyOptions
from dreamprm.policy.policy import Policy
from dreamprm.records import Trajectory

if TYPE_CHECKING:  # the store and what is around it load slowly
    from dreamprm.rollouts.sampler import Outcome, Sampler
    from dreamprm.unread import Unread

Advance = Callable[[int], None]
_MANY_CUT = 0.2  # share of completions cut at the limit from which the user is warned


def _counted(trajectories: Iterable[Trajectory], counts: Counter[str]) -> Iterator[Trajectory]:
    """The same trajectories, counted as they pass."""
    before = None
    for t in trajectories:
        labels = [label for label in t.labels or () if label is not None]
        counts.update(
            trajectories=1,
            questions=int(t.question_id != before),
            known=t.outcome is not None,
            right=bool(t.outcome),
            labels=len(labels),
            completions=sum(label.total or 0 for label in labels),
        )
        before = t.question_id
        yield t


def check_output(output: Path) -> None:
    """Refuse an output that could not be written, before anything is paid for."""
    if output.suffix.lower() not in (*LINES, ".parquet"):
        raise DataError("can be written as .jsonl or .parquet only; rename it", file=output)


def run_sampling(
    options: PolicyOptions,
    verb: str,
    output: Path,
    unit: str,
    total: int,
    work: Callable[[Sampler, Advance], Awaitable[tuple[Outcome, Iterable[Trajectory]]]],
) -> tuple[Outcome, Counter[str], Unread]:
    """Open the store and the policy, do the work, write its result, leave a record for `status`.

    Args:
        options: policy, store, budget.
        verb, output, unit, total: what `status` shows.
        work: does it all; is given the sampler and a function to call with the units done.

    Returns:
        How it ended; counts of the trajectories in the output: how many, of how many questions,
        with a known, a right answer, their labels, and completions behind these; and how many of
        all completions state no answer.
    """
    from dreamprm.rollouts.sampler import open_sampler
    from dreamprm.rollouts.store import Job, JobWriter, RolloutStore

    if not options.base_urls:
        from dreamprm.cli.terminal import quiet_transformers

        quiet_transformers()

    async def session(
        store: RolloutStore, advance: Advance
    ) -> tuple[Outcome, Counter[str], Unread]:
        async with Policy.of(options) as policy, open_sampler(policy, store) as sampler:
            made = Job(str(output.resolve()), verb, sampler.policy.name, unit, total)
            job = JobWriter(store, made, calls=lambda: sampler.budget.calls)

            def advance_both(done: int) -> None:
                job.advance(done)
                advance(done)

            try:
                outcome, trajectories = await work(sampler, advance_both)
                written = _write(output, trajectories, outcome)
            except BaseException as error:
                with suppress(DreamPRMError):  # the disk is full, say; `error` is to be told
                    job.finish(str(error) or "interrupted")
                raise
            outcome.refused += ((None, refusal) for refusal in sampler.refusals)
            with suppress(DreamPRMError):  # the output is written; only `status` knows less
                job.finish(str(outcome.stopped or "finished"))
            warn_unanswered(sampler)
            if not outcome.stopped:
                _warn(sampler, options)
            return outcome, written, sampler.unread

    with (
        RolloutStore(options.store_of(output)) as store,
        progress(f"{unit} done", total) as advance,
    ):
        return asyncio.run(session(store, advance))


def _write(output: Path, trajectories: Iterable[Trajectory], outcome: Outcome) -> Counter[str]:
    """Write the output; a run that stopped does not replace one that holds more."""
    counts: Counter[str] = Counter()
    made = _counted(trajectories, counts)
    if outcome.stopped and output.exists():
        made = iter(list(made))
        if (before := _records_in(output)) > counts["trajectories"]:
            print(f"{output}: left as it was, with {before} records", file=sys.stderr)
            return counts
    write_trajectories(output, made)
    return counts


def _records_in(output: Path) -> int:
    if output.suffix.lower() == ".parquet":
        import pyarrow.parquet as pq

        return int(pq.read_metadata(output).num_rows)
    with output.open("rb") as file:
        return sum(1 for line in file if line.strip())


def warn_unanswered(sampler: Sampler) -> None:
    """Say how many were left behind without a reply, and how they are asked for again."""
    if sampler.unanswered:
        warnings.warn(
            f"{sampler.unanswered:,} questions or prefixes got no reply that could be used and are "
            "left behind; the same command does not ask for them again, with --ask_again true it "
            "does",
            DataWarning,
            stacklevel=2,
        )


def _warn(sampler: Sampler, options: PolicyOptions) -> None:
    reasons = sampler.store.finish_reasons(sampler.generator)
    total = sum(reasons.values())
    cut = reasons.get("length", 0)
    if cut > _MANY_CUT * total:
        warnings.warn(
            f"{cut:,} of {total:,} completions were cut at max_new_tokens "
            f"{options.max_new_tokens}, and most of those state no answer; raise it",
            DataWarning,
            stacklevel=2,
        )
    for rule, count in sampler.undecided().items():
        why = "the judge gave no usable verdict" if rule == "judge_unclear" else "of the time limit"
        warnings.warn(
            f"{count:,} answers were called wrong because {why} ({rule}); the same command tries "
            "these again",
            DataWarning,
            stacklevel=2,
        )


def tell(outcome: Outcome, unit: str) -> None:
    """Say what was left out; the run ends as failed when something was.

    Raises:
        DreamPRMError: why the work stopped, or how many units could not be done.
    """
    if outcome.stopped is not None:
        raise outcome.stopped
    if outcome.refused:
        for _, reason in outcome.refused[:5]:
            print(f"dreamprm: left out: {' '.join(reason.split())}", file=sys.stderr)
        raise DreamPRMError(
            f"{len(outcome.refused)} {unit} were left out (the first are named above); all others "
            "are done"
        )
