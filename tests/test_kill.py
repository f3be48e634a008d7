"""Kill -9 at random moments of sampling and labelling: nothing is lost, little is repeated."""

from __future__ import annotations

import json
import random
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from dreamprm.cli import main
from dreamprm.data import write_questions
from dreamprm.records import Question
from dreamprm.rollouts.store import RolloutStore
from tests.fake_endpoint import FakeEndpoint
from tests.forked_commands import ForkedCommands

KILLS = 6
SLOTS = 4
QUESTIONS = 30


def verbs(url: str, folder: Path) -> list[list[str]]:
    """Sample, then label."""
    served = ["--model_name_or_path", "fake", "--base_urls", url, "--prompt", "bare"]
    served += ["--continuation", "prefill", "--concurrency", str(SLOTS)]
    questions = ["--questions", str(folder.parent / "questions.jsonl")]
    sampled, labelled = str(folder / "candidates.jsonl"), str(folder / "labelled.jsonl")
    return [
        ["sample", *questions, "--output", sampled, "--num_candidates", "2", *served],
        [
            *("label", *questions, "--trajectories", sampled, "--output", labelled),
            *("--labels", "adaptive", "--label_precision", "0.2", "--max_completions", "4"),
            *served,
        ],
    ]


def kept(folder: Path) -> list[tuple[str, str, int, str, str]]:
    with closing(sqlite3.connect(folder / "rollouts.db")) as store:
        return store.execute(
            "SELECT key, question_id, sample_index, text, finish_reason FROM rollouts "
            "JOIN prefixes ON prefixes.id = prefix ORDER BY key, sample_index"
        ).fetchall()


def test_kills_leave_the_store_of_an_unbroken_run(tmp_path: Path, commands: ForkedCommands) -> None:
    asked = [Question(id=f"q{i}", domain="d", text=f"t{i}", answer="1") for i in range(QUESTIONS)]
    write_questions(tmp_path / "questions.jsonl", asked)
    rng = random.Random(0)
    with FakeEndpoint(continues="prefill", slots=SLOTS, latency_s=0.01) as server:
        for words in verbs(server.url, tmp_path / "unbroken"):
            assert main(words) == 0
        expected = kept(tmp_path / "unbroken")
        needed = len(server.answered)
        assert needed > 2 * QUESTIONS, "the job is long enough to be killed"
        kills, jobs, in_verb = 0, 0, Counter[str]()
        while kills < KILLS or in_verb["sample"] < 2 or in_verb["label"] < 2:
            folder = tmp_path / f"killed{jobs}"
            jobs += 1
            server.forget()
            killed_here = 0
            for words in verbs(server.url, folder):
                patience = 1.0  # grows, so that a busy machine gets to the end too
                while (code := one_run(commands, words, patience * rng.uniform(0.2, 0.9))) == -9:
                    patience *= 1.1
                    killed_here += 1
                    in_verb[words[0]] += 1
                assert code == 0
            kills += killed_here
            assert kept(folder) == expected
            for name in ("candidates.jsonl", "labelled.jsonl"):
                assert (folder / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()
            # Each run greets the server once; and a reply that has freed its slot may be on its
            # way to the store while the next request is sent.
            lost = killed_here * (1 + SLOTS + 2)
            assert len(server.seen) <= needed + lost, "only what was in flight is repeated"
    print(f"{kills} kills in {jobs} jobs ({dict(in_verb)}), {needed} calls each")


def one_run(commands: ForkedCommands, words: list[str], seconds: float) -> int:
    """Exit code of a run; -9 if it was killed after so many seconds."""
    end = time.monotonic() + seconds
    return commands.run(words, lambda: time.monotonic() > end)


def test_status_shows_a_killed_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], commands: ForkedCommands
) -> None:
    asked = [Question(id=f"q{i}", domain="d", text=f"t{i}", answer="1") for i in range(500)]
    write_questions(tmp_path / "questions.jsonl", asked)
    folder = tmp_path / "job"
    with FakeEndpoint(continues="prefill", slots=SLOTS, latency_s=0.02) as server:
        sample, _ = verbs(server.url, folder)
        assert one_run(commands, sample, 2.0) == -9
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
        sample, _ = verbs(server.url, tmp_path / "job")
        sample[sample.index("--continuation") + 1] = "auto"
        assert main(sample) == 0
        server.continues = "never"
        assert main(sample) == 0
    with RolloutStore(tmp_path / "job" / "rollouts.db", readonly=True) as store:
        [generator] = store.generators()
    assert json.loads(generator.settings)["continuation"] == "prefill"
