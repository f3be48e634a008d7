"""A PRM behind a server gives the scores that it gives in this process, or an error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import dreamprm as dp
from dreamprm.cli import main
from dreamprm.data import write_questions
from dreamprm.errors import DataError, DreamPRMError
from dreamprm.policy.servers import Backoff
from dreamprm.prm.folder import LayoutConfig, PRMConfig
from dreamprm.prm.model import PRM
from dreamprm.prm.scorer import StepScorer
from dreamprm.prm.served import ServedPRM
from dreamprm.records import Question, Trajectory
from tests.fake_endpoint import FakeEndpoint
from tests.fake_pooling import FakePooling
from tests.tiny_backbones import TEXT_BUILDERS, save_backbone
from tests.tiny_models import STEPS, picture_question

AT_ONCE = Backoff(first_s=0.01, longest_s=0.02)
TEXT = Question(id="text", domain="d", text="what is red plus blue ?", answer="1")
CANDIDATES = [STEPS, STEPS[:1], ("Step 1: it is 4", *STEPS[1:3])]


@pytest.fixture(scope="module")
def prm() -> PRM:
    """With a head that is not zero, as a fresh one is."""
    prm = PRM.from_backbone("tiny").eval()
    torch.nn.init.normal_(prm.head.weight, std=0.1)
    return prm


@pytest.fixture(scope="module")
def folder(prm: PRM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prm")
    prm.save_pretrained(path)
    for weights in path.glob("*.safetensors"):
        weights.unlink()  # none is read
    return path


@pytest.fixture
def served(folder: Path) -> Iterator[Any]:
    made = []

    def make(*urls: str, **options: Any) -> ServedPRM:
        made.append(ServedPRM(folder, urls, backoff=AT_ONCE, max_attempts=3, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def logits(model: Any, questions: list[Question]) -> dict[tuple[str, int], list[float]]:
    pairs = [
        (q, Trajectory(question_id=q.id, steps=steps, answer="1", policy="p", sample_index=i))
        for q in questions
        for i, steps in enumerate(CANDIDATES)
    ]
    scores = StepScorer(model, 4).score(pairs)
    return {(s.question_id, s.sample_index): list(s.logits) for s in scores}


def test_logits_are_those_of_this_process_with_images_and_without(prm: PRM, served: Any) -> None:
    questions = [TEXT, picture_question("one"), picture_question("two", images=2)]
    spelled = TEXT.model_copy(update={"id": "spelled", "text": "what is <|end|> and <|sep|> ?"})
    with FakePooling(prm) as server:
        got = logits(served(server.url), [*questions, spelled])
        sent_as_tokens = [body for _, body in server.seen if "input" in body]
        assert len(sent_as_tokens) == len(CANDIDATES), "those of the text with control tokens"
    expected = logits(prm, [*questions, spelled])
    assert got.keys() == expected.keys()
    for key, row in expected.items():
        assert got[key] == pytest.approx(row, abs=1e-4)


@pytest.mark.parametrize("backbone", ["internvl", "gemma3", "idefics3", "llama"])
def test_architectures_are_served_as_they_are(backbone: str, tmp_path: Path) -> None:
    prm = PRM.from_backbone(str(save_backbone(backbone, tmp_path / "base"))).eval()
    torch.nn.init.normal_(prm.head.weight, std=0.3)
    prm.save_pretrained(tmp_path / "prm")
    question = TEXT if backbone in TEXT_BUILDERS else picture_question()
    with FakePooling(prm) as server:
        model = ServedPRM(tmp_path / "prm", [server.url])
        scores = model.score(question, CANDIDATES)
        model.close()
    for row, expected in zip(scores, prm.score(question, CANDIDATES), strict=True):
        assert row == pytest.approx(expected, abs=1e-4)


def test_candidates_of_a_question_go_to_one_server(prm: PRM, served: Any) -> None:
    with FakePooling(prm) as one, FakePooling(prm) as other:
        model = served(one.url, other.url)
        for i in range(8):
            model.score(TEXT.model_copy(update={"id": f"q{i}"}), CANDIDATES)
        counts = [len(one.seen), len(other.seen)]
    assert sum(counts) == 8 * 3
    assert all(count and count % 3 == 0 for count in counts)


def test_what_fails_is_asked_again(prm: PRM, served: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("PRM_KEY", "a-secret-key")
    bad = [(500, {}), (200, b"<html>"), (200, {"data": []}), (429, {})]

    def spoil(number: int, _: Any) -> Any:
        return bad[number] if number < len(bad) else None

    with FakePooling(prm, spoil) as server:
        scores = served(server.url, api_key_env="PRM_KEY").score(TEXT, CANDIDATES)
        assert {headers["authorization"] for headers, _ in server.seen} == {"Bearer a-secret-key"}
    assert scores[0] == pytest.approx(prm.score(TEXT, CANDIDATES)[0], abs=1e-4)


def reply(rows: list[Any], tokens: int) -> Any:
    return 200, {"data": [{"data": rows}], "usage": {"prompt_tokens": tokens}}


@pytest.mark.parametrize(
    ("spoilt", "told"),
    [
        (lambda n: reply([[1.0]] * 4, n), "gives 4 rows of 1 values for 5 step tags; .*vllm serve"),
        (lambda n: reply([[1.0, 2.0]] * 5, n), "gives 5 rows of 2 values for 5 step tags"),
        (lambda n: reply([[1.0]] * 5, n + 1), "reads .* tokens where the PRM's folder makes"),
        (lambda n: reply([[None]] * 5, n), "not finite.*after 3 failed attempts"),
        (lambda n: (404, {"detail": "Not Found"}), "404 .*vllm serve"),
        (lambda n: (401, {}), "OPENAI_API_KEY"),
    ],
)
def test_a_reply_that_does_not_fit_is_an_error(
    prm: PRM, served: Any, spoilt: Any, told: str
) -> None:
    def spoil(_: int, body: Any) -> Any:
        return spoilt(server.read(body)["input_ids"].shape[1])

    with (
        FakePooling(prm, spoil) as server,
        pytest.raises(DreamPRMError, match=f"(?s)question 'text': {server.url}.*{told}"),
    ):
        served(server.url).score(TEXT, [STEPS])


def test_what_a_server_would_read_otherwise_is_refused(
    prm: PRM, served: Any, tmp_path: Path
) -> None:
    """Before anything is sent where there are images."""
    with FakePooling(prm) as server:
        model = served(server.url)
        spelled = picture_question().model_copy(update={"text": "what is <|end|> ?"})
        with pytest.raises(DataError, match="question 'q': it or a step spells a control token"):
            model.score(spelled, [STEPS])
        processor = model.plain.processor
        processor.chat_template = "{{ messages | length }}" + processor.chat_template
        with pytest.raises(DataError, match="question 'q': a server would read other tokens"):
            model.score(picture_question(), [STEPS])
        assert not server.seen
        server.spoil = lambda number, body: (400, {"error": "Field required"})
        told = r"a server would read .* \(the server refuses tokens: .*400 Field required\)"
        with pytest.raises(DreamPRMError, match=told):  # as `dreamprm serve` does
            model.score(TEXT, [STEPS])
    turns = PRM.from_backbone("tiny", PRMConfig(head="token", layout=LayoutConfig.named("turns")))
    turns.save_pretrained(tmp_path)
    with pytest.raises(DreamPRMError, match="layout 'turns' judges steps where replies begin"):
        ServedPRM(tmp_path, ["http://127.0.0.1:1/v1"])


def test_the_functions_that_take_a_prm_take_a_served_one(
    prm: PRM, served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its aggregation and tokenizer, and no model in this process."""
    question = picture_question()
    with FakePooling(prm) as server, dp.Policy("tiny", max_new_tokens=24) as policy:
        model = served(server.url)
        chosen = asyncio.run(dp.abest_of_n(question, policy, model, n=3, seed=1))
        expected = dp.best_of_n(question, policy, prm, n=3, seed=1)
    assert chosen.trajectory == expected.trajectory
    assert chosen.chosen.step_scores == pytest.approx(expected.chosen.step_scores, abs=1e-4)


def test_score_and_select_load_no_model(
    prm: PRM, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And write what they write with the model in their process."""
    prm.save_pretrained(tmp_path / "prm")
    questions = [picture_question(f"q{i}", i) for i in range(4)]
    write_questions(tmp_path / "questions.jsonl", questions)
    with FakePooling(prm) as server, FakeEndpoint() as policy:
        select = f"select --questions {tmp_path}/questions.jsonl --n 4 --model_name_or_path fake"
        select += f" --base_urls {policy.url} --candidates_output {tmp_path}/%s.candidates.jsonl"
        select += f" --output {tmp_path}/%s.jsonl --prm {tmp_path}/prm"
        score = f"score --model_name_or_path {tmp_path}/prm --questions {tmp_path}/questions.jsonl"
        score += (
            f" --trajectories {tmp_path}/here.candidates.jsonl --output {tmp_path}/%s.scores.jsonl"
        )
        for verb in (select, score):
            assert main([word.replace("%s", "here") for word in verb.split()]) == 0
        with monkeypatch.context() as patch:
            patch.setattr("dreamprm.prm.model.load_backbone", pytest.fail)
            patch.setattr("dreamprm.models.loading.load_weights", pytest.fail)
            for verb in (select, score):
                words = [word.replace("%s", "served") for word in verb.split()]
                assert main([*words, "--prm_urls", server.url]) == 0
    for name in ("%s.jsonl", "%s.scores.jsonl"):
        here, elsewhere = (
            read_rows(tmp_path / name.replace("%s", where)) for where in ("here", "served")
        )
        assert here.keys() == elsewhere.keys()
        for key, row in here.items():
            assert elsewhere[key].keys() == row.keys()
            for field, value in row.items():
                near = field in ("score", "logits", "step_scores")
                assert elsewhere[key][field] == (pytest.approx(value, abs=1e-4) if near else value)


def read_rows(path: Path) -> dict[tuple[str, int], Any]:
    rows = map(json.loads, path.read_text().splitlines())
    return {(row["question_id"], row["sample_index"]): row for row in rows}
