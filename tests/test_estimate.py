"""The estimate of a run's memory and work, held to what models really keep."""

import io
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from benchmarks.training_setup import QWEN2_VL_2B as PUBLISHED
from dreamprm.errors import DreamPRMError
from dreamprm.models.loading import load_processor
from dreamprm.prm.layout import Encoder, LayoutConfig
from dreamprm.prm.lora import Lora, unwrapped
from dreamprm.prm.model import PRM, PRMConfig
from dreamprm.records import Question, Trajectory
from dreamprm.training.config import TrainConfig
from dreamprm.training.data import TrainData
from dreamprm.training.estimate import (
    Lengths,
    cheaper,
    describe_run,
    measure_flops,
    measure_lengths,
    plan_training,
    read_shapes,
    render_plan,
)
from dreamprm.training.estimate.activations import Pass, forward_flops, saved_bytes
from tests.tiny_backbones import BUILDERS

HEAD = PRMConfig()
IMAGE = 5
GRID = (1, 8, 8)  # 64 patches, 16 tokens


def config_of(width: int = 128, layers: int = 3, heads: int = 4, kv: int = 2) -> Qwen2VLConfig:
    d = width // heads
    return Qwen2VLConfig(
        text_config={
            "vocab_size": 500,
            "hidden_size": width,
            "intermediate_size": 352,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [d // 8, d // 8, d // 4],
            },
            "pad_token_id": 0,
        },
        vision_config={
            "depth": 2,
            "embed_dim": 96,
            "hidden_size": width,
            "num_heads": 4,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        image_token_id=IMAGE,
        vision_start_token_id=3,
        tie_word_embeddings=True,
    )


QWEN2_VL_2B = Qwen2VLConfig(**PUBLISHED)
TRAJECTORIES = Lengths(
    tokens=(1200,) * 8, patches=(1024,) * 8, steps=(5,) * 8, sequences=(1,) * 8
)  # 256 visual tokens each
ON_GPU = TrainConfig(bf16=True, per_device_meta_batch_size=8, meta_gradient_at="end")


def built(config: Qwen2VLConfig, lora: Lora | None, frozen_bf16: bool) -> PRM:
    dtype = torch.bfloat16 if lora and frozen_bf16 else torch.float32
    backbone = Qwen2VLForConditionalGeneration._from_config(config, dtype=dtype)
    model = PRM(backbone, None, HEAD)
    if lora:
        model.add_lora(lora)
    return model.train()


def measured_bytes(model: PRM, tokens: int, padding: int, bf16: bool) -> int:
    """Bytes of all storages that autograd saves in a forward pass, without parameters."""
    ids = torch.randint(10, 500, (2, tokens))
    ids[:, 2], ids[:, 3:19] = 3, IMAGE
    mask = torch.ones_like(ids)
    if padding:
        mask[0, -padding:] = 0
    pixels = torch.randn(2 * 64, 3 * 2 * 14 * 14, dtype=model.backbone.dtype)
    inputs: dict[str, Any] = {
        "input_ids": ids,
        "attention_mask": mask,
        "mm_token_type_ids": (ids == IMAGE).long(),
        "pixel_values": pixels,
        "image_grid_thw": torch.tensor([GRID] * 2),
    }
    return saved_by_autograd(model, inputs, bf16)


def saved_by_autograd(model: PRM, inputs: dict[str, Any], bf16: bool) -> int:
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, torch.UntypedStorage] = {}  # kept alive, so that no address comes twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            found[storage.data_ptr()] = storage
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        output = unwrapped(model.backbone).base_model(**inputs, use_cache=False)
    assert output.last_hidden_state.requires_grad
    return sum(storage.nbytes() for storage in found.values())


@pytest.mark.parametrize("frozen_bf16", [False, True])
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    "lora",
    [
        None,
        Lora(r=8),
        Lora(r=8, target_modules=("q_proj", "down_proj")),
        Lora(r=8, vision=True),
    ],
)
@pytest.mark.parametrize(("width", "tokens", "padding"), [(128, 150, 0), (256, 300, 7)])
def test_activation_bytes_are_those_that_autograd_saves(
    frozen_bf16: bool,
    bf16: bool,
    checkpointing: bool,
    lora: Lora | None,
    width: int,
    tokens: int,
    padding: int,
) -> None:
    config = config_of(width, heads=width // 32)
    frozen_bf16 = frozen_bf16 and lora is not None
    model = built(config, lora, frozen_bf16)
    if checkpointing:
        model.gradient_checkpointing_enable()
    run = Pass(2, tokens, 64, bool(padding), bf16, frozen_bf16, checkpointing, cuda=False)
    estimated = saved_bytes(read_shapes(config, HEAD, lora), run)
    measured = measured_bytes(model, tokens, padding, bf16)
    # With both, little is saved, and small things count that are not estimated.
    tolerance = (0.15 if checkpointing else 0.08) if lora else 0.01
    assert estimated == pytest.approx(measured, rel=tolerance)


@pytest.mark.parametrize("lora", [None, Lora(r=4), Lora(r=4, vision=True)])
@pytest.mark.parametrize("name", BUILDERS)
def test_other_architectures_are_estimated_as_well(name: str, lora: Lora | None) -> None:
    backbone, processor = BUILDERS[name]()
    model = PRM(backbone, processor)
    if lora:
        model.add_lora(lora)
    shapes = read_shapes(backbone.config, HEAD, lora)
    assert shapes.total == sum(p.numel() for p in model.parameters())
    assert shapes.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)

    picture = io.BytesIO()
    Image.new("RGB", (56, 56), "red").save(picture, "PNG")
    question = Question(
        id="q", domain="d", text="read " * 60, images=(picture.getvalue(),), answer="c"
    )
    t = Trajectory(question_id="q", sample_index=0, steps=(" a", " b") * 9, answer="c")
    assert shapes.vision
    lengths = measure_lengths(model.encoder(), [(question, t)], patch_size=14)
    batch = model.encoder()([(question, t.steps)] * 2)
    run = Pass(2, lengths.tokens[0], lengths.patches[0], cuda=False)
    measured = saved_by_autograd(model.train(), batch.inputs, bf16=False)
    assert saved_bytes(shapes, run) == pytest.approx(measured, rel=0.08)


@pytest.mark.parametrize("lora", [None, Lora(), Lora(vision=True)])
@pytest.mark.parametrize("head", ["value", "vocab"])
@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_counted_exactly(lora: Lora | None, head: Any, tied: bool) -> None:
    config = config_of()
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = tied
    backbone = Qwen2VLForConditionalGeneration._from_config(config)
    model = PRM(backbone, None, PRMConfig(head=head))
    if lora:
        model.add_lora(lora)
    shapes = read_shapes(config, PRMConfig(head=head), lora)
    assert shapes.total == sum(p.numel() for p in model.parameters())
    assert shapes.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_the_token_head_adds_no_parameters() -> None:
    config = config_of()
    backbone = Qwen2VLForConditionalGeneration._from_config(config)
    shapes = read_shapes(config, PRMConfig(head="token"))
    assert shapes.total == sum(p.numel() for p in backbone.parameters())


def test_flops_are_those_that_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    config = config_of()
    # The eager kernel is counted whole, above the diagonal too.
    backbone = Qwen2VLForConditionalGeneration._from_config(config, attn_implementation="eager")
    ids = torch.randint(10, 500, (2, 150))
    ids[:, 2], ids[:, 3:19] = 3, IMAGE
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone.base_model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == IMAGE).long(),
            pixel_values=torch.randn(2 * 64, 3 * 2 * 14 * 14),
            image_grid_thw=torch.tensor([GRID] * 2),
            use_cache=False,
        )
    shapes = read_shapes(config, HEAD)
    text, vision = forward_flops(shapes, Pass(2, 150, 64))
    above_diagonal = 2 * 150 * shapes.text.layers * 2 * shapes.text.query * 150
    assert text + vision + above_diagonal == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_the_published_2b_model_has_its_published_size() -> None:
    assert read_shapes(QWEN2_VL_2B, HEAD).total == 2_208_985_600 + 1537


def test_full_training_of_2b_fits_80_gb_only_with_the_meta_gradient_at_the_start() -> None:
    shapes = read_shapes(QWEN2_VL_2B, HEAD)
    config = replace(ON_GPU, gradient_checkpointing=True)
    end = plan_training(shapes, HEAD, config, TRAJECTORIES, domains=15)
    at_start = replace(config, meta_gradient_at="start")
    start = plan_training(shapes, HEAD, at_start, TRAJECTORIES, domains=15)
    # 15 stored gradients of 8.8 GB; one.
    assert end.peak > 15 * 4 * shapes.trainable > 80e9
    assert start.peak * 1.1 < 80e9
    assert start.peak > 24e9
    [(name, peak)] = cheaper(shapes, HEAD, config, TRAJECTORIES, domains=15)
    assert (name, peak) == ("meta_gradient_at start", start.peak)


def test_adapters_on_2b_fit_24_gb_with_checkpointing_and_80_gb_without() -> None:
    lora = Lora(r=16)
    shapes = read_shapes(QWEN2_VL_2B, HEAD, lora)
    plain = plan_training(shapes, HEAD, ON_GPU, TRAJECTORIES, domains=15, frozen_bf16=True)
    config = replace(ON_GPU, gradient_checkpointing=True)
    checkpointed = plan_training(shapes, HEAD, config, TRAJECTORIES, domains=15, frozen_bf16=True)
    assert 24e9 < plain.peak < 80e9 / 1.1
    assert checkpointed.peak * 1.1 < 24e9
    assert plain.activations == checkpointed.activations_plain
    assert checkpointed.flops > plain.flops


def test_sharding_divides_what_is_stored_but_not_activations() -> None:
    shapes = read_shapes(QWEN2_VL_2B, HEAD)
    one, eight = (
        plan_training(shapes, HEAD, ON_GPU, TRAJECTORIES, domains=15, world=world, sharded=True)
        for world in (1, 8)
    )
    assert eight.moments == one.moments / 8
    assert eight.hypergradient == one.hypergradient / 8
    assert eight.activations == one.activations
    assert one.weights / 8 < eight.weights < one.weights


def test_extra_work_of_the_upper_level_is_what_the_design_says() -> None:
    shapes = read_shapes(QWEN2_VL_2B, HEAD)
    # A meta batch of 64 every 3 steps of 40 trajectories.
    plan = plan_training(shapes, HEAD, TrainConfig(), TRAJECTORIES, domains=15)
    assert plan.overhead == pytest.approx(64 / 40 / 3)
    no_upper = TrainConfig(learn_weights=False)
    assert plan_training(shapes, HEAD, no_upper, TRAJECTORIES, domains=15).overhead == 0
    paper = TrainConfig(estimator="finite_difference")
    two_forwards = plan_training(shapes, HEAD, paper, TRAJECTORIES, domains=15)
    assert two_forwards.overhead == pytest.approx(plan.overhead + 2 / 3)


def test_time_follows_from_the_speed_given() -> None:
    shapes = read_shapes(config_of(), HEAD)
    config = TrainConfig(max_steps=10)
    plan = plan_training(
        shapes, HEAD, config, TRAJECTORIES, domains=2, flops_per_second=1e12, efficiency=0.5
    )
    assert plan.seconds == pytest.approx(plan.flops / 0.5e12)
    assert plan.seconds_total == pytest.approx(10 * plan.flops / 0.5e12)
    untimed = plan_training(shapes, HEAD, config, TRAJECTORIES, domains=2)
    assert untimed.seconds is None


def test_a_micro_batch_is_padded_to_its_longest_trajectory() -> None:
    lengths = Lengths(tokens=(100, 200), patches=(0, 0), steps=(5, 5), sequences=(1, 1))
    # Of two drawn at random, the longest is 200 in three of four cases.
    assert lengths.batch(2).tokens == pytest.approx(175)
    assert lengths.batch(2, grouped=True).tokens == 150
    assert lengths.batch(2, largest=True).padded
    assert not lengths.batch(1, largest=True).padded


@pytest.mark.parametrize(("layout", "sequences"), [("trajectory", 1), ("prefix", 3)])
def test_lengths_are_measured_by_encoding(layout: Any, sequences: int) -> None:
    encode = Encoder(load_processor("tiny"), LayoutConfig(name=layout))
    question = Question(id="q", domain="d", text="What is shown?", answer="c")
    t = Trajectory(question_id="q", sample_index=0, steps=(" a", " b", " c"), answer="c")
    found = measure_lengths(encode, [(question, t)])
    tokens = encode([(question, t.steps)]).inputs["input_ids"].shape[1]
    assert found == Lengths((tokens,), (0,), (3,), (sequences,))


def test_the_table_says_what_fits_and_what_would() -> None:
    shapes = read_shapes(QWEN2_VL_2B, HEAD)
    config = replace(ON_GPU, gradient_checkpointing=True)
    plan = plan_training(shapes, HEAD, config, TRAJECTORIES, domains=15, flops_per_second=4e14)
    options = cheaper(shapes, HEAD, config, TRAJECTORIES, domains=15)
    text = render_plan(plan, 80e9, options)
    assert "2.209 B" in text
    assert "does not fit the device's 80 GB" in text
    assert "with meta_gradient_at start: 59." in text
    assert "300 steps" in text
    values = [line for line in text.splitlines() if line.endswith(" GB")]
    assert len({len(line) for line in values[:4]}) == 1  # aligned


def test_a_run_on_ones_own_data_is_described_without_loading_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dreamprm.prm.model.load_backbone", None)
    question = Question(id="q", domain="d", text="What is shown?", answer="c")
    t = Trajectory(question_id="q", sample_index=0, steps=(" a", " b", " c"), answer="c")
    data = TrainData(("d",), {"d": [(question, t)] * 100}, [[(question, t)]])
    text = describe_run("tiny", HEAD, TrainConfig(), data, lora=Lora(r=4), measure=False)
    assert "trainable" in text
    assert "time of" not in text


def test_speed_of_this_machine_is_measured() -> None:
    assert measure_flops("cpu", torch.float32, seconds=0.05) > 1e8


def test_an_unknown_backbone_is_one_line() -> None:
    with pytest.raises(DreamPRMError, match="cannot read the config of './nowhere'"):
        read_shapes("./nowhere", HEAD)
