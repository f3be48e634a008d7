"""Benchmarks of the scores themselves: ProcessBench, per-step F1, RewardMATH."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dreamprm.cli import main
from dreamprm.data import read_pair, write_scores
from dreamprm.errors import DataError
from dreamprm.evaluation.first_error import first_error_metrics, harmonic, labelled, read_said
from dreamprm.evaluation.results import Result, read_result
from dreamprm.evaluation.step_level import (
    Counts,
    count,
    metrics_of,
    predicted,
)
from dreamprm.records import Label, StepScores, Trajectory

RIGHT, WRONG = Label(1.0), Label(0.0)


def run(folder: Path, *words: object) -> Result:
    out = folder / "result.json"
    assert main(["benchmark", *map(str, words), "--output", str(out)]) == 0
    return read_result(out)


def test_the_first_step_below_the_threshold_is_the_first_error() -> None:
    assert predicted([3.0, -0.1, -5.0]) == 1
    assert predicted([3.0, 0.1], threshold=0.9) == 1
    assert predicted([3.0, 0.1]) == -1
    with pytest.raises(DataError, match="threshold is 1"):
        predicted([0.0], threshold=1)


def test_f1_of_constructed_predictions_is_that_by_hand(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "processbench" / "gsm8k.json"
    _, trajectories = read_pair(path)
    scores, hits = [], {True: 0, False: 0}
    for number, t in enumerate(trajectories):  # every third row one step late, or a false alarm
        truth = labelled(t)
        said = truth
        if number % 3 == 0:
            said = 0 if truth < 0 else -1
        hits[truth >= 0] += said == truth
        logits = [-1.0 if i == said else 1.0 for i in range(len(t.steps))]
        row = {"question_id": t.question_id, "sample_index": t.sample_index, "logits": logits}
        scores.append(StepScores.parse(row))
    write_scores(tmp_path / "s.jsonl", scores)
    words = ["--benchmark", "processbench", "--data", path, "--scores", tmp_path / "s.jsonl"]
    result = run(tmp_path, *words)
    error, correct = hits[True] / 207, hits[False] / 193
    by_hand = 2 * error * correct / (error + correct)
    metrics = result.metrics["s"]
    assert metrics["processbench"].value == pytest.approx(by_hand)
    assert metrics["processbench/gsm8k/erroneous"].value == pytest.approx(error)
    assert metrics["processbench/gsm8k/correct"].n == 193
    assert result.kind == "steps"


def critic(folder: Path, benchmark: str, data: Path, rows: list[dict[str, object]]) -> Result:
    (folder / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--benchmark", benchmark, "--data", data, "--responses", folder / "c.jsonl"]
    return run(folder, *words)


@pytest.mark.parametrize("form", ["prediction", "critique", "critiques", "label"])
@pytest.mark.parametrize("name", ["gsm8k", "math"])
def test_a_critics_f1_is_that_of_the_same_predictions(
    name: str, form: str, real_data: Path, tmp_path: Path
) -> None:
    """Rows as ProcessBench's own run_eval.py writes them; every fourth prediction is off by one."""
    path = real_data / "processbench" / f"{name}.json"
    rows: list[dict[str, object]] = []
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for number, row in enumerate(json.loads(path.read_text())):
        truth = row["label"]
        said = truth + 1 if number % 4 == 0 else truth
        hits[truth < 0].append(said == truth)
        text = f"\\boxed{{7}} no, \\boxed{{{said}}} it is."
        fields: dict[str, dict[str, object]] = {
            "prediction": row | {"generated_critique": "?", "prediction": said},
            "critique": row | {"generated_critique": text},
            "critiques": {"id": row["id"], "generated_critique": ["\\boxed{99}", text, text, "?"]},
            "label": {"id": row["id"], "label": said},
        }
        rows.append(fields[form])
    error, correct = np.mean(hits[False]), np.mean(hits[True])
    metrics = critic(tmp_path, "processbench", path, rows).metrics["c"]
    assert metrics["processbench"].value == pytest.approx(2 * error * correct / (error + correct))
    assert metrics[f"processbench/{name}/erroneous"].value == pytest.approx(error)
    assert metrics["processbench"].ci95 is not None


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def mr_row(id: str, verdict: str, step: object, **changes: object) -> dict[str, object]:
    return {
        "uuid": id,
        "question": f"{id}?",
        "model_output_steps": ["a", "b", "c"],
        "model_output_answer_correctness": verdict,
        "model_output_solution_correctness": verdict,
        "model_output_solution_first_error_step": step,
    } | changes


def test_mr_gsm8k_has_its_own_figures_beside_f1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A prediction that cannot be read is neither right nor wrong; steps are counted from 1."""
    said = {  # id -> verdict, first error step, prediction
        "found": ("wrong", 2, 2),
        "found too": ("wrong", 1, "Step 1"),
        "missed": ("wrong", 3, 2),
        "called right": ("wrong", 1, -1),
        "unread": ("wrong", 1, None),
        "right": ("correct", "N/A", "N/A"),
        "right too": ("correct", "N/A", -1),
        "false alarm": ("correct", "N/A", 1),
    }
    data = [mr_row(id, verdict, step) for id, (verdict, step, _) in said.items()]
    data.append(mr_row("no step", "wrong", "N/A"))
    rows: list[dict[str, object]] = [
        {"uuid": id, "prediction": p} for id, (_, _, p) in said.items()
    ]
    rows.append({"id": "no step", "prediction": 2})
    found = critic(tmp_path, "MR-GSM8K", write(tmp_path / "d.jsonl", *data), rows).metrics["c"]
    tp, fn, tn, fp = 2, 1, 4, 2
    mcc = (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert found["mr_gsm8k/all/erroneous"].value == pytest.approx(2 / 6)
    assert found["mr_gsm8k/all/correct"].value == pytest.approx(2 / 3)
    assert found["mr_gsm8k"].value == pytest.approx(harmonic(2 / 6, 2 / 3))
    assert found["mr_gsm8k/mcc"].value == pytest.approx(mcc)
    assert found["mr_gsm8k/mr_score_unexplained"].value == pytest.approx(0.2 * mcc + 0.3 * 2 / 6)
    told = capsys.readouterr().err
    assert "1 of 9 solutions are wrong and name no step of their text" in told
    assert "1 of 9 solutions have a prediction that cannot be read" in told


def test_big_bench_mistake_and_mathcheck_have_accuracies(tmp_path: Path) -> None:
    row = {"input": "?", "steps": ["a", "b"], "target": "2", "answer": "2"}
    data = write(tmp_path / "b.jsonl", *(row | {"mistake_index": m} for m in (0, 1, None)))
    rows: list[dict[str, object]] = [
        {"id": i, "prediction": p} for i, p in ((1, 0), (2, 0), (3, -1))
    ]
    found = critic(tmp_path, "BIG-Bench-Mistake", data, rows).metrics["c"]
    assert found["big_bench_mistake/accuracy"].value == pytest.approx(2 / 3)
    assert found["big_bench_mistake"].value == pytest.approx(harmonic(1 / 2, 1))
    kinds = ["seed_question", "seed_question", "scenario_understanding"]
    data = write(
        tmp_path / "m.jsonl",
        *(
            {
                "task_type": "process_judging",
                "question_type": kind,
                "id": str(i),
                "question": f"{i}?",
                "solution": "Step 1: a\nStep 2: b",
                "answer": "Step 2",
            }
            for i, kind in enumerate(kinds)
        ),
    )
    rows = [{"id": str(i), "prediction": f"Step {step}"} for i, step in enumerate((2, 1, 2))]
    found = critic(tmp_path, "mathcheck", data, rows).metrics["c"]
    assert found["mathcheck/seed_question"].value == 1 / 2
    assert found["mathcheck"].value == pytest.approx((1 / 2 + 1) / 2)


def test_mr_math_has_the_macro_f1_of_steps_up_to_the_first_error(tmp_path: Path) -> None:
    fields = {"model_output_step_format": [["a"], ["b"], ["c"]], "model_output_steps": None}
    rows = [mr_row("0", "wrong", 2, **fields), mr_row("1", "correct", "N/A", **fields)]
    for row in rows:
        del row["model_output_steps"]
    path = write(tmp_path / "d.jsonl", *rows)
    _, trajectories = read_pair(path)
    logits = [(1.0, -1.0, -1.0), (1.0, -1.0, 1.0)]
    scores = [StepScores.of(t, z) for t, z in zip(trajectories, logits, strict=True)]
    write_scores(tmp_path / "s.jsonl", scores)
    words = ["--benchmark", "mr_math", "--data", path, "--scores", tmp_path / "s.jsonl"]
    found = run(tmp_path, *words).metrics["s"]
    assert found["mr_math/steps"].value == pytest.approx((2 * 3 / (2 * 3 + 1) + 2 / 3) / 2)
    assert found["mr_math/all/erroneous"].value == 1.0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "a", "prediction": 0}], "solution 'b' has no prediction"),
        ([{"id": "a", "prediction": 0}] * 2, "row 2, field 'id': two rows have this id"),
        ([{"prediction": 0}], "row 1, field 'id': names no solution"),
        ([{"id": "a", "verdict": 0}], "has neither prediction nor one of generated_critique"),
        ([{"id": "a", "steps": ["a"], "label": 0}], "has neither prediction"),  # the data itself
        ([], "holds no predictions"),
    ],
)
def test_a_critics_file_of_another_kind_is_one_line(
    rows: list[object], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"generator": "m", "problem": "?", "steps": ["s"], "final_answer_correct": True}
    data = write(tmp_path / "d.jsonl", *(row | {"id": id, "label": -1} for id in "ab"))
    said = write(tmp_path / "c.jsonl", *rows)
    words = ["benchmark", "--benchmark", "processbench", "--data", str(data)]
    assert main([*words, "--responses", str(said)]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("\\boxed{1} or \\boxed{ 2 }", 2),
        ("\\boxed{-1}", -1),
        ("\\boxed{paragraph 2}", None),
        ("\\boxed{1} and \\boxed{\\text{2}}", None),  # the last one counts, read or not
        ("\\boxed{1} and \\boxed{2", 1),
        ("\\boxed{N/A}", None),
        ("2", None),
        ("\\boxed{" * 30_000, None),
    ],
)
def test_the_last_box_of_a_critique_counts(text: str, index: int | None, tmp_path: Path) -> None:
    path = write(tmp_path / "c.jsonl", {"id": "a", "generated_critique": text})
    assert read_said(path, "processbench") == {"a": index}


def test_scores_of_part_of_a_solution_are_no_prediction(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = real_data / "processbench" / "gsm8k.json"
    scores = [
        StepScores(question_id=t.question_id, sample_index=t.sample_index, logits=(1.0,))
        for t in read_pair(path)[1]
    ]
    write_scores(tmp_path / "s.jsonl", scores)
    words = ["benchmark", "--benchmark", "processbench", "--data", str(path)]
    assert main([*words, "--scores", str(tmp_path / "s.jsonl")]) == 1
    assert "score it whole" in capsys.readouterr().err


def test_a_model_that_calls_everything_right_has_an_f1_of_zero() -> None:
    assert harmonic(0.0, 1.0) == 0.0


def test_every_labelled_step_counts_and_neutral_ones_do_not() -> None:
    t = Trajectory(question_id="q", steps=("a", "b", "c", "d"), labels=(RIGHT, WRONG, None, WRONG))
    found = count(t, [1.0, 1.0, -1.0, -1.0])
    assert found == Counts(right_right=1, wrong_right=1, wrong_wrong=1)
    figures = metrics_of("x", {"q": found})
    assert {name: m.value for name, m in figures.items()} == pytest.approx(
        dict.fromkeys(("x", "x/micro_f1", "x/f1_right", "x/f1_wrong"), 2 / 3)
    )
    assert found.micro == pytest.approx(2 / 3)
    assert (found + found).wrong_wrong == 2


def test_macro_f1_is_not_fooled_by_calling_everything_right() -> None:
    easy = Counts(right_right=90, wrong_right=10)
    assert easy.micro == 0.9
    assert metrics_of("x", {"q": easy})["x"].value < 0.5


def prmbench_row(name: str, idx: str, steps: int, errors: list[int]) -> dict[str, object]:
    return {
        "original_question": f"{idx}?",
        "modified_question": f"{idx}?",
        "original_process": [f"original {idx} {i}" for i in range(2)],
        "modified_process": [f"{name} {idx} {i}" for i in range(steps)],
        "error_steps": errors,
        "idx": idx,
        "classification": name,
    }


def test_prmbench_counts_modified_solutions_once_and_each_class_by_its_rule(
    tmp_path: Path,
) -> None:
    rows = [
        prmbench_row("redundency", "a", 4, [2]),
        prmbench_row("redundency", "a", 4, [1]),  # the same idx again: not counted
        prmbench_row("circular", "a", 3, [1, 3]),
        prmbench_row("deception", "b", 2, [2]),
        prmbench_row("multi_solutions", "c", 3, []),
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    said = {  # by text of the step: called wrong; every other step is called right
        *("redundency a 1", "circular a 0", "circular a 1"),
        *("multi_solutions c 2", "original a 0", "original b 0"),
    }
    _, trajectories = read_pair(tmp_path / "p.jsonl", format="prmbench")
    write_scores(
        tmp_path / "s.jsonl",
        [
            StepScores(
                question_id=t.question_id,
                sample_index=t.sample_index,
                logits=tuple(-1.0 if step in said else 1.0 for step in t.steps),
            )
            for t in trajectories
        ],
    )
    words = ["--benchmark", "prmbench", "--data", tmp_path / "p.jsonl"]
    found = run(tmp_path, *words, "--scores", tmp_path / "s.jsonl").metrics["s"]
    # redundency: 3 right found, 1 wrong found; circular: of rights 0 of 1, of wrongs 1 of 2;
    # deception: 1 right found, its wrong one missed; multi_solutions: 2 of 3 rights found.
    right = 2 * 6 / (2 * 6 + 2 + 2)
    wrong = 2 * 2 / (2 * 2 + 2 + 2)
    assert found["prmbench"].value == pytest.approx((right + wrong) / 2)
    assert found["prmbench"].n == 12
    assert found["prmbench/class/redundency"].value == 1.0
    assert found["prmbench/class/circular"].value == pytest.approx((0 + 0.5) / 2)
    assert found["prmbench/class/deception"].value == pytest.approx((2 / 3 + 0) / 2)
    assert found["prmbench/class/multi_solutions"].value == pytest.approx(4 / 5)
    assert found["prmbench/category/simplicity"].value == pytest.approx((1 + 0.25) / 2)
    assert found["prmbench/category/sensitivity"].value == pytest.approx((1 / 3 + 0.8) / 2)
    assert (found["prmbench/class/correct"].value, found["prmbench/class/correct"].n) == (0.5, 2)
    for metric in found.values():
        if metric.ci95 is not None:
            assert metric.ci95[0] <= metric.value <= metric.ci95[1]


@pytest.mark.parametrize(
    ("change", "more", "message"),
    [
        ({"classification": "new"}, [], "classification is 'new', none of redundency"),
        ({"idx": None}, [], "row 1 has no idx"),
        ({}, ["--threshold", "1"], "threshold is 1.0; it must lie between 0 and 1"),
        ({}, ["--threshold", "0"], "threshold is 0.0; it must lie between 0 and 1"),
    ],
)
def test_a_prmbench_file_of_another_kind_is_one_line(
    change: dict[str, object],
    more: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = prmbench_row("circular", "a", 2, [1]) | change
    (tmp_path / "p.jsonl").write_text(json.dumps(row))
    _, trajectories = read_pair(tmp_path / "p.jsonl", format="prmbench")
    scores = [
        StepScores(question_id=t.question_id, sample_index=t.sample_index, logits=(0.0, 0.0))
        for t in trajectories
    ]
    write_scores(tmp_path / "s.jsonl", scores)
    words = ["benchmark", "--benchmark", "prmbench", "--data", str(tmp_path / "p.jsonl")]
    assert main([*words, "--scores", str(tmp_path / "s.jsonl"), *more]) == 1
    assert message in capsys.readouterr().err


def test_a_figure_that_nothing_contradicts_has_no_interval_by_resampling() -> None:
    perfect = {str(i): Counts(right_right=2, wrong_wrong=1) for i in range(5)}
    assert metrics_of("x", perfect)["x"].ci95 is None


def test_intervals_of_f1_cover_it() -> None:
    """Solutions of unequal length and difficulty; the truth by a very large sample."""
    rng = np.random.default_rng(1)

    def sample(n: int) -> dict[str, Counts]:
        found = {}
        for i in range(n):
            hit, steps = rng.beta(4, 2), rng.integers(2, 9)
            wrong = rng.random(steps) < 0.3
            called = np.where(rng.random(steps) < hit, wrong, ~wrong)
            pairs = zip(wrong.tolist(), called.tolist(), strict=True)
            cells = [2 * w + c for w, c in pairs]
            found[str(i)] = Counts(*(cells.count(k) for k in range(4)))
        return found

    total = sum(sample(20_000).values(), Counts())
    truth = metrics_of("x", {"all": total})["x"].value
    inside = 0
    for _ in range(100):
        ci95 = metrics_of("x", sample(100))["x"].ci95
        assert ci95 is not None
        inside += ci95[0] <= truth <= ci95[1]
    assert 89 <= inside <= 99


AGGREGATIONS = ("min", "product", "geometric_mean", "mean", "last", "mean_logit")
REWARDMATH = {
    "Math_Shepherd": (74, 83, 76, 73, 88, 71),
    "ReasonEval_7B": (94, 88, 98, 97, 72, 101),
}


@pytest.mark.parametrize("model", REWARDMATH)
def test_rewardmath_counts_come_out(real_data: Path, tmp_path: Path, model: str) -> None:
    path = real_data / "rewardmath" / f"{model}_reward.json"
    result = run(tmp_path, "--benchmark", "rewardmath", "--data", path)
    assert result.kind == "responses"
    for aggregation, right in zip(AGGREGATIONS, REWARDMATH[model], strict=True):
        assert round(result.metrics[aggregation]["rewardmath"].value * 483, 6) == right
        assert len(result.questions[aggregation]) == 483


RIGHT_ONE = "human_to_GPT-4"
REFERENCES = [RIGHT_ONE, *(f"model {i}" for i in range(9))]


def rewardmath_row(scores: list[object], **changes: object) -> dict[str, object]:
    return {"problem": "p", "solution_reference": REFERENCES, "score": scores} | changes


def rewardmath(folder: Path, *rows: object) -> Result:
    (folder / "r.json").write_text(json.dumps(rows))
    return run(folder, "--benchmark", "rewardmath", "--data", folder / "r.json")


def test_a_tie_with_a_wrong_solution_is_not_won(tmp_path: Path) -> None:
    found = rewardmath(tmp_path, rewardmath_row([[0.5, 0.9]] * 2 + [[0.1, 0.1]] * 8))
    assert found.metrics["min"]["rewardmath"].value == 0.0
    assert found.metrics["min"]["rewardmath/mrr"].value == 0.5


def test_single_rewards_of_any_size_are_one_method(tmp_path: Path) -> None:
    won = rewardmath_row([-1.5, *[-40] * 9])
    lost = rewardmath_row([10, 10, 11, *[1] * 7], problem="q")
    [(method, metrics)] = rewardmath(tmp_path, won, lost).metrics.items()
    assert method == "reward"
    assert metrics["rewardmath"].value == 1 / 2
    assert metrics["rewardmath/mrr"].value == pytest.approx((1 + 1 / 3) / 2)


def test_pairwise_verdicts_are_won_where_the_right_solution_stands(tmp_path: Path) -> None:
    pairs = {"solution_reference": REFERENCES[1:], "chosen_position": ["A", "B", *["A"] * 7]}
    won = rewardmath_row(["A", "B", *["A"] * 7], **pairs)
    lost = rewardmath_row([None, "A", *["A"] * 7], problem="q", **pairs)
    [(method, metrics)] = rewardmath(tmp_path, won, lost).metrics.items()
    assert method == "pairwise"
    assert metrics["rewardmath"].value == 1 / 2
    assert metrics["rewardmath/mrr"].value == pytest.approx((1 + 1 / 3) / 2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([rewardmath_row([[0.5]] * 9)], "row 1, field 'score': must hold 10 scores"),
        ([rewardmath_row([[1.5]] * 10)], "outside 0-1"),
        ([rewardmath_row([[]] * 10)], "step scores: "),
        ([rewardmath_row([0.5] * 9 + ["A"])], "a number per solution"),
        ([rewardmath_row([0.5] * 10)] * 2, "row 2, field 'problem': this problem has two rows"),
        ([rewardmath_row([1] * 10), rewardmath_row([[1]] * 10, problem="q")], "of another kind"),
        ([rewardmath_row([0.5] * 10, solution_reference=REFERENCES[::-1])], "first the right one"),
        ([rewardmath_row([0.5] * 10, solution_reference=[RIGHT_ONE] * 10)], "and it alone"),
        ([rewardmath_row([0.5] * 10, solution_reference=None)], "field 'solution_reference'"),
        ([rewardmath_row(["A"] * 10, chosen_position=["A"] * 10)], "the 9 wrong solutions"),
        ([{"id": 1}], "field 'problem': is missing"),
        ([], "holds no problems"),
    ],
)
def test_a_rewardmath_file_of_another_layout_is_one_line(
    rows: list[object], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.json").write_text(json.dumps(rows))
    assert main(["benchmark", "--benchmark", "rewardmath", "--data", str(tmp_path / "r.json")]) == 1
    assert message in capsys.readouterr().err


def test_a_subset_without_correct_solutions_has_no_f1(tmp_path: Path) -> None:
    from dreamprm.evaluation.results import QuestionResult

    row = QuestionResult(
        question_id="q", benchmark="processbench", value=1.0, groups={"kind": ("erroneous",)}
    )
    with pytest.raises(DataError, match="has no correct solutions"):
        first_error_metrics([row])
