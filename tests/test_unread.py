"""How many responses state no answer, and why: told by every verb that reads or judges answers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from dreamprm.cli import main
from dreamprm.data import read_trajectories, write_questions, write_trajectories
from dreamprm.evaluation.results import read_result
from dreamprm.records import Question, Trajectory
from dreamprm.rollouts.labels import SequentialStopping, label_trajectories
from dreamprm.rollouts.sampler import Sampler
from dreamprm.rollouts.store import RolloutStore
from dreamprm.unread import Unread, unanswered, why_unanswered
from tests import fake_endpoint
from tests.cli_samples import read_rows
from tests.fake_endpoint import FakeEndpoint
from tests.scripted_policy import Scripted, questions, sample

SAID = {  # question -> what the policy says
    "q0": "Step 1: 3 + 4 = 7\nFinal answer: 7",
    "q1": "I'm sorry, but that is beyond me.",
    "q2": "Step 1: I see a chart.\nStep 2: The chart has bars.",
    "q3": "Step 1: 3 + 4 = 8\nFinal answer: 8",
}


def write(prompt: str, begun: str, seed: int) -> str:
    said = [text for name, text in SAID.items() if name in prompt]
    return said[0] if said else fake_endpoint.write(prompt, begun, seed)  # it is only tried out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Candidate 0 of each question says what is in `SAID`, candidate 1 is right."""
    asked = [Question(id=n, domain="d", text=f"What is {n}?", answer="7") for n in SAID]
    said = [
        Trajectory(
            question_id=name,
            steps=tuple(text.split("\nFinal answer: ")[0].split("\n")),
            answer={"q0": "7", "q3": "8"}.get(name),
            outcome=name == "q0",
        )
        for name, text in SAID.items()
    ]
    right = {
        "steps": ("3 + 4 is 7.", "So it is 7."),
        "answer": "7",
        "outcome": True,
        "sample_index": 1,
    }
    write_questions(tmp_path / "q.jsonl", asked)
    write_trajectories(
        tmp_path / "t.jsonl", [c for t in said for c in (t, t.model_copy(update=right))]
    )
    return tmp_path


def words(folder: Path, verb: str, *more: str) -> list[str]:
    return [verb, "--questions", str(folder / "q.jsonl"), *more]


def sampling(folder: Path, verb: str, server: FakeEndpoint, *more: str) -> list[str]:
    output = ["--output", str(folder / "out.jsonl")]
    served = ["--model_name_or_path", server.model, "--base_urls", server.url]
    return words(folder, verb, *output, *served, *more)


def test_sample_tells_of_responses_without_an_answer_and_each_row_says_why(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeEndpoint(writer=write) as server:
        for _ in range(2):  # the second run finds all in the store
            assert main(sampling(folder, "sample", server, "--num_candidates", "3")) == 0
            told = capsys.readouterr()
            line = "6 of 12 responses state no answer: 3 refused, 3 unstated"
            assert f"{line}\n" in told.out
            examples = "; ".join([f"'q1' ends with {SAID['q1']!r}"] * 3)
            assert f"warning: {line}; they count as wrong; {examples}\n" in told.err
    whys = [t.extra.get("unread") for t in read_trajectories(folder / "out.jsonl")]
    assert whys == [None] * 3 + ["refused"] * 3 + ["unstated"] * 3 + [None] * 3


def test_label_tells_of_completions_without_an_answer(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeEndpoint(writer=write) as server:
        given = ["--trajectories", str(folder / "t.jsonl"), "--num_completions", "2"]
        assert main(sampling(folder, "label", server, *given)) == 0
    # two completions of each prefix: three prefixes of q1's candidates, four of q2's, 13 in all
    assert "14 of 26 completions state no answer: 8 unstated, 6 refused" in capsys.readouterr().out


def test_select_tells_of_chosen_answers_that_are_none(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, result = folder / "c.jsonl", folder / "r.json"
    given = ["--trajectories", str(folder / "t.jsonl"), "--method", "first_sample"]
    files = ["--output", str(out), "--result", str(result)]
    assert main(words(folder, "select", *given, *files)) == 0
    told = capsys.readouterr()
    assert "2 of 4 answers state no answer: 1 refused, 1 unstated" in told.out
    assert "'q2' ends with" in told.err
    assert read_result(result).details["unread"] == {"refused": 1, "unstated": 1}
    whys = {row["question_id"]: row.get("unread") for row in read_rows(out)}
    assert whys == {"q0": None, "q1": "refused", "q2": "unstated", "q3": None}


def test_evaluate_tells_of_candidates_without_an_answer(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = folder / "r.json"
    given = ["--trajectories", str(folder / "t.jsonl"), "--n", "2", "--output", str(result)]
    assert main(words(folder, "evaluate", *given)) == 0
    told = capsys.readouterr()
    assert "2 of 8 candidates state no answer: 1 refused, 1 unstated" in told.out
    assert "'q2, candidate 0' ends with" in told.err
    assert read_result(result).details["unread"] == {"refused": 1, "unstated": 1}


def test_meta_tells_of_chosen_candidates_without_an_answer(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--trajectories", str(folder / "t.jsonl"), "--size", "6"]
    outputs = ["--output_questions", str(folder / "m.q.jsonl"), "--output_trajectories"]
    assert main(words(folder, "meta", *given, *outputs, str(folder / "m.jsonl"))) == 0
    told = capsys.readouterr()
    assert "2 of 5 chosen candidates state no answer: 1 refused, 1 unstated" in told.out
    assert "'q1, candidate 0' ends with" in told.err


def test_validate_tells_of_trajectories_without_an_answer(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--trajectories", str(folder / "t.jsonl"), "--json", "true"]
    assert main(words(folder, "validate", *given)) == 0
    [account] = json.loads(capsys.readouterr().out)["files"]
    assert account["unread_answers"] == {"refused": 1, "unstated": 1}
    [told] = [finding for finding in account["findings"] if finding["name"] == "no_answer"]
    assert told["severity"] == "warning" and len(told["where"]) == 2
    assert told["message"] == "2 of 8 trajectories state no answer: 1 refused, 1 unstated"


def test_what_the_token_limit_cut_is_cut_however_it_ends(store: RolloutStore) -> None:
    say = Scripted(lambda *_: SAID["q2"], finish_reason="length")
    sampler = Sampler(say, store)
    _, [candidate] = sample(sampler, questions(1), 1)
    assert candidate.extra["unread"] == "cut" == why_unanswered(candidate)
    assert sampler.unread.reasons == {"cut": 1}
    of_old = candidate.model_copy(update={"extra": {"finish_reason": "length"}})
    assert why_unanswered(of_old) == "cut", "as earlier versions wrote it"


def test_a_completion_is_counted_once_however_often_it_is_asked_for(store: RolloutStore) -> None:
    policy = Scripted(lambda *_: SAID["q1"])
    sampler, asked = Sampler(policy, store), {q.id: q for q in questions(1)}
    given = [Trajectory(question_id="q0", steps=("Step 1: on", "Step 2: on"))]
    plan = SequentialStopping(precision=0.06)
    asyncio.run(label_trajectories(sampler, asked, given, plan))
    assert len(policy.asked) > 2, "each prefix was asked for again"
    assert sampler.unread.responses == sum(n for *_, n in policy.asked)


def test_more_than_a_tenth_is_much() -> None:
    unread = Unread()
    for number in range(20):
        unread.add(str(number), "It goes on.", "unstated" if number < 2 else None)
    assert not unread.is_much and unread.line() == "2 of 20 responses state no answer: 2 unstated"
    unread.add("20", "", "empty")
    assert unread.is_much
    with pytest.warns(match=r"3 of 21 .*: 2 unstated, 1 empty; .* '20' ends with ''"):
        unread.warn()


def test_a_file_that_keeps_no_answers_has_no_unread_ones() -> None:
    made = [
        Trajectory(question_id="q", steps=("on",), outcome=bool(i), sample_index=i) for i in (0, 1)
    ]
    assert unanswered([], made).responses == 0
    assert unanswered([], made[:1]).reasons == {"cut": 1}
