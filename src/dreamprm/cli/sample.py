r"""Sample candidates: N reasonings per question, their final answers verified.

Reads questions (.jsonl or .parquet); appends trajectories to a .jsonl file, question by question.
The same command again goes on where a killed run stopped, and does nothing once all is done.

  dreamprm sample --questions questions.jsonl --output candidates.jsonl \
    --model_name_or_path Qwen/Qwen2.5-VL-3B-Instruct --num_candidates 8
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from dreamprm.cli.policy_options import PolicyOptions, require_positive
from dreamprm.cli.resume import resumable
from dreamprm.cli.terminal import progress
from dreamprm.formats import check_images, check_references, read_questions
from dreamprm.records import UNKNOWN_ANSWER, Trajectory


@dataclass(frozen=True, kw_only=True)
class Config(PolicyOptions):
    """Options of sample.

    Attributes:
        questions: file of questions.
        output: .jsonl file of trajectories; appended to.
        num_candidates: reasonings per question.
    """

    questions: Path
    output: Path
    num_candidates: int = 8


def run(config: Config) -> None:
    """Sample what is not there yet."""
    config.check()
    require_positive(config, "num_candidates")
    questions = read_questions(config.questions)
    check_images(questions, config.questions)
    unknown = {q.id for q in questions if q.answer == UNKNOWN_ANSWER}
    settings = config.settings() | {"num_candidates": config.num_candidates}
    with resumable(config.output, "sample", settings, Trajectory) as (out, written):
        check_references(questions, written, config.output)
        there = {(t.question_id, t.sample_index) for t in written}
        counts = Counter(t.question_id for t in written)
        done = {q for q, count in counts.items() if count >= config.num_candidates}
        outcomes = [t.outcome for t in written]
        if len(done) < len(questions):
            from dreamprm.cli.models import load_policy
            from dreamprm.rollouts.sample import sample_candidates

            policy = load_policy(config)
            with progress("questions sampled", len(questions)) as advance:
                for candidates in sample_candidates(
                    policy, questions, config.num_candidates, config.seed, done, advance
                ):
                    for t in candidates:
                        if (t.question_id, t.sample_index) in there:
                            continue
                        if t.question_id in unknown:  # nothing to verify against
                            t = t.model_copy(update={"outcome": None})  # noqa: PLW2901
                        out.append(t)
                        outcomes.append(t.outcome)
    known = [outcome for outcome in outcomes if outcome is not None]
    share = f", {sum(known) / len(known):.1%} right" if known else ""
    print(f"{config.output}: {len(outcomes)} candidates of {len(questions)} questions{share}")
