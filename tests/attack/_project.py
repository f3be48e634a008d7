"""A small good project, and the commands that read a file of each kind in it."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from dreamprm.data import write_questions, write_scores, write_trajectories
from dreamprm.records import Label, Question, Record, StepScores, Trajectory

Words = list[str]


class Project:
    """Two questions with pictures, two candidates of each and their scores."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "project"
        self.folder.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        Image.new("RGB", (30, 20), "red").save(buffer, "PNG")
        picture = buffer.getvalue()
        (self.folder / "red.png").write_bytes(picture)
        self.questions = [
            Question(
                id=f"q{i}",
                domain=("bars", "dials")[i],
                text=f"What is {i} + 4?",
                images=(picture,) if i else (str(self.folder / "red.png"),),
                options=("7", "5") if i else (),
                answer="B" if i else "4",
                subject="sums",
                extra={"unit": "cm"},
            )
            for i in range(2)
        ]
        self.trajectories = [
            Trajectory(
                question_id=q.id,
                steps=("Step 1: it is read", f"Step 2: they are {n} added"),
                answer=q.answer if n else "9",
                outcome=bool(n),
                labels=(Label.of(3, 4), Label(0.5 + n / 2)),
                sample_index=n,
            )
            for q in self.questions
            for n in range(2)
        ]
        self.scores = [StepScores.of(t, (0.5, t.sample_index - 0.5)) for t in self.trajectories]
        for suffix in (".jsonl", ".parquet"):
            write_questions(self.path("questions", suffix), self.questions)
            write_trajectories(self.path("trajectories", suffix), self.trajectories)
            write_scores(self.path("scores", suffix), self.scores)

    def path(self, holds: str, suffix: str = ".jsonl") -> Path:
        """The good file of questions, trajectories or scores."""
        return self.folder / f"{holds}{suffix}"

    def records(self, holds: str) -> Sequence[Record]:
        records: Sequence[Record] = getattr(self, holds)
        return records

    def words(self, holds: str, path: Path, turn: int) -> Words:
        """A command that reads a file of such records, each turn another one."""
        readers = self._readers(holds, path)
        return readers[turn % len(readers)]()

    def _readers(self, holds: str, path: Path) -> list[Callable[[], Words]]:
        files = {name: str(self.path(name)) for name in ("questions", "trajectories", "scores")}
        files[holds] = str(path)
        out = str(self.folder / "out")
        both = ["--questions", files["questions"], "--trajectories", files["trajectories"]]
        scored = [*both, "--scores.a", files["scores"]]
        validate = lambda: ["validate", str(path)]  # noqa: E731
        readers: dict[str, list[Callable[[], Words]]] = {
            "questions": [
                lambda: ["convert", "--input", str(path), "--output_questions", f"{out}.parquet"],
                lambda: [*("validate", *both), "--images", "true"],
                lambda: [
                    *("questions", str(path), "--output", f"{out}.jsonl"),
                    *("--columns.text", "text", "--columns.answer", "answer"),
                    *("--columns.images", "images", "--columns.options", "options"),
                    *("--columns.extra", "extra,subject", "--image_root", str(self.folder)),
                ],
                lambda: ["validate", str(self.path("questions")), "--against.it", str(path)],
                lambda: ["evaluate", *scored, "--n", "2", "--output", f"{out}.json"],
                lambda: ["report", *scored, "--n", "2", "--output", f"{out}.html"],
            ],
            "trajectories": [
                lambda: ["convert", *both, "--output_trajectories", f"{out}.parquet"],
                lambda: ["validate", *both],
                lambda: ["evaluate", *scored, "--n", "2"],
                lambda: ["convert", *both, "--output", out, "--output_format", "trl_stepwise"],
                lambda: ["weigh", *both, "--output", f"{out}.jsonl"],
            ],
            "scores": [
                lambda: ["evaluate", *scored, "--n", "2"],
                lambda: [
                    *("select", *both, "--scores", str(path), "--output", f"{out}.jsonl"),
                    *("--result", f"{out}.json"),
                ],
            ],
        }
        return [validate, *readers[holds]]
