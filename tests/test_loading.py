"""Processors and backbones load from every layout of files that is out there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dreamprm.errors import DreamPRMError
from dreamprm.models.loading import load_backbone, load_processor, resolve
from dreamprm.prm.layout import Encoder
from tests.tiny_models import STEPS, picture_question


def as_published(folder: Path, template: str) -> Path:
    """The embedded backbone in the file layout of Qwen2-VL's repositories.

    Image settings in preprocessor_config.json with the processor's class, no processor_config.json,
    the chat template in the tokenizer's config or in chat_template.json.
    """
    source = Path(resolve("tiny"))
    for name in ("config.json", "model.safetensors", "tokenizer.json", "generation_config.json"):
        shutil.copy(source / name, folder / name)
    image = json.loads((source / "processor_config.json").read_text())["image_processor"]
    facts = image | {"processor_class": "Qwen2VLProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))
    text = (source / "chat_template.jinja").read_text()
    tokenizer = json.loads((source / "tokenizer_config.json").read_text())
    if template == "tokenizer":
        tokenizer["chat_template"] = text
    else:
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": text}))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return folder


@pytest.mark.parametrize("template", ["tokenizer", "legacy file"])
def test_a_published_file_layout_loads_and_encodes_as_ours_does(
    tmp_path: Path, template: str
) -> None:
    folder = as_published(tmp_path, template)
    pair = (picture_question(), STEPS)
    theirs = Encoder(load_processor(str(folder)))([pair])
    ours = Encoder(load_processor("tiny"))([pair])
    for name, value in ours.inputs.items():
        assert (value == theirs.inputs[name]).all(), name


def test_no_video_processor_is_needed() -> None:
    processor = load_processor("tiny")
    assert "video_processor" not in processor.get_attributes()


@pytest.mark.parametrize("load", [load_backbone, load_processor])
def test_a_folder_without_a_model_is_one_clear_error(tmp_path: Path, load: object) -> None:
    assert callable(load)
    with pytest.raises(DreamPRMError, match="cannot load"):
        load(str(tmp_path))
