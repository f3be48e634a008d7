r"""Estimate Monte Carlo labels: complete every step prefix K times, count the right answers.

Reads questions and trajectories; writes the trajectories with labels. Every completion is kept in
the store the moment it arrives: the same command again goes on where a killed run stopped. Three
ways:

  fixed        num_completions for each prefix (the paper's)
  adaptive     until each label is known to label_precision, at most max_completions; completions of
               shorter prefixes that take the same steps count too
  first_error  bisection for the first step from which no completion succeeds

  dreamprm label --questions questions.jsonl --trajectories candidates.jsonl \
    --output labelled.jsonl --labels adaptive \
    --model_name_or_path Qwen/Qwen2.5-VL-7B-Instruct --base_urls http://localhost:8000/v1
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dreamprm.cli.inputs import candidates_of, read_candidates
from dreamprm.cli.pictures import UsedImages
from dreamprm.cli.resume import guard
from dreamprm.cli.sampling import Advance, check_output, run_sampling, tell
from dreamprm.cli.terminal import tell_unread
from dreamprm.data import check_golds
from dreamprm.errors import DataError, DreamPRMError, require_positive
from dreamprm.policy.options import PolicyOptions
from dreamprm.records import UNKNOWN_ANSWER, Trajectory

if TYPE_CHECKING:
    from dreamprm.rollouts.labels import Plan
    from dreamprm.rollouts.sampler import Outcome, Sampler


@dataclass(frozen=True, kw_only=True)
class Config(PolicyOptions, UsedImages):
    """Options of label.

    Attributes:
        questions: file of questions, with gold answers.
        trajectories: file of the trajectories to label.
        output: file of labelled trajectories, .jsonl or .parquet.
        labels: `fixed`, `adaptive` or `first_error`; see above.
        num_completions: completions per distinct prefix (fixed, first_error).
        domain_completions: domain -> completions per prefix, where it differs (fixed).
        label_precision: standard deviation at which a label is known well enough (adaptive).
        max_completions: most completions of one prefix (adaptive).
    """

    questions: Path
    trajectories: Path
    output: Path
    labels: Literal["fixed", "adaptive", "first_error"] = "fixed"
    num_completions: int = 8
    domain_completions: dict[str, int] | None = None
    label_precision: float = 0.12
    max_completions: int = 32


def run(config: Config) -> None:
    """Sample the completions that the store does not have yet, and write all labels."""
    config.check()
    require_positive(config, "num_completions", "label_precision", "max_completions")
    check_output(config.output)
    questions, trajectories = read_candidates(
        [config.questions], [config.trajectories], config.image_root
    )
    if not trajectories:
        raise DataError("holds no trajectory", file=config.trajectories)
    check_golds(questions, config.questions)
    by_id = {question.id: question for question in questions}
    _check(config, trajectories, {q.id for q in questions if q.answer == UNKNOWN_ANSWER})
    _check_domains(config, {question.domain for question in questions})
    questions = config.usable(questions, config.questions, *config.loaded)
    trajectories = candidates_of(questions, trajectories)
    guard(config.output, "label", config.facts() | {"labels": config.labels})

    async def work(sampler: Sampler, advance: Advance) -> tuple[Outcome, list[Trajectory]]:
        from dreamprm.rollouts.labels import label_trajectories

        return await label_trajectories(sampler, by_id, trajectories, _plan(config), advance)

    outcome, written, unread = run_sampling(
        config, "label", config.output, "trajectories", len(trajectories), work
    )
    print(
        f"{config.output}: {written['trajectories']} labelled trajectories, {written['labels']} "
        f"steps with a label, resting on {written['completions'] / max(1, written['labels']):.1f} "
        "completions in the mean"
    )
    tell_unread(unread, "completions")
    tell(outcome, "prefixes or questions")


def _plan(config: Config) -> Plan:
    from dreamprm.rollouts.labels import FirstErrorSearch, FixedCompletions, SequentialStopping

    if config.labels == "adaptive":
        return SequentialStopping(config.label_precision, config.max_completions)
    if config.labels == "first_error":
        return FirstErrorSearch(config.num_completions)
    return FixedCompletions(config.num_completions, config.domain_completions or {})


def _check_domains(config: Config, domains: set[str]) -> None:
    if config.domain_completions and config.labels != "fixed":
        raise DreamPRMError(f"domain_completions is for fixed labels, not {config.labels} ones")
    for domain, count in (config.domain_completions or {}).items():
        if domain not in domains or count < 1:
            raise DataError(
                f"domain_completions: {count} for domain '{domain}'; need at least 1, and a domain "
                f"of the questions: {', '.join(sorted(domains))}"
            )


def _check(config: Config, trajectories: list[Trajectory], unknown: set[str]) -> None:
    seen: set[tuple[str, int]] = set()
    for row, t in enumerate(trajectories, start=1):
        at = (t.question_id, t.sample_index)
        if at in seen:
            message = f"question '{at[0]}', candidate {at[1]} is given twice; remove one"
            raise DataError(message, file=config.trajectories, row=row, field="sample_index")
        seen.add(at)
        if t.question_id in unknown:
            raise DataError(
                f"question '{t.question_id}' has no gold answer, so all its labels would be 0; add "
                "the answer or remove the row",
                file=config.trajectories,
                row=row,
            )
