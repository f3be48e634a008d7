"""The report: from evaluations and result files to the parts of a page, and the page's HTML."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dreamprm.cli import main
from dreamprm.data import write_questions
from dreamprm.errors import DataError
from dreamprm.evaluation.calibration import calibration
from dreamprm.evaluation.evaluate import Evaluation, evaluate
from dreamprm.evaluation.results import QuestionResult, new_result, write_result
from dreamprm.evaluation.statistics import Estimate
from dreamprm.records import Label, Question, StepScores, Trajectory
from dreamprm.report.build import accuracy_table, calibrations, examples, fates, step_calibrations
from dreamprm.report.comparison import comparison_report
from dreamprm.report.page import (
    AccuracyTable,
    Domain,
    Example,
    Fate,
    ReportData,
    render,
    write_report,
)
from tests.report_samples import (
    ATTACK,
    bare_report,
    example,
    full_report,
    hostile_report,
)


def image(size: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), "red").save(buffer, "BMP")
    return buffer.getvalue()


# 12 questions, two candidates each, of which candidate 0 is right. DreamPRM wins q1, loses q2.
QUESTIONS = [
    Question(id=f"q{i}", domain="b", text=f"question {i}", answer="A", images=(image(8 + 99 * i),))
    for i in range(12)
]
TRAJECTORIES = [
    Trajectory(question_id=q.id, steps=("x", "y"), answer="AB"[k], outcome=k == 0, sample_index=k)
    for q in QUESTIONS
    for k in (0, 1)
]


def scores(wrong_on: str) -> list[StepScores]:
    return [
        StepScores(question_id=t.question_id, sample_index=t.sample_index, logits=(0.0, z))
        for t in TRAJECTORIES
        for z in [2.0 if (t.sample_index == 1) == (t.question_id == wrong_on) else -2.0]
    ]


def evaluation() -> Evaluation:
    by_method = {"dreamprm": scores("q2"), "prm_uniform": scores("q1")}
    return evaluate(QUESTIONS, TRAJECTORIES, by_method, n=2, ns=(1, 2))


def picked(limit: int) -> tuple[Example, ...]:
    return examples(evaluation(), QUESTIONS, TRAJECTORIES, scores("q2"), limit=limit)


def test_the_table_holds_all_methods_and_the_differences_to_the_main_one() -> None:
    table = accuracy_table(evaluation(), "t")
    assert set(table.average) == set(table.accuracy["b"])
    assert set(table.differences) == set(table.average) - {"dreamprm"}
    assert table.differences["prm_uniform"].mean == 0.0
    assert accuracy_table(evaluation(), "t", main_method="absent").differences == {}


def test_examples_show_wins_and_losses_before_agreement_and_no_question_twice() -> None:
    names = [e.question for e in picked(6)]
    assert names[:2] == ["question 1", "question 2"]
    assert len(names) == len(set(names)) == 6
    assert len(picked(100)) == 12


def test_an_example_tells_who_chose_what_and_with_which_scores() -> None:
    won = picked(3)[0]
    right, wrong = won.candidates
    assert right.outcome
    assert "dreamprm" in right.chosen_by
    assert wrong.chosen_by == ("prm_uniform",)
    assert right.score == 1.0  # the mean logit
    assert right.step_scores == pytest.approx((0.5, 1 / (1 + math.exp(-2.0))))


def test_large_images_are_reduced_and_small_ones_left_alone() -> None:
    sizes = set()
    for one in picked(100):
        with Image.open(io.BytesIO(one.images[0])) as shown:
            assert shown.format == "PNG"
            sizes.add(shown.size)
    assert min(sizes) == (28, 28)
    assert max(sizes) == (640, 640)


def test_examples_need_scores_of_the_main_method() -> None:
    with pytest.raises(DataError, match="'absent' has no scores"):
        examples(evaluation(), QUESTIONS, TRAJECTORIES, scores("q2"), main_method="absent")


def test_scores_that_mean_what_they_say_have_no_calibration_error() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(20_000)
    y = (rng.random(20_000) < p).astype(float)
    names = [str(i // 4) for i in range(20_000)]
    honest, boastful = calibration(p, y, names), calibration(p**0.25, y, names)
    assert honest.ece < 0.02
    assert honest.brier.mean == pytest.approx(1 / 6, abs=0.01)
    assert boastful.ece > 0.2
    assert sum(b.n for b in honest.bins) == 20_000
    assert [b.score for b in honest.bins] == sorted(b.score for b in honest.bins)


def test_equal_scores_stay_in_one_bin() -> None:
    found = calibration([0.5] * 10 + [1.0], [1.0] * 5 + [0.0] * 5 + [1.0], ["q"] * 11)
    assert [(b.n, b.right) for b in found.bins] == [(10, 0.5), (1, 1.0)]
    with pytest.raises(DataError, match="score in 0-1"):
        calibration([2.0], [1.0], ["q"])


def test_step_scores_are_compared_with_the_labels_that_there_are() -> None:
    labels = (Label.of(1, 4), None, Label.of(3, 4))
    trajectories = [
        Trajectory(question_id="a", steps=("x", "y", "z"), labels=labels),
        Trajectory(question_id="b", steps=("x",)),
    ]
    scores = [
        StepScores(question_id="a", sample_index=0, logits=(-1.0, 5.0, 1.0)),
        StepScores(question_id="b", sample_index=0, logits=(3.0,)),
    ]
    found = step_calibrations({"prm": scores}, trajectories)["prm"]
    assert [(b.n, b.right) for b in found.bins] == [(1, 0.25), (1, 0.75)]
    assert found.bins[1].score == pytest.approx(1 / (1 + np.exp(-1)))
    assert step_calibrations({"prm": scores}, trajectories[1:]) == {}
    assert "Calibration of step scores" in render(ReportData("t", step_calibration={"prm": found}))


def test_missed_answers_are_told_from_hopeless_questions() -> None:
    hopeless = [t.model_copy(update={"outcome": False}) for t in TRAJECTORIES[-4:]]
    trajectories = [*TRAJECTORIES[:-4], *hopeless]  # none of the last two questions is right
    found = evaluate(QUESTIONS, trajectories, {"prm": scores("q2")}, n=2)
    assert fates(found)["prm"] == Fate(right=9, missed=1, hopeless=2)
    assert "any_right" not in fates(found)
    calibrated = calibrations(found, trajectories)
    page = render(ReportData("t", fates=fates(found), calibration=calibrated))
    assert "Where the right answer was there" in page
    assert 'id="calibration"' in page


def result_file(folder: Path, name: str, values: list[float], start: int = 0, **more: Any) -> Path:
    rows = tuple(
        QuestionResult(question_id=f"q{start + i}", benchmark="vista", value=v)
        for i, v in enumerate(values)
    )
    mean = sum(values) / len(values)
    metrics = {"vista": {"value": mean, "ci95": (0.0, 1.0), "n": len(values)}}
    metrics |= {"vista/task/<b>maps</b>": {"value": mean, "n": 2}}
    fields = {"metrics": {name: metrics}, "questions": {name: rows}} | more
    path = folder / f"{name}{start}.json"
    write_result(path, new_result(name=name, kind="answers", **fields))
    return path


def test_result_files_are_compared_on_one_page(tmp_path: Path) -> None:
    a = result_file(tmp_path, "ours", [1, 1, 1, 1, 1, 1, 0, 1])
    b = result_file(tmp_path, "theirs", [0, 0, 0, 0, 0, 1, 0, 1])
    c = result_file(tmp_path, "elsewhere", [1, 0], start=50)
    data = comparison_report([a, b, c], title="Three")
    results, tasks = data.tables
    assert results.differences["theirs"].mean == pytest.approx(5 / 8)
    assert results.differences["theirs"].p == pytest.approx(2 * 0.5**5)  # McNemar, exact
    assert "elsewhere" not in results.differences
    assert "elsewhere shares no question with ours" in results.note
    assert tasks.title == "vista by task"
    assert data.runs["ours"]["dreamprm"]
    page = render(data)
    assert "&lt;b&gt;maps&lt;/b&gt;" in page
    assert "<b>maps" not in page


def test_the_command_compares_and_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = (str(result_file(tmp_path, n, [1, 0])) for n in ("a", "b"))
    page = str(tmp_path / "p.html")
    assert main(["report", "--results", a, b, "--output", page]) == 0
    assert "2 runs of 2 result files, compared with a" in capsys.readouterr().out
    assert main(["report", "--results", a, b, "--baseline", "zz", "--output", page]) == 1
    assert "baseline 'zz' is none of the runs; there are: a, b" in capsys.readouterr().err
    assert main(["report", "--output", page]) == 1
    assert "--questions and --trajectories, or --results" in capsys.readouterr().err
    same = str(result_file(tmp_path, "a", [1, 1], start=0))
    assert len(comparison_report([Path(a), Path(same)], title="t").tables[0].accuracy["vista"]) == 2


def test_questions_on_which_runs_differ_are_shown_with_each_answer(tmp_path: Path) -> None:
    said = {"a": [1.0, 1.0, 0.0, 0.0], "b": [1.0, 0.0, 1.0, 0.0], "c": [1.0, 0.0, 0.0, 0.0]}
    paths = []
    for name, values in said.items():
        rows = tuple(
            QuestionResult(question_id=f"q{i}", benchmark="d", value=v, answer="7" if v else "8")
            for i, v in enumerate(values)
        )
        metrics = {name: {"d": {"value": 0.5, "n": 4}}}
        paths.append(tmp_path / f"{name}.json")
        result = new_result(name=name, kind="answers", metrics=metrics, questions={name: rows})
        write_result(paths[-1], result)
    questions = [
        Question(id=f"q{i}", domain="d", text=f"text of q{i}", answer="7") for i in range(4)
    ]
    found = comparison_report(paths, title="t", questions=questions).examples
    assert [e.question for e in found] == ["text of q1", "text of q2"]
    first, second = ([(c.answer, c.outcome, c.chosen_by) for c in e.candidates] for e in found)
    assert first == [("7", True, ("a",)), ("8", False, ("b", "c"))]
    assert second == [("7", True, ("b",)), ("8", False, ("a", "c"))]
    one = comparison_report(paths, title="t", questions=questions, max_examples=1)
    assert len(one.examples) == 1
    write_questions(tmp_path / "q.jsonl", questions)
    words = ["report", "--results", json.dumps([*map(str, paths)]), "--output"]
    page = str(tmp_path / "p.html")
    assert main([*words, page, "--questions", json.dumps([str(tmp_path / "q.jsonl")])]) == 0
    text = Path(page).read_text()
    assert "Where the runs differ" in text
    assert "text of q1" in text


class Tags(HTMLParser):
    """Start tags with their attributes, and the text outside script and style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_data(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    data = json.loads(found[1])
    assert isinstance(data, dict)
    return data


def rows(page: str) -> dict[str, str]:
    """Method -> its table row's HTML."""
    return {
        found[1].strip(): found[0]
        for found in re.finditer(
            r'<tr class[^>]*>\s*<th scope="row">([^<]*)</th>.*?</tr>', page, re.DOTALL
        )
    }


def test_the_page_says_what_ran_and_warns_before_the_numbers() -> None:
    text = Tags(render(full_report())).text
    for part in ("small visual world", "0.1.0", "4 min 12 s", "upper_lr", "is a toy"):
        assert part in text
    assert text.index("is a toy") < text.index("One sample")


def test_cells_show_percent_and_interval() -> None:
    page = render(bare_report())
    assert "50.0" in page
    assert "45.0–55.0" in page
    assert "n = 160" in page


def test_the_best_of_a_column_is_bold_but_never_the_oracle_or_the_ceiling() -> None:
    def estimate(mean: float) -> Estimate:
        return Estimate(10, mean, mean, mean)

    table = AccuracyTable(
        "t",
        {
            "a": {"dreamprm": estimate(0.7), "orm": estimate(0.6), "any_right": estimate(0.7)},
            "b": {"dreamprm": estimate(0.5), "orm": estimate(0.5), "prm_oracle": estimate(0.8)},
        },
    )
    found = rows(render(ReportData("t", tables=(table,))))
    assert found["DreamPRM"].count('class="best"') == 2
    assert found["Outcome reward model"].count('class="best"') == 1  # the tie in b
    assert 'class="best"' not in found["Any right (ceiling)"] + found["PRM, oracle weights"]
    assert "<td>–</td>" in found["Any right (ceiling)"]  # not evaluated on b


def test_differences_are_shown_with_their_interval_and_p() -> None:
    page = render(full_report()).split('id="fates"')[0]
    found = rows(page)["PRM, oracle weights"]
    assert "−3.0" in found
    assert "−5.5 to" in found
    assert "p = 0.011" in found


@pytest.mark.parametrize("make", [full_report, bare_report, hostile_report])
def test_the_page_loads_nothing(make: Any) -> None:
    page = Tags(render(make()))
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert not {"src", "href", "srcset", "action", "style"} & set(attributes)
    policies = [a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a]
    assert policies
    assert policies[0] and policies[0].startswith("default-src 'none'")


def test_plotly_is_inlined_once_where_there_is_a_chart_and_not_otherwise() -> None:
    assert render(full_report()).count("* plotly.js v") == 1
    assert "plotly.js v" not in render(bare_report())
    assert len(render(bare_report())) < 100_000


def test_hostile_text_adds_no_element_and_no_attribute() -> None:
    page = render(hostile_report())
    assert ATTACK not in page
    assert "<script>window.attacked" not in page
    assert "<img" not in page.replace('"<img', "").split("plotly.js v")[0]
    tags = Tags(page).tags
    assert sum(tag == "script" for tag, _ in tags) == 3  # data, plotly, ours
    assert not [a for _, attributes in tags for a in attributes if a.startswith("on")]


def test_hostile_text_survives_unchanged_as_data() -> None:
    data = page_data(render(hostile_report()))
    assert data["examples"][0]["question"] == ATTACK
    assert data["examples"][0]["candidates"][0]["steps"] == [ATTACK]
    assert data["domains"][0]["name"] == ATTACK
    assert data["scaling"][0][0] == ATTACK


def test_long_texts_are_shortened() -> None:
    one = example(0, main_right=True, uniform_right=False)
    steps = ("x" * 2_000_000,) * 1_000
    long = replace(one.candidates[0], steps=steps, step_scores=(0.5,) * 1_000, answer=steps[0])
    shown = replace(one, question=steps[0], candidates=(long,) * 8)
    page = render(replace(bare_report(), examples=(shown,) * 24))
    assert len(page) < 24 * 8 * 60_000
    assert "(1,996,000 more characters)" in page and "(800 more steps)" in page


def test_methods_keep_their_order_in_the_curves() -> None:
    report = full_report()
    assert [m for m, _ in page_data(render(report))["scaling"]] == list(report.scaling)


def test_images_are_embedded_by_kind_and_never_as_a_picture_that_may_hold_scripts() -> None:
    one = example(0, main_right=True, uniform_right=True)
    kinds = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"<svg onload=alert(1)>": "x-unknown"}
    with_images = replace(one, images=tuple(kinds))
    data = page_data(render(ReportData("t", examples=(with_images,))))
    for uri, kind in zip(data["examples"][0]["images"], kinds.values(), strict=True):
        assert uri.startswith(f"data:image/{kind};base64,")


def test_numbers_that_json_cannot_hold_and_missing_step_scores_are_refused() -> None:
    with pytest.raises(DataError, match="nan"):
        render(ReportData("t", domains=(Domain("d", "f", "", None, float("nan")),)))
    one = example(0, main_right=True, uniform_right=True)
    short = replace(one.candidates[0], step_scores=(0.5,))
    with pytest.raises(DataError, match="1 scores for 5 steps"):
        render(ReportData("t", examples=(replace(one, candidates=(short,)),)))


def test_the_report_is_written_as_one_utf8_file(tmp_path: Path) -> None:
    write_report(ReportData("Ergebnis – große Übersicht"), tmp_path / "report.html")
    assert "große Übersicht" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
