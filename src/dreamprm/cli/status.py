r"""What is done, what is left, how fast, at what cost: the jobs of a rollout store.

Reads while another process writes.

  dreamprm status --store rollouts.db
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dreamprm.cli.terminal import duration

if TYPE_CHECKING:
    from dreamprm.rollouts.jobs import Job
    from dreamprm.rollouts.store import Usage


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of status.

    Attributes:
        store: file that `sample` and `label` keep completions in.
        json: print one JSON object instead of a table.
    """

    store: Path = Path("rollouts.db")
    json: bool = False


def run(config: Config) -> None:
    """Print it."""
    from dreamprm.rollouts.jobs import is_being_written, jobs
    from dreamprm.rollouts.store import RolloutStore

    with RolloutStore(config.store, readonly=True) as store:
        listed, counts, usage = jobs(store), store.counts(), store.usage()
    running = is_being_written(config.store)
    if config.json:
        facts = {
            "running": running,
            "jobs": [
                job._asdict()
                | {
                    "state": _state(job, running),
                    "rate": job.rate,
                    "seconds_left": job.seconds_left,
                }
                for job in listed
            ],
            "counts": counts,
            "usage": {policy: used._asdict() for policy, used in usage.items()},
        }
        print(json.dumps(facts, indent=2))
        return
    _print_tables(config.store, listed, counts, usage, running)


def _state(job: Job, running: bool) -> str:
    if job.state == "running" and not running:
        return "killed; the same command goes on"
    return job.state


def _print_tables(
    store: Path,
    listed: list[Job],
    counts: dict[str, int],
    usage: dict[str, Usage],
    running: bool,
) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout)
    print(
        f"{store}: {counts['rollouts']:,} completions of {counts['prefixes']:,} prefixes, "
        f"{counts['verdicts']:,} verdicts" + (", being written" if running else "")
    )
    table = Table("output", "verb", "policy", "done", "left", "rate", "time left", "state")
    for job in listed:
        unfinished = job.done < job.total
        table.add_row(
            job.output,
            job.verb,
            job.policy,
            f"{job.done:,} of {job.total:,} {job.unit}",
            f"{job.total - job.done:,}",
            f"{60 * job.rate:,.1f} a minute" if job.rate else "",
            duration(job.seconds_left) if job.seconds_left and unfinished else "",
            _state(job, running),
        )
    console.print(table)
    table = Table("policy", "calls", "completions", "prompt tokens", "completion tokens", "cost")
    for policy, used in usage.items():
        figures = (used.calls, used.completions, used.prompt_tokens, used.completion_tokens)
        table.add_row(policy, *(f"{figure:,}" for figure in figures), f"{used.cost:.2f}")
    console.print(table)
