r"""What is done, what is left, how fast, at what cost: the jobs of a rollout store.

Reads while another process writes.

  dreamprm status --store rollouts.db
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dreamprm.cli.terminal import duration

if TYPE_CHECKING:
    from dreamprm.rollouts.store import Job


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of status.

    Attributes:
        store: file that `sample` and `label` keep completions in.
        json: print one JSON object instead of text.
    """

    store: Path = Path("rollouts.db")
    json: bool = False


def run(config: Config) -> None:
    """Print it."""
    from dreamprm.rollouts.store import RolloutStore, is_being_written

    with RolloutStore(config.store, readonly=True) as store:
        jobs, counts, usage = store.jobs(), store.counts(), store.usage()
        unanswered = store.unanswered()
    running = is_being_written(config.store)
    if config.json:
        listed = [
            job._asdict()
            | {"state": _state(job, running), "rate": job.rate, "seconds_left": job.seconds_left}
            for job in jobs
        ]
        facts = {"running": running, "jobs": listed, "counts": counts}
        facts["unanswered"] = unanswered
        facts["usage"] = {policy: used._asdict() for policy, used in usage.items()}
        print(json.dumps(facts, indent=2))
        return
    print(
        f"{config.store}: {counts['rollouts']:,} completions of {counts['prefixes']:,} prefixes, "
        f"{counts['verdicts']:,} verdicts" + (", being written" if running else "")
    )
    for job in jobs:
        print(f"\n{job.verb} -> {job.output} ({job.policy})")
        line = f"  {job.done:,} of {job.total:,} {job.unit}, {job.total - job.done:,} left"
        if job.rate:
            line += f", {60 * job.rate:,.1f} a minute"
        if job.seconds_left and job.done < job.total:
            line += f", about {duration(job.seconds_left)} to go"
        print(f"{line}\n  {_state(job, running)}")
    if unanswered:
        print(
            f"\n{unanswered:,} questions or prefixes got no reply that could be used; they are "
            "asked for again with --ask_again true"
        )
    print()
    for policy, used in usage.items():
        print(
            f"{policy}: {used.calls:,} calls, {used.completions:,} completions, "
            f"{used.prompt_tokens:,} prompt and {used.completion_tokens:,} completion tokens, "
            f"cost {used.cost:.2f}"
        )


def _state(job: Job, running: bool) -> str:
    if job.state == "running" and not running:
        return "killed; the same command goes on"
    return job.state
