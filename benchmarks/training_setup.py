"""What `benchmarks.training` trains: one model and one labelled set, the same for every procedure.

The data is made up: pictures of noise, steps of random words, random Monte Carlo labels whose mean
differs by domain, meta candidates of both outcomes. All steps have the same number of words, so
that padding favours nobody. Qwen2-VL-2B is built from its published sizes with random weights and
reads the embedded model's tokens: time and memory depend on shapes, not on values.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from dreamprm.data import Records
from dreamprm.prm.lora import Lora
from dreamprm.prm.model import PRM
from dreamprm.records import Label, Question, Trajectory
from dreamprm.tiny.model import SPECIAL, build_model, build_processor
from dreamprm.tiny.scene import to_png
from dreamprm.training.data import TrainData, prepare_data

WORDS = ["red", "blue", "green", "is", "plus", "look", "at", "and", "larger", "3", "5", "7"]
CANDIDATES, COMPLETIONS = 4, 8
QWEN2_VL_2B: dict[str, Any] = {  # the published config.json of Qwen/Qwen2-VL-2B-Instruct
    "text_config": {
        "vocab_size": 151936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [16, 24, 24],
        },
    },
    "vision_config": {
        "depth": 32,
        "embed_dim": 1280,
        "hidden_size": 1536,
        "num_heads": 16,
        "mlp_ratio": 4,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
    "tie_word_embeddings": True,
}


@dataclass(frozen=True)
class Setting:
    """One run of the cost part.

    Attributes:
        model: `qwen2-vl-2b`, or whatever `PRM.from_backbone` takes.
        device: cpu or cuda.
        lora: train adapters on a frozen base.
        bf16: compute in bfloat16 (autocast); what is trained stays in fp32.
        gradient_checkpointing: compute activations again in the backward pass.
        domains: one micro-batch of each in a lower step.
        micro_batch: trajectories in a micro-batch of ours.
        plain_micro_batches: sizes that plain training may choose from, for the same step.
        window: lower steps between two upper steps.
        per_domain: trajectories of a domain.
        image_tokens, words, steps: of a question, of a step, of a trajectory.
        windows: timed in one turn of a procedure.
        repeats: turns of each procedure.
        threads: of torch on the CPU.
    """

    model: str = "tiny"
    device: str = "cpu"
    lora: bool = False
    bf16: bool = False
    gradient_checkpointing: bool = False
    domains: int = 5
    micro_batch: int = 8
    plain_micro_batches: tuple[int, ...] = (4, 8, 20, 40)
    window: int = 5
    per_domain: int = 40
    image_tokens: int = 64
    words: int = 20
    steps: int = 5
    windows: int = 1
    repeats: int = 5
    threads: int = 1

    @property
    def batch(self) -> int:
        """Trajectories of a lower step; the meta batch has as many candidates."""
        return self.domains * self.micro_batch


def make_data(setting: Setting) -> TrainData:
    """The training set and the meta set."""
    rng = random.Random(0)
    questions, trajectories = [], []
    for domain in range(setting.domains):
        quality = (domain + 1) / (setting.domains + 1)
        for i in range(setting.per_domain):
            question, steps = _one(f"{domain}-{i}", f"domain {domain}", setting, rng)
            labels = tuple(
                Label.of(sum(rng.random() < quality for _ in range(COMPLETIONS)), COMPLETIONS)
                for _ in steps
            )
            questions.append(question)
            trajectories.append(Trajectory(question_id=question.id, steps=steps, labels=labels))
    meta_questions, meta = [], []
    for i in range(setting.batch // CANDIDATES):
        question, _ = _one(f"meta-{i}", "meta", setting, rng)
        meta_questions.append(question)
        meta += [
            Trajectory(
                question_id=question.id,
                steps=_steps(setting, rng),
                sample_index=index,
                outcome=index % 2 == 0,
            )
            for index in range(CANDIDATES)
        ]
    return prepare_data(Records(questions, trajectories), Records(meta_questions, meta))


def make_model(setting: Setting) -> PRM:
    """The reward model in training mode on its device, with a head that is not zero."""
    torch.manual_seed(0)
    if setting.model == "qwen2-vl-2b":
        model = _qwen2_vl_2b(setting)
        if setting.lora:
            model.add_lora()
    else:
        dtype = torch.bfloat16 if setting.lora and setting.bf16 else torch.float32
        lora = Lora() if setting.lora else None
        model = PRM.from_backbone(setting.model, lora=lora, dtype=dtype)
    if setting.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    if isinstance(model.head, nn.Linear):
        nn.init.normal_(model.head.weight, std=0.01)
    side = _side(setting)
    model.processor.image_processor.size = {"shortest_edge": 56 * 56, "longest_edge": side * side}
    return model.to(setting.device).train()


def wide_model(width: int) -> PRM:
    """The embedded architecture at another width, with random weights (torch's generator).

    Heads keep their size and activations their scale.
    """
    processor = build_processor()
    config: Any = build_model(processor).config
    spread = 0.08 * (128 / width) ** 0.5
    heads = max(1, width // 32)
    config.text_config.update(
        {
            "hidden_size": width,
            "intermediate_size": 5 * width // 2,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "initializer_range": spread,
        }
    )
    config.vision_config.update(
        {
            "hidden_size": width,
            "embed_dim": 3 * width // 4,
            "num_heads": heads,
            "initializer_range": spread,
        }
    )
    config = type(config).from_dict(config.to_dict())
    return PRM(Qwen2VLForConditionalGeneration(config), processor)


def _qwen2_vl_2b(setting: Setting) -> PRM:
    processor = build_processor()
    processor.image_processor.temporal_patch_size = 2
    ids = {name: processor.tokenizer.convert_tokens_to_ids(t) for name, t in SPECIAL.items()}
    config = Qwen2VLConfig(
        **QWEN2_VL_2B,
        image_token_id=ids["image"],
        video_token_id=ids["video"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
    )
    with torch.device(setting.device):  # two billion random numbers take long on a CPU
        backbone: Any = Qwen2VLForConditionalGeneration(config)
    if setting.lora and setting.bf16:
        backbone = backbone.to(torch.bfloat16)
    return PRM(backbone, processor)


def _one(
    name: str, domain: str, setting: Setting, rng: random.Random
) -> tuple[Question, tuple[str, ...]]:
    side = _side(setting)
    noise = Image.frombytes("RGB", (side, side), rng.randbytes(3 * side * side))
    question = Question(
        id=name,
        domain=domain,
        text="what is red plus blue ?",
        images=(to_png(noise),),
        answer="1",
    )
    return question, _steps(setting, rng)


def _steps(setting: Setting, rng: random.Random) -> tuple[str, ...]:
    return tuple(
        f"Step {i}: " + " ".join(rng.choices(WORDS, k=setting.words))
        for i in range(1, setting.steps + 1)
    )


def _side(setting: Setting) -> int:
    """Pixels of a picture's edge: 28 x 28 of them are a token."""
    tokens: float = setting.image_tokens**0.5
    return 28 * max(2, round(tokens))
