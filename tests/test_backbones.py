"""One reward model on every architecture: what is true of scores is true on each of them."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from dreamprm.errors import DataError, DataWarning, DreamPRMError
from dreamprm.prm.folder import LayoutConfig
from dreamprm.prm.layout import Encoder
from dreamprm.prm.model import PRM
from dreamprm.records import Question
from tests.tiny_backbones import BUILDERS, save_backbone
from tests.tiny_models import STEPS

Pairs = list[tuple[Question, tuple[str, ...]]]


def noise(width: int, height: int, seed: int) -> bytes:
    """A picture of coarse random squares, so that no two look alike at any size."""
    generator = torch.Generator().manual_seed(seed)
    squares = torch.randint(0, 256, (5, 5, 3), generator=generator, dtype=torch.uint8)
    buffer = io.BytesIO()
    picture = Image.frombytes("RGB", (5, 5), bytes(squares.flatten().tolist()))
    picture.resize((width, height), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def question(name: str, text: str, *images: bytes) -> Question:
    return Question(id=name, domain="d", text=text, images=images, answer="1")


MIXED: Pairs = [
    (question("wide", "what is it ?", noise(150, 60, 1)), tuple(STEPS[:2])),
    (question("none", "a longer question, without any picture"), tuple(STEPS)),
    (question("two", "compare", noise(60, 60, 2), noise(40, 110, 3)), tuple(STEPS[:1])),
    (question("small", "read", noise(56, 56, 4)), tuple(STEPS[:4])),
]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PRM]:
    root = tmp_path_factory.mktemp("backbones")
    made = {}
    for name in BUILDERS:
        made[name] = PRM.from_backbone(str(save_backbone(name, root / name))).eval()
        torch.nn.init.normal_(made[name].head.weight, std=0.3)
    return made


@pytest.fixture(params=BUILDERS)
def model(request: pytest.FixtureRequest, models: dict[str, PRM]) -> PRM:
    return models[str(request.param)]


def score(model: PRM, pairs: Pairs, **layout: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(Encoder(model.processor, LayoutConfig(**layout))(pairs))


def same(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_one_pass_gives_the_scores_of_one_pass_per_prefix(model: PRM) -> None:
    together = score(model, MIXED)
    assert together.std() > 0.05
    same(together, score(model, MIXED, name="prefix"))


@pytest.mark.parametrize("layout", ["trajectory", "prefix", "turns"])
def test_scores_depend_neither_on_the_batch_nor_on_its_padding(model: PRM, layout: str) -> None:
    right, left = (score(model, MIXED, name=layout, padding_side=s) for s in ("right", "left"))
    same(right, left)
    for row, pair in enumerate(MIXED):
        same(right[row, : len(pair[1])], score(model, [pair], name=layout)[0])


def test_every_picture_of_a_question_is_seen(model: PRM) -> None:
    two, steps = MIXED[2]
    before = score(model, [(two, steps)])
    for number in range(2):
        images = list(two.images)
        with Image.open(io.BytesIO(images[number])) as picture:
            images[number] = noise(*picture.size, seed=9)
        changed = two.model_copy(update={"images": tuple(images)})
        assert (score(model, [(changed, steps)]) - before).abs().max() > 1e-3, f"image {number}"


def test_training_reaches_what_reads_the_picture(model: PRM) -> None:
    batch = Encoder(model.processor)(MIXED)
    with torch.no_grad():
        still = model(batch)
    model.train()
    logits = model(batch)
    same(logits.detach(), still)
    logits.sum().backward()
    model.eval()
    vision = [p for n, p in model.backbone.named_parameters() if "vision" in n or "visual" in n]
    moved = [p for p in vision if p.grad is not None and p.grad.abs().max() > 0]
    model.zero_grad()
    assert len(moved) > 10


def test_a_prompt_is_tokenized_as_transformers_does_it(model: PRM) -> None:
    """One BOS above all: templates write it, and tokenizers add it."""
    asked, steps = MIXED[3]
    content = [{"type": "image", "image": Image.open(io.BytesIO(asked.images[0]))}]
    text = f"{asked.text}\n{LayoutConfig().instruction}"
    message = [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]
    expected = model.processor.apply_chat_template(
        message, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )["input_ids"][0]
    ids = Encoder(model.processor)([(asked, steps)]).inputs["input_ids"][0]
    assert ids[: len(expected)].tolist() == expected.tolist()
    bos = model.processor.tokenizer.bos_token_id
    assert bos is None or int((ids == bos).sum()) == 1
    batch = Encoder(model.processor)(MIXED)
    for key in {"token_type_ids", "mm_token_type_ids"} & batch.inputs.keys():
        assert (batch.inputs[key] == 1).any(), "the picture's tokens are marked"
        assert (batch.inputs[key][3, int(batch.positions[3, 0]) :] == 0).all(), "steps are text"


def test_a_saved_model_scores_as_before(model: PRM, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    loaded = PRM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(score(model, MIXED), score(loaded, MIXED), atol=0, rtol=0)


def test_a_step_tag_is_one_token_or_refused(model: PRM) -> None:
    line = Encoder(model.processor, LayoutConfig(step_tag="\n"))
    assert line.tag_id == model.processor.tokenizer("\n").input_ids[-1]
    with pytest.raises(DreamPRMError, match="must be one"):
        Encoder(model.processor, LayoutConfig(step_tag="the end"))


# --- limits ---


def lengths(model: PRM, pair: tuple[Question, tuple[str, ...]]) -> list[int]:
    """Tokens of the sequence up to each step."""
    return (Encoder(model.processor)([pair]).positions[0] + 1).tolist()


@pytest.mark.parametrize("layout", ["trajectory", "prefix"])
def test_steps_beyond_the_limit_are_cut_and_told_once(models: dict[str, PRM], layout: Any) -> None:
    model = models["qwen2_vl"]
    whole = score(model, [MIXED[3], MIXED[0]])
    limit = lengths(model, MIXED[3])[1]  # two steps fit exactly
    encode = Encoder(model.processor, LayoutConfig(name=layout, max_length=limit))
    with pytest.warns(DataWarning, match=r"question 'small': 2 of 4 steps") as told:
        batch = encode([MIXED[3]])
    assert len(told) == 1
    assert batch.mask.tolist() == [[True, True, False, False]]
    assert batch.inputs["input_ids"].shape[1] == limit
    with torch.inference_mode():
        same(model(batch)[0], torch.cat([whole[0, :2], torch.zeros(2)]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode([MIXED[3]])


def test_a_prompt_that_leaves_no_room_is_refused(models: dict[str, PRM]) -> None:
    model = models["gemma3"]
    assert model.encoder().limit == 2048, "the backbone's context, unless set"
    limit = lengths(model, MIXED[3])[0] - 1
    with pytest.raises(DataError, match=f"question 'small': .* {limit + 1} tokens.* is {limit};"):
        Encoder(model.processor, LayoutConfig(max_length=limit))([MIXED[3]])
