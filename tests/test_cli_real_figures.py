"""Published figures on real candidates, from the command line alone."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from dreamprm.cli import main
from dreamprm.data import (
    read_trajectories,
    write_questions,
    write_scores,
    write_trajectories,
)
from dreamprm.evaluation.results import read_result
from dreamprm.records import Question, StepScores, Trajectory


def run(*words: object) -> None:
    assert main([*map(str, words)]) == 0


def test_convert_and_evaluate_give_the_best_of_n_figures_of_dreamprm_1_5(
    real_data: Path, tmp_path: Path
) -> None:
    """Four answers of GPT-5-mini to 414 questions, in file order."""
    q, t = tmp_path / "q.jsonl", tmp_path / "t.jsonl"
    path = real_data / "dreamprm_1_5" / "meta_MMMU_Pro.json"
    outputs = ("--output_questions", q, "--output_trajectories", t)
    run("convert", "--input", path, "--image_root", tmp_path, *outputs)
    found = []
    rows = read_trajectories(t)
    for n in (1, 2, 3, 4):
        some = tmp_path / f"first_{n}.jsonl"
        write_trajectories(some, [row for row in rows if row.sample_index < n])
        run(
            *("evaluate", "--questions", f"[{q}]", "--trajectories", f"[{some}]"),
            *("--n", n, "--curve", "[1]", "--output", tmp_path / "r.json"),
        )
        result = read_result(tmp_path / "r.json")
        mean = result.details["curve"]["first_sample"]["1"]["mean"]  # type: ignore[index, call-overload]
        ceiling = result.metrics["any_right"]["average"]
        assert ceiling.n == 414
        found.append((round(100 * mean, 2), round(100 * ceiling.value, 2)))  # type: ignore[operator, arg-type]
    assert found == [(52.17, 52.17), (50.97, 60.87), (50.64, 65.22), (50.36, 67.87)]


@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_select_gives_the_figures_of_the_qwen_math_samples(
    real_data: Path, tmp_path: Path, n: int
) -> None:
    """100 problems, 8 samples each, with the verdicts and reward-model scores of their file."""
    expected = {
        "self_consistency": {1: 90, 2: 90, 4: 93, 8: 93},
        "best_of_n": {1: 90, 2: 93, 4: 93, 8: 94},
    }
    path = real_data / "math_rm_maj" / "math_cot_100.jsonl"
    questions, trajectories, scores = [], [], []
    for line in path.read_text().splitlines():
        row = json.loads(line)
        name = str(row["idx"])
        questions.append(Question(id=name, domain="math", text=f"{name}?", answer=row["answer"]))
        for i, (answer, right, given) in enumerate(
            zip(row["pred"], row["score"], row["pred_score"], strict=True)
        ):
            trajectories.append(
                Trajectory(
                    question_id=name,
                    steps=("s",),
                    answer=answer or None,
                    outcome=right,
                    sample_index=i,
                )
            )
            scores.append(StepScores(question_id=name, sample_index=i, logits=(given[-1],)))
            assert math.isfinite(given[-1])
    q, t, s = (tmp_path / name for name in ("q.jsonl", "t.jsonl", "s.jsonl"))
    write_questions(q, questions)
    write_trajectories(t, trajectories)
    write_scores(s, scores)
    for method, right in expected.items():
        run(
            *("select", "--questions", q, "--trajectories", t, "--scores", s, "--n", n),
            *("--method", method, "--output", tmp_path / "c.jsonl"),
            *("--result", tmp_path / "r.json"),
        )
        metrics = read_result(tmp_path / "r.json").metrics[method]
        assert (metrics["average"].n, round(100 * metrics["average"].value)) == (100, right[n])
