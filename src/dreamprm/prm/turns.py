"""The `turns` layout: a conversation in which each step is a turn, and the reply judges it.

The convention of VisualPRM (arXiv 2503.10291) and DreamPRM-1.5 (arXiv 2509.05542): the first user
turn holds question and step 1, each later one the next step, and the assistant's reply is `+` or
`-`. A step is judged at the position that predicts its reply.

Replies to earlier steps must be something. As in the published inference code they are always `+`
(`LayoutConfig.reply`), whatever was thought of these steps: one forward pass then judges all of
them, and the score of a step depends on question and steps alone, not on other scores or on labels.

The processor's own chat template writes everything. Positions come from token ids: the conversation
up to a reply must be, token by token, the beginning of the whole conversation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from dreamprm.errors import DreamPRMError
from dreamprm.prompts import question_text
from dreamprm.records import Question

# Format facts of VisualPRM-8B's and VisualPRM400K's conversations (OpenGVLab, MIT licence).
QUESTION_MARK, SOLUTION_MARK = "### Question:\n", "\n\n### Solution Process:\n"
INSTRUCTION = (
    "You are given a problem and then its solution, one step at a time. Reply + while the solution "
    "is right up to the step at hand, and - once it is not. Reply with nothing else."
)
"""A system turn for `LayoutConfig.instruction`, in our words. A checkpoint that was trained with
other words wants those: they are the first turn of each conversation of its training data."""

Message = dict[str, Any]


@dataclass(frozen=True)
class Dialogue:
    """One conversation, as tokens.

    Attributes:
        opening: text up to the first reply; the processor tokenizes it, with its images.
        tail: tokens of all that follows, up to the last reply (which is not in it).
        ends: index in `tail` of the position that predicts each step's reply; -1 is the opening's
            last token.
    """

    opening: str
    tail: tuple[int, ...]
    ends: tuple[int, ...]


def dialogue(
    processor: Any, instruction: str, reply: str, question: Question, steps: Sequence[str]
) -> Dialogue:
    """Write a trajectory as turns.

    Args:
        processor: of the backbone.
        instruction: the system turn; none if empty.
        reply: what the assistant said to every earlier step.
        question: goes into the first user turn, with its images.
        steps: at least one.

    Raises:
        DreamPRMError: the chat template does not continue its own prefixes, or refuses a role.
    """
    messages = _messages(instruction, reply, question, steps)
    first = 2 if instruction else 1  # messages before the first reply
    prefixes = [
        _write(processor, messages[: first + 2 * i], reply_next=True) for i in range(len(steps))
    ]
    tokens = [_tokens(processor, text) for text in prefixes]
    whole, start = tokens[-1], len(tokens[0])
    for i, ids in enumerate(tokens[:-1], start=1):
        if whole[: len(ids)] != ids:
            raise DreamPRMError(
                f"layout 'turns': this chat template writes the conversation up to step {i} "
                "otherwise once more turns follow, so one pass cannot judge all steps; use layout "
                "'trajectory'"
            )
    return Dialogue(prefixes[0], tuple(whole[start:]), tuple(len(t) - start - 1 for t in tokens))


def reply_ids(processor: Any, good: str, bad: str) -> tuple[int, int]:
    """The tokens that the chat template makes of the two replies.

    They can differ from the tokens of the texts alone, where a template or tokenizer puts a space
    before a reply.

    Raises:
        DreamPRMError: the conversations that end with the one and the other do not differ in one
            token, at the position that predicts the reply.
    """
    user = {"role": "user", "content": [_text("?")]}
    before = _tokens(processor, _write(processor, [user], reply_next=True))
    one, other = (_tokens(processor, _write(processor, [user, _reply(r)])) for r in (good, bad))
    differ = [i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b]
    if len(one) != len(other) or differ != [len(before)] or one[: len(before)] != before:
        raise DreamPRMError(
            f"good_token {good!r} and bad_token {bad!r} must each be one token where this chat "
            "template writes replies, and are not; choose texts that the tokenizer knows as a whole"
        )
    return one[len(before)], other[len(before)]


def _messages(
    instruction: str, reply: str, question: Question, steps: Sequence[str]
) -> list[Message]:
    images = [{"type": "image"} for _ in question.images]
    text = f"{question_text(question)}{SOLUTION_MARK}{steps[0]}"
    opening = [_text(QUESTION_MARK), *images, _text(text)]
    if not images:  # templates may put something between two texts
        opening = [_text(QUESTION_MARK + text)]
    messages = [{"role": "system", "content": [_text(instruction)]}] if instruction else []
    messages.append({"role": "user", "content": opening})
    for step in steps[1:]:
        messages += [_reply(reply), {"role": "user", "content": [_text(step)]}]
    return messages


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _reply(text: str) -> Message:
    return {"role": "assistant", "content": [_text(text)]}


def _write(processor: Any, messages: list[Message], reply_next: bool = False) -> str:
    try:
        text: str = processor.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=reply_next
        )
    except TemplateError as error:
        raise DreamPRMError(
            f"layout 'turns': the chat template refuses the conversation: {error}; "
            "an empty instruction leaves the system turn out"
        ) from error
    return text


def _tokens(processor: Any, text: str) -> list[int]:
    ids: list[int] = processor.tokenizer(text, add_special_tokens=False).input_ids
    return ids
