"""An evaluation -> a page: tables, what became of the questions, calibration, examples."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dreamprm.data import check_images
from dreamprm.data.files import BadRow, in_row, refuse
from dreamprm.data.rows import each_row
from dreamprm.data.trajectory_weights import Window, read_domain_weights
from dreamprm.errors import DataError
from dreamprm.evaluation.calibration import Calibration, calibration
from dreamprm.evaluation.evaluate import Evaluation, group_candidates
from dreamprm.evaluation.results import versions
from dreamprm.images import Reference, load_image
from dreamprm.records import Question, StepScores, Trajectory
from dreamprm.report.page import (
    METHOD_LABELS,
    AccuracyTable,
    Domain,
    Example,
    ExampleCandidate,
    Fate,
    Range,
    ReportData,
)
from dreamprm.search.aggregation import log_sigmoid
from dreamprm.training.meta_ranking import FILE, read_ranking

LARGEST_IMAGE = 640  # pixels per side on the page


def evaluation_report(
    evaluation: Evaluation,
    *,
    title: str,
    main_method: str = "dreamprm",
    notice: str = "",
    settings: Mapping[str, str] | None = None,
    training_dir: Path | None = None,
    max_examples: int = 24,
    bad_image: BadRow = refuse,
) -> ReportData:
    """The page on one evaluation.

    Args:
        notice: what a reader must know before believing a number.
        settings: what is needed to run it again.
        training_dir: folder of a training run, whose weights and their history are shown.
        bad_image: see `data.check_images`; questions that it leaves out are not shown.
    """
    domains, history = training_history(training_dir) if training_dir else ((), ())
    shown: tuple[Example, ...] = ()
    if main_method in evaluation.scores:
        rivals = [
            m
            for m in ("prm_uniform", *evaluation.scores)
            if m in evaluation.scores and m != main_method
        ]
        shown = examples(
            evaluation,
            evaluation.questions,
            evaluation.trajectories,
            evaluation.scores[main_method],
            main_method=main_method,
            rival=rivals[0] if rivals else "self_consistency",
            limit=max_examples,
            bad_image=bad_image,
        )
    return ReportData(
        title=title,
        headline=_headline(evaluation, main_method),
        notice=notice,
        facts={"made": time.strftime("%Y-%m-%d %H:%M")} | versions() | meta_facts(training_dir),
        settings=settings or {},
        tables=(
            accuracy_table(
                evaluation,
                f"Accuracy among {evaluation.n}",
                main_method=main_method,
                note=" ".join(f"{method}: {ties}." for method, ties in evaluation.ties.items()),
            ),
        ),
        domains=domains,
        history=history,
        scaling=evaluation.scaling,
        fates=fates(evaluation),
        calibration=calibrations(evaluation, evaluation.trajectories),
        step_calibration=step_calibrations(evaluation.scores, evaluation.trajectories),
        examples=shown,
        main_method=main_method,
    )


def accuracy_table(
    evaluation: Evaluation, title: str, *, main_method: str = "dreamprm", note: str = ""
) -> AccuracyTable:
    """All benchmarks, their average, and the main method's paired differences to the others."""
    others = [m for m in evaluation.values if m != main_method]
    has_main = main_method in evaluation.values
    return AccuracyTable(
        title=title,
        accuracy=evaluation.accuracy,
        average=evaluation.average,
        differences={m: evaluation.difference(main_method, m) for m in others if has_main},
        note=note,
    )


def fates(evaluation: Evaluation) -> dict[str, Fate]:
    """Of every method that chooses: right, wrong with a right one at hand, or nothing to find."""
    ceiling = np.concatenate([v[0] for v in evaluation.values["any_right"].values()])
    by_method = {}
    for method, by_benchmark in evaluation.values.items():
        if method != "any_right":
            right = np.concatenate([v[0] for v in by_benchmark.values()])  # (questions,)
            expected = round(float(right.sum()))  # ties between right and wrong count in part
            beyond_reach = int((ceiling == 0).sum())
            missed = len(right) - expected - beyond_reach
            by_method[method] = Fate(expected, missed, beyond_reach)
    return by_method


def calibrations(
    evaluation: Evaluation, trajectories: Sequence[Trajectory]
) -> dict[str, Calibration]:
    """Of every scored method: sigmoid of the aggregated score against the outcome."""
    outcomes = {(t.question_id, t.sample_index): float(bool(t.outcome)) for t in trajectories}
    found = {}
    for method, scores in evaluation.aggregated.items():
        p = np.exp(log_sigmoid(np.array(list(scores.values()))))  # (candidates,)
        targets = [outcomes[at] for at in scores]
        found[method] = calibration(p.tolist(), targets, [question for question, _ in scores])
    return found


def step_calibrations(
    scores: Mapping[str, Sequence[StepScores]], trajectories: Sequence[Trajectory]
) -> dict[str, Calibration]:
    """Of every scored method: each step's score against its Monte Carlo label.

    Empty where no step is labelled.
    """
    labels = {
        (t.question_id, t.sample_index): t.labels for t in trajectories if t.labels is not None
    }
    found = {}
    for method, rows in scores.items():
        steps = [
            (row.question_id, z, label.value)
            for row in rows
            for z, label in zip(
                row.logits, labels.get((row.question_id, row.sample_index), ()), strict=False
            )
            if label is not None
        ]
        if steps:
            questions, logits, targets = zip(*steps, strict=True)
            p = np.exp(log_sigmoid(np.array(logits)))  # (labelled steps,)
            found[method] = calibration(p.tolist(), targets, questions)
    return found


def examples(
    evaluation: Evaluation,
    questions: Sequence[Question],
    trajectories: Sequence[Trajectory],
    scores: Sequence[StepScores],
    *,
    main_method: str = "dreamprm",
    rival: str = "prm_uniform",
    limit: int = 24,
    bad_image: BadRow = refuse,
) -> tuple[Example, ...]:
    """Up to `limit` questions: the main method and its rival disagreeing both ways, and the rest.

    Each of the three kinds gets a third, so that neither successes nor failures crowd out the
    other. How frequent a kind is cannot be read from this selection; the tables tell.

    Args:
        evaluation: of these questions, trajectories and scores; its first n candidates are shown.
        scores: step logits of the main method.
        bad_image: see `data.check_images`; questions that it leaves out are not shown.
    """
    if main_method not in evaluation.aggregated:
        raise DataError(f"report: method '{main_method}' has no scores to show examples of")
    candidates = group_candidates(questions, trajectories)
    logits = {(s.question_id, s.sample_index): s.logits for s in scores}
    by_id = {question.id: question for question in questions}

    kinds: dict[str, list[str]] = {"won": [], "lost": [], "same": []}
    for benchmark, ids in evaluation.question_ids.items():
        main = evaluation.values[main_method][benchmark][0]  # (questions,)
        other = evaluation.values.get(rival, {}).get(benchmark, main[None])[0]
        for question_id, a, b in zip(ids, main, other, strict=True):
            kinds["won" if a > b else "lost" if a < b else "same"].append(question_id)
    share = max(1, limit // len(kinds))
    picked = [q for ids in kinds.values() for q in evenly(ids, share)]
    left = [q for ids in kinds.values() for q in ids if q not in set(picked)]
    picked = (picked + evenly(left, limit - len(picked)))[:limit]

    return tuple(
        _example(evaluation, q, candidates[q.id][: evaluation.n], logits, main_method)
        for q in check_images([by_id[name] for name in picked], None, bad_image)
    )


def evenly(ids: Sequence[str], count: int) -> list[str]:
    """At most `count` of them, evenly spaced: the list runs through one benchmark after another."""
    count = max(0, min(count, len(ids)))
    return [ids[i * len(ids) // count] for i in range(count)]


def _example(
    evaluation: Evaluation,
    question: Question,
    candidates: Sequence[Trajectory],
    logits: dict[tuple[str, int], tuple[float, ...]],
    main_method: str,
) -> Example:
    shown = []
    for c in candidates:
        at = (c.question_id, c.sample_index)
        step_logits = np.asarray(logits[at], dtype=np.float64)
        shown.append(
            ExampleCandidate(
                steps=c.steps,
                step_scores=tuple(np.exp(log_sigmoid(step_logits)).tolist()),
                score=evaluation.aggregated[main_method][at],
                answer=c.answer,
                outcome=bool(c.outcome),
                sample_index=c.sample_index,
                chosen_by=tuple(
                    method
                    for method, choice in evaluation.chosen.items()
                    if choice.get(question.id) == c.sample_index
                ),
            )
        )
    return example_of(question, shown)


def example_of(question: Question, candidates: Sequence[ExampleCandidate]) -> Example:
    """A question with its images as the page shows it."""
    return Example(
        question=question.text,
        options=question.options,
        answer=question.answer,
        images=tuple(_picture(image) for image in question.images),
        benchmark=question.domain,
        candidates=tuple(candidates),
    )


def _picture(reference: Reference) -> bytes:
    """An image as a PNG file, at most `LARGEST_IMAGE` pixels a side."""
    image = load_image(reference)
    image.thumbnail((LARGEST_IMAGE, LARGEST_IMAGE))  # never enlarges
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _headline(evaluation: Evaluation, main: str) -> str:
    average = evaluation.average
    best, sample = average[main], average["first_sample"]
    where = (
        f"{len(evaluation.question_ids)} benchmarks"
        if len(evaluation.question_ids) > 1
        else (f"{best.n} questions")
    )
    return (
        f"{METHOD_LABELS.get(main, main)}: {best.mean:.1%} right on {where}, choosing among "
        f"{evaluation.n}; one sample is right in {sample.mean:.1%}."
    )


def training_history(
    folder: Path,
) -> tuple[tuple[Domain, ...], tuple[tuple[int, dict[str, float], dict[str, Range]], ...]]:
    """Final weights and their history from the output of a training run."""
    weights = read_domain_weights(folder / "weights.json")
    history: list[tuple[int, dict[str, float], dict[str, Range]]] = []
    path = folder / "history.jsonl"
    for number, row in each_row(path) if path.is_file() else ():
        with in_row(path, number):
            window = Window.parse(row)
            history.append((window.step, window.weights, window.intervals or {}))
    domains = [Domain(name, "", "", None, w.weight, w.interval) for name, w in weights.items()]
    return tuple(domains), tuple(history)


def meta_facts(folder: Path | None) -> dict[str, str]:
    """How well a training run came to rank its meta set, before -> after, where it is noted."""
    if folder is None or not (path := folder / FILE).is_file():
        return {}
    ranking = read_ranking(path)
    facts = {name: f"{before} → {after}" for name, before, after in ranking.rows()}
    return {"meta set, before → after training": ranking.sizes()} | facts
