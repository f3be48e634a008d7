"""A question and its first steps as chat messages for a served model.

Pictures go out as data URLs, pictures first and then the text, as in the local policy. A prefix is
continued in one of three ways, because servers differ: `prefill` and `assistant` put it into the
model's mouth, `prompt` can only ask for it.
"""

from __future__ import annotations

import io
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from PIL import Image, UnidentifiedImageError

from dreamprm.data.files import encode_image
from dreamprm.errors import DataError
from dreamprm.images import LARGEST_ASPECT, load_image
from dreamprm.policy import Request
from dreamprm.prompts import opening
from dreamprm.records import Question

Continuation = Literal["prefill", "assistant", "prompt"]
"""How a prefix is continued.

- `prefill`: the last message is the assistant's, and two fields say that it is to be continued
  (vLLM, SGLang, newer llama.cpp).
- `assistant`: the last message is the assistant's, and the server continues that by itself
  (llama.cpp, LMDeploy).
- `prompt`: the prefix stands in the user's message with the request to go on behind it.
"""

PREFILL_FIELDS = {"continue_final_message": True, "add_generation_prompt": False}

_GO_ON = """{prompt}

The solution has been begun below. Go on exactly behind its last line: do not repeat or change what
is there, and begin with what comes next.

{begun}"""

_SENT_AS_THEY_ARE = ("JPEG", "PNG", "WEBP")
_PLAIN_MODES = ("1", "L", "P", "RGB")


class ChatMessages:
    """Builds the messages of requests.

    Args:
        prompt: text of a question, one of `prompts.PROMPTS`.
        root: folder that relative image paths start from.
        cache_bytes: data URLs kept, because K requests about a question come close together.
    """

    def __init__(
        self, prompt: Callable[[Question], str], root: Path | None, cache_bytes: int = 1 << 26
    ) -> None:
        self._prompt, self._root = prompt, root
        self._urls: OrderedDict[str | bytes, str] = OrderedDict()
        self._held, self._most = 0, cache_bytes

    def build(self, request: Request, continuation: Continuation) -> list[dict[str, Any]]:
        """The messages that ask for what comes behind the request's steps.

        Raises:
            DataError: an image is missing or is none.
        """
        text = self._prompt(request.question)
        begun = opening(request.steps)
        if begun and continuation == "prompt":
            text, begun = _GO_ON.format(prompt=text, begun=begun.rstrip()), ""
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": self._url(image)}}
            for image in request.question.images
        ]
        content.append({"type": "text", "text": text})
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": content if request.question.images else text}
        ]
        if begun:
            messages.append({"role": "assistant", "content": begun})
        return messages

    def _url(self, reference: str | bytes) -> str:
        url = self._urls.get(reference)
        if url is not None:
            self._urls.move_to_end(reference)
            return url
        url = self._urls[reference] = data_url(reference, self._root)
        self._held += len(url)
        while self._held > self._most and len(self._urls) > 1:
            self._held -= len(self._urls.popitem(last=False)[1])
        return url


def data_url(reference: str | bytes, root: Path | None = None) -> str:
    """An image as a data URL that any server of vision models reads.

    The file's own bytes where servers see in them what `load_image` sees; else its pixels as PNG:
    other formats, more than 8 bits, transparency (which some servers turn black), animation, strips
    thinner than image processors accept.

    Raises:
        DataError: the image is missing or is none.
    """
    data = reference if isinstance(reference, bytes) else _read(reference, root)
    if not _is_plain(data):
        buffer = io.BytesIO()
        load_image(reference, root).save(buffer, "PNG")
        data = buffer.getvalue()
    return encode_image(data)


def _read(reference: str, root: Path | None) -> bytes:
    path = Path(reference) if root is None else root / reference
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"image {path} cannot be read: {error.strerror or error}; restore the file or correct "
            "the path",
            field="images",
        ) from None


def _is_plain(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data)) as image:
            deep = image.format == "PNG" and data[24] > 8  # bits per channel, in PNG's header
            return (
                image.format in _SENT_AS_THEY_ARE
                and image.mode in _PLAIN_MODES
                and not deep
                and "transparency" not in image.info
                and getattr(image, "n_frames", 1) == 1
                and max(image.size) <= LARGEST_ASPECT * min(image.size)
            )
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError):
        return False  # load_image says what is wrong


def without_prefix(text: str, steps: Sequence[str], continuation: Continuation) -> str:
    """A reply without the steps it was to go on behind, where they stand in it once more.

    A server that was given them as the model's own words may hand them out with the rest. A model
    that was only asked to go on may write them again, all or the last ones, with other spaces.

    Example:
        >>> text = "Step 1: red is 3\\nStep 2: 3 + 5 = 8"
        >>> without_prefix(text, ["Step 1: red is 3"], "prompt")
        'Step 2: 3 + 5 = 8'
    """
    if continuation != "prompt":
        return text.removeprefix(opening(steps))
    for start in range(len(steps)):
        words = " ".join(steps[start:]).split()
        repeated = re.match(r"\s*" + r"\s+".join(map(re.escape, words)) + r"(?!\S)\s*", text)
        if words and repeated:
            return text[repeated.end() :]
    return text
