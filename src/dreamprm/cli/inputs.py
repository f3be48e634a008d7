"""What several verbs take: candidates of questions, scores by method, a reward model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamprm.cli.resume import recorded_aggregation
from dreamprm.cli.terminal import held_warnings
from dreamprm.data import check_references, read_questions, read_scores, read_trajectories
from dreamprm.errors import DataError, DreamPRMError
from dreamprm.policy.options import ServerLimits
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
        seed: of the random subsets behind the curve of voting, and of `validation_share`.
        scores_by_seed: the files of a method are of repeated trainings, one each, in the same order
            for every method (a method with one file has no seeds); intervals then cover the
            chance in training too. By default they are parts of one.
        validation_share: choose each method's aggregation on this share of the questions, and
            report on the others only.
        validation_questions: choose each method's aggregation on these questions instead; none may
            be among `questions`.
        validation_trajectories: their candidates, with outcomes.
        validation_scores: method -> step scores of these; methods without keep their aggregation.
    """

    questions: list[Path]
    trajectories: list[Path]
    scores: dict[str, Path | list[Path]] = field(default_factory=dict)
    aggregations: dict[str, str] = field(default_factory=dict)
    n: int = 8
    curve: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 16])
    main_method: str | None = None
    seed: int = 0
    scores_by_seed: bool = False
    validation_share: float | None = None
    validation_questions: list[Path] = field(default_factory=list)
    validation_trajectories: list[Path] = field(default_factory=list)
    validation_scores: dict[str, Path | list[Path]] = field(default_factory=dict)

    def main(self) -> str:
        """Name of the main method.

        Raises:
            DataError: it has no scores.
        """
        from dreamprm.evaluation.evaluate import main_of

        if self.main_method is None:
            return main_of(self.scores)
        if self.main_method not in (*self.scores, "first_sample", "self_consistency"):
            raise DataError(
                f"main_method '{self.main_method}' has no scores; there are: "
                f"{', '.join(self.scores) or 'none'}"
            )
        return self.main_method


@dataclass(frozen=True, kw_only=True)
class RewardModel(ServerLimits):
    """Where the reward model works.

    Attributes:
        prm_urls: servers of the reward model (`vllm serve`, `dreamprm serve`), such as
            http://localhost:8000/v1. Its folder is then read for tokenizer and layout alone, and no
            model is loaded into this process.
        prm_api_key_env: environment variable that holds the key of these servers.
    """

    prm_urls: list[str] = field(default_factory=list)
    prm_api_key_env: str = "OPENAI_API_KEY"

    def reward_model(
        self, path: str | Path, device: str | None, convention: str | None = None
    ) -> Any:
        """The reward model of a folder: a `ServedPRM` where there are servers, else loaded."""
        from dreamprm.cli.terminal import quiet_transformers

        quiet_transformers()
        if not self.prm_urls:
            from dreamprm.prm.model import PRM

            return PRM.from_pretrained(path, convention=convention, device=device)
        if convention is not None:
            raise DreamPRMError("prm_urls are of PRMs of dreamprm; leave convention out")
        from dreamprm.prm.served import ServedPRM

        limits = {f.name: getattr(self, f.name) for f in fields(ServerLimits)}
        return ServedPRM(path, self.prm_urls, api_key_env=self.prm_api_key_env, **limits)


def read_candidates(
    questions: Sequence[Path], trajectories: Sequence[Path], image_root: Path | None = None
) -> tuple[list[Question], list[Trajectory]]:
    """Questions and trajectories of some files; every trajectory has its question."""
    with held_warnings():
        asked = [q for path in questions for q in read_questions(path, image_root=image_root)]
        candidates: list[Trajectory] = []
        for path in trajectories:
            part = read_trajectories(path)
            check_references(asked, part, path)
            candidates += part
    return asked, candidates


def candidates_of(
    questions: Sequence[Question], trajectories: Sequence[Trajectory]
) -> list[Trajectory]:
    """The trajectories of these questions."""
    known = {question.id for question in questions}
    return [t for t in trajectories if t.question_id in known]


def read_method_scores(scores: Mapping[str, Path | list[Path]]) -> dict[str, list[StepScores]]:
    """Method -> its step scores."""
    return {m: [s for path in _files(f) for s in read_scores(path)] for m, f in scores.items()}


def _files(files: Path | list[Path]) -> list[Path]:
    return files if isinstance(files, list) else [files]


def evaluate(inputs: EvaluationInputs, image_root: Path | None = None) -> Evaluation:
    """Read and evaluate."""
    from dreamprm.evaluation.evaluate import evaluate

    inputs.main()
    questions, trajectories = read_candidates(inputs.questions, inputs.trajectories, image_root)
    given = (inputs.validation_questions, inputs.validation_trajectories, inputs.validation_scores)
    validation = None
    if all(given):
        validation = (
            *read_candidates(inputs.validation_questions, inputs.validation_trajectories),
            read_method_scores(inputs.validation_scores),
        )
    elif any(given):
        raise DataError(
            "give validation_questions, validation_trajectories and validation_scores together"
        )
    return evaluate(
        questions,
        trajectories,
        [read_method_scores(files) for files in _by_seed(inputs)],
        aggregations=inputs.aggregations,
        trained_for={
            method: recorded_aggregation(_files(files)[0])
            for method, files in inputs.scores.items()
        },
        n=inputs.n,
        ns=inputs.curve,
        seed=inputs.seed,
        validation_share=inputs.validation_share,
        validation=validation,
    )


def _by_seed(inputs: EvaluationInputs) -> list[dict[str, Path | list[Path]]]:
    """Score files of each repeated training."""
    if not inputs.scores_by_seed:
        return [inputs.scores]
    files = {method: _files(given) for method, given in inputs.scores.items()}
    counts = {m: len(f) for m, f in files.items() if len(f) > 1}
    if len(set(counts.values())) != 1:
        told = ", ".join(f"{m} {count}" for m, count in counts.items()) or "one of each method"
        raise DataError(
            f"scores_by_seed needs as many files of each method, one per training, and there are: "
            f"{told}"
        )
    seeds = range(next(iter(counts.values())))
    return [{m: f[seed] if len(f) > 1 else f[0] for m, f in files.items()} for seed in seeds]
