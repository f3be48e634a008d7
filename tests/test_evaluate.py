"""From candidates and scores to the accuracy table, the curve over N and summary.json."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from dreamprm import __version__
from dreamprm.errors import DataError, DreamPRMError
from dreamprm.evaluation.evaluate import Evaluation, combine_seeds
from dreamprm.evaluation.evaluate import evaluate as evaluate_all
from dreamprm.evaluation.results import read_result
from dreamprm.records import Question, StepScores, Trajectory
from dreamprm.report.page import Domain
from dreamprm.tiny.demo_report import SUMMARY_METHODS, summary_json

# Right answer is always A. Per question: the candidates' answers and a good scorer's logits.
WORLD = {
    "dials": {"d1": ("BAAB", [0, 3, 1, 1]), "d2": ("ABBB", [2, 0, 0, 0])},
    "grids": {"g1": ("BBBB", [0, 1, 2, 3]), "g2": ("AABC", [1, 1, 0, 5])},
}


def questions() -> list[Question]:
    return [
        Question(id=q, domain=domain, text="How many?", answer="A")
        for domain, group in WORLD.items()
        for q in group
    ]


def trajectories() -> list[Trajectory]:
    return [
        Trajectory(question_id=q, steps=("one", "two"), answer=a, outcome=a == "A", sample_index=i)
        for group in WORLD.values()
        for q, (answers, _) in group.items()
        for i, a in enumerate(answers)
    ]


def scores(sign: float = 1.0) -> list[StepScores]:
    return [
        StepScores(question_id=q, sample_index=i, logits=(sign * z - 1.0, sign * z + 1.0))
        for group in WORLD.values()
        for q, (_, logits) in group.items()
        for i, z in enumerate(logits)
    ]


def evaluate(**options: Any) -> Evaluation:
    given: dict[str, Any] = {
        "questions": questions(),
        "trajectories": trajectories(),
        "scores": {"dreamprm": scores()},
        "n": 4,
        "ns": (1, 2, 4, 8),
    }
    return evaluate_all(**(given | options))


def means(evaluation: Evaluation, method: str) -> list[float]:
    return [by_method[method].mean for by_method in evaluation.accuracy.values()]


def test_every_method_is_right_where_it_should_be() -> None:
    result = evaluate(scores={"dreamprm": scores(), "inverted": scores(-1.0)})
    assert list(result.accuracy) == ["dials", "grids"]
    assert means(result, "first_sample") == [0.5, 0.5]  # d2; g2
    assert means(result, "self_consistency") == [0.25, 0.5]  # B and A tie in d1; g2
    assert means(result, "any_right") == [1.0, 0.5]
    assert means(result, "dreamprm") == [1.0, 0.0]
    assert means(result, "inverted") == [0.0, 0.0]
    assert result.average["dreamprm"].mean == 0.5
    assert result.average["dreamprm"].n == 4
    assert result.chosen["dreamprm"] == {"d1": 1, "d2": 0, "g1": 3, "g2": 3}
    assert result.aggregated["dreamprm"]["d1", 1] == 3.0


def test_the_table_uses_the_first_n_by_sample_index_whatever_the_order_of_the_file() -> None:
    result = evaluate(n=2, trajectories=trajectories()[::-1])
    assert means(result, "any_right") == [1.0, 0.5]
    assert means(result, "dreamprm") == [1.0, 0.5]  # g2: the wrong 5 is candidate 3
    assert means(evaluate(n=1), "any_right") == [0.5, 0.5]


def test_each_method_has_its_own_aggregation() -> None:
    rows = [s.model_copy(update={"logits": (-s.logits[0], s.logits[0])}) for s in scores()]
    result = evaluate(scores={"orm": rows, "flat": rows}, aggregations={"orm": "last"})
    assert means(result, "orm") == [1.0, 0.0]
    assert means(result, "flat") == [0.375, 0.25]  # means of (-z, z): all four tie at 0
    with pytest.raises(DreamPRMError, match="mean_logit"):
        evaluate(aggregations={"dreamprm": "mean_logits"})


def test_the_curve_is_exact_at_its_ends_and_leaves_out_n_without_candidates() -> None:
    result = evaluate()
    assert list(result.scaling["dreamprm"]) == [1, 2, 4]
    one_sample = (2 / 4 + 1 / 4 + 0 + 2 / 4) / 4
    for method in ("first_sample", "self_consistency", "dreamprm", "any_right"):
        assert result.scaling[method][1].mean == pytest.approx(one_sample)
        if method != "first_sample":
            assert result.scaling[method][4].mean == result.average[method].mean
    assert result.scaling["first_sample"][4].mean == pytest.approx(one_sample)


def test_a_tie_counts_as_the_share_of_right_ones_and_its_range_is_told(tmp_path: Path) -> None:
    flat = [s.model_copy(update={"logits": (0.0, 0.0)}) for s in scores()]
    evaluation = evaluate(scores={"dreamprm": scores(), "flat": flat})
    assert evaluation.values["flat"]["dials"].tolist() == [[0.5, 0.25]]
    told = evaluation.ties["flat"]
    assert (told.choices, told.mixed, told.worst, told.best) == (4, 3, 0.0, 0.75)  # all of g1 wrong
    assert "4 choices, 3 between right and wrong: accuracy 0.0% to 75.0%" in str(told)
    assert list(evaluation.ties) == ["self_consistency", "flat"]
    evaluation.save(tmp_path / "r.json")
    result = read_result(tmp_path / "r.json")
    assert result.ties == evaluation.ties
    [row] = [row for row in result.questions["flat"] if row.question_id == "d2"]
    assert (row.value, row.tied, row.sample_index, row.answer) == (0.25, 4, 0, "A")
    assert {row.tied for row in result.questions["dreamprm"]} == {1}
    twice = combine_seeds([evaluation, evaluate(scores={"dreamprm": scores(), "flat": scores()})])
    assert (twice.ties["flat"].choices, twice.ties["flat"].best) == (4, (0.75 + 0.5) / 2)


def test_paired_differences_are_on_the_same_questions() -> None:
    got = evaluate().difference("dreamprm", "first_sample")
    assert got.mean == 0.0  # d1 won, g2 lost
    assert got.n == 4
    assert got.p == 1.0


def test_seeds_are_stacked_and_averaged() -> None:
    good, bad = evaluate(), evaluate(scores={"dreamprm": scores(-1.0)})
    both = combine_seeds([good, bad])
    assert both.values["dreamprm"]["dials"].shape == (2, 2)
    assert both.average["dreamprm"].mean == 0.25
    assert both.scaling["dreamprm"][4].mean == 0.25
    with pytest.raises(DataError, match="differ"):
        combine_seeds([good, evaluate(questions=questions()[:3], trajectories=trajectories()[:12])])


def changed(rows: list[Any], place: int, **update: Any) -> list[Any]:
    return [*rows[:place], rows[place].model_copy(update=update), *rows[place + 1 :]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trajectories": trajectories()[:-4]}, "question g2 has 0 candidates, fewer than n = 4"),
        ({"trajectories": trajectories()[:-1]}, "g2 has 3 candidates, fewer than n = 4"),
        ({"scores": {"dreamprm": scores()[:-1]}}, "dreamprm: question 'g2', candidate 3 has no"),
        ({"scores": {"dreamprm": scores() * 2}}, "scored twice"),
        ({"scores": {"any_right": scores()}}, "takes no scores"),
        ({"trajectories": trajectories() * 2}, "candidate 0 is given twice"),
        ({"questions": questions() * 2}, "question d1 is given twice"),
        ({"questions": questions()[1:]}, "question d1, candidate 0: no such question"),
        ({"questions": []}, "no questions"),
        ({"trajectories": changed(trajectories(), 5, outcome=None)}, "d2, candidate 1 has no outc"),
        ({"scores": {"m": changed(scores(), 0, logits=(0.0,))}}, "has 1 scores for 2 steps"),
        ({"scores": {"m": changed(scores(), 0, logits=(0.0, math.nan))}}, "0: logit of step 2"),
    ],
)
def test_incomplete_input_is_named_by_its_candidate(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate(**options)


# ---- summary.json

DOMAINS = [
    Domain("dials-a", "science", "clean", 1.0, 1.4),
    Domain("dials-b", "chart", "wrong answers", 0.0, 0.6),
]


def test_the_summary_has_exactly_the_promised_form() -> None:
    scored = [m for m in SUMMARY_METHODS if m in ("orm", "prm_uniform", "prm_oracle", "dreamprm")]
    evaluation = evaluate(scores={m: scores() for m in scored}, aggregations={"orm": "last"})
    summary = json.loads(json.dumps(summary_json(evaluation, DOMAINS, seed=7, wall_s=12.5)))
    assert (summary["version"], summary["seed"], summary["wall_s"]) == (__version__, 7, 12.5)
    assert summary["report"] == "report.html"
    assert list(summary["accuracy"]) == ["dials", "grids"]
    for by_method in summary["accuracy"].values():
        assert tuple(by_method) == SUMMARY_METHODS
        for cell in by_method.values():
            assert set(cell) == {"n", "mean", "ci95"}
            assert cell["ci95"][0] <= cell["mean"] <= cell["ci95"][1]
    assert summary["domains"][0] == asdict(DOMAINS[0])
    assert tuple(summary["scaling"]) == SUMMARY_METHODS
    assert set(summary["scaling"]["dreamprm"]) == {"1", "2", "4"}
    assert all(isinstance(x, float) for x in summary["scaling"]["dreamprm"].values())
    assert summary["differences"]["dreamprm - prm_uniform"]["p"] == 1.0


def test_a_summary_without_one_of_its_methods_is_refused() -> None:
    with pytest.raises(DataError, match="'orm' was not evaluated"):
        summary_json(evaluate(), [], seed=0, wall_s=0.0)
