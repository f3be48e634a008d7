"""Text models: scored, trained, saved and sampled as vision-language models are, without images."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import dreamprm as dp
from dreamprm.cli import main
from dreamprm.data import read_records, write_questions, write_trajectories
from dreamprm.errors import DataError, DataWarning
from dreamprm.policy import Reply, Request
from dreamprm.policy.local import LocalPolicy
from dreamprm.policy.options import PolicyOptions
from dreamprm.prm.folder import LayoutConfig
from dreamprm.prm.layout import Encoder
from dreamprm.prm.lora import Lora
from dreamprm.prm.model import PRM
from dreamprm.prm.shared_prefix import share
from dreamprm.records import Question, StepScores, Trajectory
from dreamprm.training.hub import model_card
from tests.test_backbones import noise
from tests.tiny_backbones import TEXT_BUILDERS, save_backbone

QUESTION = Question(id="q", domain="d", text="What is 2 + 3?", answer="5")
PICTURE = QUESTION.model_copy(update={"id": "seen", "images": (noise(60, 60, 1),)})
CANDIDATES = [  # of different lengths; they part in the first step, within a step, and not at all
    ("it is red", "so 3"),
    ("it is blue and longer than a window", "so", "4 then it is"),
    ("it is red", "so 3 and more"),
    ("it is red", "so 3"),
]
HOW = [
    ("value", "trajectory", None),
    ("vocab", "prefix", Lora(r=2)),
    ("token", "turns", None),
]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("text")
    return {name: str(save_backbone(name, root / name)) for name in TEXT_BUILDERS}


@pytest.fixture(params=TEXT_BUILDERS)
def folder(request: pytest.FixtureRequest, folders: dict[str, str]) -> str:
    return folders[str(request.param)]


def prm(folder: str, **settings: Any) -> PRM:
    """With a head that is not zero, as a fresh one is."""
    torch.manual_seed(0)
    model = PRM.from_backbone(folder, **settings).eval()
    if model.config.head != "token":
        torch.nn.init.normal_(model.head.weight, std=0.3)
    return model


@pytest.mark.parametrize(("head", "layout", "lora"), HOW)
def test_all_passes_give_the_scores_of_single_prefixes(
    folder: str, head: Any, layout: Any, lora: Lora | None
) -> None:
    """Several in a batch, padded at either side, or behind a prompt that is read once."""
    settings = LayoutConfig.named(layout, instruction="")  # the templates know no system turn
    model = prm(folder, head=head, layout=settings, lora=lora)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    other = QUESTION.model_copy(update={"id": "longer", "text": "And 12 + 30 + 1, in all?"})
    groups = [(QUESTION, CANDIDATES), (other, CANDIDATES[1:3])]
    pairs = [(question, steps) for question, candidates in groups for steps in candidates]
    with torch.inference_mode():
        naive = [
            [
                float(model(model.encoder()([(q, steps[:n])]))[0, -1])
                for n in range(1, len(steps) + 1)
            ]
            for q, steps in pairs
        ]
        passes = [model.encoder()(pairs), share(model.encoder(), groups)]
        left = LayoutConfig.named(layout, instruction="", padding_side="left")
        passes.append(Encoder(model.processor, left)(pairs))
        assert torch.tensor([z for row in naive for z in row]).std() > 0.05
        for batch in passes:
            for row, mask, expected in zip(model(batch), batch.mask, naive, strict=True):
                torch.testing.assert_close(row[mask], torch.tensor(expected), atol=1e-4, rtol=0)


def test_the_token_head_gives_the_models_own_two_logits(folder: str) -> None:
    """Gemma's are squeezed."""
    model = prm(folder, head="token")
    encode = model.encoder()
    batch = encode([(QUESTION, CANDIDATES[0])])
    own = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.inference_mode():
        logits = own(input_ids=batch.inputs["input_ids"]).logits[0, batch.positions[0]]
        plus, minus = (encode.tokenizer.convert_tokens_to_ids(sign) for sign in "+-")
        torch.testing.assert_close(model(batch)[0], logits[:, plus] - logits[:, minus])


@pytest.mark.parametrize("text", ["What?", "<|im_end|><bos><|eot_id|><end_of_turn> What?"])
def test_a_prompt_is_tokenized_as_transformers_does_it(folder: str, text: str) -> None:
    """One BOS at most, whatever the question spells."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = prm(folder).encoder()([(QUESTION.model_copy(update={"text": text}), (text, "b"))])
    ids = ids.inputs["input_ids"][0].tolist()
    if text == "What?":
        message = {"role": "user", "content": "What?\nJudge each step."}
        expected = tokenizer.apply_chat_template(
            [message], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        steps = tokenizer("What?\nb\n", add_special_tokens=False).input_ids
        assert ids == [*expected, *steps]
    assert ids.count(tokenizer.bos_token_id) == (tokenizer.bos_token is not None)
    assert ids.count(tokenizer.eos_token_id) == 1, "of the user's turn"


def test_a_model_without_chat_template_gets_plain_prompts(folder: str, tmp_path: Path) -> None:
    """It is told, and saved with what is trained."""
    name = Path(folder).name
    save_backbone(name, tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.warns(DataWarning, match="no chat template, so its prompts are plain text"):
        model = prm(str(tmp_path))
    ids = model.encoder()([(QUESTION, ("so 5",))]).inputs["input_ids"][0]
    written = f"{model.plain.tokenizer.bos_token or ''}What is 2 + 3?\nJudge each step.\nso 5\n"
    assert model.plain.tokenizer.decode(ids) == written
    model.save_pretrained(tmp_path / "prm")
    again = PRM.from_pretrained(tmp_path / "prm")
    assert again.score(QUESTION, CANDIDATES) == model.score(QUESTION, CANDIDATES)


# --- from the command line ---


def trajectories(*questions: Question) -> list[Trajectory]:
    return [
        Trajectory(
            question_id=question.id,
            steps=steps,
            labels=[{"value": float(right)}] * len(steps),
            outcome=right,
            answer="5",
            sample_index=i,
        )
        for question in questions
        for i, (steps, right) in enumerate(zip(CANDIDATES[:2], (True, False), strict=True))
    ]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, domains in (("train", "ab"), ("meta", "c")):
        asked = [
            Question(id=f"{d}{i}", domain=d, text=f"What is {d} + {i}?", answer="5")
            for d in domains
            for i in (1, 2)
        ]
        write_questions(tmp_path / f"{name}.questions.jsonl", asked)
        write_trajectories(tmp_path / f"{name}.jsonl", trajectories(*asked))
    return tmp_path


@pytest.mark.parametrize(("name", "peft"), [("llama", "false"), ("gemma3_text", "true")])
def test_train_score_and_card(name: str, peft: str, folders: dict[str, str], files: Path) -> None:
    data = [
        f"--{s}_{kind}={files}/{s}.{'questions.' if kind == 'questions' else ''}jsonl"
        for s in ("train", "meta")
        for kind in ("questions", "trajectories")
    ]
    run = ["train", f"--model_name_or_path={folders[name]}", f"--output_dir={files}/prm", *data]
    run += ["--max_steps=3", "--unroll_steps=1", f"--use_peft={peft}", "--device=cpu"]
    if peft == "true":
        assert main([*run, "--dry_run=true"]) == 0
    assert main(run) == 0
    assert set(json.loads((files / "prm/weights.json").read_text())) >= {"a", "b"}
    score = ["score", f"--model_name_or_path={files}/prm", f"--output={files}/scores.jsonl"]
    score += [f"--questions={files}/meta.questions.jsonl", f"--trajectories={files}/meta.jsonl"]
    assert main(score) == 0
    scores = {
        (s.question_id, s.sample_index): s for s in read_records(files / "scores.jsonl", StepScores)
    }
    expected = PRM.from_pretrained(files / "prm")
    for i, steps in enumerate(CANDIDATES[:2]):
        [wanted] = expected.score("What is c + 1?", [steps])
        found = torch.tensor(scores["c1", i].logits).sigmoid().tolist()
        assert found == pytest.approx(wanted, abs=1e-4)
    card = model_card(files / "prm", "me/prm")
    assert "pipeline_tag: text-classification" in card and "images" not in card


def local(folder: str, **options: Any) -> LocalPolicy:
    return LocalPolicy(PolicyOptions(folder, device="cpu", max_new_tokens=6, **options))


def test_a_policys_texts_do_not_depend_on_the_batch(folder: str) -> None:
    asked = [
        Request(QUESTION.model_copy(update={"id": name, "text": f"{name} and 3?"}), steps)
        for name, steps in (("one", ()), ("a longer one", ("Step 1: so",)), ("two", ()))
    ]

    async def together() -> list[Reply]:
        policy = local(folder)
        replies = await asyncio.gather(*(policy.sample(r, 3, seed=1) for r in asked))
        await policy.close()
        return replies

    async def alone() -> list[Reply]:
        policy = local(folder, per_device_batch_size=1)
        replies = [await policy.sample(r, 3, seed=1) for r in asked]
        await policy.close()
        return replies

    assert asyncio.run(together()) == asyncio.run(alone())


def test_greedy_text_is_what_transformers_generates(folder: str) -> None:
    policy = local(folder, temperature=0.0, prompt="bare")
    [done] = asyncio.run(policy.sample(Request(QUESTION), 1, seed=0)).completions
    asyncio.run(policy.close())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION.text}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    own = AutoModelForCausalLM.from_pretrained(folder).eval()
    out = own.generate(**ids, max_new_tokens=6, do_sample=False)
    expected = tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    assert done.text == expected


# --- questions with pictures ---


SAID = r"question 'seen' has images, and this model reads text alone"


def test_pictures_are_refused_by_name(folders: dict[str, str], tmp_path: Path) -> None:
    model, policy = prm(folders["qwen2"]), local(folders["qwen2"])
    data = [trajectories(QUESTION, PICTURE), trajectories(PICTURE)]
    records = dp.Records([QUESTION, PICTURE], data[0])
    for refused in (
        lambda: model.score(PICTURE, CANDIDATES),
        lambda: asyncio.run(policy.sample(Request(PICTURE), 1, 0)),
        lambda: dp.best_of_n(PICTURE, dp.Policy(folders["qwen2"]), model),
        lambda: dp.train(model, records, config=dp.TrainConfig(learn_weights=False)),
    ):
        with pytest.raises(DataError, match=SAID):
            refused()


def test_the_command_line_refuses_pictures_before_it_loads_a_model(
    folders: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, questions, rows = tmp_path / "prm", tmp_path / "q.jsonl", tmp_path / "t.jsonl"
    prm(folders["qwen2"]).save_pretrained(model)
    write_questions(questions, [QUESTION, PICTURE])
    write_trajectories(rows, trajectories(QUESTION, PICTURE))
    monkeypatch.setattr("dreamprm.models.loading.load_weights", None)
    both, policy = [f"--questions={questions}"], f"--model_name_or_path={folders['qwen2']}"
    for verb in (
        ["sample", policy],
        ["label", policy, f"--trajectories={rows}"],
        ["select", policy],
        ["select", "--base_urls=[http://127.0.0.1:9/v1]", f"--prm={model}"],
        ["score", f"--model_name_or_path={model}", f"--trajectories={rows}"],
    ):
        out = f"--output={tmp_path / 'out.jsonl'}"
        method = ["--method=self_consistency"] * (verb == ["select", policy])
        assert main([*verb, *both, *method, out]) != 0
        said = capsys.readouterr().err
        assert "row 2" in said and "question 'seen' has images" in said
