"""The command line's `questions`: known sets, tables of one's own, mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from dreamprm.cli import parsing, questions
from dreamprm.data import DataWarning, check_images, read_questions
from dreamprm.errors import DataError, DreamPRMError


def run(*words: Any) -> None:
    questions.run(parsing.parse("questions", questions, [str(word) for word in words]))


def saved_chartqa(folder: Path, png: bytes, count: int = 5) -> Path:
    """ChartQA's columns, as `datasets` keeps them."""
    columns = {
        "image": [{"bytes": png, "path": None}] * count,
        "query": [f"How high is bar {i}?" for i in range(count)],
        "label": [[str(i)] for i in range(count)],
    }
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "query": datasets.Value("string"),
            "label": datasets.List(datasets.Value("string")),
        }
    )
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(folder / "chartqa"))
    return folder / "chartqa"


def test_a_known_set_is_read_from_a_folder_with_its_images_beside_the_output(
    tmp_path: Path, png: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out" / "q.jsonl"
    run("--source", "ChartQA", "--path", saved_chartqa(tmp_path, png), "--output", output)
    found = read_questions(output)
    assert [q.answer for q in found] == ["0", "1", "2", "3", "4"]
    assert {q.domain for q in found} == {"chartqa"}
    check_images(found, output)
    assert [p.read_bytes() for p in (tmp_path / "out" / "q_images").iterdir()] == [png]
    assert "5 questions, 0 with options, 5 images" in capsys.readouterr().out


def test_images_can_stay_inside_the_file(tmp_path: Path, png: bytes) -> None:
    folder, output = saved_chartqa(tmp_path, png), tmp_path / "q.parquet"
    run(
        *("--source", "chartqa", "--path", folder, "--output", output),
        *("--inline_images", "true", "--limit", 2),
    )
    assert [q.images for q in read_questions(output)] == [(png,), (png,)]
    assert not (tmp_path / "q_images").exists()


def test_a_table_of_ones_own_is_read_by_its_columns(tmp_path: Path, png: bytes) -> None:
    (tmp_path / "a.png").write_bytes(png)
    table = tmp_path / "mine.csv"
    table.write_text("ask,A,B,key,file,unit\n2 + 2?,3,4,B,a.png,cm\n3 + 3?,6,7,6,a.png,\n")
    words = ["--columns.text", "ask", "--columns.options", "A,B", "--columns.answer", "key"]
    more = ["--columns.images", "file", "--columns.unit", "unit", "--domain", "sums"]
    run("--source", table, "--output", tmp_path / "q.jsonl", *words, *more)
    first, second = read_questions(tmp_path / "q.jsonl")
    assert (first.id, first.domain, first.options, first.answer) == (
        "mine-1",
        "sums",
        ("3", "4"),
        "B",
    )
    assert (first.extra, second.extra, second.answer) == ({"unit": "cm"}, {}, "A")
    assert first.images == (str(tmp_path / "a.png"),)

    table = tmp_path / "mine.json"
    table.write_text('[{"q": "2 + 2?", "choices": ["3", "4"], "key": 1, "level": 5}]')
    words = ["--columns.text", "q", "--columns.options", "choices", "--columns.answer", "key"]
    more = ["--columns.answer_is", "index", "--columns.extra", "level"]
    run("--source", table, "--output", tmp_path / "q.jsonl", *words, *more)
    (question,) = read_questions(tmp_path / "q.jsonl")
    assert (question.options, question.answer, question.extra) == (("3", "4"), "B", {"level": 5})


def test_a_column_of_a_known_set_can_be_renamed(tmp_path: Path) -> None:
    rows = [{"image": None, "question": "How high?", "label": ["2"]}]
    (tmp_path / "c.json").write_text(json.dumps(rows))
    words = ["--source", "chartqa", "--path", tmp_path / "c.json", "--output", tmp_path / "q.jsonl"]
    with pytest.raises(DataError, match="field 'query': there is no such column"):
        run(*words)
    run(*words, "--columns.text", "question")
    assert read_questions(tmp_path / "q.jsonl")[0].answer == "2"


def test_options_can_be_shuffled_and_the_gold_letter_moves_along(tmp_path: Path) -> None:
    table, output = tmp_path / "t.jsonl", tmp_path / "q.jsonl"
    rows = [
        {"q": f"Which? {i}", "o": ["red", "blue", "green", "grey"], "a": "B"} for i in range(30)
    ]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--source", table, "--domain", "d", "--output", output, "--shuffle_options", 3]
    words += ["--columns.text", "q", "--columns.options", "o", "--columns.answer", "a"]
    run(*words)
    found = read_questions(output)
    assert {q.options["ABCD".index(q.answer)] for q in found} == {"blue"}
    assert len({q.answer for q in found}) > 1
    run(*words)
    assert read_questions(output) == found


def test_a_random_subset_is_the_same_for_the_same_seed(tmp_path: Path, png: bytes) -> None:
    folder = saved_chartqa(tmp_path, png, 20)

    def ids(seed: int, name: str) -> list[str]:
        words = ["--source", "chartqa", "--path", folder, "--limit", 5, "--seed", seed]
        run(*words, "--output", tmp_path / name)
        return [q.id for q in read_questions(tmp_path / name)]

    assert ids(1, "a.jsonl") == ids(1, "b.jsonl") != ids(2, "c.jsonl")


def test_a_bad_row_leaves_the_old_output_or_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"q": "2 + 2?", "a": "4"}, {"q": "", "a": "4"}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = tmp_path / "q.jsonl"
    output.write_text("old\n")
    words = ["--source", tmp_path / "t.jsonl", "--output", output]
    words += ["--columns.text", "q", "--columns.answer", "a"]
    with pytest.raises(DataError, match="row 2, field 'q': is empty"):
        run(*words)
    assert output.read_text() == "old\n"
    run(*words, "--on_bad_row", "skip")
    assert len(read_questions(output)) == 1
    assert "1 rows left out, the first" in capsys.readouterr().err


def test_no_question_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text("[]")
    words = ["--source", tmp_path / "t.json", "--output", tmp_path / "q.jsonl"]
    with pytest.raises(DataError, match="gave no question"):
        run(*words, "--columns.text", "q", "--columns.answer", "a")
    assert not (tmp_path / "q.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        (["--output", "o.jsonl"], parsing.UsageError, "--source and --output are needed"),
        (["--source", "chartqa"], parsing.UsageError, "--source and --output are needed"),
        (["--source", "chartq", "--output", "o.jsonl"], DreamPRMError, "did you mean chartqa"),
        (["--source", "o/n", "--output", "o.jsonl"], parsing.UsageError, "--columns.text and"),
        (["--source", "no.csv", "--output", "o.jsonl"], parsing.UsageError, "--columns.text and"),
        (["--source", "mathvista", "--output", "o.jsonl"], DreamPRMError, "read from a file"),
        (
            ["--source", "chartqa", "--output", "o.jsonl", "--seed", "1"],
            parsing.UsageError,
            "say by --limit",
        ),
        (
            ["--source", "mathvision", "--output", "o.jsonl", "--columns.unit", "u"],
            parsing.UsageError,
            "mathvision needs --columns.text",
        ),
        (["--column.text", "q"], parsing.UsageError, "did you mean columns.text"),
    ],
)
def test_mistakes_are_told_in_one_line(
    words: list[str], kind: type[Exception], said: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=said) as caught:
        run(*words)
    assert "\n" not in str(caught.value)


def test_the_list_names_every_known_set(capsys: pytest.CaptureFixture[str]) -> None:
    run("--list")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["name", "family", "status"]
    row = next(line for line in lines if line.startswith("figureqa "))
    assert "chart" in row and "HuggingFaceM4/the_cauldron (figureqa)" in row


def test_mathvista_is_written_and_its_missing_images_are_told(
    real_data: Path, tmp_path: Path
) -> None:
    path = real_data / "mathvista" / "testmini.json"
    with pytest.warns(DataWarning) as told:
        run("--source", "mathvista", "--path", path, "--output", tmp_path / "q.jsonl")
    assert len(read_questions(tmp_path / "q.jsonl")) == 1000
    gone = 1000 - sum(p.is_file() for p in (path.parent / "images").glob("*"))
    assert gone == 0 or any(f"{gone} images are not there" in str(w.message) for w in told)


def test_the_verb_is_imported_and_lists_without_heavy_packages() -> None:
    code = (
        "import sys; from dreamprm.cli import parsing, questions\n"
        "questions.run(parsing.parse('questions', questions, ['--list']))\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
