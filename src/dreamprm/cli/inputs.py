"""Reading of what several verbs take: candidates of questions, and scores by method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dreamprm.cli.resume import recorded_aggregation
from dreamprm.cli.terminal import held_warnings
from dreamprm.errors import DataError
from dreamprm.formats import check_references, read_questions, read_scores, read_trajectories
from dreamprm.records import Question, StepScores, Trajectory

if TYPE_CHECKING:
    from dreamprm.evaluation.evaluate import Evaluation


@dataclass(frozen=True, kw_only=True)
class EvaluationInputs:
    """What is evaluated.

    Attributes:
        questions: files of questions; accuracy is given per domain, so a benchmark is a domain.
        trajectories: files of their candidates, with outcomes.
        scores: method -> file of step scores, or a list of files. The names are yours (`dreamprm`
            and `prm_uniform`, say); first_sample, self_consistency and any_right need no scores.
        aggregations: method -> aggregation of its step scores; by default what the model that
            scored was trained for (`last` for an outcome reward model).
        n: candidates per question that are chosen from, the first by sample_index.
        curve: numbers of candidates that the curve over N has points at.
        main_method: the method that the others are compared with; `dreamprm` if it has scores,
            else the last method that has.
        seed: of the random subsets behind the curve of voting.
    """

    questions: list[Path]
    trajectories: list[Path]
    scores: dict[str, Path | list[Path]] = field(default_factory=dict)
    aggregations: dict[str, str] = field(default_factory=dict)
    n: int = 8
    curve: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 16])
    main_method: str | None = None
    seed: int = 0

    def main(self) -> str:
        """Name of the main method.

        Raises:
            DataError: it has no scores.
        """
        if self.main_method is None:
            names = [*self.scores] or ["self_consistency"]
            return "dreamprm" if "dreamprm" in names else names[-1]
        if self.main_method not in (*self.scores, "first_sample", "self_consistency"):
            raise DataError(
                f"main_method '{self.main_method}' has no scores; there are: "
                f"{', '.join(self.scores) or 'none'}"
            )
        return self.main_method


@dataclass(frozen=True)
class Evaluated:
    """The inputs as read, and the result."""

    questions: list[Question]
    trajectories: list[Trajectory]
    scores: dict[str, list[StepScores]]
    evaluation: Evaluation


def read_candidates(
    questions: Sequence[Path], trajectories: Sequence[Path], image_root: Path | None = None
) -> tuple[list[Question], list[Trajectory]]:
    """Questions and trajectories of some files; every trajectory has its question."""
    with held_warnings():
        asked = [q for path in questions for q in read_questions(path, image_root=image_root)]
        found: list[Trajectory] = []
        for path in trajectories:
            part = read_trajectories(path)
            check_references(asked, part, path)
            found += part
    return asked, found


def read_method_scores(
    scores: Mapping[str, Path | list[Path]],
) -> dict[str, list[StepScores]]:
    """Method -> its step scores."""
    return {
        method: [
            s for path in (files if isinstance(files, list) else [files]) for s in read_scores(path)
        ]
        for method, files in scores.items()
    }


def evaluate(inputs: EvaluationInputs) -> Evaluated:
    """Read and evaluate."""
    from dreamprm.evaluation.evaluate import evaluate_methods

    inputs.main()
    questions, trajectories = read_candidates(inputs.questions, inputs.trajectories)
    scores = read_method_scores(inputs.scores)
    if unknown := [method for method in inputs.aggregations if method not in scores]:
        raise DataError(f"aggregations: method '{unknown[0]}' has no scores")
    evaluation = evaluate_methods(
        questions,
        trajectories,
        scores,
        aggregations={
            method: recorded_aggregation(files[0] if isinstance(files, list) else files)
            for method, files in inputs.scores.items()
        }
        | inputs.aggregations,
        n=inputs.n,
        ns=inputs.curve,
        seed=inputs.seed,
    )
    return Evaluated(questions, trajectories, scores, evaluation)
