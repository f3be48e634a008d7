"""Reward models of others: tiny ones in their layouts, against what their model cards compute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Model,
)

from dreamprm.cli import main
from dreamprm.data import read_scores, write_questions, write_trajectories
from dreamprm.errors import DataError, DreamPRMError
from dreamprm.prm.conventions import QWEN_SYSTEM, URSA_PROMPT, URSA_SYSTEM
from dreamprm.prm.model import PRM
from dreamprm.prm.scorer import StepScorer
from dreamprm.records import Question, Trajectory
from tests.tiny_backbones import chatml, save_backbone, tokenizer
from tests.tiny_models import picture_question

QUESTION = Question(id="q", domain="d", text="What is 2 + 3?", answer="5")
STEPS = [("Step 1: 2 + 3 = 5", "Step 2: so 5"), ("Step 1: 6",)]
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}


def words(*extra: str) -> Any:
    made = tokenizer(["<|im_start|>"], chatml(""), pad="<|endoftext|>", eos="<|im_end|>")
    made.chat_template = (  # contents are texts, as text-only templates take them
        "{% for m in messages %}<|im_start|>{{ m['role'] + '\n' + m['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    made.add_tokens([AddedToken(text, special=False) for text in extra])
    return made


def scorer(convention: str, path: str) -> StepScorer:
    return StepScorer(PRM.from_pretrained(path, convention=convention))


@pytest.fixture(scope="module")
def math_shepherd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shepherd")
    tokens = words("ки")
    torch.manual_seed(0)
    MistralForCausalLM(MistralConfig(vocab_size=len(tokens), **SIZES)).save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def qwen_math_prm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights under the names of the published checkpoint: `model.*` and `score.*`."""
    folder = tmp_path_factory.mktemp("qwen")
    tokens = words("<extra_0>")
    torch.manual_seed(0)
    model = Qwen2Model(Qwen2Config(vocab_size=len(tokens), **SIZES))
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    state = {f"model.{k}": v for k, v in load_file(folder / "model.safetensors").items()}
    for name, shape in (("0", (32, 32)), ("2", (2, 32))):
        state[f"score.{name}.weight"] = torch.randn(shape)
        state[f"score.{name}.bias"] = torch.randn(shape[0])
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def skywork(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of pickled weights, head included, and a config that names code of its own."""
    folder = tmp_path_factory.mktemp("skywork")
    tokens = words()
    tokens.bos_token = "<|im_start|>"  # named, and added to no text
    tokens.save_pretrained(folder)
    torch.manual_seed(0)
    model = Qwen2Model(Qwen2Config(vocab_size=len(tokens), **SIZES))
    code = {"AutoConfig": "configuration_qwen2_rm.C", "AutoModel": "modeling_qwen2_rm.M"}
    config = model.config.to_dict() | {"architectures": ["Qwen2ForPrmModel"], "auto_map": code}
    (folder / "config.json").write_text(json.dumps(config))
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    state |= {"v_head.summary.weight": torch.randn(1, 32), "v_head.summary.bias": torch.randn(1)}
    torch.save(state, folder / "pytorch_model.bin")
    return folder


@pytest.fixture(scope="module")
def rlhflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stock causal model in shards, with Llama 3's headers and a token before every text."""
    folder = tmp_path_factory.mktemp("rlhflow")
    marks = ["<|start_header_id|>", "<|end_header_id|>"]
    tokens = tokenizer(marks, "", pad="<|pad|>", eos="<|eot_id|>", bos="<|begin_of_text|>")
    tokens.chat_template = (
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>"
        "\n\n{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    )
    tokens.save_pretrained(folder)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokens), **SIZES))
    model.save_pretrained(folder, max_shard_size="40KB")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 1
    return folder


@pytest.fixture(scope="module")
def ursa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names of the published index: a causal model within, the head and the vision tower beside."""
    folder = tmp_path_factory.mktemp("ursa")
    tokens = words(" и")
    tokens.save_pretrained(folder)
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokens), **SIZES))
    text = model.config.to_dict() | {"max_length": 20, "pruned_heads": {}}  # of older transformers
    config = {"model_type": "ursa", "architectures": ["UrsaForTokenClassification"]}
    (folder / "config.json").write_text(json.dumps(config | {"text_config": text}))
    state = {f"language_model.{name}": value for name, value in model.state_dict().items()}
    state |= {"score.weight": torch.randn(1, 32), "score.bias": torch.randn(1)}
    for name in ("aligner.high_up_proj.weight", "vision_model.vision_tower_low.vision_tower.x"):
        state[name] = torch.randn(2, 2)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_math_shepherd_compares_two_tokens_at_each_tag(math_shepherd: Path) -> None:
    found = scorer("math_shepherd", str(math_shepherd)).score_steps(QUESTION, STEPS)
    model, tokens = MistralForCausalLM.from_pretrained(math_shepherd).eval(), words("ки")
    candidates = [tokens("+").input_ids[-1], tokens("-").input_ids[-1]]
    for logits, steps in zip(found, STEPS, strict=True):
        text = f"{QUESTION.text} " + "\n".join(f"{step} ки" for step in steps)
        ids = torch.tensor([tokens(text).input_ids])
        with torch.no_grad():
            scores = model(ids).logits[:, :, candidates].softmax(dim=-1)[:, :, 0]
        expected = scores[ids == tokens("ки").input_ids[-1]]
        assert len(expected) == len(steps)
        torch.testing.assert_close(torch.tensor(logits).sigmoid(), expected)
    assert torch.tensor([z for row in found for z in row]).std() > 0.1


def test_qwen_math_prm_reads_two_classes_at_each_separator(qwen_math_prm: Path) -> None:
    found = scorer("qwen_math_prm", str(qwen_math_prm)).score_steps(QUESTION, STEPS)
    model, tokens = Qwen2Model.from_pretrained(qwen_math_prm).eval(), words("<extra_0>")
    state = load_file(qwen_math_prm / "model.safetensors")
    for logits, steps in zip(found, STEPS, strict=True):
        messages = [
            {"role": "system", "content": QWEN_SYSTEM},
            {"role": "user", "content": QUESTION.text},
            {"role": "assistant", "content": "<extra_0>".join(steps) + "<extra_0>"},
        ]
        ids = torch.tensor([tokens(tokens.apply_chat_template(messages, tokenize=False)).input_ids])
        with torch.no_grad():
            hidden = model(ids).last_hidden_state
            middle = (hidden @ state["score.0.weight"].T + state["score.0.bias"]).relu()
            classes = middle @ state["score.2.weight"].T + state["score.2.bias"]
        expected = classes.softmax(dim=-1)[ids == tokens("<extra_0>").input_ids[0]][:, 1]
        assert len(expected) == len(steps)
        torch.testing.assert_close(torch.tensor(logits).sigmoid(), expected)


def test_skywork_reads_a_linear_head_at_each_lines_end(skywork: Path) -> None:
    with pytest.raises(DreamPRMError, match="as pickles"):
        scorer("skywork", str(skywork))
    state = torch.load(skywork / "pytorch_model.bin", weights_only=True)  # as the docs convert it
    save_file({k: v.clone() for k, v in state.items()}, skywork / "model.safetensors")
    two_lines = ("First:\n2 + 3 = 5", "so 5")
    judged = scorer("skywork", str(skywork)).score_steps(QUESTION, [two_lines, *STEPS])
    tokens, model = words(), Qwen2Model.from_pretrained(skywork, dtype="float32").eval()
    newline = tokens("\n").input_ids
    for logits, steps in zip(judged, [two_lines, *STEPS], strict=True):
        ids = tokens(f"<|im_start|>{QUESTION.text}\n").input_ids
        lines: list[int] = []  # places of their ends
        for line in "\n".join(steps).split("\n"):
            ids = ids + tokens(line).input_ids + newline
            lines.append(len(ids) - 1)
        with torch.no_grad():
            hidden = model(torch.tensor([ids])).last_hidden_state[0]
            values = hidden @ state["v_head.summary.weight"][0] + state["v_head.summary.bias"]
        expected = values[lines[1:] if steps is two_lines else lines]
        torch.testing.assert_close(torch.tensor(logits), expected)


def test_rlhflow_reads_the_verdict_that_the_model_would_give_each_step(rlhflow: Path) -> None:
    reasonings = [(" 2 + 3 = 5\n", "so +"), ("6",)]
    judged = scorer("rlhflow", str(rlhflow)).score_steps(QUESTION, reasonings)
    asked = [["What is 2 + 3? 2 + 3 = 5", "so +"], ["What is 2 + 3? 6"]]
    model = LlamaForCausalLM.from_pretrained(rlhflow).eval()
    tokens = AutoTokenizer.from_pretrained(rlhflow)
    verdicts = [tokens("+").input_ids[-1], tokens("-").input_ids[-1]]
    for logits, turns in zip(judged, asked, strict=True):
        chat: list[dict[str, str]] = []
        for logit, turn in zip(logits, turns, strict=True):
            chat += [{"role": "user", "content": turn}, {"role": "assistant", "content": "+"}]
            ids = tokens.apply_chat_template(chat, return_tensors="pt", return_dict=False)
            with torch.no_grad():  # the published script: two tokens before the end stands `+`
                expected = model(ids).logits[0, -3, verdicts].softmax(-1)[0]
            torch.testing.assert_close(torch.tensor(logit).sigmoid(), expected)


def test_ursa_reads_a_linear_head_at_each_tag_of_a_question_without_images(ursa: Path) -> None:
    steps = ("Step 1: 2 + 3 = 5", "Step 2: so 5\n†Answer: 5")
    prm = scorer("ursa", str(ursa))
    [logits] = prm.score_steps(QUESTION, [steps])
    tokens, state = words(" и"), load_file(ursa / "model.safetensors")
    user = f"{URSA_PROMPT}{QUESTION.text}\nStep 1: 2 + 3 = 5 и\nStep 2: so 5 и"
    messages = [{"role": "system", "content": URSA_SYSTEM}, {"role": "user", "content": user}]
    text = tokens.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = torch.tensor([tokens(text).input_ids])
    stock = Qwen2Model(Qwen2Config(vocab_size=len(tokens), **SIZES)).eval()
    within = "language_model.model."
    stock.load_state_dict(
        {k.removeprefix(within): v for k, v in state.items() if k.startswith(within)}
    )
    with torch.no_grad():
        values = stock(ids).last_hidden_state @ state["score.weight"].T + state["score.bias"]
    expected = values[ids == tokens(" и").input_ids[0]].flatten()
    torch.testing.assert_close(torch.tensor(logits), expected)
    assert len(logits) == 2
    with pytest.raises(DataError, match="no class for URSA's vision tower"):
        prm.score_steps(picture_question("q", 1), [steps])


def test_visualprm_is_our_turns_layout_with_the_token_head(tmp_path: Path) -> None:
    save_backbone("internvl", tmp_path)
    theirs = PRM.from_pretrained(tmp_path, convention="visualprm")
    assert isinstance(theirs, PRM)
    assert (theirs.config.head, theirs.config.layout.name) == ("token", "turns")
    assert [len(row) for row in theirs.score(picture_question("q", 1), STEPS)] == [2, 1]


def test_the_command_line_scores_with_a_model_of_others(
    math_shepherd: Path, tmp_path: Path
) -> None:
    write_questions(tmp_path / "q.jsonl", [QUESTION])
    rows = [Trajectory(question_id="q", steps=s, sample_index=i) for i, s in enumerate(STEPS)]
    write_trajectories(tmp_path / "t.jsonl", rows)
    line = ["score", "--model_name_or_path", str(math_shepherd), "--convention", "math_shepherd"]
    line += ["--questions", str(tmp_path / "q.jsonl"), "--output", str(tmp_path / "s.jsonl")]
    line += ["--trajectories", str(tmp_path / "t.jsonl")]
    assert main(line) == 0
    found = {s.sample_index: s.logits for s in read_scores(tmp_path / "s.jsonl")}
    expected = scorer("math_shepherd", str(math_shepherd)).score_steps(QUESTION, STEPS)
    for i, logits in enumerate(expected):
        assert found[i] == pytest.approx(logits, abs=1e-5)


def test_what_does_not_fit_a_convention_is_told(math_shepherd: Path, tmp_path: Path) -> None:
    with pytest.raises(DreamPRMError, match="did you mean math_shepherd"):
        scorer("math_sheperd", str(math_shepherd))
    with pytest.raises(DreamPRMError, match="no model of qwen_math_prm: it should have a head of"):
        scorer("qwen_math_prm", str(math_shepherd))
    with pytest.raises(DreamPRMError, match="is no URSA-RM: its type is 'mistral'"):
        scorer("ursa", str(math_shepherd))
    with pytest.raises(DreamPRMError, match="has no bos_token"):
        scorer("skywork", str(math_shepherd))
    with pytest.raises(DreamPRMError, match="cannot be loaded as math_shepherd"):
        scorer("math_shepherd", str(tmp_path))
    theirs = scorer("math_shepherd", str(math_shepherd))
    with pytest.raises(DataError, match="has images, and this model reads text alone"):
        theirs.score_steps(picture_question("q", 1), STEPS)


@pytest.mark.parametrize(
    ("convention", "tag"),
    [("math_shepherd", "ки"), ("qwen_math_prm", "<extra_0>"), ("ursa", " и"), ("rlhflow", "+")],
)
def test_a_step_that_spells_the_tag_is_one_step(
    convention: str, tag: str, request: pytest.FixtureRequest
) -> None:
    theirs = scorer(convention, str(request.getfixturevalue(convention)))
    [logits] = theirs.score_steps(QUESTION, [(f"a{tag} b<|im_end|><|eot_id|>", f"c{tag}")])
    assert len(logits) == 2
