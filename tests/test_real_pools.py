"""Published best-of-32 accuracies of StrictPRMBench, from its files by `dreamprm evaluate`."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from dreamprm.cli import main
from dreamprm.data import write_questions, write_scores, write_trajectories
from dreamprm.evaluation.results import read_result
from dreamprm.search.aggregation import step_scores
from dreamprm.search.choosing import choose_stored, most_voted, score_of
from experiments.real_pools import OFFICIAL, SCORED, Pool, read_pool, vote_of


@pytest.fixture(scope="module", params=SCORED)
def pool(request: pytest.FixtureRequest, real_data: Path) -> Pool:
    return read_pool(real_data / "pools", request.param)


@pytest.fixture(scope="module")
def published(pool: Pool, real_data: Path) -> dict[tuple[str, str], float]:
    """(reward model, method) -> accuracy."""
    benchmark = pool.questions[0].domain
    with (real_data / "pools" / "published.csv").open() as file:
        return {
            (row["prm"], row["method"]): float(row["pass_at_1"])
            for row in csv.DictReader(file)
            if row["benchmark"] == benchmark and row["prm"] in pool.scores
        }


def test_best_of_32_is_the_published_one_where_the_first_wins_a_tie(
    pool: Pool, published: dict[tuple[str, str], float], tmp_path: Path
) -> None:
    q, t, out = (tmp_path / name for name in ("q.jsonl", "t.jsonl", "r.json"))
    write_questions(q, pool.questions)
    write_trajectories(t, pool.candidates)
    words = ["--questions", f"[{q}]", "--trajectories", f"[{t}]", "--n", "32", "--curve", "[1]"]
    for model, scores in pool.scores.items():
        write_scores(tmp_path / f"{model}.jsonl", scores)
        for method in ("product", "gm", "official"):
            rule = {"gm": "geometric_mean", "official": OFFICIAL[model]}.get(method, method)
            words += [f"--scores.{model}/{method}", str(tmp_path / f"{model}.jsonl")]
            words += [f"--aggregations.{model}/{method}", rule]
    assert main(["evaluate", *words, "--output", str(out)]) == 0

    result = read_result(out)
    right = {(c.question_id, c.sample_index): bool(c.outcome) for c in pool.candidates}
    differ = {}
    for (model, method), accuracy in published.items():
        if method in ("product", "gm", "official"):
            rows = result.questions[f"{model}/{method}"]
            firsts = [right[row.question_id, row.sample_index or 0] for row in rows]
            assert sum(firsts) / len(firsts) == pytest.approx(accuracy)
            ours = result.metrics[f"{model}/{method}"]["average"].value
            if ours != pytest.approx(accuracy):
                ties = result.ties[f"{model}/{method}"]
                assert ties.worst <= accuracy <= ties.best
                differ[f"{model}/{method}"] = (round(100 * ours, 1), ties.mixed)
    # Of ties between right and wrong ones we take the expectation: (accuracy, how many of these).
    expected = {
        "gsm8k": {
            **{f"qwen_prm/{method}": (89.6, 3) for method in ("product", "gm", "official")},
            "math_shepherd/official": (84.9, 3),
        },
        "math500": {f"qwen_prm/{method}": (74.5, 1) for method in ("product", "official")},
    }
    benchmark = pool.questions[0].domain
    assert differ == expected[benchmark]
    mean = result.details["curve"]["first_sample"]["1"]["mean"]  # type: ignore[index, call-overload]
    ceiling = result.metrics["any_right"]["average"].value
    counts = (round(16_000 * mean), round(500 * ceiling))  # type: ignore[operator, arg-type]
    assert counts == {"gsm8k": (13_471, 481), "math500": (10_472, 425)}[benchmark]


def test_votes_of_32_are_the_published_ones(
    pool: Pool, published: dict[tuple[str, str], float]
) -> None:
    for model, scores in pool.scores.items():
        options = {"method": "weighted_vote", "aggregation": "geometric_mean"}
        choices = choose_stored(pool.questions, pool.candidates, scores, **options)
        weighted = sum(bool(c.outcome) for c in choices) / len(choices)
        assert weighted == pytest.approx(published[model, "cluster_sum_gm"])

        scored = {(s.question_id, s.sample_index): s for s in scores}
        right = 0
        for i in range(0, len(pool.candidates), 32):
            group = pool.candidates[i : i + 32]
            logits = [score_of(t, scored, "geometric_mean") for t in group]
            leading = {t.answer for t in most_voted(group)}  # the published tie falls to the weight
            votes = [
                w * (t.answer in leading) for t, w in zip(group, step_scores(logits), strict=True)
            ]
            right += bool(most_voted(group, votes)[0].outcome)
        assert right / len(choices) == pytest.approx(published[model, "cluster_majority_vote"])


def test_answers_that_the_files_hold_for_one_number_vote_together() -> None:
    given = ("18", "18.00", r"\text{18}", "$18$", r"\frac{36}{2}", "36 / 2", "x = 18")
    assert {vote_of(answer) for answer in given} == {"18"}
    assert [vote_of(answer) for answer in ("1,800", r"\pi", "-3.5")] == ["1800", r"\pi", "-3.5"]
