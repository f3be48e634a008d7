r"""Score trajectories with a trained PRM: one logit per step (its sigmoid is the step score).

Reads a folder that `dreamprm train` wrote, questions and trajectories; appends step scores to a
.jsonl file. The same command again goes on where a killed run stopped.

  dreamprm score --model_name_or_path prm --questions questions.jsonl \
    --trajectories candidates.jsonl --output scores.jsonl
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from dreamprm.cli.inputs import read_candidates
from dreamprm.cli.policy_options import require_positive
from dreamprm.cli.resume import resumable
from dreamprm.cli.terminal import progress
from dreamprm.errors import DreamPRMError
from dreamprm.formats import check_images
from dreamprm.formats.files import open_for_reading
from dreamprm.records import StepScores


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of score.

    Attributes:
        model_name_or_path: folder of a PRM that `dreamprm train` wrote.
        questions: file of questions.
        trajectories: file of the trajectories to score.
        output: .jsonl file of step scores; appended to.
        per_device_batch_size: trajectories in one forward pass.
        device: cpu, cuda, cuda:1, ...; by default cuda where there is one.
    """

    model_name_or_path: Path
    questions: Path
    trajectories: Path
    output: Path
    per_device_batch_size: int = 16
    device: str | None = None


def run(config: Config) -> None:
    """Score what is not scored yet."""
    require_positive(config, "per_device_batch_size")
    questions, trajectories = read_candidates([config.questions], [config.trajectories])
    check_images(questions, config.questions)
    by_id = {question.id: question for question in questions}
    settings = {
        "model": _identity(config.model_name_or_path),
        "aggregation": _aggregation(config.model_name_or_path),
    }
    with resumable(config.output, "score", settings, StepScores) as (out, written):
        done = {(s.question_id, s.sample_index) for s in written}
        left = [t for t in trajectories if (t.question_id, t.sample_index) not in done]
        if left:
            from dreamprm.cli.models import load_prm
            from dreamprm.prm.scorer import StepScorer

            model = load_prm(config.model_name_or_path, config.device)
            scorer = StepScorer(model, config.per_device_batch_size)
            with progress("trajectories scored", len(left)) as advance:
                for scores in scorer.score([(by_id[t.question_id], t) for t in left], advance):
                    out.append(scores)
    print(f"{config.output}: step scores of {len(trajectories)} trajectories")


def _aggregation(folder: Path) -> str:
    """What the model was trained for; `select` and `evaluate` take it from beside the scores."""
    with open_for_reading(folder / "prm_config.json") as file:
        return str(json.loads(file.read())["aggregation"])


def _identity(folder: Path) -> str:
    """A name for the very weights: scores of two trainings must not end up in one file."""
    head = folder / "prm_head.safetensors"
    if not head.is_file():
        raise DreamPRMError(
            f"{folder} holds no {head.name}: not a PRM saved by dreamprm; give the folder that "
            "`dreamprm train` wrote"
        )
    return f"{folder.resolve().name} {hashlib.sha256(head.read_bytes()).hexdigest()[:12]}"
