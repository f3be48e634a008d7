"""The `turns` layout: one pass over a conversation gives what the stock model says at replies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from dreamprm.errors import DreamPRMError
from dreamprm.images import load_image
from dreamprm.models.plain_text import PlainText
from dreamprm.prm.folder import INSTRUCTION, LayoutConfig, PRMConfig
from dreamprm.prm.layout import Encoder, dialogue, reply_ids
from dreamprm.records import Question
from dreamprm.tiny.model import CHAT_TEMPLATE, build_processor
from tests.tiny_models import STEPS, picture_question, processor, random_prm

TURNS = LayoutConfig(name="turns", instruction=INSTRUCTION)
MODEL_CONFIG = PRMConfig(head="token", layout=TURNS)
ALONE = (picture_question("none", 2, images=0), STEPS[:5])
PICTURED = (picture_question("three", 4), STEPS[:4])


def test_a_conversation_reads_as_question_and_first_step_then_one_step_a_turn() -> None:
    question = Question(id="q", domain="d", text="what is 1 + 1 ?", images=(), answer="2")
    plain = PlainText(processor())
    steps = ["one and one", "so it is 2"]
    opening, tail, ends = dialogue(plain, "Judge.", "+", question, steps)
    assert opening == (
        "<|system|>Judge.<|user|>### Question:\nwhat is 1 + 1 ?\n\n"
        "### Solution Process:\none and one<|assistant|>"
    )
    assert processor().tokenizer.decode(tail) == ("+<|end|><|user|>so it is 2<|assistant|>")
    assert ends == [-1, len(tail) - 1]
    bare, _, _ = dialogue(plain, "", "+", question, ["one"])
    assert bare.startswith("<|user|>### Question:")


def test_scores_are_those_of_the_stock_model_at_each_reply() -> None:
    """Written independently: the processor's template and the model's own logits."""
    model = random_prm(MODEL_CONFIG)
    question, steps = PICTURED
    with torch.inference_mode():
        ours = model(model.encoder()([PICTURED]))[0]
    asked = f"{question.text}\n\n### Solution Process:\n{steps[0]}"
    content = [{"type": "text", "text": text} for text in ("### Question:\n", asked)]
    content.insert(1, {"type": "image"})
    chat: list[dict[str, Any]] = [{"role": "system", "content": INSTRUCTION}]
    chat.append({"role": "user", "content": content})
    plus, minus = processor().tokenizer.convert_tokens_to_ids(["+", "-"])
    for i in range(len(steps)):
        if i:
            chat += [{"role": "assistant", "content": "+"}, {"role": "user", "content": steps[i]}]
        text = processor().apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        images = [load_image(ref, None) for ref in question.images]
        inputs = processor()(text=[text], images=images, return_tensors="pt")
        with torch.inference_mode():
            last = model.backbone(**inputs).logits[0, -1]
        score = last[[plus, minus]].softmax(0)[0]
        torch.testing.assert_close(ours[i].sigmoid(), score, atol=1e-5, rtol=1e-5)


def test_the_reply_to_earlier_steps_is_constant_and_seen() -> None:
    """Later scores would differ under other replies, so they must never depend on labels."""
    model = random_prm(MODEL_CONFIG)
    with torch.inference_mode():
        plus, minus = (
            model(Encoder(processor(), replace(TURNS, reply=r))([ALONE]))[0] for r in "+-"
        )
    assert plus[0] == minus[0]
    assert (plus[1:] - minus[1:]).abs().min() > 1e-5


def with_template(template: str) -> Any:
    changed = build_processor()
    changed.chat_template = changed.tokenizer.chat_template = template
    return changed


def test_replies_are_the_tokens_that_the_template_makes_of_them() -> None:
    tokenizer = processor().tokenizer
    alone = tuple(tokenizer.convert_tokens_to_ids(["+", "-"]))
    assert reply_ids(processor(), "+", "-") == alone
    spaced = CHAT_TEMPLATE.replace("{{ part['text'] }}", "{{ ' ' + part['text'] }}")
    found = reply_ids(with_template(spaced), "+", "-")
    assert tokenizer.convert_ids_to_tokens(found) == ["Ġ+", "Ġ-"]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ messages | length }}", "up to step 1 otherwise once more turns follow"),
        (
            "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}",
            "no system; an empty instruction leaves",
        ),
    ],
)
def test_a_template_that_cannot_be_continued_is_refused(template: str, message: str) -> None:
    with pytest.raises(DreamPRMError, match=message):
        changed = with_template(template + CHAT_TEMPLATE)
        dialogue(PlainText(changed), "Judge.", "+", *PICTURED)


def test_replies_are_one_token_each_and_the_head_reads_them() -> None:
    with pytest.raises(DreamPRMError, match="must each be one token"):
        reply_ids(processor(), "looks right", "looks wrong")
    with pytest.raises(DreamPRMError, match="layout.reply 'red'"):
        random_prm(replace(MODEL_CONFIG, layout=replace(TURNS, reply="red")))
