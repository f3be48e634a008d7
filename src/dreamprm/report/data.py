"""What a report shows. Plain data, so that any run (demo, training, scoring) can fill it.

Everything except `title` may be missing: a plain score report has no domains, a training run no
examples. Texts are shown as they are; escaping is the renderer's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dreamprm.evaluation.calibration import Calibration
from dreamprm.evaluation.statistics import Difference, Estimate
from dreamprm.evaluation.summary import Domain

METHOD_LABELS = {
    "first_sample": "One sample",
    "self_consistency": "Self-consistency",
    "orm": "Outcome reward model",
    "prm_uniform": "PRM, uniform weights",
    "prm_oracle": "PRM, oracle weights",
    "dreamprm": "DreamPRM",
    "any_right": "Any right (ceiling)",
}
"""Names for readers; a method that is not listed is shown under its own name."""


@dataclass(frozen=True)
class AccuracyTable:
    """One table: rows are methods, columns benchmarks and their average.

    Attributes:
        accuracy: benchmark -> method -> estimate.
        average: method -> mean over benchmarks.
        differences: method -> main method minus this one, averaged over benchmarks.
        row_name: what the rows are; the best of a column is marked among methods only.
    """

    title: str
    accuracy: Mapping[str, Mapping[str, Estimate]]
    average: Mapping[str, Estimate] = field(default_factory=dict)
    differences: Mapping[str, Difference] = field(default_factory=dict)
    note: str = ""
    row_name: str = "Method"


@dataclass(frozen=True)
class Fate:
    """What became of the questions under one method; the three are all of them.

    Attributes:
        right: a right candidate was chosen.
        missed: a wrong one was chosen though a right one was there.
        hopeless: no candidate was right.
    """

    right: int
    missed: int
    hopeless: int


@dataclass(frozen=True)
class ExampleCandidate:
    """One candidate with the scores it got.

    Attributes:
        step_scores: (steps,) each in (0, 1), of the report's main method.
        score: aggregated score, higher is better; None where runs are compared by their answers.
        chosen_by: methods that chose this candidate.
    """

    steps: tuple[str, ...]
    step_scores: tuple[float, ...]
    score: float | None
    answer: str | None
    outcome: bool
    sample_index: int = 0
    chosen_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Example:
    """One question with its candidates.

    Attributes:
        images: encoded image files (PNG, JPEG, GIF or WebP).
    """

    question: str
    answer: str
    candidates: tuple[ExampleCandidate, ...]
    options: tuple[str, ...] = ()
    images: tuple[bytes, ...] = ()
    benchmark: str = ""


@dataclass(frozen=True)
class ReportData:
    """Everything on the page.

    Attributes:
        headline: the result in one sentence.
        notice: what a reader must know before believing a number (the model is a toy).
        facts: few and short: version, seed, wall time, when.
        settings: the rest of what is needed to run it again.
        tables: for example one for the default policy, one for a stronger one.
        domains: with their final weights.
        history: (training step, {domain: weight}) in order of time.
        scaling: method -> N -> estimate.
        token_curves: method -> tokens that a question may cost -> estimate.
        fates: method -> what became of the questions.
        calibration: method -> its aggregated scores against outcomes.
        step_calibration: method -> its step scores against Monte Carlo labels.
        runs: facts of each run that is compared: name -> {fact: value}.
        main_method: the method the report is about; the filters of the examples compare with it.
        reference_methods: never marked as best (they use what no real run has).
    """

    title: str
    headline: str = ""
    notice: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    tables: tuple[AccuracyTable, ...] = ()
    domains: tuple[Domain, ...] = ()
    history: tuple[tuple[int, Mapping[str, float]], ...] = ()
    scaling: Mapping[str, Mapping[int, Estimate]] = field(default_factory=dict)
    token_curves: Mapping[str, Mapping[int, Estimate]] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()
    fates: Mapping[str, Fate] = field(default_factory=dict)
    calibration: Mapping[str, Calibration] = field(default_factory=dict)
    step_calibration: Mapping[str, Calibration] = field(default_factory=dict)
    runs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    main_method: str = "dreamprm"
    reference_methods: frozenset[str] = frozenset({"prm_oracle", "any_right"})
    method_labels: Mapping[str, str] = field(default_factory=lambda: METHOD_LABELS)
