"""Reward models of others: tiny ones in their layouts, against what their model cards compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from transformers import MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2Model

from dreamprm.cli import main
from dreamprm.data import read_scores, write_questions, write_trajectories
from dreamprm.errors import DataError, DreamPRMError
from dreamprm.prm.conventions import QWEN_SYSTEM
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
    found = tokenizer(["<|im_start|>"], chatml(""), pad="<|endoftext|>", eos="<|im_end|>")
    found.chat_template = (  # contents are texts, as text-only templates take them
        "{% for m in messages %}<|im_start|>{{ m['role'] + '\n' + m['content'] }}<|im_end|>\n"
        "{% endfor %}"
    )
    found.add_tokens([AddedToken(text, special=False) for text in extra])
    return found


def scorer(convention: str, path: str) -> StepScorer:
    return StepScorer(PRM.from_pretrained(path, convention=convention))


@pytest.fixture(scope="module")
def shepherd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shepherd")
    tokens = words("ки")
    torch.manual_seed(0)
    MistralForCausalLM(MistralConfig(vocab_size=len(tokens), **SIZES)).save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
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


def test_math_shepherd_compares_two_tokens_at_each_tag(shepherd: Path) -> None:
    found = scorer("math_shepherd", str(shepherd)).score_steps(QUESTION, STEPS)
    model, tokens = MistralForCausalLM.from_pretrained(shepherd).eval(), words("ки")
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


def test_qwen_math_prm_reads_two_classes_at_each_separator(qwen: Path) -> None:
    found = scorer("qwen_math_prm", str(qwen)).score_steps(QUESTION, STEPS)
    model, tokens = Qwen2Model.from_pretrained(qwen).eval(), words("<extra_0>")
    state = load_file(qwen / "model.safetensors")
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


def test_visualprm_is_our_turns_layout_with_the_token_head(tmp_path: Path) -> None:
    save_backbone("internvl", tmp_path)
    theirs = PRM.from_pretrained(tmp_path, convention="visualprm")
    assert isinstance(theirs, PRM)
    assert (theirs.config.head, theirs.config.layout.name) == ("token", "turns")
    assert [len(row) for row in theirs.score(picture_question("q", 1), STEPS)] == [2, 1]


def test_the_command_line_scores_with_a_model_of_others(shepherd: Path, tmp_path: Path) -> None:
    write_questions(tmp_path / "q.jsonl", [QUESTION])
    rows = [Trajectory(question_id="q", steps=s, sample_index=i) for i, s in enumerate(STEPS)]
    write_trajectories(tmp_path / "t.jsonl", rows)
    line = ["score", "--model_name_or_path", str(shepherd), "--convention", "math_shepherd"]
    line += ["--questions", str(tmp_path / "q.jsonl"), "--output", str(tmp_path / "s.jsonl")]
    line += ["--trajectories", str(tmp_path / "t.jsonl")]
    assert main(line) == 0
    found = {s.sample_index: s.logits for s in read_scores(tmp_path / "s.jsonl")}
    expected = scorer("math_shepherd", str(shepherd)).score_steps(QUESTION, STEPS)
    for i, logits in enumerate(expected):
        assert found[i] == pytest.approx(logits, abs=1e-5)


def test_what_does_not_fit_a_convention_is_told(shepherd: Path, qwen: Path, tmp_path: Path) -> None:
    with pytest.raises(DreamPRMError, match="did you mean math_shepherd"):
        scorer("math_sheperd", str(shepherd))
    with pytest.raises(DreamPRMError, match="no two-class head"):
        scorer("qwen_math_prm", str(shepherd))
    with pytest.raises(DreamPRMError, match="cannot be loaded as math_shepherd"):
        scorer("math_shepherd", str(tmp_path))
    theirs = scorer("math_shepherd", str(shepherd))
    with pytest.raises(DataError, match="has images, and this model reads text alone"):
        theirs.score_steps(picture_question("q", 1), STEPS)


def test_a_step_that_spells_the_tag_is_one_step(shepherd: Path, qwen: Path) -> None:
    for convention, folder, tag in (
        ("math_shepherd", shepherd, "ки"),
        ("qwen_math_prm", qwen, "<extra_0>"),
    ):
        theirs = scorer(convention, str(folder))
        [logits] = theirs.score_steps(QUESTION, [(f"a {tag} b<|im_end|>", tag)])
        assert len(logits) == 2
