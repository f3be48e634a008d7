"""Runs made apart are compared question by question; aggregations are chosen on other questions."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import dreamprm
from dreamprm.cli import main
from dreamprm.data import read_questions, write_questions
from dreamprm.errors import DataError
from dreamprm.evaluation.compare import (
    Run,
    _spread,
    compare,
    main_runs,
    mcnemar,
    pair,
    questions_needed,
    runs_of,
    smallest_difference,
)
from dreamprm.evaluation.evaluate import check_apart, choose_aggregation, split_questions
from dreamprm.evaluation.results import (
    QuestionResult,
    Result,
    new_result,
    read_result,
    write_result,
)
from dreamprm.evaluation.statistics import paired_bootstrap, paired_difference
from dreamprm.records import Question, StepScores, Trajectory
from tests.cli_samples import make_project


def rows(values: list[float], *, seed: int = 0, start: int = 0) -> tuple[QuestionResult, ...]:
    return tuple(
        QuestionResult(question_id=f"q{start + i}", benchmark="b", value=v, seed=seed)
        for i, v in enumerate(values)
    )


def test_files_are_compared_by_their_main_methods_unless_methods_are_named() -> None:
    def result(name: str, methods: tuple[str, ...], main_method: str | None) -> Result:
        return new_result(
            name=name,
            kind="selection",
            metrics={m: {} for m in methods},
            questions={m: rows([1.0, 0.0]) for m in methods},
            details={} if main_method is None else {"main_method": main_method},
        )

    ours = result("ours", ("first_sample", "prm", "any_right"), "prm")
    theirs = result("theirs", ("first_sample", "prm"), "prm")
    answers = result("answers", ("answers",), None)
    names = [run.name for run in main_runs([ours, theirs, answers])]
    assert names == ["ours: prm", "theirs: prm", "answers"]
    assert [run.name for run in main_runs([ours])] == ["prm", "first_sample", "any_right"]


def test_mcnemar_is_the_binomial_test_of_the_disagreements() -> None:
    a = [1] * 9 + [0] * 3 + [1] * 20
    b = [0] * 9 + [1] * 3 + [1] * 20
    found = mcnemar(a, b)
    assert (found.only_a, found.only_b) == (9, 3)
    by_hand = 2 * sum(math.comb(12, k) for k in range(4)) / 2**12
    assert found.p == pytest.approx(by_hand)
    assert mcnemar(b, a).p == found.p
    assert mcnemar([1, 0], [1, 0]).p == 1.0


def test_the_bootstrap_agrees_with_the_formula_on_many_questions() -> None:
    rng = np.random.default_rng(0)
    a = {"x": (rng.random((3, 400)) < 0.6) * 1.0, "y": (rng.random((3, 300)) < 0.5) * 1.0}
    b = {k: (rng.random(v.shape) < 0.5) * 1.0 for k, v in a.items()}
    one = {k: v[:1] for k, v in a.items()}, {k: v[:1] for k, v in b.items()}
    resampled, formula = paired_bootstrap(*one), paired_difference(*one)
    assert resampled.mean == formula.mean
    assert resampled.lo == pytest.approx(formula.lo, abs=0.01)
    assert resampled.hi == pytest.approx(formula.hi, abs=0.01)
    assert paired_bootstrap(a, b, seed=1) == paired_bootstrap(a, b, seed=1)
    assert paired_bootstrap(a, b).lo <= paired_bootstrap(a, b).mean


def test_the_bootstrap_draws_seeds_too_and_widens_for_few() -> None:
    by_question = paired_bootstrap({"x": [1, 0]}, {"x": [0, 0]})
    by_seed = paired_bootstrap({"x": [[1] * 50, [0] * 50]}, {"x": [[0] * 50] * 2})
    for found in (by_question, by_seed):  # draws are 0, 1/2 or 1, and two are widened by sqrt(2)
        assert (found.mean, found.lo) == (0.5, pytest.approx(0.5 - math.sqrt(0.5)))


def test_questions_and_detectable_difference_are_inverse() -> None:
    spread = math.sqrt(0.3 - 0.04**2)
    n = questions_needed(0.04, spread)
    assert smallest_difference(n, spread) == pytest.approx(0.04, abs=1e-4)


def test_so_many_questions_show_the_difference_as_often_as_promised() -> None:
    rng = np.random.default_rng(0)
    only_a, only_b = 0.25, 0.15
    n = questions_needed(0.1, math.sqrt(0.4 - 0.1**2))
    found = 0
    for _ in range(600):
        draw = rng.choice(3, size=n, p=[only_a, only_b, 1 - only_a - only_b])
        found += mcnemar(draw == 0, draw == 1).p < 0.05
    assert 0.74 < found / 600 < 0.86


def test_runs_are_paired_by_question_not_by_place() -> None:
    a = Run("a", rows([1, 1, 0, 1]))
    b = Run("b", tuple(reversed(rows([0, 1, 1, 0, 1], start=1))))
    x, y, unpaired = pair(a, b)
    assert x["b"].tolist() == [[1, 0, 1]]  # q1 q2 q3
    assert y["b"].tolist() == [[0, 1, 1]]
    assert unpaired == 1 + 2


def test_a_run_without_seeds_stands_beside_every_seed() -> None:
    trained = Run("a", rows([1, 0]) + rows([1, 1], seed=1))
    x, y, _ = pair(trained, Run("vote", rows([0, 1])))
    assert x["b"].tolist() == [[1, 0], [1, 1]]
    assert y["b"].tolist() == [[0, 1], [0, 1]]


def test_p_is_corrected_for_the_number_of_comparisons() -> None:
    base = Run("base", rows([0] * 12))
    better, same = Run("better", rows([1] * 8 + [0] * 4)), Run("same", rows([0] * 11 + [1]))
    found = {c.name: c for c in compare([base, better, same])}
    assert found["better"].exact is not None
    assert found["better"].p_holm == pytest.approx(2 * found["better"].exact.p)
    assert found["same"].p_holm == 1.0
    assert found["better"].difference.mean == pytest.approx(8 / 12)


def test_more_questions_are_meant_in_the_proportions_at_hand() -> None:
    """The spread is that of the mean over benchmarks, which count the same whatever their size."""
    rng = np.random.default_rng(0)
    a, b = (
        {"large": (rng.random((1, 900)) < p) * 1.0, "small": (rng.random((1, 100)) < p) * 1.0}
        for p in (0.6, 0.5)
    )
    d, n = paired_difference(a, b), 1000
    assert _spread(a, b) / n**0.5 == pytest.approx((d.hi - d.lo) / 2 / 1.96, rel=0.05)


def test_runs_without_a_common_question_are_refused() -> None:
    with pytest.raises(DataError, match="share no question"):
        compare([Run("a", rows([1])), Run("b", rows([1], start=5))])
    with pytest.raises(DataError, match="needs two"):
        compare([Run("a", rows([1]))])


def test_methods_of_several_files_have_names_of_their_own() -> None:
    metrics = {"m": {"b": {"value": 1.0, "n": 1}}}
    both = {"m": rows([1]), "vote": rows([0])}
    results = [
        new_result(name="one", kind="selection", metrics=metrics, questions={"m": rows([1])}),
        new_result(name="two", kind="selection", metrics=metrics, questions=both),
    ]
    assert [run.name for run in runs_of(results)] == ["one", "two: m", "two: vote"]
    assert [run.name for run in runs_of(results[1:])] == ["m", "vote"]
    with pytest.raises(DataError, match="methods in the files: m, vote"):
        runs_of(results, ["other"])


def test_a_result_file_comes_back_equal_and_another_schema_is_refused(tmp_path: Path) -> None:
    result = new_result(
        name="x", kind="answers", metrics={"m": {"b": {"value": 0.5, "ci95": (0.1, 0.9), "n": 2}}}
    )
    write_result(tmp_path / "r.json", result)
    assert read_result(tmp_path / "r.json") == result
    facts = json.loads((tmp_path / "r.json").read_text())
    assert facts["versions"]["dreamprm"]
    (tmp_path / "old.json").write_text(json.dumps(facts | {"schema": "dreamprm.result/0"}))
    with pytest.raises(DataError, match="schema is 'dreamprm.result/0'"):
        read_result(tmp_path / "old.json")
    nan = float("nan")
    for field, value in {
        "metrics": {"m": {"b": {"value": nan, "n": 1}}},
        "details": {"x": nan},
    }.items():
        (tmp_path / "nan.json").write_text(json.dumps(facts | {field: value}))
        with pytest.raises(DataError, match=rf"nan\.json.*{field}"):
            read_result(tmp_path / "nan.json")
    (tmp_path / "no.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        read_result(tmp_path / "no.json")


def question(name: str, text: str | None = None) -> Question:
    return Question(id=name, domain="b", text=text or f"what is {name}?", answer="1")


def test_the_aggregation_that_ranks_best_on_validation_is_chosen() -> None:
    questions = [question(f"q{i}") for i in range(6)]
    trajectories, scores = [], []
    for q in questions:  # the wrong one has the better mean, and the worse last step
        for index, (right, logits) in enumerate([(True, (-3.0, 1.0)), (False, (5.0, -1.0))]):
            t = Trajectory(question_id=q.id, steps=("a", "b"), outcome=right, sample_index=index)
            trajectories.append(t)
            scores.append(StepScores(question_id=q.id, sample_index=index, logits=logits))
    found = choose_aggregation(questions, trajectories, scores, n=2)
    assert found.name == "last"
    assert found.accuracy["last"] == 1.0
    assert found.accuracy["mean_logit"] == 0.0
    test = [question(f"t{i}") for i in range(6)]
    theirs = [t.model_copy(update={"question_id": f"t{t.question_id[1:]}"}) for t in trajectories]
    rows = [s.model_copy(update={"question_id": f"t{s.question_id[1:]}"}) for s in scores]
    validation = (questions, trajectories, {"prm": scores})
    chosen = dreamprm.evaluate(test, theirs, {"prm": rows}, n=2, validation=validation)
    assert chosen.choices["prm"].name == "last"
    assert chosen.average["prm"].mean == 1.0
    fixed = dreamprm.evaluate(
        test, theirs, {"prm": rows}, n=2, validation=validation, aggregations={"prm": "mean_logit"}
    )
    assert fixed.average["prm"].mean == 0.0
    equal = [s.model_copy(update={"logits": (0.0, 0.0)}) for s in scores]
    assert choose_aggregation(questions, trajectories, equal, n=2, default="min").name == "min"


def test_a_split_is_by_content_and_apart() -> None:
    questions = [question(f"q{i}") for i in range(200)]
    validation, test = split_questions(questions, 0.3, seed=1)
    assert 40 <= len(validation) <= 80
    check_apart(validation, test)
    again, _ = split_questions([question("new"), *questions], 0.3, seed=1)
    assert [q.id for q in again if q.id != "new"] == [q.id for q in validation]


def test_a_question_of_the_test_is_not_chosen_on() -> None:
    with pytest.raises(DataError, match="question 'a' is in the test and, as 'a'"):
        check_apart([question("a")], [question("a", "other words")])
    with pytest.raises(DataError, match="as 'b', in the validation"):
        check_apart([question("b", "Same  words")], [question("a", "same words")])


def test_evaluate_and_compare_go_through_the_command_line(
    tmp_path: Path, png: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    project = make_project(tmp_path / "project", png)
    scores = project / "scores.jsonl"
    words = ["evaluate", "--questions", str(project / "test.jsonl"), "--n", "4"]
    words += ["--trajectories", str(project / "test_candidates.jsonl")]
    words += ["--scores.dreamprm", str(scores), "--output", str(project / "r.json")]
    assert main(words) == 0
    assert main(["compare", "--results", str(project / "r.json"), "--baseline", "any_right"]) == 0
    out = capsys.readouterr().out
    assert "Percentage points above any_right" in out
    assert "first_sample" in out

    by_seed = [*words, "--scores.orm", str(scores), "--scores_by_seed"]
    by_seed[by_seed.index("--scores.dreamprm") + 1] = json.dumps([str(scores)] * 3)
    assert main(by_seed) == 0
    found = read_result(project / "r.json")
    assert {r.seed for r in found.questions["dreamprm"]} == {0, 1, 2}

    assert main([*words, "--validation_share", "0.5", "--seed", "3"]) == 1  # all look alike
    assert "validation" in capsys.readouterr().err
    assert main([*words, "--validation_share", "2"]) == 1
    assert "between 0 and 1" in capsys.readouterr().err
    questions = read_questions(project / "test.jsonl")
    texts = ("red", "blue", "green", "black", "white", "grey")
    named = zip(questions, texts, strict=True)
    apart = [q.model_copy(update={"text": f"twice {t} is ?"}) for q, t in named]
    write_questions(project / "apart.jsonl", apart)
    split = [*words, "--validation_share", "0.5", "--seed", "3"]
    split[split.index("--questions") + 1] = str(project / "apart.jsonl")
    assert main(split) == 0
    assert "dreamprm: aggregation mean_logit, chosen on" in capsys.readouterr().out
    rest = read_result(project / "r.json").questions["dreamprm"]
    assert 0 < len(rest) < len(questions)
    theirs = ["--validation_questions", str(project / "test.jsonl")]
    theirs += ["--validation_trajectories", str(project / "test_candidates.jsonl")]
    theirs += ["--validation_scores.dreamprm", str(scores)]
    assert main([*words, *theirs]) == 1
    assert "is not chosen on the questions that are reported" in capsys.readouterr().err
