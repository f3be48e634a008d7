"""What is known of a job that was killed, and of the server that it asked."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from dreamprm.cli import main
from dreamprm.data import write_questions
from dreamprm.records import Question
from dreamprm.rollouts.store import RolloutStore
from tests.fake_endpoint import FakeEndpoint
from tests.forked_commands import ForkedCommands

SLOTS = 4


def sample(url: str, folder: Path, continuation: str = "prefill") -> list[str]:
    served = ["--model_name_or_path", "fake", "--base_urls", url, "--prompt", "bare"]
    served += ["--continuation", continuation, "--concurrency", str(SLOTS)]
    questions = ["--questions", str(folder.parent / "questions.jsonl")]
    output = ["--output", str(folder / "candidates.jsonl"), "--num_candidates", "2"]
    return ["sample", *questions, *output, *served]


def test_status_shows_a_killed_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], commands: ForkedCommands
) -> None:
    asked = [Question(id=f"q{i}", domain="d", text=f"t{i}", answer="1") for i in range(500)]
    write_questions(tmp_path / "questions.jsonl", asked)
    folder = tmp_path / "job"
    with FakeEndpoint(continues="prefill", slots=SLOTS, latency_s=0.02) as server:
        end = time.monotonic() + 2.0
        assert commands.run(sample(server.url, folder), lambda: time.monotonic() > end) == -9
    capsys.readouterr()
    assert main(["status", "--store", str(folder / "rollouts.db"), "--json", "true"]) == 0
    status = json.loads(capsys.readouterr().out)
    [job] = status["jobs"]
    assert not status["running"] and "killed" in job["state"]
    assert 0 < job["done"] < 500 and job["total"] == 500 and job["seconds_left"] > 0
    assert status["usage"]["fake"]["completions"] == status["counts"]["rollouts"]
    assert main(["status", "--store", str(folder / "rollouts.db")]) == 0
    assert "killed" in capsys.readouterr().out


def test_how_steps_are_continued_is_found_out_once_per_store(tmp_path: Path) -> None:
    write_questions(
        tmp_path / "questions.jsonl", [Question(id="q", domain="d", text="t", answer="1")]
    )
    with FakeEndpoint(continues="assistant") as server:
        words = sample(server.url, tmp_path / "job", "auto")
        assert main(words) == 0
        server.continues = "never"
        assert main(words) == 0
    with RolloutStore(tmp_path / "job" / "rollouts.db", readonly=True) as store:
        [generator] = store.generators()
    assert json.loads(generator.settings)["continuation"] == "prefill"
