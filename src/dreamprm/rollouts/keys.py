"""What makes two completions "the same": the names under which the store keeps things.

A completion is named by what the policy saw and how it was asked: the question as shown (text,
options, pictures by content), the steps so far, the policy, its settings and the seed. Ids, domains
and gold answers are not part of it, because the policy does not see them; so correcting a gold
answer costs no new completions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamprm.errors import DataError
from dreamprm.policy import Policy
from dreamprm.records import Question


@dataclass(frozen=True)
class Generator:
    """Who writes, and how: a policy with its settings and the seed of the run."""

    policy: str
    settings: str
    seed: int

    @classmethod
    def of(cls, policy: Policy, seed: int) -> Generator:
        """The generator that a policy is with this seed."""
        return cls(policy.name, canonical(policy.settings), seed)

    @property
    def key(self) -> str:
        return digest("generator", self.policy, self.settings, str(self.seed))


def canonical(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """JSON with one spelling for equal values."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def digest(*parts: str) -> str:
    """32 hexadecimal digits that stand for the parts."""
    return hashlib.sha256(canonical(parts).encode(errors="surrogatepass")).hexdigest()[:32]


def question_key(question: Question, root: Path | None = None) -> str:
    """Name of a question as a policy sees it; pictures count by the bytes of their files.

    Raises:
        DataError: a picture cannot be read.
    """
    images = [_image_digest(image, root) for image in question.images]
    return digest("question", question.text, *question.options, "images", *images)


def prefix_key(question: str, steps: Sequence[str], generator: Generator) -> str:
    """Name of a prefix under a generator; `question` is a `question_key`."""
    return digest("prefix", question, generator.key, *steps)


def sample_seed(prefix: str, first_index: int) -> int:
    """Seed of a call that samples a prefix from `first_index` on, in [0, 2^31).

    It depends on what is sampled, not on when, so that a resumed run gets the same texts.
    """
    return int(digest("seed", prefix, str(first_index))[:8], 16) & 0x7FFFFFFF


def verdict_key(question: Question) -> str:
    """Name of a question as a verifier sees it."""
    facts = {name: question.extra.get(name) for name in ("unit", "precision", "answers")}
    return digest("verdict", question.text, question.answer, canonical(facts), *question.options)


def _image_digest(image: str | bytes, root: Path | None) -> str:
    if isinstance(image, str):
        path = Path(image) if root is None else root / image
        try:
            image = path.read_bytes()
        except OSError as error:
            raise DataError(
                f"image {path} cannot be read: {error.strerror or error}; restore the file or "
                "correct the path",
                field="images",
            ) from error
    return hashlib.sha256(image).hexdigest()
