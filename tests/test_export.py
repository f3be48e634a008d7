"""`dreamprm export`: the same scores from a folder as vLLM reads it, or a reason why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open

from dreamprm.cli import main
from dreamprm.errors import DreamPRMError
from dreamprm.prm.folder import LayoutConfig, PRMConfig
from dreamprm.prm.lora import Lora
from dreamprm.prm.model import PRM, export
from tests.test_served import CANDIDATES, TEXT
from tests.tiny_backbones import BUILDERS, TEXT_BUILDERS
from tests.tiny_models import picture_question

STEP = "<|step|>"
INSIDE = ["qwen2_vl", "internvl", "llava_onevision", "gemma3"]  # in vLLM's language model


def prm(lora: Lora | None = None, **config: Any) -> PRM:
    """With heads and adapters that are not zero, as fresh ones are."""
    torch.manual_seed(0)
    model = PRM.from_backbone("tiny", PRMConfig(**config), lora=lora).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name or name.startswith("head."):
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def tensors(folder: Path) -> set[str]:
    [path] = folder.glob("*.safetensors")
    with safe_open(path, framework="pt") as file:
        return set(file.keys())


@pytest.mark.parametrize(
    ("config", "lora"),
    [
        ({}, Lora(r=4)),
        ({"head": "vocab"}, None),
        ({"head": "vocab", "layout": LayoutConfig("prefix")}, Lora(r=4)),
        ({"head": "token", "good_token": "3", "bad_token": "5"}, None),
    ],
)
def test_an_exported_model_gives_the_same_scores(
    config: dict[str, Any], lora: Lora | None, tmp_path: Path
) -> None:
    """With one row in the model's own weights, no other file of weights, and no adapters."""
    model = prm(lora, **config)
    model.save_pretrained(tmp_path / "prm", {"charts": 1.5})
    assert not (tmp_path / "prm/vllm.yaml").exists()
    (tmp_path / "prm/weights.json").write_text("{}")
    out = tmp_path / "served"
    assert main(["export", str(tmp_path / "prm"), "--output", str(out)]) == 0
    assert "language_model.score.weight" in tensors(out)
    assert not any("lora" in name for name in tensors(out))
    facts = json.loads((out / "prm_config.json").read_text())
    assert (facts["head"], facts["domain_weights"]) == ("value", {"charts": 1.5})
    assert len(json.loads((out / "config.json").read_text())["id2label"]) == 1
    assert "video_processor" in json.loads((out / "processor_config.json").read_text())
    assert (out / "weights.json").exists()
    options = yaml.safe_load((out / "vllm.yaml").read_text())
    assert options["pooler-config"]["step_tag_id"] == model.encoder().tag_id
    assert options["dtype"] == "float32"
    exported = PRM.from_pretrained(out)
    for question in (TEXT, picture_question()):
        rows = zip(
            exported.score(question, CANDIDATES), model.score(question, CANDIDATES), strict=True
        )
        for row, expected in rows:
            assert row == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", INSIDE + ["qwen3_vl", "idefics3", "llama"])
def test_a_whole_model_is_saved_as_vllm_reads_it(name: str, tmp_path: Path) -> None:
    """The head where vLLM looks for it, which is not the same place in every architecture."""
    backbone, processor = (BUILDERS | TEXT_BUILDERS)[name]()
    tokenizer = getattr(processor, "tokenizer", processor)
    tokenizer.add_tokens(STEP, special_tokens=True)
    backbone.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model = PRM(backbone, processor).eval()
    torch.nn.init.normal_(model.head.weight, std=0.3)
    model.save_pretrained(tmp_path)
    at = "language_model.score.weight" if name in INSIDE else "score.weight"
    assert [name for name in tensors(tmp_path) if name.endswith("score.weight")] == [at]
    config = json.loads((tmp_path / "config.json").read_text())
    assert len(config.get("text_config", config)["id2label"]) == len(config["id2label"]) == 1
    options = yaml.safe_load((tmp_path / "vllm.yaml").read_text())
    assert options["pooler-config"]["step_tag_id"] == len(tokenizer) - 1
    question = TEXT if name == "llama" else picture_question()
    scores = PRM.from_pretrained(tmp_path).score(question, CANDIDATES)
    assert scores == model.score(question, CANDIDATES)


def test_what_vllm_cannot_serve_is_refused_with_the_reason(tmp_path: Path) -> None:
    def refused(model: PRM, reason: str) -> None:
        with pytest.raises(DreamPRMError, match=reason):
            export(model, tmp_path)

    refused(prm(head="token", layout=LayoutConfig.named("turns")), "layout 'turns' judges steps")
    refused(prm(layout=LayoutConfig(step_tag="\n")), "step tag '\\\\n' is no special token")
    refused(prm(layout=LayoutConfig(step_tag="<|user|>")), "the chat template writes")
    old = prm()
    old.head = torch.nn.Linear(old.head.in_features, 1)
    refused(old, "its head has a bias")
    old.save_pretrained(tmp_path)
    assert not (tmp_path / "vllm.yaml").exists()
    assert PRM.from_pretrained(tmp_path).score(TEXT, CANDIDATES) == old.score(TEXT, CANDIDATES)
