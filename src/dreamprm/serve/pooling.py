"""`/pooling` in vLLM's form: tokens or a conversation in, a logit at each step tag out.

The server knows nothing of steps here: what stands before a tag is scored at the tag, and tokens
are counted, so that `prm.served.ServedPRM` can check that both sides read the same. Requests about
one question have one prompt, and are scored behind one prefill of it like any others.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch

from dreamprm.errors import DataError
from dreamprm.models.templates import write_chats
from dreamprm.prm.inputs import Prompt
from dreamprm.prm.layout import Laid, Tokenized
from dreamprm.prm.model import PRM
from dreamprm.prm.scorer import Steps
from dreamprm.records import UNKNOWN_ANSWER, Question


@dataclass(frozen=True)
class Read:
    """What a request has to have scored.

    Attributes:
        steps: each with its tag, as tokens.
        tokens: of the whole request, images and the end of the turn among them.
    """

    question: Tokenized
    steps: Steps
    tokens: int


class Reader:
    """Reads requests for one model; several threads may use it.

    Raises:
        DataError: the model judges steps elsewhere than at tags.
    """

    def __init__(self, prm: PRM) -> None:
        self.tag, self.instruction = prm.config.layout.step_tag, prm.config.layout.instruction
        if prm.config.layout.name == "turns" or self.tag is None:
            raise DataError("layout 'turns' has no step tags; ask /v1/score")
        self._encode = prm.encoder()
        self._encode.warn_cut = False
        self._lock = threading.Lock()
        self._vocabulary = prm.backbone.get_input_embeddings().num_embeddings
        config = prm.backbone.config
        names = ("image_token_id", "video_token_id", "image_token_index")
        self._pictures = {getattr(config, name, None) for name in names}
        user = {"role": "user", "content": [{"type": "text", "text": "?"}]}
        reply = {"role": "assistant", "content": [{"type": "text", "text": self.tag}]}
        before, whole = (
            write_chats(self._encode.processor, [chat], behind)[0]
            for chat, behind in (([user], True), ([user, reply], False))
        )
        self._closing = len(self._ids(whole)) - len(self._ids(before)) - 1
        # The tokens between a question and its first step: behind them, prompts end.
        first, second = (self._laid(text).prompt.tokens["input_ids"].tolist() for text in "ab")
        self._opening = _common_end(first, second)

    def conversation(self, question: Question, answer: str) -> Read:
        """Of a question, and the steps with their tags.

        Raises:
            DataError: the prompt holds a tag of its own, or all is too long.
        """
        steps = answer.split(self.tag)[:-1]  # what no tag ends is not judged
        if not all(step.strip() for step in steps) or not steps:
            raise DataError("the assistant's turn needs steps, each ended by the step tag")
        with self._lock:
            laid = self._encode.lay_out(question, steps)
        if self._encode.tag_id in laid.prompt.tokens["input_ids"]:
            raise DataError("the prompt holds the step tag; ask /v1/score")
        if len(laid.ends) < len(steps):
            raise DataError(f"longer than {self._encode.limit} tokens, the model's context")
        return self._read(laid, question, len(laid.prompt) + len(laid.tail) + self._closing)

    def tokens(self, ids: Sequence[int]) -> Read:
        """Of a request that is tokens.

        Raises:
            DataError: there is no tag, or a token that no text has.
        """
        if not all(0 <= token < self._vocabulary for token in ids):
            raise DataError(f"a token must be from 0 to {self._vocabulary - 1}", field="input")
        if not self._pictures.isdisjoint(ids):
            raise DataError("pictures are sent as messages", field="input")
        tags = [place for place, token in enumerate(ids) if token == self._encode.tag_id]
        if not tags or tags[0] == 0:
            raise DataError("there is no step, ended by the step tag", field="input")
        width = len(self._opening)
        starts = (
            i for i in range(tags[0] - width, 0, -1) if list(ids[i : i + width]) == self._opening
        )
        prompt = next(starts, tags[0] - width) + width
        whole = torch.tensor(ids)
        tokens = {"input_ids": whole[:prompt], "attention_mask": torch.ones_like(whole[:prompt])}
        tail = list(ids[prompt : tags[-1] + 1])
        laid = Laid(Prompt(tokens, {}), tail, [tag - prompt for tag in tags])
        return self._read(laid, None, len(ids))

    def _read(self, laid: Laid, question: Question | None, tokens: int) -> Read:
        ids = str(laid.prompt.tokens["input_ids"].tolist())
        tokenized = Tokenized(
            id=question.id if question else hashlib.sha256(ids.encode()).hexdigest(),
            domain="request",
            text="?",
            images=question.images if question else (),
            answer=UNKNOWN_ANSWER,
            prompt=laid.prompt,
        )
        parts = [tuple(laid.tail[a:b]) for a, b in pairwise([0, *(end + 1 for end in laid.ends)])]
        return Read(tokenized, cast(Steps, parts), tokens)

    def _laid(self, text: str) -> Laid:
        question = Question(id="q", domain="d", text=text, answer=UNKNOWN_ANSWER)
        return self._encode.lay_out(question, ["?"])

    def _ids(self, chat: str) -> list[int]:
        ids: list[int] = self._encode.tokenizer(chat, add_special_tokens=False).input_ids
        return ids


def _common_end(first: Sequence[int], second: Sequence[int]) -> list[int]:
    end: list[int] = []
    for a, b in zip(reversed(first), reversed(second), strict=False):
        if a != b:
            break
        end.insert(0, a)
    return end
