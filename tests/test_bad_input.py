"""Bad input and a failing environment: one clear line, exit code not 0, nothing written is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dreamprm.cli import main
from dreamprm.data import read_questions, read_scores, write_questions
from dreamprm.rollouts.store import RolloutStore
from tests.cli_samples import paper_train_rows, read_rows, train_words
from tests.conftest import Refused
from tests.forked_commands import ForkedCommands

torch.set_num_threads(1)


def edit_row(path: Path, row: int, **changes: object) -> None:
    """Change some fields of one row (from 1) of a JSONL file."""
    rows = read_rows(path)
    rows[row - 1] |= changes
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def on_candidates(project: Path, verb: str, model: str | Path) -> list[str]:
    """`sample`, `label`, `score` or `evaluate` of the test set."""
    words = [verb, "--questions", str(project / "test.jsonl")]
    if verb not in ("sample", "select"):
        words += ["--trajectories", str(project / "test_candidates.jsonl")]
    if verb != "evaluate":
        words += ["--model_name_or_path", str(model)]
    return [*words, "--output", str(project / "out.jsonl")]


def test_a_missing_image_is_named_before_a_model_loads(project: Path, refused: Refused) -> None:
    edit_row(project / "test.jsonl", 2, images=["gone.png"])
    line = refused(on_candidates(project, "sample", "no/model"))
    assert "test.jsonl, row 2" in line
    assert "gone.png does not exist" in line
    assert not (project / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("verb", "more"),
    [
        ("sample", ["--num_candidates", "1", "--max_new_tokens", "2"]),
        ("label", ["--num_completions", "1", "--max_new_tokens", "2"]),
        ("score", []),
        ("select", ["--method", "self_consistency", "--n", "1", "--max_new_tokens", "2"]),
    ],
)
def test_a_damaged_image_is_named_at_the_start_and_costs_no_more_than_its_question(
    verb: str,
    more: list[str],
    project: Path,
    model: str,
    prm: Path,
    refused: Refused,
    png: bytes,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (project / "cut.png").write_bytes(png[:50])
    edit_row(project / "test.jsonl", 2, images=["cut.png"])
    words = [*on_candidates(project, verb, prm if verb == "score" else model), *more]
    line = refused(words)
    assert "test.jsonl, row 2" in line
    assert "question 'test-vista-1': image" in line
    assert "cut.png cannot be read" in line
    assert not (project / "out.jsonl").exists()
    assert not (project / "rollouts.db").exists()

    assert main([*words, "--skip_bad_images"]) == 0
    told = capsys.readouterr().err
    assert "dreamprm: left out: " in told
    assert "cut.png" in told
    assert told.endswith("dreamprm: 1 questions were left out because of their images\n")
    rows = read_rows(project / "out.jsonl")
    assert len({row["question_id"] for row in rows}) == 5
    assert "test-vista-1" not in {row["question_id"] for row in rows}


@pytest.mark.parametrize("verb", ["label", "score"])
def test_cut_jsonl_is_named_by_row(verb: str, project: Path, prm: Path, refused: Refused) -> None:
    path = project / "test_candidates.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    line = refused(on_candidates(project, verb, prm))
    assert "test_candidates.jsonl, row 24" in line
    assert "cut off" in line
    assert not (project / "out.jsonl").exists()


def wrong_trajectory(row: int, **changes: object) -> Callable[[Path], list[str]]:
    def damage(project: Path) -> list[str]:
        edit_row(project / "train_candidates.jsonl", row, **changes)
        return []

    return damage


def wrong_weights(text: str) -> Callable[[Path], list[str]]:
    def damage(project: Path) -> list[str]:
        (project / "w.json").write_text(text)
        return ["--weights_file", str(project / "w.json")]

    return damage


def wrong_paper_file(kept: float = 1.0, **changes: Any) -> Callable[[Path], list[str]]:
    """The paper's train.json with row 5 changed, or only its beginning."""

    def damage(project: Path) -> list[str]:
        rows = paper_train_rows("red.png")
        rows[4] = {k: v for k, v in (rows[4] | changes).items() if v is not None}
        text = json.dumps(rows)
        (project / "train.json").write_text(text[: int(kept * len(text))])
        return ["--train_file", str(project / "train.json")]

    return damage


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            wrong_trajectory(3, labels=[[2, 4], [5, 4]]),
            ["train_candidates.jsonl, row 3", "label of step 2 is 5 of 4, outside 0-1"],
        ),
        (
            wrong_trajectory(7, steps=[], labels=None),
            ["train_candidates.jsonl, row 7", "a trajectory without steps"],
        ),
        (wrong_paper_file(kept=0.5), ["train.json: not JSON", "cut off"]),
        (
            wrong_paper_file(accuracy=1.5, score=None, times=None),
            [
                "train.json, row 5, field 'accuracy'",
                "label 1.5 must be true, false, or",
            ],
        ),
        (wrong_weights('{"bars": 1, "dails": 1}'), ["unknown domain 'dails'", "dials"]),
        (wrong_weights("[1, 2]"), ["w.json: must hold a JSON object"]),
        (wrong_weights("{}"), ["w.json: must be an object {domain: weight}"]),
        (wrong_weights('{"bars": "much"}'), ["w.json, field 'bars'", "must be a number"]),
        (wrong_weights('{"bars": 1,'), ["w.json: not JSON"]),
    ],
)
def test_a_mistake_in_what_train_reads_is_named_with_its_place(
    damage: Callable[[Path], list[str]],
    said: list[str],
    project: Path,
    model: str,
    refused: Refused,
) -> None:
    more = damage(project)
    words = train_words(project, model, *more)
    if "--train_file" in more:
        first = words.index("--train_questions")
        del words[first : first + 4]
    line = refused(words)
    assert [text for text in said if text not in line] == [], line


def assert_full(commands: ForkedCommands, words: list[str], largest_file: int, said: str) -> None:
    """A command ends with one line when no file can grow beyond a size."""
    assert commands.run(words, largest_file=largest_file) == 1, commands.said
    *warnings, error = commands.said.splitlines(keepends=True)
    assert all(line.startswith("dreamprm: warning: ") for line in warnings)
    assert_one_line(error, said)


def assert_one_line(error: str, said: str) -> None:
    assert error.startswith("dreamprm: error: ")
    assert error.count("\n") == 1
    assert said in error


def test_a_full_disk_keeps_what_was_sampled(
    project: Path, model: str, commands: ForkedCommands
) -> None:
    out, store = project / "out.jsonl", project / "rollouts.db"
    asked = [
        question.model_copy(update={"text": f"{question.text} {i}"})
        for i, question in enumerate(read_questions(project / "test.jsonl"))
    ]
    write_questions(project / "test.jsonl", asked)
    words = [
        *on_candidates(project, "sample", model),
        *("--max_new_tokens", "6", "--num_candidates", "2", "--per_device_batch_size", "2"),
    ]
    assert main(words) == 0
    whole = out.read_bytes()
    for path in (out, *project.glob("rollouts.db*")):
        path.unlink()

    assert_full(commands, words, 130_000, "rollouts.db: cannot write: ")  # its journal is larger
    assert "free space" in commands.said
    with RolloutStore(store, readonly=True) as kept:
        assert 0 < kept.counts()["rollouts"] < 12
    assert main(words) == 0
    assert out.read_bytes() == whole


def test_a_full_disk_keeps_whole_scores(project: Path, prm: Path, commands: ForkedCommands) -> None:
    out = project / "out.jsonl"
    words = on_candidates(project, "score", prm)
    assert main(words) == 0
    whole = out.read_bytes()
    out.unlink()

    assert_full(commands, words, len(whole) // 2, "out.jsonl: cannot write: ")
    lines = out.read_bytes().splitlines(keepends=True)
    assert len(lines) > 1
    assert whole.startswith(b"".join(lines))  # the last one may be cut; a rerun mends it
    assert main(words) == 0
    assert len(read_scores(out)) == len(whole.splitlines())


def test_a_full_disk_keeps_the_checkpoint(
    project: Path, model: str, commands: ForkedCommands
) -> None:
    head = [*train_words(project, model), "--max_steps", "2", "--meta_gradient_at", "end"]
    assert main(head) == 0
    state = project / "prm" / "checkpoints" / "checkpoint-2" / "state.safetensors"
    before = state.read_bytes()
    again = [*head, "--resume_from_checkpoint", "false"]
    assert_full(commands, again, len(before) // 2, "")
    assert state.read_bytes() == before


def test_a_full_disk_leaves_the_old_results(project: Path, commands: ForkedCommands) -> None:
    words = [*on_candidates(project, "evaluate", ""), "--n", "4"]
    assert main(words) == 0
    before = (project / "out.jsonl").read_bytes()
    assert_full(commands, words, 100, "out.jsonl: cannot write: ")
    assert (project / "out.jsonl").read_bytes() == before
    assert not list(project.glob(".out.jsonl*"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_standard_output_is_one_line(project: Path, commands: ForkedCommands) -> None:
    words = [*on_candidates(project, "evaluate", ""), "--n", "4"]
    assert commands.run(words, stdout="/dev/full") == 1
    assert_one_line(commands.said, "No space left on device")


def test_the_papers_meta_set_is_refused_with_its_rows_without_a_response(
    project: Path, model: str, real_data: Path, refused: Refused
) -> None:
    words = train_words(project, model, "--meta_file", str(real_data / "dreamprm" / "meta.json"))
    first = words.index("--meta_questions")
    del words[first : first + 4]
    line = refused(words)
    assert "371 of 500 rows without a response" in line
    assert "all 251 of 251 false rows" in line
    assert not (project / "prm").exists()
