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

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dreamprm.cli.pictures import UsedImages
from dreamprm.cli.resume import guard
from dreamprm.cli.sampling import Advance, check_output, run_sampling, tell
from dreamprm.cli.terminal import tell_unread
from dreamprm.data import check_golds, read_questions
from dreamprm.errors import DataError, require_positive
from dreamprm.policy.options import PolicyOptions
from dreamprm.records import Trajectory

if TYPE_CHECKING:
    from dreamprm.rollouts.sampler import Outcome, Sampler


@dataclass(frozen=True, kw_only=True)
class Config(PolicyOptions, UsedImages):
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
    check_output(config.output)
    questions = read_questions(config.questions, image_root=config.image_root)
    if not questions:
        raise DataError("holds no question", file=config.questions)
    check_golds(questions, config.questions)
    questions = config.usable(questions, config.questions, *config.loaded)
    guard(config.output, "sample", config.facts())

    async def work(sampler: Sampler, advance: Advance) -> tuple[Outcome, Iterator[Trajectory]]:
        from dreamprm.rollouts.sampler import sample_candidates, stored_candidates

        outcome = await sample_candidates(sampler, questions, config.num_candidates, advance)
        return outcome, stored_candidates(sampler, questions, config.num_candidates)

    outcome, written, unread = run_sampling(
        config, "sample", config.output, "questions", len(questions), work
    )
    known = written["known"]
    share = f", {written['right'] / known:.1%} right" if known else ""
    print(
        f"{config.output}: {written['trajectories']} candidates of {written['questions']} questions"
        f"{share}"
    )
    tell_unread(unread)
    tell(outcome, "questions")
