"""Verbs that are killed at any moment and run again: the end is that of an unbroken run.

A verb runs once unbroken, beside a second run that is told so; then, round by round, it is killed
some times and run to its end. A kill comes after a time, or when something in the output's folder
changes, which is where it hurts.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import random
import re
import shutil
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from dreamprm.cli import main
from dreamprm.data import write_questions, write_scores, write_trajectories
from dreamprm.data.files import lock_file
from dreamprm.records import Label, StepScores, Trajectory
from tests.attack import Case, Check, Result
from tests.cli_samples import paper_train_rows, save_tiny_model, train_words
from tests.fake_endpoint import FakeEndpoint
from tests.prm_data import small_data
from tests.tiny_models import picture_question, random_prm

TRIED = "verbs that write, killed at random moments (three of four) and run again"
COUNT = 1_400  # of which each verb gets more than 50 kills
SLOTS = 4
GROWING = ("rollouts.db", "scores.jsonl", "chosen.jsonl", "candidates.jsonl")
"""Outputs that grow row by row; all others are whole or not there at all."""


@dataclass
class Job:
    """A verb with an output folder, and what an unbroken run leaves in it.

    Attributes:
        second: exit code and words of a run that was started beside the unbroken one.
        server: that the verb asks; its requests are counted.
        every: it runs in one round of so many.
        killed, rows: of a round: kills so far, and rows of what grows behind the last one.
    """

    name: str
    words: Sequence[object]
    out: Path
    server: FakeEndpoint | None = None
    every: int = 1
    expected: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    second: tuple[int, str] | None = None
    needed: int = 0
    killed: int = 0
    rows: int = 0

    @property
    def requests(self) -> int:
        return len(self.server.seen) if self.server else 0

    def begin(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        self.killed = self.rows = 0
        if self.server:
            self.server.forget()

    def unbroken(self) -> Case:
        importlib.import_module(f"dreamprm.cli.{self.words[0]}")  # so that a second run is quick
        return self._case("unbroken", self._keep, self._second_run)

    def kill(self, rng: random.Random) -> Case:
        return self._case("killed", self._check_kill, moment(self.out, self.seconds, rng))

    def rerun(self) -> Case:
        return self._case("run again", self._check_end)

    def _case(self, what: str, check: Check, kill_now: Callable[[], bool] | None = None) -> Case:
        return Case(
            f"{self.name}, {what}", list(map(str, self.words)), check, kill_now, longest_s=60
        )

    def _second_run(self) -> bool:
        """Once the first one has its lock, start another; it must be told who writes."""
        held = [lock_file(self.out), *self.out.glob(".*.lock")]
        if self.second is None and any(path.exists() for path in held):
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()) as said:
                self.second = main(list(map(str, self.words))), said.getvalue()
        return False

    def _keep(self, result: Result) -> str | None:
        self.expected, self.seconds = contents(self.out), result.seconds
        self.needed = self.requests
        if result.code:
            return f"ended with {result.code}: {result.said}"
        code, said = self.second or (0, "")  # may come too late, and then does the same once more
        TOLD[self.name] += code == 1
        return said if code and "is being written by process" not in said else None

    def _check_kill(self, result: Result) -> str | None:
        self.killed += result.code != 0
        KILLED[self.name] += result.code != 0
        left = contents(self.out)
        for name in left.keys() & self.expected.keys() - set(GROWING):
            is_model = self.name.startswith("train") and "prm_config.json" not in left
            if left[name] != self.expected[name] and not is_model:
                return f"{name} is neither as before nor whole"
        before, self.rows = self.rows, count_rows(self.out)
        return "rows were lost" if self.rows < before else None

    def _check_end(self, result: Result) -> str | None:
        left = contents(self.out)
        if result.code:
            return f"ended with {result.code}: {result.said}"
        if odd := left.keys() ^ self.expected.keys():
            return f"files are missing or left behind: {sorted(odd)}"
        if other := [n for n, content in left.items() if not same(content, self.expected[n])]:
            return f"not as in an unbroken run: {other}"
        # Each run greets the server, and a reply may be on its way when its slot is free again.
        if self.requests > self.needed + self.killed * (1 + SLOTS + 2):
            return f"{self.requests} requests, not {self.needed}, after {self.killed} kills"
        return None


KILLED: Counter[str] = Counter()
TOLD: Counter[str] = Counter()


def moment(out: Path, seconds: float, rng: random.Random) -> Callable[[], bool]:
    """When to kill: after a time, or a moment after the output's folder has changed so often."""
    begin, after = time.monotonic(), rng.uniform(0, seconds)
    if rng.random() < 0.5:
        return lambda: time.monotonic() > begin + after
    pause, seen, changes, hit = (
        rng.uniform(0, 0.01),
        listing(out),
        rng.choice((1, 1, 2, 2, 3, 8)),
        0.0,
    )

    def now() -> bool:
        nonlocal seen, changes, hit
        if changes and (current := listing(out)) != seen:
            seen, changes, hit = current, changes - 1, time.monotonic()
        return not changes and time.monotonic() > hit + pause

    return now


def listing(folder: Path) -> set[tuple[str, int]]:
    listed = set()
    for parent, folders, files in os.walk(folder):  # which minds no folder that is gone since
        for name in (*folders, *files):
            path = Path(parent, name)
            with suppress(OSError):
                listed.add((str(path), path.stat().st_size))
    return listed


def contents(folder: Path) -> dict[str, Any]:
    """What stands in the files of a folder, as far as it must be the same in every run."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): content(path) for path in sorted(paths)}


def content(path: Path) -> Any:
    if path.name.endswith(("-wal", "-shm")):  # SQLite's
        return None
    if path.name == "rollouts.db":
        with (
            closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store,
            suppress(sqlite3.OperationalError),
        ):
            return store.execute(
                "SELECT key, question_id, sample_index, text, finish_reason FROM rollouts "
                "JOIN prefixes ON prefixes.id = prefix ORDER BY key, sample_index"
            ).fetchall()
        return None  # killed before it had tables
    if path.name not in GROWING:
        return re.sub(rb"\d{4}-\d\d-\d\d \d\d:\d\d", b"today", path.read_bytes())
    rows = path.read_bytes().splitlines(keepends=True)
    whole = sorted((json.loads(row) for row in rows if row.endswith(b"\n")), key=row_key)
    if path.name == "chosen.jsonl":
        return [(row["question_id"], row["answer"], row["sample_index"]) for row in whole]
    return whole


def row_key(row: dict[str, Any]) -> tuple[str, int]:
    return row["question_id"], row.get("sample_index") or 0


def same(one: Any, other: Any) -> bool:
    """Equal; logits up to the rounding of another batch."""
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) < 1e-4
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    return bool(one == other)


def count_rows(folder: Path) -> int:
    """Rows of all that grows."""
    kept = [content(path) for name in GROWING for path in folder.glob(name)]
    return sum(map(len, filter(None, kept)))


def cases(folder: Path, count: int, rng: random.Random) -> Iterator[Case]:
    KILLED.clear()
    with FakeEndpoint(continues="prefill", slots=SLOTS, latency_s=0.01) as server:
        yield from itertools.islice(_rounds(jobs(folder, server), rng), count)
    print(f"kills: {dict(KILLED)}; second runs told: {dict(TOLD)}", file=sys.stderr)


def _rounds(jobs: Sequence[Job], rng: random.Random) -> Iterator[Case]:
    for number in itertools.count():
        for place, job in enumerate(jobs):
            if number % job.every:
                continue
            job.begin()
            if number == 0:
                yield job.unbroken()
                job.begin()
            # The ten cases of the short form are three verbs.
            for _ in range(3 if number else 2 if place == 0 else 1):
                yield job.kill(rng)
            yield job.rerun()


def jobs(folder: Path, server: FakeEndpoint) -> list[Job]:
    """All verbs that write, those with most to lose first."""
    project = make_inputs(folder / "inputs")
    file = {path.stem: path for path in project.iterdir()}
    asked = ["--questions", file["questions"]]
    answered = [*asked, "--trajectories", file["given"]]
    scored = [*answered, "--scores.dreamprm", file["given_scores"]]
    served = ["--model_name_or_path", "fake", "--base_urls", server.url, "--prompt", "bare"]
    served += ["--continuation", "prefill", "--concurrency", SLOTS]
    adaptive = ["--labels", "adaptive", "--label_precision", "0.2", "--max_completions", 4]
    made: list[Job] = []

    def add(name: str, *words: object, output: str | None = None, **more: Any) -> None:
        out = folder / name.replace(" ", "_")
        files = [] if output is None else ["--output", out / output]
        verb = name.split(maxsplit=1)[0]
        put = [out / word[1:] if str(word).startswith("@") else word for word in words]
        made.append(Job(name, [verb, *put, *files], out, **more))

    trained = train_words(project, str(file["model"]))[1:]
    trained[trained.index("--output_dir") + 1] = "@"
    add("train", *trained, "--use_peft", "--lora_dropout", 0.1)
    prm = ["--model_name_or_path", file["prm"], "--per_device_batch_size", 8]
    add("score", *answered, *prm, output="scores.jsonl")
    add("label", *answered, *served, *adaptive, output="labelled.jsonl", server=server)
    add("sample", *asked, *served, "--num_candidates", 2, output="sampled.jsonl", server=server)
    kept = ["--candidates_output", "@candidates.jsonl", "--scores_output", "@scores.jsonl"]
    kept += ["--result", "@result.json", "--prm", file["prm"], "--n", 4]
    add("select", *asked, *served, *kept, output="chosen.jsonl", server=server)
    add("train instance table", *trained, "--weighting", "instance_table", every=3)
    add("train label correction", *trained, "--weighting", "none", "--label_correction", every=3)
    picked = [*answered, "--scores", file["given_scores"], "--result", "@result.json"]
    add("select stored", *picked, output="best.jsonl", every=3)
    both = ["--output_questions", "@questions.jsonl", "--output_trajectories", "@steps.jsonl"]
    add("convert", "--input", file["paper"], *both)
    add("meta", *answered, *both, "--size", 40)
    columns = ["--columns.text", "text", "--columns.answer", "answer", "--columns.images", "images"]
    add("questions", "--source", file["table"], *columns, output="questions.jsonl")
    add("weigh", *answered, output="weights.jsonl")
    add("evaluate", *scored, output="result.json")
    add("report", *scored, output="report.html")
    add("compare", "--results", file["result"], output="differences.json")
    ranked = ["--benchmark", "rewardmath", "--data", file["ranked"]]
    add("benchmark", *ranked, output="result.json")
    return made


def make_inputs(folder: Path) -> Path:
    """Questions with candidates, labels and scores; sets to train on; two models."""
    folder.mkdir(parents=True)
    questions = [picture_question(f"q{i}", i % 3) for i in range(20)]
    candidates = [
        Trajectory(
            question_id=question.id,
            steps=(f"Step 1: red is {i}", "Step 2: so it is"),
            answer=str(i % 2),
            outcome=i % 2 == 1,
            labels=(Label.of(i % 4, 4), Label.of(4 * (i % 2), 4)),
            sample_index=i,
        )
        for question in questions
        for i in range(8)
    ]
    write_questions(folder / "questions.jsonl", questions)
    write_questions(folder / "table.parquet", questions)
    write_trajectories(folder / "given.jsonl", candidates)
    scores = [StepScores.of(t, (0.1 * t.sample_index, -1.0)) for t in candidates]
    write_scores(folder / "given_scores.jsonl", scores)
    (folder / "paper.json").write_text(json.dumps(paper_train_rows("red.png")))
    references = ["human_to_GPT-4", *map(str, range(9))]
    ranks = [
        {"problem": f"p{i}", "solution_reference": references, "score": [i % 3, *[1] * 9]}
        for i in range(100)
    ]
    (folder / "ranked.json").write_text(json.dumps(ranks))
    words = ["--questions", folder / "questions.jsonl", "--trajectories", folder / "given.jsonl"]
    words += ["--scores.dreamprm", folder / "given_scores.jsonl"]
    with redirect_stdout(StringIO()):
        assert not main(["evaluate", *map(str, words), "--output", str(folder / "result.json")])
    data = small_data(("clean", "noise"), per_domain=6)
    meta = [  # no response is both right and wrong
        (q, t.model_copy(update={"steps": (*t.steps, f"It is {t.sample_index}.")}))
        for group in data.meta
        for q, t in group
    ]
    for name, pairs in (("train", data.items), ("meta", meta)):
        asked = {question.id: question for question, _ in pairs}
        write_questions(folder / f"{name}.jsonl", list(asked.values()))
        write_trajectories(folder / f"{name}_candidates.jsonl", [t for _, t in pairs])
    save_tiny_model(folder / "model")
    random_prm().save_pretrained(folder / "prm")
    return folder
