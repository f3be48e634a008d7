r"""Sample candidates: N reasonings per question, their final answers verified.

Reads questions (any format that `dreamprm validate` knows); writes trajectories. Every completion
is kept in the store the moment it arrives: the same command again goes on where a killed run
stopped, asks for nothing twice, and does nothing once all is done. A served model is sampled over
HTTP:

  dreamprm sample --questions questions.jsonl --output candidates.jsonl \
    --model_name_or_path Qwen/Qwen2.5-VL-7B-Instruct --base_urls http://localhost:8000/v1 \
    --num_candidates 8
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dreamprm.cli.policy_options import PolicyOptions, require_positive
from dreamprm.cli.resume import guard
from dreamprm.cli.sampling import Advance, run_sampling, tell
from dreamprm.formats import check_images, read_questions, write_trajectories
from dreamprm.records import Trajectory

if TYPE_CHECKING:
    from dreamprm.rollouts.sampler import Sampler
    from dreamprm.rollouts.work import Outcome


@dataclass(frozen=True, kw_only=True)
class Config(PolicyOptions):
    """Options of sample.

    Attributes:
        questions: file of questions.
        output: file of trajectories, .jsonl or .parquet.
        num_candidates: reasonings per question.
    """

    questions: Path
    output: Path
    num_candidates: int = 8


def run(config: Config) -> None:
    """Sample what the store does not have yet, and write all."""
    config.check()
    require_positive(config, "num_candidates")
    questions = read_questions(config.questions)
    check_images(questions, config.questions)
    guard(config.output, "sample", config.settings())

    async def work(sampler: Sampler, advance: Advance) -> tuple[Outcome, list[Trajectory]]:
        from dreamprm.rollouts.sample import sample_candidates

        return await sample_candidates(sampler, questions, config.num_candidates, advance)

    outcome, found = run_sampling(
        config, "sample", config.output, "questions", len(questions), work
    )
    write_trajectories(config.output, found)
    known = [t.outcome for t in found if t.outcome is not None]
    share = f", {sum(known) / len(known):.1%} right" if known else ""
    asked = len({t.question_id for t in found})
    print(f"{config.output}: {len(found)} candidates of {asked} questions{share}")
    tell(outcome, "questions")
