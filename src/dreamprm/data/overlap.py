"""Which questions of one file are also in another, whatever their ids say.

A reward model that has seen a benchmark's questions looks better than it is, and files of this
field copy from each other under new ids: with shuffled options, other markup, images encoded anew.
So questions are compared by what they ask. Their words are compared without markup, case and
punctuation (but with numbers and operators); their images by pixels.

The same words about the same image are one question, whatever options are offered. Without an image
the options must agree too, in any order, or be missing on one side. Where the images settle nothing
(one looks much like the other, or cannot be read), the words do, unless several questions of one
file share them: "What is the value of x?" is a template, and says little without its image.
"""

from __future__ import annotations

import hashlib
import html
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from dreamprm.errors import DataError
from dreamprm.images import Reference, in_threads, is_remote, load_image
from dreamprm.records import Question

Why = Literal[
    "same text and image",
    "same text, no image",
    "same text, similar image",
    "same text, unreadable image",
    "same text, other image",
    "same image, other text",
]
_ONE_QUESTION = ("same text and image", "same text, no image")
_UNSETTLED = ("same text, similar image", "same text, unreadable image")
_MARKUP = re.compile(
    r"!\[[^\]]*\]\([^)]*\)"  # ![name](path)
    r"|<image\s*\d*>|\[image \d+\]"
    r"""|</?[a-z][a-z0-9]*(?:\s+[\w-]+\s*=\s*(?:"[^"]*"|'[^']*'))*\s*/?>"""  # <br/>, <img src="">
    r"|\*\*|\\(?:text|math)[a-z]*(?=\s*\{)|\\(?:left|right|displaystyle)\b"
)
_DASHES = dict.fromkeys((*range(0x2010, 0x2016), 0x2212), "-") | {0x2044: "/"}
_WORD = re.compile(
    r"\d+\.\d+|[^\W_]+"
    r"|[-*](?=\s*[\d(])"  # minus and times, not a hyphen or markdown
    r"|[+<=>^/%\u00b1\u00d7\u00f7\u2190-\u22ff]"  # what changes the meaning of a formula
)
_GRID = 16  # a picture's shape is told by the slopes of a grid of 16 by 16 greys,
_SLOPE = 2  # of which those count that encoding anew does not make or undo;
_SIMILAR = 24  # and so many of its 512 bits may differ (other pictures of MATH-Vision: 30 and more)


class ImageHash(NamedTuple):
    """`content` is the same for the same pixels; `shape` nearly so for those encoded anew.

    An image that cannot be read has no shape, and its reference for content.
    """

    content: str
    shape: int | None


class QuestionKey(NamedTuple):
    """What a question asks: digests of its words and of the set of its options, its images."""

    words: bytes
    options: bytes
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Overlap:
    """A question that is also in another file, or looks like one of it.

    Attributes:
        question_id: of the question; `row` is its place, from 1.
        other_id: of the first of the others that it is; `other_row` is its place.
        why: what the two share.
        counts: are they one question? If not, they share a template or an image, which is no leak.
    """

    question_id: str
    row: int
    other_id: str
    other_row: int
    why: Why
    counts: bool


def normalise(text: str) -> str:
    r"""The words of a text, for comparing.

    Example:
        >>> normalise("<image1>\nWhat is **Twice** $x$, if $x = -1.5$ ?")
        'what is twice x if x = - 1.5'
    """
    plain = unicodedata.normalize("NFKC", html.unescape(text)).casefold()
    plain = _MARKUP.sub(" ", plain).translate(_DASHES)
    return " ".join(_WORD.findall(plain)) or " ".join(text.split())


def hash_image(reference: Reference) -> ImageHash:
    """Hash an image's pixels; a missing or damaged one is told by its reference."""
    try:
        image = load_image(reference)
    except DataError:
        if isinstance(reference, bytes):
            return ImageHash(f"bytes:{hashlib.sha256(reference).hexdigest()}", None)
        named = reference if is_remote(reference) else os.path.abspath(reference)
        return ImageHash(f"path:{named}", None)
    digest = hashlib.sha256(f"{image.width}x{image.height}:".encode())
    digest.update(image.tobytes())
    return ImageHash(digest.hexdigest(), _shape(image))


def hash_images(
    references: Iterable[Reference], known: dict[Reference, ImageHash] | None = None
) -> dict[Reference, ImageHash]:
    """Hash images in threads, one per core, each image once; adds to `known`, if given."""
    hashes: dict[Reference, ImageHash] = {} if known is None else known
    new = list(dict.fromkeys(r for r in references if r not in hashes))
    hashes.update(zip(new, in_threads(hash_image, new), strict=True))
    return hashes


def question_key(
    question: Question, hashes: Mapping[Reference, ImageHash], words: bytes | None = None
) -> QuestionKey:
    """What a question asks; `hashes` holds those of its images, `words` the digest of its words."""
    options = sorted({normalise(option) for option in question.options})
    return QuestionKey(
        _words(question) if words is None else words,
        _digest("\0".join(options)) if options else b"",
        tuple(sorted(hashes[image].content for image in question.images)),
    )


def find_overlap(
    questions: Sequence[Question],
    others: Sequence[Question],
    *,
    same_images: bool = True,
    hashes: dict[Reference, ImageHash] | None = None,
) -> list[Overlap]:
    """Find the questions that are also among `others`.

    Args:
        questions: in the order of their file.
        others: in the order of theirs, for example a benchmark.
        same_images: also report the same image under other words, for which every image is read;
            if false, only images of questions that share their words are.
        hashes: of images, kept from one call to the next; is added to.

    Returns:
        For each question at most one overlap, the gravest, in the order of `questions`.
    """
    hashes = {} if hashes is None else hashes
    words = [[_words(q) for q in file] for file in (questions, others)]
    shared = set(words[0]) & set(words[1])
    compared = [  # of each file, the rows that may ask the same
        [i for i, w in enumerate(of) if w in shared or (same_images and file[i].images)]
        for file, of in zip((questions, others), words, strict=True)
    ]
    my_keys, their_keys = (
        _keys(file, rows, of, hashes)
        for file, rows, of in zip((questions, others), compared, words, strict=True)
    )
    templates = _templates(my_keys) | _templates(their_keys)
    index = _Index()
    for i, key in their_keys.items():
        index.add(i, key)
    overlaps = []
    for i, key in my_keys.items():
        if (match := index.find(key)) is None:
            continue
        j, why = match
        if why == "same text, other image":
            why = _compare_images(questions[i], others[j], hashes)
        counts = why in _ONE_QUESTION or (why in _UNSETTLED and key.words not in templates)
        overlaps.append(Overlap(questions[i].id, i + 1, others[j].id, j + 1, why, counts))
    return overlaps


def duplicates(
    questions: Sequence[Question], hashes: dict[Reference, ImageHash] | None = None
) -> list[Overlap]:
    """Find the questions of one file that an earlier row asks already; all of them count.

    Args:
        hashes: of images that are known; is added to.
    """
    words = [_words(q) for q in questions]
    times = Counter(words)
    repeated = [i for i, w in enumerate(words) if times[w] > 1]
    index = _Index()
    overlaps = []
    for i, key in _keys(questions, repeated, words, {} if hashes is None else hashes).items():
        if (match := index.find(key)) and match[1] in _ONE_QUESTION:
            j, why = match
            overlaps.append(Overlap(questions[i].id, i + 1, questions[j].id, j + 1, why, True))
        index.add(i, key)
    return overlaps


def _keys(
    questions: Sequence[Question],
    rows: Sequence[int],
    words: Sequence[bytes],
    hashes: dict[Reference, ImageHash],
) -> dict[int, QuestionKey]:
    """Keys of some rows of a file; adds to `hashes`."""
    hash_images((image for i in rows for image in questions[i].images), hashes)
    return {i: question_key(questions[i], hashes, words[i]) for i in rows}


class _Index:
    """First row of every key, also of what remains of a key when a part of it is left open."""

    def __init__(self) -> None:
        self._rows: dict[tuple[bytes | None, bytes | None, tuple[str, ...] | None], int] = {}

    def add(self, row: int, key: QuestionKey) -> None:
        words, options, images = key
        parts = [key, (words, None, images), (words, options, None), (words, None, None)]
        for part in [*parts, (None, None, images)] if images else parts:
            self._rows.setdefault(part, row)

    def find(self, key: QuestionKey) -> tuple[int, Why] | None:
        """The gravest match, without a look at images that are not equal."""
        words, options, images = key
        # Asked openly, a question is the one with any options; with options, the open one too.
        fitting = (options, b"") if options else (None,)
        tried: list[tuple[Any, Why]] = []
        if images:
            tried.append(((words, None, images), "same text and image"))
        else:
            tried += [((words, o, images), "same text, no image") for o in fitting]
        tried += [((words, o, None), "same text, other image") for o in fitting]
        if images:
            tried.append(((None, None, images), "same image, other text"))
        return next(((self._rows[part], why) for part, why in tried if part in self._rows), None)


def _words(question: Question) -> bytes:
    return _digest(normalise(question.text))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _templates(keys: Mapping[int, QuestionKey]) -> set[bytes]:
    """Words that a file asks about several images."""
    times = Counter(words for words, _ in {(key.words, key.images) for key in keys.values()})
    return {words for words, count in times.items() if count > 1}


def _compare_images(
    question: Question, other: Question, hashes: Mapping[Reference, ImageHash]
) -> Why:
    if not question.images or len(question.images) != len(other.images):
        return "same text, other image"
    for image, other_image in zip(question.images, other.images, strict=True):
        shape, other_shape = hashes[image].shape, hashes[other_image].shape
        if shape is None or other_shape is None:
            return "same text, unreadable image"
        if (shape ^ other_shape).bit_count() > _SIMILAR:
            return "same text, other image"
    return "same text, similar image"


def _shape(image: Image.Image) -> int:
    """Where the grey falls, to the right and downward, on a coarse grid: one bit per slope."""
    side = (_GRID + 1, _GRID + 1)
    grey = np.asarray(image.convert("L").resize(side, Image.Resampling.BOX), dtype=int)
    corner, right, below = grey[:-1, :-1], grey[:-1, 1:], grey[1:, :-1]
    falls = np.stack([corner > right + _SLOPE, corner > below + _SLOPE])
    return int.from_bytes(np.packbits(falls).tobytes())
