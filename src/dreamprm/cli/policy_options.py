"""Options of the verbs that sample from a policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from dreamprm.errors import DreamPRMError


@dataclass(frozen=True, kw_only=True)
class PolicyOptions:
    """The policy and how it is sampled.

    Attributes:
        model_name_or_path: any vision-language model of transformers, by path or hub name;
            `tiny/...` are the embedded ones.
        prompt: `five_steps` (the paper's), `plain` (step by step) or `bare` (the question alone);
            by default five_steps, and bare for the embedded models, which need no telling.
        temperature: of sampling.
        max_new_tokens: longest continuation; one that is cut here has no final answer.
        answer_tokens: where a continuation states no answer, put "Final answer:" behind it and
            sample up to so many more tokens; 0 leaves it without an answer, which counts as wrong.
        per_device_batch_size: sequences that are sampled at once.
        device: cpu, cuda, cuda:1, ...; by default cuda where there is one.
        seed: of sampling; the same seed and settings give the same texts.
    """

    model_name_or_path: str = "tiny/policy"
    prompt: Literal["five_steps", "plain", "bare"] | None = None
    temperature: float = 1.0
    max_new_tokens: int = 1024
    answer_tokens: int = 0
    per_device_batch_size: int = 32
    device: str | None = None
    seed: int = 0

    def settings(self) -> dict[str, Any]:
        """Those that decide what the policy writes."""
        return {
            "model_name_or_path": self.model_name_or_path,
            "prompt": self.prompt_name(),
            "temperature": self.temperature,
            "max_new_tokens": self.max_new_tokens,
            "answer_tokens": self.answer_tokens,
            "seed": self.seed,
        }

    def prompt_name(self) -> str:
        return self.prompt or ("bare" if is_embedded(self.model_name_or_path) else "five_steps")

    def check(self) -> None:
        """Refuse what no policy can do, before a model is loaded."""
        require_positive(self, "temperature", "max_new_tokens", "per_device_batch_size")
        if self.answer_tokens < 0:
            raise DreamPRMError(f"answer_tokens is {self.answer_tokens}; it must be 0 or more")


def is_embedded(model: str) -> bool:
    """Is it one of the toy models in the package?"""
    return model == "tiny" or model.startswith("tiny/")


def require_positive(config: object, *names: str) -> None:
    """Refuse fields that are not above 0."""
    for name in names:
        if not getattr(config, name) > 0:
            raise DreamPRMError(f"{name} is {getattr(config, name)}; it must be above 0")
