"""The table of `experiments.rl` says what its runs say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.rl import table, to_markdown, to_svg


def run(right: float, score: float) -> dict[str, object]:
    rows = {"right": [right, right], "score": [score, score]}
    history = [{"score": score, "correct": right, "steps": 3}] * 20
    return {"seconds": 1.0, "steps": 20, "history": history, "after": {"a": rows, "b": rows}}


def test_the_table_shows_gain_and_gap_of_each_reward(tmp_path: Path) -> None:
    for seed in (1, 2):
        before = run(0.5, 0.4)["after"]
        (tmp_path / f"before-dreamprm-{seed}.json").write_text(json.dumps(before))
        for arm, right, score in (("outcome", 0.75, 0.5), ("prm", 0.25, 0.9)):
            (tmp_path / f"{arm}-{seed}.json").write_text(json.dumps(run(right, score)))
    result = table(dict.fromkeys((1, 2), tmp_path), tmp_path)
    assert list(result["arms"]) == ["outcome", "prm"]  # the others have not run
    fooled = result["arms"]["prm"]
    assert fooled["gain"]["mean"] == pytest.approx(-0.25)
    assert fooled["minus_outcome"]["mean"] == pytest.approx(-0.5)
    assert fooled["curves"]["score"] == pytest.approx([0.9] * 20)
    [line] = [line for line in to_markdown(result).splitlines() if line.startswith("| prm | 50.0")]
    assert "| 40.0 | 90.0 |" in line
    assert to_svg(result).count("<polyline") == 4
