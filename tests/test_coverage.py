"""The simulation behind docs/results/coverage.md, small."""

from __future__ import annotations

import pytest

from experiments.coverage import Setting, coverage


@pytest.mark.parametrize(
    "setting",
    [Setting(100, 0.5, 0.5), Setting(100, 0.5, 0.5, samples=8), Setting(60, 0.6, benchmarks=5)],
)
def test_intervals_cover_questions_of_unequal_difficulty(setting: Setting) -> None:
    found = coverage(setting, repeats=400)
    assert 0.92 <= found["accuracy"] <= 0.98
    assert 0.92 <= found["difference"] <= 0.98


def test_the_simulation_sees_intervals_that_are_too_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreamprm.evaluation.statistics._quantile", lambda df: 1.0)
    assert coverage(Setting(100, 0.5, 0.5), repeats=400)["accuracy"] < 0.8
