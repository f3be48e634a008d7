"""`dreamprm score` finds its place by what an earlier run has written."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamprm.cli import main
from dreamprm.cli.score import unwritten
from dreamprm.data import write_questions, write_trajectories
from dreamprm.errors import DataError
from dreamprm.records import StepScores, Trajectory
from tests.conftest import Refused
from tests.tiny_models import picture_question, random_prm

QUESTIONS, EACH = 4, 4


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    random_prm().save_pretrained(folder / "prm")
    questions = [picture_question(f"q{i}", i % 3) for i in range(QUESTIONS)]
    write_questions(folder / "questions.jsonl", questions)
    write_trajectories(
        folder / "candidates.jsonl",
        [
            Trajectory(question_id=q.id, steps=(f"red is {j}", "so it is"), sample_index=j)
            for q in questions
            for j in range(EACH)
        ],
    )
    return folder


def words(project: Path, output: Path) -> list[str]:
    found = ["score", "--model_name_or_path", str(project / "prm"), "--output", str(output)]
    found += ["--questions", str(project / "questions.jsonl")]
    found += ["--trajectories", str(project / "candidates.jsonl")]
    return found


def scored(question: str, index: int) -> StepScores:
    return StepScores(question_id=question, sample_index=index, logits=(0.0,))


def made(count: int) -> list[Trajectory]:
    return [Trajectory(question_id="q", steps=("a",), sample_index=i) for i in range(count)]


def test_a_later_run_finds_its_place_by_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreamprm.cli.score.WINDOW", 4)
    written = iter([scored("q", i) for i in (2, 0, 3, 1, 6)])
    windows = list(unwritten(made(10), written, Path("s.jsonl")))
    assert [[t.sample_index for t in left] for _, left in windows] == [[], [4, 5, 7], [8, 9]]


def test_scores_of_other_trajectories_are_refused() -> None:
    with pytest.raises(DataError, match="question 'other', candidate 0, which is not at this"):
        list(unwritten(made(3), iter([scored("other", 0)]), Path("s.jsonl")))


def test_a_candidate_that_is_there_twice_is_refused() -> None:
    with pytest.raises(DataError, match="candidate 1 is there twice"):
        list(unwritten([*made(3), *made(2)[1:]], iter([]), Path("s.jsonl")))


def test_fewer_trajectories_than_scores_are_refused(
    project: Path, tmp_path: Path, refused: Refused
) -> None:
    output = tmp_path / "scores.jsonl"
    assert main(words(project, output)) == 0
    lines = (project / "candidates.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "fewer.jsonl").write_text("".join(lines[:-8]))
    fewer = words(project, output)
    fewer[fewer.index("--trajectories") + 1] = str(tmp_path / "fewer.jsonl")
    before = output.read_bytes()
    assert "which is not at this place of the trajectories" in refused(fewer)
    assert output.read_bytes() == before
