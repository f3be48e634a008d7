"""Responses of other tools, told by their columns; the outputs of MMMU, MMMU-Pro and M3CoT."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dreamprm.cli import main
from dreamprm.evaluation.benchmarks import ANSWERS, read_responses
from dreamprm.evaluation.benchmarks.mmmu import extract, right
from dreamprm.evaluation.results import Result, read_result
from dreamprm.records import Question

Row = dict[str, Any]


def lines(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def tsv(path: Path, rows: Sequence[Row]) -> Path:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0].keys(), delimiter="\t")
        table.writeheader()
        table.writerows(rows)
    return path


def xlsx(path: Path, rows: Sequence[Row]) -> Path:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [list(rows[0]), *(list(row.values()) for row in rows)]:
        book.active.append(row)
    book.save(path)
    return path


def score(tmp_path: Path, *words: object) -> Result:
    out = tmp_path / "result.json"
    assert main(["benchmark", *map(str, words), "--output", str(out)]) == 0
    return read_result(out)


def verdicts(result: Result) -> dict[str, bool]:
    [rows] = result.questions.values()
    return {row.question_id: bool(row.value) for row in rows}


OPTIONS = {"A": "red", "B": "blue", "C": "green"}
GOLDS = ("A", "B", "C")
SAID = ("It is red.\n\nAnswer: A", "Answer: C", "Failed to obtain answer via API.")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three questions of MMMU, as its own output holds them."""
    rows = [
        {"id": f"validation_Art_{i}", "options": list(OPTIONS.values()), "answer": gold}
        for i, gold in enumerate(GOLDS, start=1)
    ]
    return lines(tmp_path / "data.jsonl", [row | {"response": "?"} for row in rows])


def sheet(**more: Sequence[object]) -> list[Row]:
    """A sheet of VLMEvalKit; `more` are columns."""
    rows: list[Row] = []
    for i, (gold, said) in enumerate(zip(GOLDS, SAID, strict=True)):
        columns = {name: values[i] for name, values in more.items()}
        row = {"index": i + 1, "question": "Which?", **OPTIONS, "answer": gold, "category": "Art"}
        rows.append(row | columns | {"prediction": said, "hit": 1})
    return rows


@pytest.mark.parametrize("write", [tsv, xlsx])
def test_a_sheet_of_vlmevalkit_is_read_by_its_id_column(
    write: Any, tmp_path: Path, data: Path
) -> None:
    rows = sheet(id=[f"validation_Art_{i}" for i in (1, 2, 3)])
    rows.append(rows[0] | {"id": "dev_Art_1", "split": "dev"})
    rows = [{"split": "validation"} | row for row in rows]  # MMMU_DEV_VAL holds both splits
    path = write(tmp_path / f"r.{write.__name__}", rows)
    result = score(tmp_path, "--benchmark", "mmmu", "--data", data, "--responses", path)
    assert verdicts(result) == {
        "validation_Art_1": True,
        "validation_Art_2": False,
        "validation_Art_3": False,
    }
    assert result.details["unread"] == {"empty": 1}, "no answer of the server is no text"
    assert result.details["guessing_would_add"] == pytest.approx(1 / 3 / 3)


def test_a_sheet_without_ids_is_read_by_its_row_numbers_if_the_gold_answers_agree(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--benchmark", "mmmu", "--data", str(data), "--responses", str(tmp_path / "r.tsv")]
    for first in (0, 1):
        tsv(tmp_path / "r.tsv", sheet(index=range(first, first + 3)))
        assert list(verdicts(score(tmp_path, *words)).values()) == [True, False, False]
    tsv(tmp_path / "r.tsv", sheet(answer=["B", "C", "A"]))
    assert main(["benchmark", *words]) == 1
    assert "no column of its rows (index) holds ids of the questions" in capsys.readouterr().err


def samples(**more: Sequence[object]) -> list[Row]:
    rows: list[Row] = [{"doc_id": i, "target": gold} for i, gold in enumerate(GOLDS)]
    return [row | {k: v[i] for k, v in more.items()} for i, row in enumerate(rows)]


NAMES = [f"validation_Art_{i}" for i in (1, 2, 3)]


@pytest.mark.parametrize(
    "rows",
    [
        samples(resps=[[[said]] for said in SAID], filtered_resps=["B", "B", "C"]),
        samples(resps=[[said] for said in SAID], filtered_resps=[["B"], ["B"], ["C"]]),
        samples(filtered_resps=SAID),
        samples(filtered_resps=[[said] for said in SAID], doc=[{"id": name} for name in NAMES]),
        samples(filtered_resps=SAID, mmmu_acc=[{"id": n, "parsed_pred": "B"} for n in NAMES])[::-1],
        samples(resps=[[said] for said in SAID], filter=["strict"] * 3)
        + samples(resps=[[said] for said in SAID], filter=["flexible"] * 3),
    ],
    ids=["nested", "flat", "filtered alone", "id in doc", "id in a metric", "two filters"],
)
def test_samples_of_lmms_eval_are_read_raw_text_first(
    rows: list[Row], tmp_path: Path, data: Path
) -> None:
    path = lines(tmp_path / "r.jsonl", rows)
    questions = [r.question for r in read_responses(ANSWERS["mmmu"], data) if r.question]
    responses = {r.question_id: r.text for r in read_responses(ANSWERS["mmmu"], path, questions)}
    assert responses == dict(zip(NAMES, SAID, strict=True))


def test_samples_with_several_responses_or_likelihoods_are_refused(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for resps in ([["A", "B"]], [[-1.5, False]]):
        path = lines(tmp_path / "r.jsonl", samples(resps=[resps] * 3))
        words = ["--benchmark", "mmmu", "--data", str(data), "--responses", str(path)]
        assert main(["benchmark", *words]) == 1
        assert "r.jsonl, row 1, field 'resps': must hold one text" in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["vlmevalkit", "lmms_eval"])
def test_what_we_export_is_read_again(layout: str, tmp_path: Path, real_data: Path) -> None:
    folder = real_data / "mathvista"
    words = ["--benchmark", "mathvista", "--data", folder / "testmini.json", "--limit", 200]
    path = tmp_path / ("e.tsv" if layout == "vlmevalkit" else "e.jsonl")
    export = ["--export", path, "--export_layout", layout]
    bard = folder / "output_bard.json"
    first = verdicts(score(tmp_path, *words, "--responses", bard, "--extract_again", *export))
    again = verdicts(score(tmp_path, *words, "--responses", path))
    assert sum(first[name] == again[name] for name in first) >= 199


# ---- MMMU, MMMU-Pro and M3CoT by their own output, which holds the questions too


def test_mmmu_pro_is_judged_by_the_shuffled_options_that_were_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"options": ["red", "blue"], "answer": "A"}
    row |= {"shuffled_options": ["green", "blue", "red", "grey"], "shuffled_options_answer": "C"}
    said = ["Answer: C", "It is plainly the red one here", "Answer: A", "", {"error": "blocked"}]
    rows = [row | {"id": f"test_Art_{i}", "response": text} for i, text in enumerate(said)]
    written = {"options": "[['red', 'blue', 'grey']]", "answer": "B", "response": "Answer: B"}
    rows.append({"id": "test_Art_5"} | written)
    result = score(
        tmp_path, "--benchmark", "mmmu_pro", "--responses", lines(tmp_path / "r.jsonl", rows)
    )
    assert list(verdicts(result).values()) == [True, True, False, False, False, True]
    assert result.details["unread"] == {"empty": 2}
    assert result.details["guessing_would_add"] == pytest.approx(2 / 4 / 6)
    [metrics] = result.metrics.values()
    assert metrics["mmmu_pro/subject/Art"].n == 6
    told = capsys.readouterr()
    assert "6 questions, and mmmu_pro has 1,730" in told.err
    assert "2 of 6 responses state no answer: 2 empty; they count as wrong" in told.err
    assert "responses without an answer: empty" in told.out


def test_a_row_with_another_gold_answer_than_the_data_is_told(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    rows[1] |= {"options": ["blue", "red", "green"], "answer": "A", "response": "A"}
    rows[2] |= {"options": ["green", "cyan"], "answer": "B", "response": "B"}
    words = ["--benchmark", "mmmu", "--data", data, "--responses", lines(tmp_path / "r", rows)]
    assert list(verdicts(score(tmp_path, *words)).values()) == [False, True, True]
    assert "1 rows of the responses have another gold answer" in capsys.readouterr().err


def test_an_open_question_of_mmmu_is_judged_as_its_script_does() -> None:
    tampa = Question(
        id="q", domain="d", text="?", answer="Tampa", extra={"answers": ["Tampa", "FL"]}
    )
    number = Question(id="q", domain="d", text="?", answer="3.43")
    letter = Question(id="q", domain="d", text="?", answer="C")
    for question, text, expected in (
        (tampa, "We look.\nThe city is in Tampa, Florida.", True),
        (tampa, "Tampa is near, so Miami", False),
        (tampa, "FL", True),
        (number, "So x = 24/7 = 3.4286", True),
        (number, "x = 3.43\nThe answer is 4", False),
        (number, "3.43\nso x = 4", False),
        (letter, "cats", False),
        (letter, "it is c or d", True),
        (letter, "The answer is C.", True),
        (letter, "", False),
    ):
        assert right(question, extract(question, text)) is expected, text


def test_m3cot_takes_the_last_message_for_the_response(tmp_path: Path) -> None:
    row = {"choices": ["red", "blue"], "answer": "B", "domain": "science", "topic": "optics"}
    rows = [
        row | {"id": f"optics-{i}", "messages": ["Which?", text]}
        for i, text in enumerate(("The answer is (B) blue.", "(A) red"))
    ]
    words = ["--benchmark", "m3cot", "--responses", lines(tmp_path / "r.jsonl", rows)]
    result = score(tmp_path, *words)
    assert verdicts(result) == {"optics-0": True, "optics-1": False}
    [metrics] = result.metrics.values()
    assert metrics["m3cot/field/science"].n == metrics["m3cot/topic/optics"].n == 2
    whole = row | {"question": "Which?", "context": "", "image": None}
    questions = [whole | {"id": f"optics-{i}"} for i in range(2)]
    words += ["--data", lines(tmp_path / "test.jsonl", questions)]
    assert verdicts(score(tmp_path, *words)) == verdicts(result)


def test_mmmu_pro_gives_the_published_counts_but_for_what_its_script_draws(
    tmp_path: Path, real_data: Path
) -> None:
    folder = real_data / "responses" / "mmmu_pro"
    if not folder.is_dir():
        pytest.skip("needs the stored responses")
    for line in (folder / "published.jsonl").read_text().splitlines():
        published = json.loads(line)
        path = folder / published["file"]
        result = score(tmp_path, "--benchmark", "mmmu_pro", "--responses", path)
        count, drawn = sum(verdicts(result).values()), sum(result.details["unread"].values())
        assert count <= published["right"] <= count + drawn, path.name


def test_mmmu_gives_what_its_script_counts_without_drawing(tmp_path: Path, real_data: Path) -> None:
    path = real_data / "responses" / "mmmu_val" / "qwen_vl.jsonl"
    if not path.exists():
        pytest.skip("needs the stored responses")
    result = score(tmp_path, "--benchmark", "mmmu", "--responses", path)
    count, drawn = sum(verdicts(result).values()), sum(result.details["unread"].values())
    assert (count, drawn) == (309, 48)
