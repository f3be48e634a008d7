"""Backbones in GGUF files, of one that each test run writes with the package `gguf`."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from dreamprm.errors import DreamPRMError
from dreamprm.models.loading import load_backbone, load_processor
from dreamprm.prm.lora import Lora
from dreamprm.prm.model import PRM
from tests.tiny_backbones import tokenizer

needs_gguf = pytest.mark.skipif(find_spec("gguf") is None, reason="the package gguf is missing")

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>\n{% endfor %}"
ROWS = {  # of a layer: name of the file's, name of transformers'
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def words() -> Any:
    """`ab` is there for the one merge, without which there is no such file."""
    return tokenizer(["<|im_start|>", "ab"], TEMPLATE, pad="<|endoftext|>", eos="<|im_end|>")


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(words()),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        max_position_embeddings=2048,
    )
    return Qwen2ForCausalLM(config).eval()


@pytest.fixture(scope="module")
def file(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as llama.cpp writes it, with one matrix in blocks of eight bits."""
    import gguf

    path = tmp_path_factory.mktemp("gguf") / "tiny-Q8_0.gguf"
    writer = gguf.GGUFWriter(path, "qwen2")
    config, tokens = model.config, words()
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    names = tokens.convert_ids_to_tokens(range(len(tokens)))
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    special = set(tokens.all_special_tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(names)
    writer.add_token_types([control if name in special else normal for name in names])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(tokens.eos_token_id)
    writer.add_pad_token_id(tokens.pad_token_id)
    writer.add_chat_template(TEMPLATE)
    state = model.state_dict()
    pairs = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    for layer in range(config.num_hidden_layers):
        pairs |= {f"blk.{layer}.{k}": f"model.layers.{layer}.{v}" for k, v in ROWS.items()}
    for theirs, ours in pairs.items():
        for part in ("weight", "bias"):
            if f"{ours}.{part}" not in state:
                continue
            values, quantised = state[f"{ours}.{part}"].numpy(), None
            if theirs == "blk.0.ffn_up":
                quantised = gguf.GGMLQuantizationType.Q8_0
                values = gguf.quantize(values, quantised)
                state[f"{ours}.{part}"].copy_(torch.tensor(gguf.dequantize(values, quantised)))
            writer.add_tensor(f"{theirs}.{part}", values, raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def logits(model: Any, tokens: Any) -> torch.Tensor:
    with torch.no_grad():
        of_text: torch.Tensor = model(**tokens("2 + 3 = 5<|im_end|>", return_tensors="pt")).logits
    return of_text


@needs_gguf
@pytest.mark.parametrize("folder", [False, True])
def test_a_gguf_file_is_the_model_that_it_was_written_from(
    file: Path, model: Any, folder: bool
) -> None:
    path = str(file.parent if folder else file)
    tokens = load_processor(path)
    assert tokens("2 <|im_end|>").input_ids == words()("2 <|im_end|>").input_ids
    assert tokens.chat_template == TEMPLATE
    torch.testing.assert_close(logits(load_backbone(path), tokens), logits(model, words()))


@needs_gguf
@pytest.mark.parametrize("lora", [None, Lora(r=2)])
def test_a_prm_on_a_gguf_file_is_saved_and_read_again(
    file: Path, tmp_path: Path, lora: Lora | None
) -> None:
    prm = PRM.from_backbone(str(file), lora=lora)
    for parameter in prm.head.parameters():
        torch.nn.init.normal_(parameter)
    prm.save_pretrained(tmp_path)
    again = PRM.from_pretrained(tmp_path)
    scores = [p.score("What is 2 + 3?", [["2 + 3 = 5", "so 5"]])[0] for p in (prm, again)]
    assert scores[1] == pytest.approx(scores[0])
    assert len(scores[0]) == 2
    if lora is None:
        assert "quantization_config" not in (tmp_path / "config.json").read_text()


@needs_gguf
def test_several_gguf_files_in_a_folder_are_told_apart_by_their_names(
    file: Path, tmp_path: Path
) -> None:
    for name in ("a.gguf", "b.gguf"):
        shutil.copy(file, tmp_path / name)
    with pytest.raises(DreamPRMError, match="holds several GGUF files: give one of a.gguf, b.gguf"):
        load_backbone(str(tmp_path))


def test_a_gguf_file_without_the_package_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr("dreamprm.models.loading.find_spec", lambda name: None)
    with pytest.raises(DreamPRMError, match=r"needs the package gguf: pip install 'dreamprm\[gguf"):
        load_backbone(str(tmp_path / "m.gguf"))
