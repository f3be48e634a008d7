r"""Estimate Monte Carlo labels: complete every step prefix K times, count the right answers.

Reads questions and trajectories; appends the trajectories with labels to a .jsonl file. The same
command again goes on where a killed run stopped, and does nothing once all is done.

  dreamprm label --questions questions.jsonl --trajectories candidates.jsonl \
    --output labelled.jsonl --model_name_or_path Qwen/Qwen2.5-VL-3B-Instruct --num_completions 8
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dreamprm.cli.inputs import read_candidates
from dreamprm.cli.policy_options import PolicyOptions, require_positive
from dreamprm.cli.resume import resumable
from dreamprm.cli.terminal import progress
from dreamprm.errors import DataError
from dreamprm.formats import check_images
from dreamprm.records import UNKNOWN_ANSWER, Trajectory


@dataclass(frozen=True, kw_only=True)
class Config(PolicyOptions):
    """Options of label.

    Attributes:
        questions: file of questions, with gold answers.
        trajectories: file of the trajectories to label.
        output: .jsonl file of labelled trajectories; appended to.
        num_completions: completions per distinct prefix.
        domain_completions: domain -> completions per prefix, where it differs.
    """

    questions: Path
    trajectories: Path
    output: Path
    num_completions: int = 8
    domain_completions: dict[str, int] | None = None


def run(config: Config) -> None:
    """Label what is not labelled yet."""
    config.check()
    require_positive(config, "num_completions")
    questions, trajectories = read_candidates([config.questions], [config.trajectories])
    check_images(questions, config.questions)
    by_id = {question.id: question for question in questions}
    _check(config, trajectories, {q.id for q in questions if q.answer == UNKNOWN_ANSWER})
    domains = {question.domain for question in questions}
    for domain, count in (config.domain_completions or {}).items():
        if domain not in domains or count < 1:
            raise DataError(
                f"domain_completions: {count} for domain '{domain}'; need at least 1, and a domain "
                f"of the questions: {', '.join(sorted(domains))}"
            )
    settings = config.settings() | {
        "num_completions": config.num_completions,
        "domain_completions": config.domain_completions,
    }
    with resumable(config.output, "label", settings, Trajectory) as (out, written):
        done = {(t.question_id, t.sample_index) for t in written}
        asked = {(t.question_id, t.sample_index) for t in trajectories}
        if foreign := sorted(done - asked):
            raise DataError(
                f"holds question '{foreign[0][0]}', candidate {foreign[0][1]}, which is not among "
                "the trajectories; give another output",
                file=config.output,
            )
        if done != asked:
            from dreamprm.cli.models import load_policy
            from dreamprm.rollouts.label import label_trajectories

            policy = load_policy(config)
            with progress("trajectories labelled", len(trajectories)) as advance:
                for t in label_trajectories(
                    policy,
                    by_id,
                    trajectories,
                    config.num_completions,
                    config.seed,
                    config.domain_completions,
                    done,
                    advance,
                ):
                    out.append(t)
    print(f"{config.output}: {len(trajectories)} labelled trajectories")


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
