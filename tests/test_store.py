"""The rollout store: what is committed is there, whoever looks, whatever dies."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

import pytest

from dreamprm.errors import DreamPRMError
from dreamprm.policy import Completion, Reply
from dreamprm.records import Question
from dreamprm.rollouts.store import (
    Generator,
    Job,
    JobWriter,
    Prefix,
    RolloutStore,
    Usage,
    is_being_written,
    prefix_key,
    question_key,
    sample_seed,
)

GENERATOR = Generator("model", '{"temperature":1.0}', 0)


def prefix(*steps: str, question: str = "q") -> Prefix:
    return Prefix(prefix_key(question, steps, GENERATOR), question, question, steps, GENERATOR)


def reply(*texts: str, tokens: tuple[int, int] = (0, 0)) -> Reply:
    return Reply(tuple(Completion(text) for text in texts), *tokens)


def test_completions_come_back_in_order_and_up_to_a_limit(tmp_path: Path) -> None:
    with RolloutStore(tmp_path / "r.db") as store:
        store.add(prefix("a"), 0, reply("x", "y"))
        store.add(prefix("a"), 2, reply("z"))
        store.add(prefix("a", "b"), 0, reply("other"))
        texts = [c.text for c in store.completions(prefix("a").key)]
        assert texts == ["x", "y", "z"]
        assert [c.text for c in store.completions(prefix("a").key, 2)] == ["x", "y"]
        assert not store.completions(prefix("b").key)


def test_one_sample_is_never_kept_twice(tmp_path: Path) -> None:
    with RolloutStore(tmp_path / "r.db") as store:
        store.add(prefix("a"), 0, reply("x"))
        with pytest.raises(sqlite3.IntegrityError):
            store.add(prefix("a"), 0, reply("again"))
        assert [c.text for c in store.completions(prefix("a").key)] == ["x"]
        assert store.usage()["model"].calls == 1, "the failed call left nothing behind"


def test_usage_is_added_up_by_policy(tmp_path: Path) -> None:
    with RolloutStore(tmp_path / "r.db") as store:
        store.add(prefix("a"), 0, reply("x", "y", tokens=(5, 7)), cost=0.5)
        store.add_call("judge", reply("yes", tokens=(3, 1)))
        store.add(prefix("b"), 0, reply("x", tokens=(5, 7)), cost=0.25)
        assert store.usage() == {
            "model": Usage(2, 3, 10, 14, 0.75),
            "judge": Usage(1, 1, 3, 1, 0.0),
        }


def test_half_a_surrogate_pair_does_not_stop_the_run(tmp_path: Path) -> None:
    with RolloutStore(tmp_path / "r.db") as store:
        store.add(prefix("a"), 0, reply("x\ud83d"))
        store.add_verdict("q", "rules", "7\ud83d", True, "number")
        assert store.completions(prefix("a").key)[0].text == "x?"
        assert store.verdict("q", "rules", "7\ud83d") == (True, "number")


def test_any_number_read_while_one_writes_and_a_second_writer_is_told(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    with RolloutStore(path) as writer:
        writer.add(prefix("a"), 0, reply("x"))
        assert is_being_written(path)
        with RolloutStore(path, readonly=True) as reader:
            assert reader.counts()["rollouts"] == 1
            writer.add(prefix("a"), 1, reply("y"))
            assert reader.counts()["rollouts"] == 2
        with pytest.raises(
            DreamPRMError, match=f"written by process {os.getpid()} .* another --store"
        ):
            RolloutStore(path)
    assert not is_being_written(path)
    RolloutStore(path).close()


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("hello" * 100)
    with pytest.raises(DreamPRMError, match="text.db"):
        RolloutStore(tmp_path / "text.db")
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE t (x)")
    other.close()
    with pytest.raises(DreamPRMError, match="not a rollout store of this version"):
        RolloutStore(tmp_path / "other.db")
    with pytest.raises(DreamPRMError, match="there is no rollout store"):
        RolloutStore(tmp_path / "missing.db", readonly=True)


def test_names_depend_on_what_the_policy_sees_and_on_nothing_else(
    tmp_path: Path, png: bytes
) -> None:
    one = Question(id="1", domain="a", text="t", images=(png,), answer="7")
    (tmp_path / "x.png").write_bytes(png)
    same = Question(id="2", domain="b", text="t", images=(str(tmp_path / "x.png"),), answer="8")
    assert question_key(one) == question_key(same), "ids, domains and gold answers are not seen"
    assert question_key(one) != question_key(one.model_copy(update={"options": ("x",)}))
    assert question_key(one) != question_key(one.model_copy(update={"images": ()}))
    assert prefix_key("q", ("a", "b"), GENERATOR) != prefix_key("q", ("ab",), GENERATOR)
    assert sample_seed("k", 0) != sample_seed("k", 1)


def test_a_job_tells_how_far_it_is_and_its_rate_leaves_out_what_was_there(tmp_path: Path) -> None:
    calls = 0
    with RolloutStore(tmp_path / "r.db") as store:
        job = JobWriter(store, Job("o.jsonl", "sample", "m", "questions", 10), lambda: calls)
        job.advance(4)
        calls = 1
        time.sleep(0.01)
        job.advance(3)
        job.finish("stopped")
        [listed] = store.jobs()
    assert (listed.done, listed.done_before, listed.total, listed.state) == (7, 4, 10, "stopped")
    assert listed.rate is not None and listed.seconds_left is not None
    assert abs(listed.rate * listed.seconds_left - 3) < 1e-6
