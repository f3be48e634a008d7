"""Report data for the tests: a full page, a bare one, and one whose every text is an attack."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from dreamprm.evaluation.calibration import calibration
from dreamprm.evaluation.statistics import Difference, Estimate
from dreamprm.report.page import AccuracyTable, Domain, Example, ExampleCandidate, Fate, ReportData
from dreamprm.tiny.demo_report import SUMMARY_METHODS

ATTACK = "</script><script>window.attacked=1;alert(1)</script><img src=x onerror='attacked=1'>"

DOMAINS = [
    ("dial-reading", "science", "clean", 1.0, 1.62),
    ("grid-logic", "geometry", "clean", 1.0, 1.48),
    ("bar-totals", "chart", "clean", 1.0, 1.41),
    ("shape-counts", "commonsense", "few rollouts", 0.7, 1.12),
    ("bar-order", "chart", "trivial", 0.3, 0.88),
    ("dial-sums", "science", "image not needed", 0.3, 0.81),
    ("far-shapes", "commonsense", "off-distribution", 0.4, 0.92),
    ("grid-rows", "geometry", "image missing", 0.1, 0.47),
    ("bar-gaps", "chart", "wrong answers", 0.0, 0.29),
]


def _estimate(mean: float, half: float = 0.05, n: int = 160) -> Estimate:
    mean = min(1.0, mean)
    return Estimate(n, mean, max(0.0, mean - half), min(1.0, mean + half))


def png(seed: int = 0, size: int = 56) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (200, 60 * seed, 40)).save(buffer, "PNG")
    return buffer.getvalue()


def example(i: int, *, main_right: bool, uniform_right: bool) -> Example:
    """Candidates 0 (right) and 1..3 (wrong); DreamPRM and uniform choose as told."""
    candidates = []
    for k in range(4):
        chosen = ["first_sample"] if k == 3 else []
        if k == (0 if main_right else 1):
            chosen.append("dreamprm")
        if k == (0 if uniform_right else 1):
            chosen += ["prm_uniform", "self_consistency"]
        base = 0.9 - 0.25 * k if main_right else 0.3 + 0.15 * k
        candidates.append(
            ExampleCandidate(
                steps=tuple(f"Step {i}: {7 - k} - 3 = {4 - k}." for i in range(1, 6)),
                step_scores=tuple(
                    min(0.99, max(0.01, base + d)) for d in (0.08, -0.1, 0.05, -0.05, 0.0)
                ),
                score=2.0 * base - 0.7,
                answer="ABCD"[k],
                outcome=k == 0,
                sample_index=k,
                chosen_by=tuple(chosen),
            )
        )
    return Example(
        question=f"Example {i}. By how much is the red bar taller than the blue bar?",
        options=("4", "3", "2", "1"),
        answer="A",
        images=(png(i),),
        benchmark="bars-unseen",
        candidates=tuple(candidates),
    )


def full_report() -> ReportData:
    rng = np.random.default_rng(0)
    base = dict(zip(SUMMARY_METHODS, (0.55, 0.62, 0.6, 0.66, 0.75, 0.72, 0.93), strict=True))
    benchmarks = ["bars-unseen", "dials-unseen", "grids-large", "shapes-mixed", "science-mixed"]

    def table(title: str, gain: float) -> AccuracyTable:
        return AccuracyTable(
            title=title,
            accuracy={
                b: {m: _estimate(x + gain + rng.normal(0, 0.03), 0.06) for m, x in base.items()}
                for b in benchmarks
            },
            average={m: _estimate(x + gain, 0.03, 800) for m, x in base.items()},
            differences={
                m: Difference(800, 0.72 - x, 0.72 - x - 0.025, 0.72 - x + 0.025, abs(x - 0.65) / 9)
                for m, x in base.items()
                if m != "dreamprm"
            },
        )

    def weights(step: int) -> dict[str, float]:
        return {d[0]: 1 + (d[4] - 1) * min(1.0, step / 20) for d in DOMAINS}

    def intervals(step: int) -> dict[str, tuple[float, float]]:
        half = 2 / (2 + step)
        return {name: (max(0.0, w - half), w + half) for name, w in weights(step).items()}

    history = tuple((10 * step, weights(step), intervals(step)) for step in range(31))
    return ReportData(
        title="DreamPRM: what the small visual world teaches",
        headline="DreamPRM chooses right in 72.0% of questions, 6.0 points above uniform weights "
        "(95% interval 3.5 to 8.5).",
        notice="The embedded model is a toy: these numbers show that the method works, not how "
        "good it is on real benchmarks.",
        facts={"dreamprm": "0.1.0", "Seed": "0", "Wall time": "4 min 12 s", "Machine": "2 cores"},
        settings={"lower_lr": "2e-4", "upper_lr": "0.1", "window": "5", "torch": "2.13.0+cpu"},
        tables=(table("Best of 8", 0.0), table("Best of 8, stronger policy", 0.05)),
        domains=tuple(Domain(*d, intervals(30)[d[0]]) for d in DOMAINS),
        history=history,
        scaling={
            m: {n: _estimate(x - 0.1 / n, 0.03, 800) for n in (1, 2, 4, 8, 16)}
            for m, x in base.items()
        },
        token_curves={
            m: {n: _estimate(base[m] * n / 300, 0.03, 800) for n in (31, 80, 250)}
            for m in ("prm_uniform", "dreamprm")
        },
        fates={m: Fate(round(100 * x), round(93 - 100 * x), 7) for m, x in list(base.items())[:-1]},
        calibration={
            m: calibration(
                np.linspace(0.05, 0.95, 40), np.arange(40) > 39 * (1 - base[m]), ["q"] * 40
            )
            for m in ("prm_uniform", "dreamprm")
        },
        step_calibration={
            "dreamprm": calibration(np.linspace(0, 1, 30), np.linspace(0.1, 0.9, 30), ["q"] * 30)
        },
        examples=tuple(
            example(i, main_right=i != 3, uniform_right=i in (1, 3)) for i in range(1, 5)
        ),
    )


def bare_report() -> ReportData:
    """A plain score report: one table, nothing else."""
    return ReportData(
        title="Scores",
        tables=(AccuracyTable("Best of 4", {"b": {"mine": _estimate(0.5)}}),),
        main_method="mine",
    )


def hostile_report() -> ReportData:
    candidate = ExampleCandidate(
        steps=(ATTACK,),
        step_scores=(0.5,),
        score=0.0,
        answer=ATTACK,
        outcome=True,
        chosen_by=(ATTACK, "constructor", "dreamprm"),
    )
    estimate = _estimate(0.5)
    return ReportData(
        title=ATTACK,
        headline=ATTACK,
        notice=ATTACK,
        facts={ATTACK: ATTACK},
        fates={ATTACK: Fate(1, 1, 1)},
        calibration={ATTACK: calibration([0.5, 0.7], [1.0, 0.0], ["q", "q"])},
        runs={ATTACK: {ATTACK: ATTACK}},
        settings={ATTACK: ATTACK},
        tables=(AccuracyTable(ATTACK, {ATTACK: {ATTACK: estimate}}, note=ATTACK),),
        domains=(
            Domain(ATTACK, ATTACK, ATTACK, 1.0, 1.5),
            Domain("__proto__", "", "", None, 0.5),
            Domain("constructor", "", "", None, 1.0),
            Domain("<b>bold</b> &amp;", "", "", None, 1.0),
        ),
        history=(
            (0, {ATTACK: 1.0}, {}),
            (1, {ATTACK: 1.5, "__proto__": 0.5}, {ATTACK: (1.1, 1.9)}),
        ),
        scaling={ATTACK: {1: estimate, 2: estimate}, "constructor": {1: estimate}},
        token_curves={ATTACK: {10: estimate, 20: estimate}},
        examples=(Example(ATTACK, ATTACK, (candidate,), options=(ATTACK,), benchmark=ATTACK),),
    )
