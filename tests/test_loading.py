"""Backbones and processors load with or without torchvision, and what we save is stock.

torchvision cannot be installed where these tests were written. What it changes in transformers,
which classes are chosen, is tried in another process with a package of that name that holds nothing
but the names transformers imports; what its resizing computes cannot be tried, and is never used.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dreamprm.errors import DreamPRMError
from dreamprm.models import templates
from dreamprm.models.loading import load_backbone, load_processor
from dreamprm.models.templates import write_chats
from dreamprm.prm.layout import Encoder
from dreamprm.prm.model import PRM
from dreamprm.tiny.model import build_processor
from tests.test_backbones import MIXED
from tests.tiny_backbones import BUILDERS, save_backbone


def as_older_repositories(folder: Path) -> None:
    """Rewrite a folder: one file per part, fast image processors named, the template in JSON."""
    facts = json.loads((folder / "processor_config.json").read_text())
    image = facts.pop("image_processor")
    facts.pop("video_processor", None)
    kind = image["image_processor_type"].removesuffix("Pil")
    image |= {"image_processor_type": f"{kind}Fast", "processor_class": facts["processor_class"]}
    (folder / "preprocessor_config.json").write_text(json.dumps(image))
    (folder / "processor_config.json").write_text(json.dumps(facts))
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    (folder / "chat_template.jinja").unlink()
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer["chat_template"] = "{{ messages[0]['content'] }}"  # of the text model it came from
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))


@pytest.mark.parametrize("name", BUILDERS)
def test_older_file_layouts_encode_alike(name: str, tmp_path: Path) -> None:
    save_backbone(name, tmp_path)
    now = Encoder(load_processor(str(tmp_path)))(MIXED).inputs
    as_older_repositories(tmp_path)
    before = Encoder(load_processor(str(tmp_path)))(MIXED).inputs
    assert now.keys() == before.keys()
    for key, value in now.items():
        assert (value == before[key]).all(), key


def test_a_chat_template_in_the_tokenizers_file_is_enough(tmp_path: Path) -> None:
    """As in Qwen2-VL's repositories, whose template is in no file of the processor."""
    save_backbone("qwen2_vl", tmp_path)
    now = load_processor(str(tmp_path)).chat_template
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(DreamPRMError, match="no chat template"):
        load_processor(str(tmp_path))
    tokenizer = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer | {"chat_template": now}))
    assert load_processor(str(tmp_path)).chat_template == now


def test_a_folder_without_a_model_we_know_is_refused_in_one_line(tmp_path: Path) -> None:
    for file, said in (
        (None, "cannot load"),
        ('{"model_type": "of_tomorrow"}', "of_tomorrow"),
        ('{"model_type": "bert"}', "type 'bert' does not write text from left to right"),
    ):
        if file is not None:
            (tmp_path / "config.json").write_text(file)
        for load in (load_backbone, load_processor):
            with pytest.raises(DreamPRMError, match=said) as caught:
                load(str(tmp_path))
            assert "\n" not in str(caught.value)


Tensors = dict[str, torch.Tensor]
KEY = "layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda w, k: w.update({k: w[k][:-1]}), r"{key}' is \[.*\] and should be \["),
        (lambda w, k: w.pop(k), "missing are '.*{key}'"),
        (lambda w, k: w.update({f"{k}.b": w[k].clone()}), "no place for: '.*{key}.b'"),
        (lambda w, k: w[k].view(-1)[-1:].fill_(float("nan")), "not finite, in .*{key}'"),
        (lambda w, k: w[k].view(-1)[:1].fill_(float("inf")), "not finite, in .*{key}'"),
    ],
)
def test_weights_that_are_not_the_models_are_refused_by_name(
    damage: Callable[[Tensors, str], None], said: str, tmp_path: Path
) -> None:
    PRM.from_backbone("tiny").save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    damage(weights, next(key for key in weights if key.endswith(KEY)))
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DreamPRMError, match=said.format(key=KEY)):
        PRM.from_pretrained(tmp_path)


def test_neither_code_nor_pickles_of_a_folder_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda _: "y")  # transformers asks the user
    PRM.from_backbone("tiny").save_pretrained(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(DreamPRMError, match="as pickles .'pytorch_model.bin'"):
        load_backbone(str(tmp_path))
    (tmp_path / "mine.py").write_text("raise SystemExit('this ran')")
    code = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.MyConfig"}}
    (tmp_path / "config.json").write_text(json.dumps(code))
    for load in (load_backbone, load_processor):
        with pytest.raises(DreamPRMError, match="custom code"):
            load(str(tmp_path))


LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (LOOPS, "more than"),
        ("{{ 10 ** (10 ** 10 * (messages | length)) }}", "more than"),
        ("{{ 'x' * 10 ** 10 }}", "MemoryError"),
        ("{{ 'x' * 10 ** 7 }}", "10,000,0.. characters"),
        ("{{ messages.append(1) }}", "SecurityError"),
    ],
)
def test_a_chat_template_has_little_time_and_memory(
    template: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that misbehaves on some conversations only."""
    monkeypatch.setattr(templates, "SECONDS", 0.5)
    monkeypatch.setattr(templates, "_writer", templates._Writer())  # with that limit
    processor = build_processor()
    processor.chat_template = (
        "{% if messages[0].content == 'bad' %}" + template + "{% endif %}{{ messages[0].content }}"
    )
    good, bad = ([{"role": "user", "content": word}] for word in ("good", "bad"))
    assert write_chats(processor, [good, good]) == ["good", "good"]
    with pytest.raises(DreamPRMError, match=f"chat template .*{said}"):
        write_chats(processor, [bad])
    processor.chat_template = "{{ messages[0].content }}"
    assert write_chats(processor, [bad]) == ["bad"]


def test_settings_for_videos_are_handed_on(tmp_path: Path) -> None:
    save_backbone("smolvlm", tmp_path)
    file = tmp_path / "processor_config.json"
    settings = {"video_processor_type": "SmolVLMVideoProcessor", "num_frames": 7}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"video_processor": settings}))
    load_processor(str(tmp_path)).save_pretrained(tmp_path / "again")
    saved = json.loads((tmp_path / "again" / "processor_config.json").read_text())
    assert saved["video_processor"] == settings
    assert saved["processor_class"] == "SmolVLMProcessor"


FAKE_TORCHVISION = """
import sys, types
from enum import Enum
__version__ = "0.28.0"
names = "nearest nearest-exact bilinear bicubic box hamming lanczos".split()
Mode = Enum("InterpolationMode", {n.upper().replace("-", "_"): n for n in names})
for name in ("transforms.v2.functional", "transforms.functional", "transforms.v2", "transforms",
             "io"):
    module = types.ModuleType(f"torchvision.{name}")
    module.InterpolationMode, module.pil_to_tensor, module.__path__ = Mode, None, []
    sys.modules[module.__name__] = module
sys.modules["torchvision.transforms.v2"].functional = sys.modules[
    "torchvision.transforms.v2.functional"]
"""
WHERE_IT_IS = """
import json, sys
from transformers import AutoProcessor
from dreamprm.models.loading import load_processor
from dreamprm.prm.layout import Encoder
from tests.test_backbones import MIXED
found = {}
for name, folder in json.loads(sys.argv[1]).items():
    ours = load_processor(folder)
    stock = AutoProcessor.from_pretrained(folder)
    pixels = Encoder(ours)(MIXED).inputs["pixel_values"]
    found[name] = {
        "ours": type(ours.image_processor).__name__,
        "pixels": pixels.double().sum().item(),
        "stock": [type(stock).__module__, type(stock).__name__],
        "stock images": type(stock.image_processor).__module__,
        "stock video": type(getattr(stock, "video_processor", None)).__name__,
    }
print(json.dumps(found))
"""


def test_torchvision_changes_no_pixel_and_reads_what_we_save(tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(FAKE_TORCHVISION)
    here = {}
    for name in BUILDERS:
        save_backbone(name, tmp_path / name)
        here[name] = load_processor(str(tmp_path / name))
        here[name].save_pretrained(tmp_path / name)
    run = subprocess.run(
        [sys.executable, "-c", WHERE_IT_IS, json.dumps({n: str(tmp_path / n) for n in here})],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    for name, there in json.loads(run.stdout.splitlines()[-1]).items():
        pixels = Encoder(here[name])(MIXED).inputs["pixel_values"]
        assert there["pixels"] == pixels.double().sum().item(), name
        assert there["ours"] == type(here[name].image_processor).__name__
        module, kind = there["stock"]
        assert module.startswith("transformers.") and kind == type(here[name]).__name__
        assert "_pil_" not in there["stock images"], "the stock default is torchvision's"
        has_video = name not in ("gemma3", "idefics3")
        assert there["stock video"].endswith("VideoProcessor") == has_video, name
