"""What is written in questions and reasonings is text, also where it spells a control token.

A tokenizer reads `<|im_end|>` as the end of a turn wherever it stands, and a processor takes every
`<|image_pad|>` for an image. A candidate that writes such tokens could end its turn and begin one
of the user's. Here a mark is put into them before chat template and processor see the text, and a
copy of the tokenizer drops the mark once the real ones are read. Text without such tokens costs one
search and takes the usual way, token by token.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from PIL.Image import Image
from tokenizers import pre_tokenizers

from dreamprm.errors import DataError
from dreamprm.models.templates import tokenizer_of, write_chats
from dreamprm.records import Question

_FREE = re.compile("reserved|unused|extra_|dummy|step")
_AT_WORK = re.compile(
    "image|img|video|vision|audio|speech|pad|unk|mask|bos|eos|eot|eom|sep|cls|turn|im_|header|think"
    "|tool|python|call|system|user|assistant|function|control|begin|end_of|endof|start_of|row_|col_|global|fake_"
)
_MARK = "\ufdd0"  # a noncharacter: Unicode keeps it for a program's own use, out of all texts
WITHOUT_IMAGES = "leave the question out, or take a vision-language model"


class PlainText:
    """Keeps text and control tokens apart.

    Args:
        processor: of a vision-language model, or a text model's tokenizer.
        tag: ends each step, and is nothing that a step may write. White space is no such tag.
    """

    def __init__(self, processor: Any, tag: str | None = None) -> None:
        self.processor = processor
        self.tokenizer = tokenizer_of(processor)
        # The longest first, as tokenizers match them. One character cannot be cut.
        tokens = [t for t in {*self._tokens(), tag or ""} if len(t) > 1 and not t.isspace()]
        longest_first = sorted(tokens, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    @property
    def text_only(self) -> bool:
        """Is it of a text model?"""
        return self.tokenizer is self.processor

    def check(self, question: Question, instead: str = WITHOUT_IMAGES) -> None:
        """Raise a DataError where a question has images and the model reads text alone."""
        if question.images and self.text_only:
            raise DataError(
                f"question '{question.id}' has images, and this model reads text alone; {instead}"
            )

    def guard(self, text: str) -> str:
        """The text with a mark in each of its control tokens, for template, `reader` and `ids`."""
        while self._control.search(text):  # again: one token may begin within another
            text = self._control.sub(lambda token: token[0][0] + _MARK + token[0][1:], text)
        return text

    def reader(self, *texts: str) -> Any:
        """The processor (or tokenizer) for guarded texts.

        Raises:
            DataError: one has a mark, and the tokenizer is of a kind that cannot drop it.
        """
        return self._marked if any(_MARK in text for text in texts) else self.processor

    def ids(self, text: str) -> list[int]:
        """The tokens of a guarded text, without those that tokenizers put around texts."""
        tokenizer = tokenizer_of(self.reader(text))
        ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def inputs(
        self, texts: Sequence[str], images: Sequence[Sequence[Image]], **options: Any
    ) -> dict[str, Any]:
        """What the model reads of prompts and their images, as the processor encodes them.

        Args:
            texts: guarded, as the chat template wrote them.
            images: of each text.
            options: of the processor.
        """
        if any(images):
            options["images"] = [list(pictures) for pictures in images]
        if not self.adds_special_tokens(texts[0]):
            options["add_special_tokens"] = False
        return dict(self.reader(*texts)(text=list(texts), return_tensors="pt", **options))

    def adds_special_tokens(self, text: str) -> bool:
        """Does the processor put its special tokens around what the chat template wrote?

        Templates of text models write all of them; of others some leave out the first.
        """
        bos = self.tokenizer.bos_token
        return not (self.text_only or (bos and text.startswith(bos)))

    @cached_property
    def _marked(self) -> Any:
        tokenizer = copy.deepcopy(self.tokenizer)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise DataError(
                "a text holds a control token of the model, which its tokenizer "
                f"({type(tokenizer).__name__}) cannot write as plain text; remove it"
            )
        parts = [pre_tokenizers.Split(_MARK, "removed"), backend.pre_tokenizer]
        backend.pre_tokenizer = pre_tokenizers.Sequence([p for p in parts if p is not None])
        if self.text_only:
            return tokenizer
        processor = copy.copy(self.processor)
        processor.tokenizer = tokenizer
        return processor

    def _tokens(self) -> set[str]:
        """Special tokens, placeholders, and others that stand in turns of the chat template.

        Others that are not special, such as `</think>`, are words of the model, which its own
        reasonings hold.
        """
        content = [{"type": "image"}, {"type": "text", "text": "?"}]
        turn = ""
        if self.processor.chat_template is not None:
            [turn] = write_chats(self.processor, [[{"role": "user", "content": content}]], True)
        added = self.tokenizer.added_tokens_decoder.values()
        tokens = {t.content for t in added if t.special or t.content in turn}
        placeholders = {
            value
            for name, value in vars(self.processor).items()
            if name.endswith(("_token", "_tag")) and isinstance(value, str)
        }
        return tokens | placeholders | set(self.tokenizer.all_special_tokens)


def unused_token(processor: Any, vocabulary: int | None = None) -> str | None:
    """A special token of the tokenizer that has no work there; None where there is none.

    One that is named as reserved; otherwise the last of those that are neither the tokenizer's own
    (end, padding), nor in the chat template, nor named after what marks images, turns or tools.

    Args:
        vocabulary: rows of the model's embedding, which some tokenizers exceed.
    """
    tokenizer = tokenizer_of(processor)
    taken = {str(v) for k, v in tokenizer.special_tokens_map.items() if isinstance(v, str)}
    taken |= {v for k, v in vars(processor).items() if k.endswith("_token") and isinstance(v, str)}
    template = str(processor.chat_template)
    free = [
        token.content
        for number, token in sorted(tokenizer.added_tokens_decoder.items())
        if token.special
        and (vocabulary is None or number < vocabulary)
        and not (token.lstrip or token.rstrip or token.single_word)
        and token.content not in taken
        and token.content not in template
    ]
    kept_free = [text for text in free if _FREE.search(text.lower())]
    others = [text for text in free if not _AT_WORK.search(text.lower())]
    return kept_free[0] if kept_free else others[-1] if others else None
