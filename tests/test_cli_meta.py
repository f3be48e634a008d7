"""`dreamprm meta`: a meta set on disk, from candidates, without what is trained or tested on."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamprm.cli import meta, parsing
from dreamprm.data import (
    check_references,
    read_questions,
    read_trajectories,
    write_questions,
    write_trajectories,
)
from dreamprm.errors import DataError, DreamPRMError
from dreamprm.records import Question, Trajectory


def _question(name: str, text: str, image: Path) -> Question:
    return Question(
        id=name, domain="maths", text=text, images=(str(image),), answer="6", subject=name[0]
    )


@pytest.fixture
def project(tmp_path: Path, png: bytes) -> Path:
    """Six questions of two subjects, each with two right and two wrong candidates."""
    (tmp_path / "red.png").write_bytes(png)
    asked = [
        _question(name, f"What is {name}?", tmp_path / "red.png")
        for name in ("a1", "a2", "a3", "b1", "b2", "b3")
    ]
    write_questions(tmp_path / "questions.jsonl", asked)
    candidates = [
        Trajectory(
            question_id=q.id,
            steps=("Step 1: red is 3", f"Step 2: attempt {i}"),
            answer="6" if i % 2 == 0 else str(i),
            outcome=i % 2 == 0,
            sample_index=i,
        )
        for q in asked
        for i in range(4)
    ]
    write_trajectories(tmp_path / "candidates.jsonl", candidates)
    return tmp_path


def _words(folder: Path, *more: str) -> list[str]:
    return [
        *("--questions", str(folder / "questions.jsonl")),
        *("--trajectories", str(folder / "candidates.jsonl")),
        *("--output-questions", str(folder / "meta" / "questions.jsonl")),
        *("--output-trajectories", str(folder / "meta" / "meta.jsonl")),
        *more,
    ]


def _run(folder: Path, *more: str) -> None:
    meta.run(parsing.parse("meta", meta, _words(folder, *more)))


def _others(folder: Path, name: str, *texts: str) -> str:
    """A file of questions about the red image."""
    path = folder / name
    write_questions(
        path, [_question(f"x{i}", text, folder / "red.png") for i, text in enumerate(texts)]
    )
    return str(path)


def test_both_files_are_written_and_the_account_is_told(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(project, "--size", "12")
    questions = read_questions(project / "meta" / "questions.jsonl")
    chosen = read_trajectories(project / "meta" / "meta.jsonl")
    check_references(questions, chosen, "meta.jsonl")
    assert [Path(q.images[0]).read_bytes() for q in questions if isinstance(q.images[0], str)]
    assert len(chosen) == 12 and sum(bool(t.outcome) for t in chosen) == 6
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        f"{project / 'meta' / 'meta.jsonl'}: 12 candidates of 6 questions, 6 right and 6 wrong",
        "questions candidates",
        "6 12 contrasting, of 6",
        "0 0 always right, of 0",
        "0 0 always wrong, of 0",
        "3 6 subject a",
        "3 6 subject b",
    ]


def test_what_is_trained_or_tested_on_stays_out(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = _others(project, "train.jsonl", "what is A2", "What is a9?")
    bench = _others(project, "bench.jsonl", "What is **b1**?", "What is a3?")
    clean = _others(project, "clean.jsonl", "Who is it?")
    _run(
        project,
        *("--train-questions", train, clean, "--benchmarks.my-bench", bench, "--size", "12"),
    )
    kept = {q.id for q in read_questions(project / "meta" / "questions.jsonl")}
    assert kept == {"a1", "b2", "b3"}
    said = capsys.readouterr().out
    assert (
        f"{train}: 1 question is there too, the first 'a2' as 'x0' (row 1, same text and image); "
        "left out" in said
    )
    assert f"{clean}: no question in common" in said
    assert f"my-bench ({bench}): 2 questions are there too, the first 'a3' as 'x1'" in said


def test_an_overlap_can_be_refused(project: Path) -> None:
    train = _others(project, "train.jsonl", "what is A2")
    with pytest.raises(DataError, match=r"row 2: 1 question is there too, the first 'a2' as 'x0'"):
        _run(project, "--train_questions", train, "--on_overlap", "refuse")
    assert not (project / "meta").exists()


def test_shared_templates_stay_and_unreadable_images_are_told(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [
        Question(id="x0", domain="d", text="What is a1?", answer="6"),
        _question("x1", "What is a2?", project / "gone.png"),
    ]
    write_questions(project / "bench.jsonl", asked)
    _run(project, "--benchmarks.b", str(project / "bench.jsonl"), "--size", "6")
    said = capsys.readouterr().out
    assert "1 question is there too, the first 'a2' as 'x1' (row 2, same text, unreadable" in said
    assert "1 more share their text and not their image, and stay" in said
    assert "1 images cannot be read; their questions were compared by text" in said


def test_a_set_that_comes_short_is_told_and_strict_refuses_it(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=r"candidates.jsonl: 6 fewer than the 30 wanted"):
        _run(project, "--size", "30", "--strict", "true")
    assert not (project / "meta").exists()
    _run(project, "--size", "30")
    assert "6 fewer than the 30 wanted" in capsys.readouterr().out
    assert len(read_trajectories(project / "meta" / "meta.jsonl")) == 24


@pytest.mark.parametrize(
    ("outcome", "said"),
    [(None, "no candidate has an outcome"), (True, "no wrong candidate can be chosen, and")],
)
def test_candidates_that_cannot_make_a_set_are_refused(
    outcome: bool | None, said: str, project: Path
) -> None:
    path = project / "candidates.jsonl"
    changed = [t.model_copy(update={"outcome": outcome}) for t in read_trajectories(path)]
    write_trajectories(path, changed)
    with pytest.raises(DataError, match=said):
        _run(project)


def test_bad_input_is_refused_as_by_the_other_verbs(project: Path) -> None:
    with pytest.raises(DreamPRMError, match="size is 1"):
        _run(project, "--size", "1")
    with pytest.raises(DataError, match="would be overwritten"):
        _run(project, "--output_trajectories", str(project / "questions.jsonl"))
    same_id = project / "train.jsonl"
    write_questions(same_id, [_question("a1", "Another question?", project / "red.png")])
    with pytest.raises(DataError, match=r"1 ids of other questions are also in .* 'a1'"):
        _run(project, "--train_questions", str(same_id))
    (project / "red.png").unlink()
    with pytest.raises(DataError, match=r"questions.jsonl, row 1, field 'images'"):
        _run(project)
    write_questions(project / "questions.jsonl", [])
    with pytest.raises(DataError, match=r"row 1, field 'question_id'"):
        _run(project)
    with pytest.raises(parsing.UsageError, match="on_overlap"):
        parsing.parse("meta", meta, _words(project, "--on_overlap", "keep"))
