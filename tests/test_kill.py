"""Kill -9 at random moments of sampling and labelling: nothing is lost, little is repeated."""

from __future__ import annotations

import json
import multiprocessing
import random
import sqlite3
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dreamprm.cli import main
from dreamprm.data import write_questions
from dreamprm.records import Question
from dreamprm.rollouts.store import RolloutStore
from tests.fake_endpoint import FakeEndpoint

KILLS = 8
SLOTS = 4
QUESTIONS = 40
# What a verb needs is imported once, in a server from which every run is forked.
PRELOAD = [
    "dreamprm.cli.sample",
    "dreamprm.cli.label",
    "dreamprm.rollouts.sampler",
    "dreamprm.policy.served",
    "dreamprm.rollouts.labels",
    "openai.resources.chat",
]


def run_verb(words: list[str]) -> None:
    """In the child process."""
    sys.exit(main(words))


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


def test_kills_leave_the_store_of_an_unbroken_run(tmp_path: Path) -> None:
    asked = [Question(id=f"q{i}", domain="d", text=f"t{i}", answer="1") for i in range(QUESTIONS)]
    write_questions(tmp_path / "questions.jsonl", asked)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    rng = random.Random(0)
    with FakeEndpoint(continues="prefill", slots=SLOTS, latency_s=0.01) as server:
        for words in verbs(server.url, tmp_path / "unbroken"):
            assert main(words) == 0
        expected = kept(tmp_path / "unbroken")
        needed = len(server.answered)
        assert needed > 2 * QUESTIONS, "the job is long enough to be killed"
        kills, jobs, in_verb = 0, 0, Counter[str]()
        while kills < KILLS or in_verb["sample"] < 3 or in_verb["label"] < 3:
            folder = tmp_path / f"killed{jobs}"
            jobs += 1
            server.forget()
            killed_here = 0
            for words in verbs(server.url, folder):
                patience = 1.0  # grows, so that a busy machine gets to the end too
                while (code := one_run(context, words, patience * rng.uniform(0.2, 0.9))) is None:
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


def one_run(context: Any, words: list[str], seconds: float) -> int | None:
    """Exit code of a run; None if it was killed after so many seconds."""
    process = context.Process(target=run_verb, args=(words,))
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
        return None
    assert process.exitcode is not None
    return None if process.exitcode == -9 else process.exitcode


def test_status_shows_a_killed_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [Question(id=f"q{i}", domain="d", text=f"t{i}", answer="1") for i in range(500)]
    write_questions(tmp_path / "questions.jsonl", asked)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    folder = tmp_path / "job"
    with FakeEndpoint(continues="prefill", slots=SLOTS, latency_s=0.02) as server:
        sample, _ = verbs(server.url, folder)
        assert one_run(context, sample, 2.0) is None
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
