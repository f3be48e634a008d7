r"""Score trajectories with a trained PRM: one logit per step (its sigmoid is the step score).

Reads a folder that `dreamprm train` wrote (or, with --convention, a PRM of others), questions and
trajectories; appends step scores to a .jsonl file. Trajectories stream through, so that their
number is bounded by the disk alone; the candidates of a question should stand near each other, as
`dreamprm sample` writes them. The same command again goes on where a killed run stopped: at most
one batch is scored twice.

  dreamprm score --model_name_or_path prm --questions questions.jsonl \
    --trajectories candidates.jsonl --output scores.jsonl

With --prm_urls a server of the model scores, such as `vllm serve prm --config prm/vllm.yaml`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from dreamprm.cli.inputs import RewardModel
from dreamprm.cli.pictures import UsedImages
from dreamprm.cli.resume import appending
from dreamprm.cli.terminal import progress
from dreamprm.data import checked_references, iterate_trajectories, read_questions
from dreamprm.data.own import iterate
from dreamprm.errors import DataError, DataWarning, require_positive
from dreamprm.prm.folder import identity, trained_aggregation, weights_digest
from dreamprm.records import StepScores, Trajectory

WINDOW = 1024
"""Trajectories held at once. Fixed: a run that goes on counts in the windows of the one before."""


@dataclass(frozen=True, kw_only=True)
class Config(RewardModel, UsedImages):
    """Options of score.

    Attributes:
        model_name_or_path: folder of a PRM that `dreamprm train` wrote; with `convention`, any
            folder or hub name.
        convention: of a PRM that others trained: math_shepherd, qwen_math_prm, skywork, rlhflow,
            ursa or visualprm.
        questions: file of questions.
        trajectories: file of the trajectories to score.
        output: .jsonl file of step scores; appended to.
        per_device_batch_size: trajectories in one forward pass.
        device: cpu, cuda, cuda:1, ...; by default cuda where there is one.
    """

    model_name_or_path: str
    questions: Path
    trajectories: Path
    output: Path
    convention: str | None = None
    per_device_batch_size: int = 16
    device: str | None = None


def run(config: Config) -> None:
    """Score what is not scored yet."""
    require_positive(config, "per_device_batch_size")
    asked = read_questions(config.questions, image_root=config.image_root)
    known = {question.id for question in asked}
    usable = config.usable(asked, config.questions, config.model_name_or_path)
    questions = {question.id: question for question in usable}

    def trajectories() -> Iterator[Trajectory]:
        rows = iterate_trajectories(config.trajectories)
        checked = checked_references(known, rows, config.trajectories)
        return (trajectory for trajectory in checked if trajectory.question_id in questions)

    total = sum(1 for _ in trajectories())  # a bad row is told before hours are spent
    settings = _settings(config)
    with appending(config.output, "score", settings) as out:
        written = iterate(config.output, StepScores)
        scorer, cut = None, 0
        with progress("trajectories scored", total) as advance:
            for window, left in unwritten(trajectories(), written, config.output):
                advance(len(window) - len(left))
                if not left:
                    continue
                if scorer is None:
                    from dreamprm.prm.scorer import StepScorer

                    model = config.reward_model(
                        config.model_name_or_path, config.device, config.convention
                    )
                    served = bool(config.prm_urls)
                    batch_size = model.batch_size if served else config.per_device_batch_size
                    scorer = StepScorer(model, batch_size)
                pairs = [(questions[t.question_id], t) for t in left]
                for scores in scorer.score(pairs, advance):
                    cut += scores.cut > 0
                    out.append(scores)
        extra = next(written, None) if total else None
    if extra is not None:
        raise _others(config.output, extra)
    if cut:
        warnings.warn(
            f"{cut:,} trajectories are longer than the model's context; their last steps have no "
            "score (`cut` in the output counts them)",
            DataWarning,
            stacklevel=2,
        )
    print(f"{config.output}: step scores of {total} trajectories")


def unwritten(
    trajectories: Iterable[Trajectory], written: Iterator[StepScores], output: Path
) -> Iterator[tuple[list[Trajectory], list[Trajectory]]]:
    """Windows of the input, and of each what an earlier run has not written.

    Windows are finished one after the other, so the output's rows of a window stand where its
    trajectories stand in the input, in another order within it. Nothing else is remembered.

    Raises:
        DataError: the output holds scores of other trajectories, or one of these twice.
    """
    left = iter(trajectories)
    while window := list(islice(left, WINDOW)):
        waiting = {(t.question_id, t.sample_index): t for t in window}
        if len(waiting) < len(window):
            double = next(t for t in window if waiting[t.question_id, t.sample_index] is not t)
            raise DataError(
                f"question '{double.question_id}', candidate {double.sample_index} is there twice; "
                "number the samples of each question"
            )
        for scores in islice(written, len(window)):
            judged = waiting.pop((scores.question_id, scores.sample_index), None)
            if judged is None or not scores.are_of(judged):
                raise _others(output, scores)
        yield window, list(waiting.values())


def _others(output: Path, scores: StepScores) -> DataError:
    return DataError(
        f"holds scores of question '{scores.question_id}', candidate {scores.sample_index}, which "
        "is not at this place of the trajectories, or has other steps there; give another output, "
        "or the trajectories that it was made from",
        file=output,
    )


def _settings(config: Config) -> dict[str, str]:
    """What all scores of a file must have in common."""
    if config.convention is not None:
        name, folder = config.model_name_or_path, Path(config.model_name_or_path)
        digest = f" {weights_digest(folder)}" if folder.is_dir() else ""
        return {"model": name + digest, "convention": config.convention}
    folder = Path(config.model_name_or_path)
    model = identity(folder, served=bool(config.prm_urls))
    return {"model": model, "aggregation": trained_aggregation(folder)}
